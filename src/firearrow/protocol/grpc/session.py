"""One gRPC connection as a sans-IO machine over an HTTP/2 engine: bytes in, calls out, and back.

A message on a stream (gRPC over HTTP/2):
    1  compressed: 0 or 1
    4  length
    n  message
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from firearrow.model.clock import Clock, Timer
from firearrow.model.network import Peer, SessionError
from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.calls import Inbox, Message, Method, parse_timeout
from firearrow.protocol.grpc.http2 import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    NO_ERROR,
    Ended,
    Engine,
    Event,
    Headers,
    Received,
    Started,
)

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
CONNECTION_BYTES_MAX: Final = 64 * 1024 * 1024  # of messages that are not whole yet
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024  # of a response that its caller does not read
# A client may give up calls, but not far more of them than it lets end (CVE-2023-44487).
RESETS_AHEAD_MAX: Final = 500

_PREFIX = struct.Struct(">BI")
_RESPONSE: Final[Headers] = [(b":status", b"200"), (b"content-type", b"application/grpc")]
_TRAILERS_OK: Final[Headers] = [(b"grpc-status", b"0")]
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class CallError(Exception):
    """The call must end with this gRPC status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamCall:
    """See ``calls.Call``."""

    __slots__ = (
        "_begun",
        "_buffer",
        "_session",
        "cancelled",
        "deadline_s",
        "encoding",
        "ended",
        "half_closed",
        "inbox",
        "local",
        "metadata",
        "method",
        "path",
        "remote",
        "stream_id",
        "timer",
    )

    def __init__(self, session: GrpcSession, stream_id: int, path: str, method: Method) -> None:
        self._session = session
        self.remote = session.remote
        self.local = session.local
        self.stream_id = stream_id
        self.path = path
        self.method = method
        self.metadata: dict[str, str] = {}
        self.deadline_s: float | None = None
        self.timer: Timer | None = None
        self.encoding = ""
        self.inbox: Inbox | None = None
        self.cancelled: Callable[[], None] | None = None
        self.ended = False
        self.half_closed = False
        self._begun = False
        self._buffer = bytearray()

    # -- what the handler does

    def send(self, message: Message) -> None:
        if self.ended:
            return
        data = message.SerializeToString()
        session = self._session
        if not self._begun:
            self._begun = True
            session.engine.headers(self.stream_id, _RESPONSE)
        session.engine.data(self.stream_id, _PREFIX.pack(0, len(data)) + data)
        if session.engine.waiting_bytes(self.stream_id) > WAITING_BYTES_MAX:
            session.give_up(self, "the caller does not read its response")
        session.flush_soon()

    def begin(self) -> None:
        """Send the response's headers ahead of its first message."""
        if not self.ended and not self._begun:
            self._begun = True
            self._session.engine.headers(self.stream_id, _RESPONSE)
            self._session.flush_soon()

    def end(self, code: int = calls.OK, text: str = "") -> None:
        if self.ended:
            return
        trailers = _TRAILERS_OK
        if code != calls.OK:
            trailers = [
                (b"grpc-status", str(code).encode()),
                (b"grpc-message", quote(text, safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}~").encode()),
            ]
        if self._begun:
            self._session.engine.end(self.stream_id, trailers)
        else:
            self._session.engine.headers(self.stream_id, _RESPONSE + trailers, end=True)
        self._session.forget(self)
        self._session.flush_soon()

    def answer(self, message: Message) -> None:
        self.send(message)
        self.end()

    # -- what the session does

    def take(self, data: bytes) -> list[bytes]:
        """Whole messages among what came so far.

        Raises:
            CallError: a message that is too large, or cannot be decompressed.
        """
        if not self._buffer and len(data) >= 5:  # mostly it is exactly one message
            compressed, size = _PREFIX.unpack_from(data)
            if not compressed and size == len(data) - 5:
                return [data[5:]]
        buffer = self._buffer
        buffer += data
        messages = []
        while len(buffer) >= 5:
            compressed, size = _PREFIX.unpack_from(buffer)
            if size > MESSAGE_BYTES_MAX:
                raise CallError(
                    calls.RESOURCE_EXHAUSTED,
                    f"a message of {size} bytes; the limit is {MESSAGE_BYTES_MAX}",
                )
            if len(buffer) < 5 + size:
                break
            message = bytes(buffer[5 : 5 + size])
            del buffer[: 5 + size]
            messages.append(self._plain(message) if compressed else message)
        return messages

    def _plain(self, message: bytes) -> bytes:
        if self.encoding != "gzip":
            raise CallError(
                calls.UNIMPLEMENTED, f"grpc-encoding {self.encoding or 'identity'!r} is not known"
            )
        decoder = zlib.decompressobj(_GZIP_WINDOW)
        try:
            plain = decoder.decompress(message, MESSAGE_BYTES_MAX)
        except zlib.error as error:
            raise CallError(calls.INTERNAL, f"a message is no gzip: {error}") from None
        if decoder.unconsumed_tail:
            raise CallError(calls.RESOURCE_EXHAUSTED, "a message is too large decompressed")
        return plain

    @property
    def buffered(self) -> int:
        return len(self._buffer)


class GrpcSession:
    """The server's side of one connection; see ``model.network.Session``."""

    def __init__(
        self,
        peer: Peer,
        engine: Engine,
        methods: Mapping[str, Method],
        clock: Clock,
    ) -> None:
        self._peer = peer
        self.remote = peer.remote
        self.local = peer.local
        self.engine = engine
        self._methods = methods
        self._clock = clock
        self._calls: dict[int, StreamCall] = {}
        self._buffered = 0
        self._resets_ahead = 0
        self._receiving = False
        self._flush_planned = False

    def receive(self, data: bytes) -> bytes:
        """Handle what was read; give what must be written at once.

        Raises:
            SessionError: the peer broke HTTP/2, or a limit of the connection.
        """
        self._receiving = True
        try:
            for event in self.engine.receive(data):
                self._handle(event)
        except SessionError:
            self._peer.send(self.engine.output())
            raise
        finally:
            self._receiving = False
        return self.engine.output()

    def _handle(self, event: Event) -> None:
        if isinstance(event, Started):
            self._start(event)
            return
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        if isinstance(event, Received):
            self._take(call, event.data)
        elif isinstance(event, Ended):
            self._half_close(call)
        else:
            self._reset(call)

    # -- the beginning of a call

    def _start(self, event: Started) -> None:
        metadata: dict[str, str] = {}
        for name, value in event.headers:
            metadata[name.decode("latin-1")] = value.decode("utf-8", "replace")
        path = metadata.get(":path", "")
        method = self._methods.get(path)
        if metadata.get(":method") != "POST" or not metadata.get("content-type", "").startswith(
            "application/grpc"
        ):
            self.engine.headers(event.stream_id, [(b":status", b"415")], end=True)
            return
        if method is None:
            call = StreamCall(self, event.stream_id, path, Method(bytes))
            call.end(calls.UNIMPLEMENTED, f"{path} is not served")
            return
        call = StreamCall(self, event.stream_id, path, method)
        call.metadata = metadata
        call.encoding = metadata.get("grpc-encoding", "")
        timeout_s = parse_timeout(metadata.get("grpc-timeout", ""))
        if timeout_s is not None:
            call.deadline_s = self._clock.monotonic() + timeout_s
        self._calls[event.stream_id] = call
        if method.begin is not None:
            call.begin()
            call.inbox = self._guard(call, method.begin, call)
        if event.ended:
            self._half_close(call)

    # -- what comes in

    def _take(self, call: StreamCall, data: bytes) -> None:
        before = call.buffered
        try:
            messages = call.take(data)
        except CallError as error:
            self._buffered -= before
            call.end(error.code, str(error))
            return
        self._buffered += call.buffered - before
        if self._buffered > CONNECTION_BYTES_MAX:
            self.engine.go_away(ENHANCE_YOUR_CALM)
            raise SessionError(f"{self._buffered} bytes of unfinished messages")
        for message in messages:
            if not call.ended:
                self._deliver(call, message)

    def _deliver(self, call: StreamCall, data: bytes) -> None:
        method = call.method
        try:
            message = method.parse(data)
        except Exception as error:  # protobuf has several, and any means the same
            call.end(calls.INTERNAL, f"unreadable request: {error}")
            return
        if call.inbox is not None:
            self._guard(call, call.inbox.received, message)
        elif method.handler is not None:
            self._guard(call, method.handler, call, message)
            if not call.ended and call.deadline_s is not None and call.timer is None:
                left_s = call.deadline_s - self._clock.monotonic()
                call.timer = self._clock.call_later(left_s, self._expire, call)

    def _guard(self, call: StreamCall, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run a handler; what it did not foresee ends its call alone."""
        try:
            return work(*arguments)
        except Exception as error:
            log.error("%s from %s failed", call.path, call.remote, exc_info=error)
            call.end(calls.INTERNAL, f"{type(error).__name__}: {error}")
            return None

    def _half_close(self, call: StreamCall) -> None:
        if call.half_closed:
            return
        call.half_closed = True
        if call.inbox is not None:
            self._guard(call, call.inbox.half_closed)
        elif call.buffered:
            call.end(calls.INTERNAL, "the request ends in the middle of a message")

    def _reset(self, call: StreamCall) -> None:
        self._leave(call)
        self._resets_ahead += 1
        if self._resets_ahead > RESETS_AHEAD_MAX:
            self.engine.go_away(ENHANCE_YOUR_CALM)
            raise SessionError(f"{self._resets_ahead} calls given up at once")

    def _expire(self, call: StreamCall) -> None:
        if not call.ended:
            cancelled, call.cancelled = call.cancelled, None
            call.end(calls.DEADLINE_EXCEEDED, "the deadline has passed")
            if cancelled is not None:
                cancelled()

    # -- the end of a call

    def forget(self, call: StreamCall) -> None:
        """The call's response is complete."""
        call.ended = True
        if call.timer is not None:
            call.timer.cancel()
        self._buffered -= call.buffered
        self._resets_ahead = max(0, self._resets_ahead - 1)
        self._calls.pop(call.stream_id, None)

    def give_up(self, call: StreamCall, reason: str) -> None:
        """Reset a call's stream."""
        log.warning("giving up %s of %s:%d: %s", call.path, *self.remote, reason)
        self.engine.reset(call.stream_id, CANCEL)
        self._leave(call)

    def _leave(self, call: StreamCall) -> None:
        """The caller is gone: nothing can be written any more."""
        if call.ended:
            return
        call.ended = True
        self._calls.pop(call.stream_id, None)
        self._buffered -= call.buffered
        if call.timer is not None:
            call.timer.cancel()
        if call.cancelled is not None:
            self._guard(call, call.cancelled)

    # -- the connection

    def flush_soon(self) -> None:
        """Write what handlers did outside of ``receive``, once for all of them."""
        if not self._receiving and not self._flush_planned:
            self._flush_planned = True
            self._clock.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        data = self.engine.output()
        if data and not self._peer.closed:
            self._peer.send(data)

    def go_away(self) -> None:
        """Ask the client to go elsewhere; calls under way may end."""
        self.engine.go_away(NO_ERROR)
        self._flush()

    def disconnected(self) -> None:
        for call in list(self._calls.values()):
            self._leave(call)
