"""A connection to one server that is opened when a request needs it, and again when it was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from firearrow.model.clock import Clock
from firearrow.model.network import Network, Peer, Session
from firearrow.protocol.remoting.headers import OURS, Identity
from firearrow.protocol.remoting.session import Dispatcher, Done, RemotingSession

CONNECT_S: Final = 2.0
REST_S: Final = 1.0  # after an attempt failed, requests fail at once instead of trying anew
CALLS_MAX: Final = 10_000  # that wait on one link
BYTES_MAX: Final = 64 * 1024 * 1024  # of the requests that wait for the connection


class _Waiting(NamedTuple):
    code: int
    ext: dict[str, str] | None
    body: bytes
    until_s: float
    done: Done | None


class _Burst:
    """Writes the first request of a turn of the loop at once, and what follows in the same turn in
    one piece at its end: eight requests that came in one read cost two writes."""

    __slots__ = ("_clock", "_more", "_open", "_write")

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._write = peer.send
        self._clock = clock
        self._open = False
        self._more: list[bytes] = []

    def send(self, data: bytes) -> None:
        if self._open:
            self._more.append(data)
            return
        self._open = True
        self._clock.call_soon(self._turn)
        self._write(data)

    def flush(self) -> None:
        if self._more:
            more, self._more = self._more, []
            self._write(b"".join(more))

    def _turn(self) -> None:
        self._open = False
        self.flush()


class Link:
    """Requests to the server at ``address``; what cannot be sent is told at once, not kept."""

    def __init__(
        self,
        address: tuple[str, int],
        network: Network,
        clock: Clock,
        dispatcher: Dispatcher,
        identity: Identity = OURS,
    ) -> None:
        self.address = address
        self._identity = identity
        self._network = network
        self._clock = clock
        self._dispatcher = dispatcher
        self._session: RemotingSession | None = None
        self._burst: _Burst | None = None
        self._connecting = False
        self.closed = False  # by us
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._rest_until_s = 0.0
        self._fault = ""  # of the last attempt
        # A connection stands; what is sent now comes before what waits. An attempt failed.
        self.opened: Callable[[Link], None] = lambda link: None
        self.failed: Callable[[Link], None] = lambda link: None

    @property
    def fault(self) -> str:
        """Why the last request had no answer."""
        if self._session is not None and self._session.closed:
            return "closed the connection"
        return self._fault or "does not answer"

    def call(
        self,
        code: int,
        ext: dict[str, str] | None,
        body: bytes,
        timeout_s: float,
        done: Done | None,
    ) -> None:
        """Send a request; ``done(header, body)``, or ``done(None, b"")`` when no answer came.
        Without ``done`` it is one that nobody answers."""
        session = self._session
        if session is not None and not session.closed:
            if session.calls_waiting >= CALLS_MAX:
                self._refuse(f"has {CALLS_MAX} requests to answer already", done)
            else:
                _send(session, code, ext, body, timeout_s, done)
            return
        now = self._clock.monotonic()
        if self.closed or now < self._rest_until_s:
            _give_up(done)
        elif len(self._waiting) >= CALLS_MAX or self._waiting_bytes + len(body) > BYTES_MAX:
            self._refuse("cannot be reached fast enough for the requests that wait", done)
        else:
            self._waiting.append(_Waiting(code, ext, body, now + timeout_s, done))
            self._waiting_bytes += len(body)
            self._connect()

    def close(self) -> None:
        self.closed = True
        self._fail_waiting()
        if self._session is not None and self._burst is not None:
            self._burst.flush()
            self._session.close("")

    def _refuse(self, fault: str, done: Done | None) -> None:
        self._fault = fault
        _give_up(done)

    def _connect(self) -> None:
        if not self._connecting:
            self._connecting, self._session = True, None
            self._network.connect(*self.address, self._connected, self._unreachable, CONNECT_S)

    def _connected(self, peer: Peer) -> Session:
        self._connecting = False
        self._session = RemotingSession(peer, self._dispatcher, self._clock)
        self._session.identity = self._identity
        self._burst = _Burst(peer, self._clock)
        self._session.send = self._burst.send
        self._clock.call_soon(self._send_waiting)
        return self._session

    def _send_waiting(self) -> None:
        session = self._session
        if self.closed and session is not None:
            session.close("")
        if session is None or session.closed:
            self._fail_waiting()
            return
        self._fault = ""
        self.opened(self)
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        now = self._clock.monotonic()
        for code, ext, body, until_s, done in waiting:
            if until_s > now:
                _send(session, code, ext, body, until_s - now, done)
            else:
                _give_up(done)

    def _unreachable(self, reason: str) -> None:
        self._connecting = False
        self._rest_until_s = self._clock.monotonic() + REST_S
        self._fault = f"cannot be reached: {reason}"
        self.failed(self)
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for call in waiting:
            _give_up(call.done)


def _send(
    session: RemotingSession,
    code: int,
    ext: dict[str, str] | None,
    body: bytes,
    timeout_s: float,
    done: Done | None,
) -> None:
    if done is None:
        session.notify(code, ext, body)
    else:
        session.call(code, ext, body, timeout_s, done)


def _give_up(done: Done | None) -> None:
    if done is not None:
        done(None, b"")
