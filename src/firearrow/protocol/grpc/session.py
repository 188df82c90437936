"""One gRPC connection as a sans-IO machine over HTTP/2: bytes in, calls out, and back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from firearrow.model.clock import Clock
from firearrow.model.network import Peer, SessionError
from firearrow.protocol.grpc import calls, frames, refusals
from firearrow.protocol.grpc.calls import Method, known_timeout, parse_timeout
from firearrow.protocol.grpc.frames import CANCEL, ENHANCE_YOUR_CALM, NO_ERROR
from firearrow.protocol.grpc.hpack import Metadata
from firearrow.protocol.grpc.http2 import Connection
from firearrow.protocol.grpc.layouts import Recalled
from firearrow.protocol.grpc.refusals import Refusals
from firearrow.protocol.grpc.streamcall import CallError, ForeignCall, StreamCall

log = logging.getLogger(__name__)

CONNECTION_BYTES_MAX: Final = 64 * 1024 * 1024  # of messages that are not whole yet
# A client may give up calls, but not far more of them than it lets end (CVE-2023-44487).
RESETS_AHEAD_MAX: Final = 500
LEAVE_S: Final = 3.0  # at most, from the first goodbye to the end of the connection
LINGER_S: Final = 0.3  # for the client to close first, so that nothing is lost on the way


class _Kind(NamedTuple):
    """What calls with headers of one layout have in common."""

    method: Method
    timeout_place: int  # of the timeout among their values; -1: it is none of them
    timeout_s: float | None  # that all of them have


def _is_grpc(metadata: Metadata) -> bool:
    return metadata.get(":method") == "POST" and metadata.get("content-type", "").startswith(
        "application/grpc"
    )


class GrpcSession:
    """The server's side of one connection; see ``model.network.Session``."""

    def __init__(
        self,
        peer: Peer,
        methods: Mapping[str, Method],
        clock: Clock,
        gone: Callable[[GrpcSession], None] | None = None,
        refused: Refusals | None = None,
    ) -> None:
        self._refusals = refused or Refusals(clock)
        self._peer = peer
        self._gone = gone
        self.remote = peer.remote
        self.local = peer.local
        self.connection = Connection(self)
        self._methods = methods
        self._clock = clock
        self._buffered = 0
        self.resets_ahead = 0
        self.receiving = False
        self._flush_planned = False
        self._leaving = ""  # why
        self._heard = False  # the client has seen our goodbye: it begins no more calls

    def receive(self, data: bytes) -> bytes:
        """Handle what was read; give what must be written at once.

        Raises:
            SessionError: the peer broke HTTP/2, or a limit of the connection.
        """
        self.receiving = True
        try:
            self.connection.receive(data)
        except SessionError:
            self._peer.send(self.connection.output())
            raise
        finally:
            self.receiving = False
        if self._leaving:
            self._finish()
        return self.connection.output()

    # -- the beginning of a call

    def started(self, stream_id: int, metadata: Metadata, ended: bool) -> None:
        """A request's headers have come."""
        path = metadata.get(":path", "")
        method = self._methods.get(path)
        call = StreamCall(self, stream_id, metadata, method or Method(bytes))
        call.half_closed = ended
        if not _is_grpc(metadata):
            self._foreign(stream_id, metadata, ended)
            return
        if method is None:
            call.end(calls.UNIMPLEMENTED, f"{path} is not served")
            return
        timeout = metadata.get("grpc-timeout")
        if timeout is not None:
            timeout_s = parse_timeout(timeout)
            if timeout_s is None:
                self._bad_timeout(call, timeout)
                return
            call.deadline_s = self._clock.monotonic() + timeout_s
        self.connection.streams[stream_id] = call
        if method.begin is not None:
            call.begin()
            call.dialogue = True
            call.inbox = self._guard(call, method.begin, call)
        if ended:
            self.half_close(call)

    def meaning(self, metadata: Metadata, values: tuple[str, ...]) -> _Kind | None:
        """Of requests to a unary method, which one, and where their timeout is."""
        method = self._methods.get(metadata.get(":path", ""))
        if method is None or method.handler is None or not _is_grpc(metadata):
            return None
        timeout = metadata.get("grpc-timeout")
        if timeout is None or "grpc-timeout" in values:
            return _Kind(method, -1 if timeout is None else values.index("grpc-timeout"), None)
        timeout_s = parse_timeout(timeout)
        return None if timeout_s is None else _Kind(method, -1, timeout_s)

    def started_alike(self, stream_id: int, recalled: Recalled) -> None:
        """The headers of a unary call like one before have come."""
        method, place, timeout_s = recalled[0].meaning
        self.connection.streams[stream_id] = call = StreamCall(self, stream_id, recalled, method)
        if place >= 0:
            raw = recalled[1][place]
            timeout_s = known_timeout(raw)
            if timeout_s is None:
                self._bad_timeout(call, raw.decode("utf-8", "replace"))
                return
        if timeout_s is not None:
            call.deadline_s = self._clock.monotonic() + timeout_s

    def _bad_timeout(self, call: StreamCall, text: str) -> None:
        call.end(calls.INTERNAL, f"grpc-timeout {text[:20]!r} is none")

    def _foreign(self, stream_id: int, metadata: Metadata, ended: bool) -> None:
        self.refused(refusals.NOT_GRPC)
        call = ForeignCall(self, stream_id, metadata, Method(bytes))
        self.connection.streams[stream_id] = call
        if ended:
            call.take(b"", 0, 0, True)

    # -- what comes in

    def take(self, call: StreamCall, data: bytes) -> None:
        """Some bytes of a request, which need not be a whole message."""
        before = call.buffered
        try:
            messages = call.messages(data)
            if call.inbox is None:
                for message in messages:
                    call.keep(message)
        except CallError as error:
            self._buffered -= before
            call.drop()
            if error.code == calls.RESOURCE_EXHAUSTED:
                self.refused(refusals.LARGE)
            call.end(error.code, str(error))
            return
        self._buffered += call.buffered - before
        if self._buffered > CONNECTION_BYTES_MAX:
            self.connection.go_away(ENHANCE_YOUR_CALM)
            self.refused(refusals.UNFINISHED)
            raise SessionError(f"{self._buffered} bytes of unfinished messages", counted=True)
        if call.inbox is not None:
            for message in messages:
                if not call.ended:
                    self.deliver(call, message)

    def deliver(self, call: StreamCall, data: bytes) -> None:
        """A whole message has come: of a unary call, its request."""
        method = call.method
        try:
            message = method.parse(data)
        except Exception as error:  # protobuf has several, and any means the same
            call.end(calls.INTERNAL, f"unreadable request: {error}")
            return
        if call.inbox is not None:
            self._guard(call, call.inbox.received, message)
        elif method.handler is not None:
            try:
                method.handler(call, message)
            except Exception as error:
                self._failed(call, error)
            if not call.ended and call.deadline_s is not None:
                left_s = call.deadline_s - self._clock.monotonic()
                call.timer = self._clock.call_later(left_s, self._expire, call)

    def _guard(self, call: StreamCall, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run a handler; what it did not foresee ends its call alone."""
        try:
            return work(*arguments)
        except Exception as error:
            self._failed(call, error)
            return None

    def _failed(self, call: StreamCall, error: Exception) -> None:
        path = call.metadata.get(":path")
        log.error(
            "call %s from %s failed, and the client is told; this is a defect, please report it",
            path,
            call.remote,
            exc_info=error,
        )
        call.end(calls.INTERNAL, f"{type(error).__name__}: {error}")

    def half_close(self, call: StreamCall) -> None:
        """The caller has sent everything."""
        if call.ended:
            return
        if call.inbox is not None:
            self._guard(call, call.inbox.half_closed)
            return
        request = call.kept()
        if request is None:
            call.end(calls.INTERNAL, "the request ends before its message does")
        else:
            self.deliver(call, request)

    def reset(self, call: StreamCall) -> None:
        """The caller gave the call up."""
        self._leave(call)
        self.resets_ahead += 1
        if self.resets_ahead > RESETS_AHEAD_MAX:
            self.connection.go_away(ENHANCE_YOUR_CALM)
            self.refused(refusals.RESETS)
            raise SessionError(f"{self.resets_ahead} calls given up at once", counted=True)

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
        if call.buffers:
            self._buffered -= call.buffered
            call.drop()
        if self.resets_ahead:
            self.resets_ahead -= 1
        if not self.receiving:
            self.flush_soon()

    def give_up(self, call: StreamCall, reason: str) -> None:
        """Reset a call's stream."""
        path = call.metadata.get(":path")
        log.debug("giving up %s of %s:%d: %s", path, *self.remote, reason)
        self.refused(refusals.UNREAD)
        self.connection.give_up(call, CANCEL)
        self._leave(call)

    def _leave(self, call: StreamCall) -> None:
        """The caller is gone: nothing can be written any more."""
        if call.ended:
            return
        call.ended = True
        self._buffered -= call.buffered
        call.drop()
        if call.timer is not None:
            call.timer.cancel()
        if call.cancelled is not None:
            self._guard(call, call.cancelled)

    # -- the connection

    def flush_soon(self) -> None:
        """Write what handlers did outside of ``receive``, once for all of them."""
        if not self.receiving and not self._flush_planned:
            self._flush_planned = True
            self._clock.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        data = self.connection.output()
        if data and not self._peer.closed:
            self._peer.send(data)
        if self._leaving:
            self._finish()

    def disconnected(self) -> None:
        if self._gone is not None:
            self._gone(self)
        for call in self._calls():
            self._leave(call)

    # -- goodbye

    def leave(self, reason: str) -> None:
        """Ask the client to go elsewhere, and close when its calls are answered; see
        ``model.network.Leaving``.

        What it sent before it saw that is still answered: the first GOAWAY leaves every stream
        open, and the answer to the ping behind it says that no more come (RFC 9113, 6.8).
        """
        if self._leaving:
            return
        self._leaving = reason
        write = self.connection.write
        write(frames.go_away(frames.WINDOW_MAX, NO_ERROR))
        write(frames.frame(frames.PING, 0, 0, b"goodbye!"))
        for call in self._calls():
            if call.inbox is not None:  # such a stream has no end of its own
                call.end(calls.UNAVAILABLE, reason)
        self._clock.call_later(LEAVE_S, self._peer.close, reason)
        self._flush()

    def refused(self, kind: str) -> None:
        """Something was refused to the peer."""
        self._refusals.count(kind, self.remote)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def ponged(self) -> None:
        self._heard = bool(self._leaving)

    def _finish(self) -> None:
        if self._heard and not self.connection.streams and not self._peer.closed:
            self._heard = False  # once
            self.connection.go_away(NO_ERROR)
            self._peer.send(self.connection.output())
            self._clock.call_later(LINGER_S, self._peer.close, self._leaving)

    def _calls(self) -> list[StreamCall]:
        streams = self.connection.streams.values()
        return [stream for stream in streams if isinstance(stream, StreamCall)]
