"""The seam to an HTTP/2 engine: bytes in, events out, and the reverse. No engine knows a socket.

Two engines pass the same tests: ``zttp`` where it is installed (compiled, many times faster) and
``h2`` (pure Python).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

Headers = list[tuple[bytes, bytes]]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAMS_MAX: Final = 1000  # at a time, a connection
HEADER_BYTES_MAX: Final = 64 * 1024
WINDOW_BYTES: Final = 4 * 1024 * 1024  # what a peer may send ahead, a stream

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
CANCEL: Final = 8
ENHANCE_YOUR_CALM: Final = 11


class Started(NamedTuple):
    """A request's headers, pseudo headers among them."""

    stream_id: int
    headers: Headers
    ended: bool  # nothing follows


class Received(NamedTuple):
    """Some bytes of a request's body."""

    stream_id: int
    data: bytes


class Ended(NamedTuple):
    """The peer has sent everything."""

    stream_id: int


class Reset(NamedTuple):
    """The peer gave the stream up, or the engine refused it."""

    stream_id: int


Event = Started | Received | Ended | Reset


class Engine(Protocol):
    """The server's side of one connection. Frames to write collect until ``output``."""

    def receive(self, data: bytes) -> list[Event]:
        """Take what was read.

        Raises:
            SessionError: the peer broke HTTP/2; ``output`` may hold a last GOAWAY.
        """

    def output(self) -> bytes:
        """What must be written now."""

    def headers(self, stream_id: int, headers: Headers, *, end: bool = False) -> None:
        """Begin a response; ``end``: headers alone are the response."""

    def data(self, stream_id: int, data: bytes) -> None:
        """Add to a response. What the peer's window does not allow yet waits in the engine."""

    def end(self, stream_id: int, trailers: Headers) -> None:
        """End a response with trailers, behind all its data."""

    def reset(self, stream_id: int, error_code: int) -> None:
        """Give a stream up."""

    def waiting_bytes(self, stream_id: int) -> int:
        """Response bytes that wait for the peer's window."""

    def go_away(self, error_code: int = NO_ERROR) -> None:
        """Say that no new stream is accepted."""


def best_engine() -> Callable[[], Engine]:
    """The fastest engine that is installed."""
    if importlib.util.find_spec("zttp") is not None:
        from firearrow.protocol.grpc.engine_zttp import ZttpEngine

        return ZttpEngine
    from firearrow.protocol.grpc.engine_h2 import H2Engine

    return H2Engine
