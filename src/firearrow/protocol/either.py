"""One port for two protocols: the first bytes of a connection say which it speaks."""

from __future__ import annotations

from firearrow.model.network import Leaving, Peer, Session, SessionFactory
from firearrow.protocol.grpc.frames import PREFACE


class EitherSession:
    """HTTP/2 when the connection begins as HTTP/2 does, else remoting: a frame cannot begin so,
    since it would be longer than any limit."""

    def __init__(self, peer: Peer, http2: SessionFactory, remoting: SessionFactory) -> None:
        self._peer = peer
        self._http2 = http2
        self._remoting = remoting
        self._seen = b""
        self._session: Session | None = None

    def receive(self, data: bytes) -> bytes:
        if self._session is not None:
            return self._session.receive(data)
        self._seen += data
        if PREFACE.startswith(self._seen[: len(PREFACE)]):
            if len(self._seen) < len(PREFACE):
                return b""
            self._session = self._http2(self._peer)
        else:
            self._session = self._remoting(self._peer)
        data, self._seen = self._seen, b""
        return self._session.receive(data)

    def leave(self, reason: str) -> None:
        """See ``model.network.Leaving``."""
        if isinstance(self._session, Leaving):
            self._session.leave(reason)
        else:
            self._peer.close(reason)

    def disconnected(self) -> None:
        if self._session is not None:
            self._session.disconnected()
