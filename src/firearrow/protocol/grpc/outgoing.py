"""What the server writes on one HTTP/2 connection, within the windows that the peer gives."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from firearrow.protocol.grpc import frames
from firearrow.protocol.grpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HEAD,
    HEADERS,
    WINDOW_MAX,
    WINDOW_START,
)

STOPPED_MAX: Final = 1000  # streams
ENVELOPE_BYTES_MAX: Final = 1024  # of messages whose envelopes are kept
_LAST_HEADERS: Final = END_HEADERS | END_STREAM
_WORD_BYTES: Final = 4
_word: Final = struct.Struct(">I").pack


class WindowError(ValueError):
    """The peer made a window larger than there are."""


class Stream:
    """One stream, from its request's headers until both sides have ended it.

    Class attributes are what most streams never change.
    """

    stream_id: int
    half_closed = False  # the peer has sent everything
    closed = False  # nothing can be written any more
    dialogue = False  # both sides send messages until they end
    announced = -1  # bytes that the request's body still has to have; -1: it did not say
    unread = 0  # bytes that came since the peer's window was renewed
    _window = 0  # what the peer took since it opened, and gave; relative to its initial window
    _waiting: deque[memoryview] | None = None
    _trailers: bytes | None = None
    waiting_bytes = 0  # of the response, until the peer's window allows them

    # -- what comes in

    def take(self, data: bytes, start: int, stop: int, ended: bool) -> None:
        """Bytes ``start`` to ``stop`` of the request's body; ``ended``: they are the last."""
        raise NotImplementedError

    def reset(self) -> None:
        """The peer gave the stream up."""
        raise NotImplementedError


class Envelope:
    """What stands around the message of a response of one piece; only the numbers of its stream
    and its size differ."""

    def __init__(
        self, headers: bytes, trailers: bytes, prefix: Callable[[int, int], bytes] | None
    ) -> None:
        self.headers = headers
        self.trailers = trailers
        self._prefix = prefix
        self.begin = HEAD.pack(0, len(headers), HEADERS, END_HEADERS, 0)[:-_WORD_BYTES]
        self.behind = HEAD.pack(0, len(trailers), HEADERS, _LAST_HEADERS, 0)[:-_WORD_BYTES]
        self.sizes: dict[int, tuple[bytes, bytes]] = {}

    def of_size(self, size: int) -> tuple[bytes, bytes]:
        """For a message of so many bytes: what stands between the numbers of the stream, and what
        stands before the message itself."""
        prefix = self._prefix(0, size) if self._prefix is not None else b""
        data_size = len(prefix) + size
        head = HEAD.pack(data_size >> 16 & 0xFF, data_size & 0xFFFF, DATA, 0, 0)
        pieces = self.headers + head[:-_WORD_BYTES], prefix
        if size <= ENVELOPE_BYTES_MAX:
            self.sizes[size] = pieces
        return pieces


class Outgoing:
    """Frames that wait for the next write, and response bytes that wait for the peer."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self._out: list[bytes] = []
        self.write = self._out.append
        self._window = WINDOW_START
        self._initial_window = WINDOW_START
        self._blocked: dict[int, Stream] = {}
        self.waiting_bytes = 0  # of all streams
        # Streams that ended before the peer had sent everything: more may be on its way.
        self._stopped: dict[int, None] = {}

    def output(self) -> bytes:
        """What must be written now."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # -- responses

    def headers(self, stream: Stream, block: bytes) -> None:
        """Begin a response."""
        if not stream.closed:
            self.write(frames.frame(HEADERS, END_HEADERS, stream.stream_id, block))

    def headers_only(self, stream: Stream, block: bytes) -> None:
        """A whole response without a body."""
        if not stream.closed:
            self.write(frames.frame(HEADERS, _LAST_HEADERS, stream.stream_id, block))
            self._close(stream)

    def data(self, stream: Stream, data: bytes) -> None:
        """Add to a response. What the peer's window does not allow yet waits."""
        if stream.closed:
            return
        size = len(data)
        if self._fits(stream, size):
            self._window -= size
            stream._window -= size
            self.write(HEAD.pack(0, size, DATA, 0, stream.stream_id) + data)
            return
        if stream._waiting is None:
            stream._waiting = deque()
        stream._waiting.append(memoryview(data))
        stream.waiting_bytes += size
        self.waiting_bytes += size
        self._push(stream)

    def end(self, stream: Stream, trailers: bytes) -> None:
        """End a response behind all its data."""
        if stream.closed:
            return
        if stream._waiting:
            stream._trailers = trailers
        else:
            self.headers_only(stream, trailers)

    def whole(self, stream: Stream, envelope: Envelope, message: bytes) -> None:
        """A response of one piece."""
        if stream.closed:
            return
        size = len(message)
        between, prefix = envelope.sizes.get(size) or envelope.of_size(size)
        data_size = len(prefix) + size
        if (
            data_size > self._window
            or data_size > self._initial_window + stream._window
            or data_size > FRAME_BYTES_MAX
            or stream._waiting
        ):
            self.headers(stream, envelope.headers)
            self.data(stream, prefix + message)
            self.end(stream, envelope.trailers)
            return
        self._window -= data_size
        number = _word(stream.stream_id)
        self.write(
            b"".join(
                (
                    envelope.begin,
                    number,
                    between,
                    number,
                    prefix,
                    message,
                    envelope.behind,
                    number,
                    envelope.trailers,
                )
            )
        )
        if stream.half_closed:
            stream.closed = True
            del self.streams[stream.stream_id]
        else:
            self._close(stream)

    def give_up(self, stream: Stream, error_code: int) -> None:
        """End a stream before its response is complete."""
        if not stream.closed:
            self.write(frames.reset(stream.stream_id, error_code))
            if not stream.half_closed:
                self._stop(stream.stream_id)
            self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """Nothing more is written to the stream."""
        stream.closed = True
        stream._waiting = None
        self.waiting_bytes -= stream.waiting_bytes
        stream.waiting_bytes = 0
        self._blocked.pop(stream.stream_id, None)
        self.streams.pop(stream.stream_id, None)

    def _close(self, stream: Stream) -> None:
        """The response is complete. A peer that still sends its request need not go on.

        In a dialogue it ends its half itself; Rust's ``h2`` takes a reset for the end of the other
        half too, and its users never see the status.
        """
        stream.closed = True
        if not stream.half_closed and not stream.dialogue:
            self.write(frames.reset(stream.stream_id, frames.NO_ERROR))
            self._stop(stream.stream_id)
        self.streams.pop(stream.stream_id, None)

    def _stop(self, stream_id: int) -> None:
        self._stopped[stream_id] = None
        if len(self._stopped) > STOPPED_MAX:
            del self._stopped[next(iter(self._stopped))]

    # -- windows

    def _fits(self, stream: Stream, size: int) -> bool:
        return (
            size <= FRAME_BYTES_MAX
            and size <= self._window
            and size <= self._initial_window + stream._window
            and not stream._waiting
        )

    def _push(self, stream: Stream) -> None:
        """Write as much of what waits as is allowed now."""
        waiting = stream._waiting
        while waiting:
            room = min(self._window, self._initial_window + stream._window, FRAME_BYTES_MAX)
            if room <= 0:
                self._blocked[stream.stream_id] = stream
                return
            chunk = waiting[0][:room]
            size = len(chunk)
            self._window -= size
            stream._window -= size
            stream.waiting_bytes -= size
            self.waiting_bytes -= size
            self.write(HEAD.pack(0, size, DATA, 0, stream.stream_id))
            self.write(bytes(chunk))
            if size == len(waiting[0]):
                waiting.popleft()
            else:
                waiting[0] = waiting[0][size:]
        self._blocked.pop(stream.stream_id, None)
        if stream._trailers is not None:
            self.headers_only(stream, stream._trailers)

    def _push_all(self) -> None:
        for stream in list(self._blocked.values()):
            if self._window <= 0:
                return
            self._push(stream)

    def opened(self, size: int) -> None:
        """The peer takes more on the connection.

        Raises:
            WindowError: more than there is.
        """
        self._window += size
        if self._window > WINDOW_MAX:
            raise WindowError(f"a window of {self._window} bytes")
        self._push_all()

    def stream_opened(self, stream: Stream, size: int) -> bool:
        """The peer takes more on a stream; whether that is more than it began with.

        Raises:
            WindowError: more than there is.
        """
        stream._window += size
        if self._initial_window + stream._window > WINDOW_MAX:
            raise WindowError(f"a window of {self._initial_window + stream._window} bytes")
        more = stream._window > 0
        if stream._waiting:
            self._push(stream)
        return more

    def initial_window(self, size: int) -> None:
        """What the peer takes on every stream, those that are open as well.

        Raises:
            WindowError: more than there is.
        """
        largest = max((stream._window for stream in self.streams.values()), default=0)
        if size > WINDOW_MAX or size + max(0, largest) > WINDOW_MAX:
            raise WindowError(f"a window of {size} bytes")
        self._initial_window = size
        self._push_all()
