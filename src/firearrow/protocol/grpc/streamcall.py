"""One call on its stream: what its handler may do, and the message that comes for it.

A message on a stream (gRPC over HTTP/2):
    1  compressed: 0 or 1
    4  length
    n  message
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from firearrow.model.clock import Timer
from firearrow.protocol.grpc import calls, hpack
from firearrow.protocol.grpc.calls import Inbox, Message, Method
from firearrow.protocol.grpc.hpack import Metadata
from firearrow.protocol.grpc.layouts import Recalled
from firearrow.protocol.grpc.outgoing import Envelope, Stream

if TYPE_CHECKING:
    from firearrow.protocol.grpc.session import GrpcSession

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024  # of responses that their caller does not read
TEXT_CHARS_MAX: Final = 2000  # of a status: more than any client shows

_PREFIX = struct.Struct(">BI")
_PREFIX_BYTES: Final = 5
_RESPONSE: Final = [(":status", "200"), ("content-type", "application/grpc")]
_HEADERS: Final = hpack.encode(_RESPONSE)
_TRAILERS_OK: Final = hpack.encode([("grpc-status", "0")])
_UNARY: Final = Envelope(_HEADERS, _TRAILERS_OK, _PREFIX.pack)
NOT_GRPC_TEXT: Final = b"""\
This is the gRPC port of a RocketMQ server: point a RocketMQ 5 client at it.
"""
_NOT_GRPC: Final = Envelope(
    hpack.encode([(":status", "415"), ("content-type", "text/plain")]), b"", None
)
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class CallError(Exception):
    """The call must end with this gRPC status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamCall(Stream):
    """See ``calls.Call``. Class attributes are what most calls never change."""

    deadline_s: float | None = None
    timer: Timer | None = None
    inbox: Inbox | None = None
    cancelled: Callable[[], None] | None = None
    ended = False
    _begun = False
    _buffer: bytearray | None = None  # a message that is not whole yet
    _request: bytes | None = None  # a unary call's message, until the caller has sent everything

    def __init__(
        self, session: GrpcSession, stream_id: int, fields: Metadata | Recalled, method: Method
    ) -> None:
        self._session = session
        self.stream_id = stream_id
        self._fields = fields
        self.method = method

    @property
    def remote(self) -> tuple[str, int]:
        return self._session.remote

    @property
    def local(self) -> tuple[str, int]:
        return self._session.local

    @property
    def metadata(self) -> Metadata:
        fields = self._fields
        if isinstance(fields, tuple):  # few handlers need all of them
            fields = self._fields = fields[0].metadata_of(fields[1])
        return fields

    def field(self, name: str) -> str:
        fields = self._fields
        if isinstance(fields, tuple):
            layout = fields[0]
            if name not in layout.names:
                return layout.metadata.get(name, "")
        return self.metadata.get(name, "")

    # -- what the handler does

    def send(self, *messages: Message | bytes) -> None:
        if self.ended:
            return
        pieces: list[bytes] = []
        for message in messages:
            data = message if isinstance(message, bytes) else message.SerializeToString()
            pieces += (_PREFIX.pack(0, len(data)), data)
        session = self._session
        self.begin()
        session.connection.data(self, b"".join(pieces))
        if session.connection.waiting_bytes > WAITING_BYTES_MAX:
            session.give_up(self, "the caller does not read its response")

    def begin(self) -> None:
        """Send the response's headers ahead of its first message."""
        if not self.ended and not self._begun:
            self._begun = True
            self._session.connection.headers(self, _HEADERS)
        self._session.flush_soon()

    def end(self, code: int = calls.OK, text: str = "") -> None:
        if self.ended:
            return
        trailers = _TRAILERS_OK
        connection = self._session.connection
        if code != calls.OK:
            trailers = _trailers(code, text)
        if self._begun:
            connection.end(self, trailers)
        else:
            connection.headers_only(self, _HEADERS + trailers)
        self._session.forget(self)

    def answer(self, message: Message | bytes) -> None:
        if self.ended:
            return
        data = message if isinstance(message, bytes) else message.SerializeToString()
        session = self._session
        session.connection.whole(self, _UNARY, data)
        if session.receiving and not session.resets_ahead and self.timer is None:
            self.ended = True  # that is all there is to forget
            if self._buffer is None and self._request is None:
                return
        session.forget(self)

    # -- what the connection does

    def take(self, data: bytes, start: int, stop: int, ended: bool) -> None:
        if ended and self._buffer is None and self.inbox is None and stop - start >= _PREFIX_BYTES:
            # Mostly it is exactly one message, and all of the request.
            compressed, size = _PREFIX.unpack_from(data, start)
            if not compressed and size == stop - start - _PREFIX_BYTES and self._request is None:
                self.half_closed = True
                self._session.deliver(self, data[start + _PREFIX_BYTES : stop])
                return
        self.half_closed = ended
        if not self.ended:
            self._session.take(self, data[start:stop])
        if ended:
            self._session.half_close(self)

    def reset(self) -> None:
        self._session.reset(self)

    # -- what the session does

    def messages(self, data: bytes) -> list[bytes]:
        """Whole messages among what came so far.

        Raises:
            CallError: a message that is too large, or cannot be decompressed.
        """
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = bytearray()
        buffer += data
        messages = []
        while len(buffer) >= _PREFIX_BYTES:
            compressed, size = _PREFIX.unpack_from(buffer)
            if size > MESSAGE_BYTES_MAX:
                raise CallError(
                    calls.RESOURCE_EXHAUSTED,
                    f"a message of {size} bytes; the limit is {MESSAGE_BYTES_MAX}",
                )
            if len(buffer) < _PREFIX_BYTES + size:
                break
            message = bytes(buffer[_PREFIX_BYTES : _PREFIX_BYTES + size])
            del buffer[: _PREFIX_BYTES + size]
            messages.append(self._plain(message) if compressed else message)
        return messages

    def keep(self, message: bytes) -> None:
        """The message of a unary call.

        Raises:
            CallError: there is one already.
        """
        if self._request is not None:
            raise CallError(calls.INTERNAL, "a unary call with more than one message")
        self._request = message

    def kept(self) -> bytes | None:
        return self._request

    def drop(self) -> None:
        """Nothing that came is needed any more."""
        self._buffer = self._request = None

    def _plain(self, message: bytes) -> bytes:
        encoding = self.metadata.get("grpc-encoding", "")
        if encoding != "gzip":
            raise CallError(
                calls.UNIMPLEMENTED, f"grpc-encoding {encoding or 'identity'!r} is not known"
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
    def buffers(self) -> bool:
        """Whether anything may be kept for the call."""
        return self._buffer is not None or self._request is not None

    @property
    def buffered(self) -> int:
        """Bytes that are kept for the call."""
        return len(self._buffer or b"") + len(self._request or b"")


class ForeignCall(StreamCall):
    """A request of the web. It is answered when all of it has come: a reset of what it still sends
    would keep some clients from reading the answer."""

    ended = True  # no handler has it

    def take(self, data: bytes, start: int, stop: int, ended: bool) -> None:
        if ended:
            self.half_closed = True
            self._session.connection.whole(self, _NOT_GRPC, NOT_GRPC_TEXT)


def _trailers(code: int, text: str) -> bytes:
    message = quote(text[:TEXT_CHARS_MAX], safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}~")
    return hpack.encode([("grpc-status", str(code)), ("grpc-message", message)])
