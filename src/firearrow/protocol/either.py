"""One port for two protocols: the first bytes of a connection say which it speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from firearrow.model.network import Leaving, Peer, Session, SessionError, SessionFactory
from firearrow.protocol.grpc.frames import PREFACE
from firearrow.protocol.grpc.refusals import NOT_GRPC

_HTTP1: Final = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"DELETE ", b"CONNECT ")
_TEXT: Final = b"""\
This port of a RocketMQ server speaks gRPC (HTTP/2) and remoting: point a RocketMQ client at it.
"""
_HTTP1_ANSWER: Final = b"\r\n".join(
    [
        b"HTTP/1.1 426 Upgrade Required",
        b"Upgrade: h2c",
        b"Content-Type: text/plain",
        b"Content-Length: %d" % len(_TEXT),
        b"Connection: close",
        b"",
        _TEXT,
    ]
)


class EitherSession:
    """HTTP/2 when the connection begins as HTTP/2 does, else remoting: a frame cannot begin so,
    since it would be longer than any limit."""

    def __init__(
        self,
        peer: Peer,
        http2: SessionFactory,
        remoting: SessionFactory,
        refused: Callable[[str, tuple[str, int]], None],
    ) -> None:
        self._peer = peer
        self._refused = refused
        self._http2 = http2
        self._remoting = remoting
        self._seen = b""
        self._session: Session | None = None

    def receive(self, data: bytes) -> bytes:
        if self._session is not None:
            return self._session.receive(data)
        self._seen += data
        if self._undecided():
            return b""
        if self._seen.startswith(_HTTP1):
            self._peer.send(_HTTP1_ANSWER)
            self._refused(NOT_GRPC, self._peer.remote)
            raise SessionError("HTTP/1 on a port for gRPC and remoting", counted=True)
        if PREFACE.startswith(self._seen[: len(PREFACE)]):
            self._session = self._http2(self._peer)
        else:
            self._session = self._remoting(self._peer)
        data, self._seen = self._seen, b""
        return self._session.receive(data)

    def _undecided(self) -> bool:
        seen = self._seen
        return len(seen) < len(PREFACE) and any(
            text.startswith(seen) for text in (PREFACE, *_HTTP1)
        )

    def leave(self, reason: str) -> None:
        """See ``model.network.Leaving``."""
        if isinstance(self._session, Leaving):
            self._session.leave(reason)
        else:
            self._peer.close(reason)

    def disconnected(self) -> None:
        if self._session is not None:
            self._session.disconnected()
