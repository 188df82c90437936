"""The seam between sans-IO sessions and the sockets that carry them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable


class SessionError(Exception):
    """The peer broke the protocol; the connection must be closed. The text is for the log, unless
    who raised it has ``counted`` it and says itself what matters."""

    def __init__(self, text: str, *, counted: bool = False) -> None:
        super().__init__(text)
        self.counted = counted


class Peer(Protocol):
    """One connection, as the session that lives on it may use it."""

    remote: tuple[str, int]  # address and port of the client; behind a proxy, the client's own
    local: tuple[str, int]  # the address that the client reached us by
    closed: bool

    def send(self, data: bytes) -> None:
        """Write; never blocks. A peer that does not read is closed at the buffer limit."""

    def close(self, reason: str) -> None:
        """Close after what was written has left; ``reason`` goes to the log, unless empty."""


class Session(Protocol):
    """The protocol state of one connection."""

    def receive(self, data: bytes) -> bytes:
        """Take what was read, give what must be written at once (often empty).

        Raises:
            SessionError: the peer broke the protocol.
        """

    def disconnected(self) -> None:
        """The connection is gone; called once."""


@runtime_checkable
class Leaving(Protocol):
    """A session that takes its leave of the peer, and then closes the connection itself."""

    def leave(self, reason: str) -> None: ...


SessionFactory = Callable[[Peer], Session]


class Network(Protocol):
    """Outgoing connections."""

    def connect(
        self,
        host: str,
        port: int,
        factory: SessionFactory,
        failed: Callable[[str], None],
        timeout_s: float = 3.0,
    ) -> None:
        """Open a connection and start the session, or call ``failed`` with the reason."""
