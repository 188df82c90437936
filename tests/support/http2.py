"""A peer that speaks HTTP/2 frame by frame."""

from __future__ import annotations

from collections.abc import Iterator

import hpack

from firearrow.protocol.grpc import frames
from firearrow.protocol.grpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from firearrow.protocol.grpc.session import GrpcSession
from tests.support.brokers import FakePeer
from tests.support.grpc import GrpcWorld

EMPTY = bytes(5)  # a message without fields
BEGIN = PREFACE + frame(SETTINGS, 0, 0)


class Raw:
    """A peer that writes frames of its own making."""

    def __init__(self, world: GrpcWorld) -> None:
        self.peer = FakePeer(1)
        self.session = GrpcSession(self.peer, world.methods, world.world.clock)
        self.decoder = hpack.Decoder()

    def write(self, *data: bytes) -> list[tuple[int, int, int, bytes]]:
        """The frames that come back: type, flags, stream, payload."""
        return list(read_frames(self.session.receive(b"".join(data))))

    def begin(self) -> Raw:
        kinds = [kind for kind, *_ in self.write(BEGIN)]
        assert kinds == [SETTINGS, WINDOW_UPDATE, SETTINGS]
        return self

    def check(self, stream_id: int) -> bytes:
        """A whole call."""
        return open_stream(stream_id) + frame(DATA, END_STREAM, stream_id, EMPTY)


def open_stream(stream_id: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream_id, block())


def block(method: str = "Check") -> bytes:
    """A request's headers, readable wherever it stands."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/grpc.health.v1.Health/{method}"),
            ("content-type", "application/grpc"),
        ]
    )


def read_frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    while data:
        high, low, kind, flags, stream_id = frames.HEAD.unpack_from(data)
        size = high << 16 | low
        yield kind, flags, stream_id, data[9 : 9 + size]
        data = data[9 + size :]
