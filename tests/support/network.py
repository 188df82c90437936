"""Connections between servers in one test, on its clock: nothing is delivered until it moves."""

from __future__ import annotations

from collections.abc import Callable

from firearrow.model.clock import VirtualClock
from firearrow.model.network import Session, SessionFactory

Address = tuple[str, int]


class End:
    """One end of a connection."""

    def __init__(self, clock: VirtualClock, local: Address, remote: Address) -> None:
        self.local, self.remote = local, remote
        self.closed = False
        self.close_reason = ""
        self.other: End
        self.session: Session
        self.deaf = False  # takes everything and answers nothing, as a host without power
        self._clock = clock

    def send(self, data: bytes) -> None:
        if data and not self.closed:
            self._clock.call_soon(self.other.arrived, bytes(data))

    def arrived(self, data: bytes) -> None:
        if not self.closed and not self.deaf:
            self.send(self.session.receive(data))

    def close(self, reason: str) -> None:
        """What was sent before still arrives, as with TCP."""
        self.close_reason = self.close_reason or reason
        if not self.closed:
            self.closed = True
            self._clock.call_soon(self.session.disconnected)
            self._clock.call_soon(self.other.ended)

    def ended(self) -> None:
        """The other side has closed."""
        if not self.closed:
            self.closed = True
            self.session.disconnected()


class VirtualNetwork:
    """``model.network.Network`` without sockets."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._servers: dict[Address, SessionFactory] = {}
        self._ports = iter(range(30000, 40000))
        self.accepted: list[End] = []
        self.attempts = 0

    def serve(self, address: Address, factory: SessionFactory) -> None:
        self._servers[address] = factory

    def stop(self, address: Address) -> None:
        """The server ends; its connections too."""
        del self._servers[address]
        for end in self.accepted:
            if end.local == address:
                end.close("the server ended")

    def connect(
        self,
        host: str,
        port: int,
        factory: SessionFactory,
        failed: Callable[[str], None],
        timeout_s: float = 3.0,
    ) -> None:
        self._clock.call_soon(self._connect, (host, port), factory, failed)

    def _connect(
        self, address: Address, factory: SessionFactory, failed: Callable[[str], None]
    ) -> None:
        self.attempts += 1
        server = self._servers.get(address)
        if server is None:
            failed(f"cannot connect to {address[0]}:{address[1]}: refused")
            return
        client_address = ("127.0.0.1", next(self._ports))
        client = End(self._clock, client_address, address)
        accepted = End(self._clock, address, client_address)
        client.other, accepted.other = accepted, client
        accepted.session = server(accepted)
        client.session = factory(client)
        self.accepted.append(accepted)
