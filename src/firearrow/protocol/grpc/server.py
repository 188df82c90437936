"""Every gRPC connection of a server."""

from __future__ import annotations

from collections.abc import Mapping

from firearrow.model.clock import Clock
from firearrow.model.network import Peer
from firearrow.protocol.grpc.calls import Method
from firearrow.protocol.grpc.refusals import Refusals
from firearrow.protocol.grpc.session import GrpcSession


class GrpcServer:
    """Makes the sessions of one service, and knows those that are open."""

    def __init__(self, methods: Mapping[str, Method], clock: Clock) -> None:
        self._methods = methods
        self._clock = clock
        self._sessions: set[GrpcSession] = set()
        self.refusals = Refusals(clock)

    def __len__(self) -> int:
        return len(self._sessions)

    def connect(self, peer: Peer) -> GrpcSession:
        """The session of a new connection."""
        session = GrpcSession(
            peer, self._methods, self._clock, self._sessions.discard, self.refusals
        )
        self._sessions.add(session)
        return session

    def state(self) -> dict[str, str]:
        """Counters, as GET_BROKER_RUNTIME_INFO shows them."""
        counts = self.refusals.counts.items()
        refused = {f"grpcRefused{kind[0].upper()}{kind[1:]}": str(count) for kind, count in counts}
        return {"grpcConnections": str(len(self)), **refused}

    def leave(self, reason: str) -> None:
        """Ask every client to go elsewhere; the sessions close when their calls are answered."""
        for session in list(self._sessions):
            session.leave(reason)
