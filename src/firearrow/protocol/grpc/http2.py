"""The server's side of one HTTP/2 connection as a sans-IO machine, for gRPC: what comes in.

What gRPC never uses is not here: no pushes, no priorities, no other method's rules. A peer that
breaks the protocol loses its connection, as the RFC has it; one that only asks for too much gets
that stream refused.
"""

from __future__ import annotations

from typing import Final, Protocol

from firearrow.model.network import SessionError
from firearrow.protocol.grpc import frames, refusals
from firearrow.protocol.grpc.fields import PSEUDO, in_order
from firearrow.protocol.grpc.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HEAD,
    HEAD_BYTES,
    HEADERS,
    PADDED,
    PREFACE,
    PROTOCOL_ERROR,
    WINDOW_START,
    WITH_PRIORITY,
)
from firearrow.protocol.grpc.hpack import HeaderError, Metadata
from firearrow.protocol.grpc.layouts import Layout, LayoutDecoder, Recalled
from firearrow.protocol.grpc.outgoing import Outgoing, Stream, WindowError

# Frames that bring nothing on, in a row without a call between them.
NUISANCES_MAX: Final = 1000
NUISANCES_S: Final = 1.0  # in less time than this they are a flood
STREAMS_MAX: Final = 1000  # at a time, a connection
HEADER_BYTES_MAX: Final = 64 * 1024  # of a header block, its frames' heads among them
WINDOW_BYTES: Final = 4 * 1024 * 1024  # what a peer may send ahead, a stream
CONNECTION_WINDOW_BYTES: Final = 4 * WINDOW_BYTES
_PLAIN: Final = END_HEADERS | END_STREAM  # the flags that an ordinary frame has


class Owner(Protocol):
    """Who is told of new streams."""

    def started(self, stream_id: int, metadata: Metadata, ended: bool) -> None:
        """A request's headers, pseudo headers among them; ``ended``: nothing follows. The owner
        adds its stream to ``Connection.streams``."""

    def meaning(self, metadata: Metadata, values: tuple[str, ...]) -> object | None:
        """What all requests with these fields have in common, but for the values of some; ``None``
        when each must be looked at: ``started`` gets them."""

    def started_alike(self, stream_id: int, recalled: Recalled) -> None:
        """As ``started``, for a request of whose kind the meaning is known; its body follows."""

    def refused(self, kind: str) -> None:
        """Something was refused to the peer; a kind of ``refusals``."""

    def monotonic(self) -> float:
        """Seconds that only grow."""

    def ponged(self) -> None:
        """The peer answered a ping: it has seen all that was written before."""


class _Broken(Exception):  # noqa: N818 - a peer's error
    """The peer broke HTTP/2."""

    def __init__(self, code: int, text: str, kind: str = refusals.PROTOCOL) -> None:
        super().__init__(text)
        self.code = code
        self.kind = kind


class Connection(Outgoing):
    """Bytes in, streams out; what must be written collects until ``output``."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self._owner = owner
        decoder = LayoutDecoder()
        self._decode, self._recall = decoder.decode, decoder.recall
        self._tail = bytearray()  # an incomplete frame
        self._needed = len(PREFACE)  # bytes the tail must have before it is worth looking at
        self._begun = self._settled = False  # the preface came, and the settings behind it
        self._unread = 0  # bytes that came since the connection's window was renewed
        self._last_stream = 0
        self._names: tuple[str, ...] = ()  # the header names of the last request that was in order
        self._leaving = False
        self._nuisances = 0
        self._nuisances_since_s = -NUISANCES_S
        self._largest_window = WINDOW_START  # that the peer ever gave
        # A block whose end has not come: its stream, its first frame's flags, and the block.
        self._block: tuple[int, int, bytearray] | None = None
        self._block_bytes = 0
        self.write(
            frames.settings(
                {
                    frames.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                    frames.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
                    frames.MAX_HEADER_LIST_SIZE: HEADER_BYTES_MAX,
                }
            )
        )
        self.write(frames.window_update(0, CONNECTION_WINDOW_BYTES - WINDOW_START))

    def receive(self, data: bytes) -> None:
        """Take what was read.

        Raises:
            SessionError: the peer broke HTTP/2; ``output`` has a last GOAWAY.
        """
        if self._tail:
            self._tail += data
            if len(self._tail) < self._needed:
                return
            data = bytes(self._tail)
            self._tail = bytearray()
        try:
            at = self._frames(data, 0 if self._begun else self._preface(data))
        except _Broken as error:
            self.go_away(error.code)
            self._owner.refused(error.kind)
            raise SessionError(f"HTTP/2: {error}", counted=True) from None
        except WindowError as error:
            self.go_away(frames.FLOW_CONTROL_ERROR)
            self._owner.refused(refusals.PROTOCOL)
            raise SessionError(f"HTTP/2: {error}", counted=True) from None
        if at < len(data):
            self._tail += data[at:]

    def _preface(self, data: bytes) -> int:
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise _Broken(PROTOCOL_ERROR, "the connection does not begin as HTTP/2 does")
        self._begun = len(data) >= len(PREFACE)
        return len(PREFACE) if self._begun else 0

    def _frames(self, data: bytes, at: int) -> int:
        """Handle every whole frame; where the rest begins."""
        if not self._begun:
            return at
        end, streams = len(data), self.streams
        while end - at >= HEAD_BYTES:
            high, size, kind, flags, stream_id = HEAD.unpack_from(data, at)
            size |= high << 16
            if size > FRAME_BYTES_MAX:
                raise _Broken(frames.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            start = at + HEAD_BYTES
            stop = start + size
            if stop > end:
                self._needed = stop - at
                return at
            at = stop
            if kind == DATA and flags <= END_STREAM and self._block is None and (size or flags):
                self._unread += size
                if self._unread > CONNECTION_WINDOW_BYTES // 2:
                    self._renew_window()
                stream = streams.get(stream_id)
                if stream is not None and not stream.half_closed:
                    if stream.announced >= 0 and not self._as_announced(stream, size, flags):
                        continue
                    stream.take(data, start, stop, bool(flags))
                    if not flags and not stream.closed:
                        self._renew_stream_window(stream, size)
                else:
                    self._stray_data(stream_id, stream)
            elif kind == HEADERS and flags | END_STREAM == _PLAIN and self._settled:
                if self._block is not None:
                    raise _Broken(PROTOCOL_ERROR, "a header block is interrupted")
                self._headers(stream_id, flags, data[start:stop])
            else:
                self._rare(kind, flags, stream_id & frames.WINDOW_MAX, data[start:stop])
        self._needed = HEAD_BYTES
        return at

    # -- data

    def _renew_window(self) -> None:
        self.write(frames.window_update(0, self._unread))
        self._unread = 0

    def _renew_stream_window(self, stream: Stream, size: int) -> None:
        stream.unread += size
        if stream.unread > WINDOW_BYTES // 2:
            self.write(frames.window_update(stream.stream_id, stream.unread))
            stream.unread = 0

    def _as_announced(self, stream: Stream, size: int, flags: int) -> bool:
        """Whether a body is as long as ``content-length`` says, so far; the stream ends if not."""
        stream.announced -= size
        if stream.announced < 0 or (flags & END_STREAM and stream.announced):
            self._owner.refused(refusals.MALFORMED)
            self.give_up(stream, PROTOCOL_ERROR)
            stream.reset()
            return False
        return True

    def _stray_data(self, stream_id: int, stream: Stream | None) -> None:
        self._nuisance()
        if stream is not None:  # it said that it had sent everything
            self.give_up(stream, frames.STREAM_CLOSED)
            stream.reset()
        elif stream_id == 0 or stream_id > self._last_stream:
            raise _Broken(PROTOCOL_ERROR, f"data on stream {stream_id}, which is not open")
        elif stream_id not in self._stopped:
            self.write(frames.reset(stream_id, frames.STREAM_CLOSED))

    # -- headers

    def _headers(self, stream_id: int, flags: int, block: bytes) -> None:
        recalled = self._recall(block)
        if (
            recalled is not None
            and stream_id > self._last_stream
            and flags == END_HEADERS
            and stream_id & 1
            and len(self.streams) < STREAMS_MAX
            and not self._leaving
            and (recalled[0].meaning or self._has_meaning(recalled[0]))
        ):
            self._last_stream = stream_id
            self._nuisances = 0
            self._owner.started_alike(stream_id, recalled)
            return
        try:
            metadata = self._decode(block)
        except HeaderError as error:
            raise _Broken(frames.COMPRESSION_ERROR, str(error)) from None
        if stream_id <= self._last_stream:
            self._trailers(stream_id, flags, metadata)
            return
        if not stream_id & 1:
            raise _Broken(PROTOCOL_ERROR, f"stream {stream_id} is not the client's")
        self._last_stream = stream_id
        if len(self.streams) >= STREAMS_MAX or self._leaving:
            self._refuse(stream_id, frames.REFUSED_STREAM, refusals.STREAMS)
            return
        ended, names, length = bool(flags & END_STREAM), tuple(metadata), -1
        if names != self._names:  # most of a connection's requests have the same
            if not in_order(metadata, ended):
                self._refuse(stream_id, PROTOCOL_ERROR, refusals.MALFORMED)
                return
            length = int(metadata.get("content-length", "-1"))
            if length < 0:
                self._names = names
        if not metadata[":path"] or metadata.get("te", "trailers") != "trailers":
            self._refuse(stream_id, PROTOCOL_ERROR, refusals.MALFORMED)
            return
        self._nuisances = 0
        self._owner.started(stream_id, metadata, ended)
        if length >= 0 and (stream := self.streams.get(stream_id)) is not None:
            stream.announced = length

    def _has_meaning(self, layout: Layout) -> bool:
        if layout.meaning is None:
            metadata = layout.metadata
            layout.meaning = (
                in_order(metadata, False)
                and "content-length" not in metadata
                and bool(metadata[":path"])
                and metadata.get("te", "trailers") == "trailers"
                and self._owner.meaning(metadata, layout.names)
            ) or False
        return bool(layout.meaning)

    def _refuse(self, stream_id: int, error_code: int, kind: str) -> None:
        """End a stream before it begins."""
        self._owner.refused(kind)
        self._nuisance()
        self.write(frames.reset(stream_id, error_code))
        self._stop(stream_id)

    def _trailers(self, stream_id: int, flags: int, metadata: Metadata) -> None:
        stream = self.streams.get(stream_id)
        if ":path" in metadata or stream_id == 0:
            raise _Broken(PROTOCOL_ERROR, f"stream {stream_id} is opened again")
        if stream is None:  # it has its answer already
            self._nuisance()
            return
        if stream.half_closed or not flags & END_STREAM or not PSEUDO.isdisjoint(metadata):
            self.give_up(stream, PROTOCOL_ERROR)
            stream.reset()
        elif stream.announced < 0 or self._as_announced(stream, 0, flags):
            stream.take(b"", 0, 0, True)

    def _begin_block(self, flags: int, stream_id: int, payload: bytes) -> None:
        payload = _unpadded(flags, payload)
        if flags & WITH_PRIORITY:
            if len(payload) < 5:
                raise _Broken(frames.FRAME_SIZE_ERROR, "a priority is cut off")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._headers(stream_id, flags, payload)
        else:
            self._block = (stream_id, flags, bytearray(payload))
            self._block_bytes = HEAD_BYTES + len(payload)

    def _continue_block(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise _Broken(PROTOCOL_ERROR, "a header block is interrupted")
        _, first_flags, block = self._block
        block += payload
        self._block_bytes += HEAD_BYTES + len(payload)
        if self._block_bytes > HEADER_BYTES_MAX:
            raise _Broken(
                frames.ENHANCE_YOUR_CALM,
                f"a header block of {self._block_bytes} bytes; the limit is {HEADER_BYTES_MAX}",
                refusals.HEADERS,
            )
        if flags & END_HEADERS:
            self._block = None
            self._headers(stream_id, first_flags, bytes(block))

    # -- everything else

    def _rare(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None or kind == CONTINUATION:
            if kind != CONTINUATION:
                raise _Broken(PROTOCOL_ERROR, "a header block is interrupted")
            self._continue_block(flags, stream_id, payload)
        elif not self._settled and kind != frames.SETTINGS:
            raise _Broken(PROTOCOL_ERROR, "the first frame has no settings")
        elif kind == HEADERS:
            self._begin_block(flags, stream_id, payload)
        elif kind == DATA:
            self._padded_data(flags, stream_id, payload)
        elif kind in _SIZES:
            _check_frame(kind, stream_id, len(payload))
            self._control(kind, flags, stream_id, payload)
        elif kind == frames.SETTINGS:
            self._settings(flags, stream_id, payload)
        elif kind == frames.PUSH_PROMISE:
            raise _Broken(PROTOCOL_ERROR, "a client cannot push")
        elif kind == frames.GOAWAY:
            self._peer_leaves(stream_id, payload)
        else:  # one that we do not know
            self._nuisance()

    def _padded_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._unread += len(payload)
        if self._unread > CONNECTION_WINDOW_BYTES // 2:
            self._renew_window()
        stream = self.streams.get(stream_id)
        plain, ended = _unpadded(flags, payload), bool(flags & END_STREAM)
        if stream is None or stream.half_closed:
            self._stray_data(stream_id, stream)
            return
        if not plain and not ended:
            self._nuisance()
        if stream.announced >= 0 and not self._as_announced(stream, len(plain), flags):
            return
        stream.take(plain, 0, len(plain), ended)
        if not ended and not stream.closed:
            self._renew_stream_window(stream, len(payload))

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.PING:
            if flags & ACK:
                self._owner.ponged()
            else:
                self._nuisance()
                self.write(frames.frame(frames.PING, ACK, 0, payload))
        elif kind == frames.WINDOW_UPDATE:
            self._window_update(stream_id, frames.read_word(payload))
        elif kind == frames.PRIORITY:
            self._nuisance()
        elif kind == frames.RST_STREAM:
            if stream_id > self._last_stream:
                raise _Broken(PROTOCOL_ERROR, f"stream {stream_id} is reset and was never open")
            stream = self.streams.get(stream_id)
            if stream is None:
                self._nuisance()
            else:
                self.forget(stream)
                stream.reset()

    def _window_update(self, stream_id: int, size: int) -> None:
        if stream_id == 0:
            if size == 0:
                raise _Broken(PROTOCOL_ERROR, "a window update of 0")
            self.opened(size)
            if self._window > self._largest_window:  # it gives back more than it took
                self._largest_window = self._window
                self._nuisance()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id > self._last_stream:
                raise _Broken(PROTOCOL_ERROR, f"a window of stream {stream_id}, never opened")
            self._nuisance()
            return
        if size == 0:
            self.give_up(stream, PROTOCOL_ERROR)
            stream.reset()
            return
        try:
            if self.stream_opened(stream, size):
                self._nuisance()
        except WindowError:
            self.give_up(stream, frames.FLOW_CONTROL_ERROR)
            stream.reset()

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _Broken(PROTOCOL_ERROR, "settings of a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise _Broken(frames.FRAME_SIZE_ERROR, f"settings of {len(payload)} bytes")
        if flags & ACK:
            return
        self._settled = True
        self._nuisance()
        self.write(frames.frame(frames.SETTINGS, ACK, 0))  # ahead of what they let go
        for key, value in dict(frames.read_settings(payload)).items():
            if key == frames.INITIAL_WINDOW_SIZE:
                self.initial_window(value)
            elif key == frames.ENABLE_PUSH and value > 1:
                raise _Broken(PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
            elif key == frames.MAX_FRAME_SIZE and not FRAME_BYTES_MAX <= value < 2**24:
                raise _Broken(PROTOCOL_ERROR, f"frames of {value} bytes")

    def _nuisance(self) -> None:
        """The peer sent what brings nothing on; it may, but not at any speed."""
        self._nuisances += 1
        if self._nuisances < NUISANCES_MAX:
            return
        now_s = self._owner.monotonic()
        if now_s - self._nuisances_since_s < NUISANCES_S:
            text = f"{NUISANCES_MAX} frames without a call"
            raise _Broken(frames.ENHANCE_YOUR_CALM, text, refusals.FLOOD)
        self._nuisances, self._nuisances_since_s = 0, now_s

    def _peer_leaves(self, stream_id: int, payload: bytes) -> None:
        if stream_id or len(payload) < 8:
            raise _Broken(frames.FRAME_SIZE_ERROR, "a GOAWAY that is none")
        code = frames.read_word(payload[4:8])
        if code not in (frames.NO_ERROR, frames.CANCEL):
            raise SessionError(f"HTTP/2: the peer goes away with error {code}")

    def go_away(self, error_code: int = frames.NO_ERROR) -> None:
        """Say that no new stream is accepted."""
        self._leaving = True
        self.write(frames.go_away(self._last_stream, error_code))


# Frames whose payload always has one size.
_SIZES: Final = {frames.PRIORITY: 5, frames.RST_STREAM: 4, frames.PING: 8, frames.WINDOW_UPDATE: 4}


def _check_frame(kind: int, stream_id: int, size: int) -> None:
    if size != _SIZES[kind]:
        raise _Broken(frames.FRAME_SIZE_ERROR, f"a frame of type {kind} with {size} bytes")
    if kind != frames.WINDOW_UPDATE and (stream_id == 0) != (kind == frames.PING):
        raise _Broken(PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream_id}")


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise _Broken(PROTOCOL_ERROR, "there is more padding than frame")
    return payload[1 : len(payload) - payload[0]]
