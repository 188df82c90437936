"""A listening socket: plain, TLS and PROXY-wrapped connections on one port.

An accepted socket waits, unread, until its first bytes tell what it is; they are only looked at
(MSG_PEEK), so the loop's own transport then reads the stream from its start. A PROXY preamble is
the exception: it is read, exactly to its end. A socket that waits for more bytes than it has sets
SO_RCVLOWAT, so half a preamble does not wake the loop again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from typing import Final

from firearrow.model.clock import Clock
from firearrow.model.network import SessionFactory
from firearrow.transport.connection import Address, Connection, Connections, plain_address
from firearrow.transport.detect import (
    PEEK_BYTES,
    Kind,
    Opening,
    PreambleError,
    after_preamble,
    detect,
)
from firearrow.transport.limits import SWEEP_S, Limits
from firearrow.transport.tls import TlsMode, TlsPolicy, TlsServer

log = logging.getLogger(__name__)

BACKLOG: Final = 1024  # as Netty's SO_BACKLOG in RocketMQ
ACCEPT_BATCH: Final = 64  # accepted before other sockets get their turn
ACCEPT_PAUSE_S: Final = 1.0  # after the system had no descriptor or memory for one more
TLS_HANDSHAKE_S: Final = 10.0

# What `accept` says when the system is out of something; all else is about the one connection.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class PortBusy(Exception):  # noqa: N818 - the name says it
    """Another process listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"port {port} on {host or 'all addresses'} is in use: stop the other server, "
            "or choose another port with listenPort"
        )
        self.host = host
        self.port = port


class _Waiting:
    """An accepted socket whose first bytes have not told yet what it is."""

    __slots__ = ("destination", "proxied", "quiet_sweeps", "seen", "sock", "source")

    def __init__(self, sock: socket.socket, source: Address) -> None:
        self.sock = sock
        self.source = source
        self.destination: Address | None = None
        self.proxied = False
        self.seen = 0  # bytes looked at last time
        self.quiet_sweeps = 0


class Listener:
    """Accepts on one address until closed; see ``listen``."""

    def __init__(
        self,
        sock: socket.socket,
        factory: SessionFactory,
        tls: TlsServer,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self.address: Address = plain_address(sock.getsockname())
        self._connections = Connections()
        self.connections = self._connections.members
        self._sock = sock
        self._factory = factory
        self._tls = tls
        self._limits = limits
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: set[_Waiting] = set()
        self._adopting: dict[asyncio.Task[None], socket.socket] = {}
        self._exhausted = False  # said once, until an accept succeeds again
        self._full = False
        self._closed = False
        self._quiet_sweeps_max = max(1, round(limits.idle_s / SWEEP_S))
        self._timer = clock.call_later(SWEEP_S, self._sweep)
        self._loop.add_reader(sock, self._accept)

    # -- accepting

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                sock, name = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # the peer left before we came
                self._pause(error)
                return
            self._exhausted = False
            self._accepted(sock, plain_address(name))

    def _accepted(self, sock: socket.socket, source: Address) -> None:
        sock.setblocking(False)
        if self._count() >= self._limits.connections_max:
            if not self._full:
                log.warning(
                    "refusing %s:%d and others: %d connections are open, and that is the limit; "
                    "see which clients open so many",
                    *source,
                    self._count(),
                )
            self._full = True
            sock.close()
            return
        self._full = False
        with contextlib.suppress(OSError):  # already reset; the first look will notice
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting = _Waiting(sock, source)
        self._waiting.add(waiting)
        self._loop.add_reader(sock, self._look, waiting)

    def _count(self) -> int:
        return len(self.connections) + len(self._waiting) + len(self._adopting)

    def _pause(self, error: OSError) -> None:
        if not self._exhausted:
            log.error(
                "cannot accept connections on %s:%d: %s. Those that are open go on; it is tried "
                "again every %g s. Raise the limit of open files (ulimit -Hn), or let there be "
                "fewer clients",
                *self.address,
                error.strerror or error,
                ACCEPT_PAUSE_S,
            )
        self._exhausted = True
        self._loop.remove_reader(self._sock)
        self._clock.call_later(ACCEPT_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock, self._accept)

    # -- looking at first bytes

    def _look(self, waiting: _Waiting) -> None:
        waiting.quiet_sweeps = 0
        try:
            opening = self._peek(waiting)
            if opening is not None and opening.kind is Kind.PROXY:
                _read_preamble(waiting, opening)
                opening = self._peek(waiting)
        except PreambleError as error:
            self._refuse(waiting, str(error))
        except BlockingIOError:
            return
        except OSError as error:
            self._refuse(waiting, str(error), logging.DEBUG)
        else:
            if opening is None:
                self._refuse(waiting, "it left before it said anything", logging.DEBUG)
            elif opening.kind is not Kind.MORE:
                self._admit(waiting, opening.kind is Kind.TLS)

    def _peek(self, waiting: _Waiting) -> Opening | None:
        """Look at what came; ``None`` when the peer left."""
        data = waiting.sock.recv(PEEK_BYTES, socket.MSG_PEEK)
        if len(data) <= waiting.seen:
            return None  # woken, and not for more bytes
        opening = after_preamble(data) if waiting.proxied else detect(data)
        if opening.kind is Kind.MORE:
            waiting.seen = len(data)
            _wake_at(waiting.sock, opening.size)
        elif waiting.seen:
            waiting.seen = 0
            _wake_at(waiting.sock, 1)
        return opening

    def _admit(self, waiting: _Waiting, wants_tls: bool) -> None:
        context: ssl.SSLContext | None = None
        if wants_tls:
            context = self._tls.context()
            if context is None:
                self._refuse(waiting, self._tls.refusal())
                return
        elif self._tls.policy.mode is TlsMode.ENFORCING:
            self._refuse(waiting, "it does not use TLS, and --tls-mode is enforcing")
            return
        self._forget(waiting)
        connection = Connection(
            self._factory, self._limits, self._connections, waiting.source, waiting.destination
        )
        task = self._loop.create_task(self._adopt(connection, waiting.sock, context))
        self._adopting[task] = waiting.sock
        task.add_done_callback(self._adopted)

    async def _adopt(
        self, connection: Connection, sock: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=context,
                ssl_handshake_timeout=TLS_HANDSHAKE_S if context else None,
            )
        except OSError as error:  # ssl.SSLError and TimeoutError among them
            log.info("no connection with %s:%d: %s", *connection.remote, error)
            sock.close()

    def _adopted(self, task: asyncio.Task[None]) -> None:
        sock = self._adopting.pop(task)
        if task.cancelled():
            sock.close()

    def _forget(self, waiting: _Waiting) -> None:
        self._waiting.discard(waiting)
        self._loop.remove_reader(waiting.sock)

    def _refuse(self, waiting: _Waiting, reason: str, level: int = logging.WARNING) -> None:
        log.log(level, "closing %s:%d: %s", *waiting.source, reason)
        self._forget(waiting)
        waiting.sock.close()

    # -- leaving

    def _sweep(self) -> None:
        self._timer = self._clock.call_later(SWEEP_S, self._sweep)
        for connection in list(self.connections):
            connection.sweep(self._quiet_sweeps_max)
        for waiting in list(self._waiting):
            waiting.quiet_sweeps += 1
            if waiting.quiet_sweeps > self._quiet_sweeps_max:
                self._refuse(waiting, f"idle for {self._limits.idle_s:g} s", logging.INFO)

    def close(self) -> None:
        """Stop accepting; connections go on."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for waiting in list(self._waiting):
            self._refuse(waiting, "the listener closes", logging.DEBUG)

    def hang_up(self) -> None:
        """Stop accepting, and begin to close every connection: what was written still leaves."""
        self.close()
        for connection in list(self.connections):
            connection.hang_up("the server stops")

    async def drain(self, grace_s: float = 3.0) -> None:
        """Stop accepting, close every connection after what was written left, then by force."""
        self.hang_up()
        await self._connections.gone(self._clock, grace_s)
        await self.close_all()

    async def close_all(self) -> None:
        """Stop accepting and drop every connection; returns when all are gone."""
        self.close()
        self._timer.cancel()
        adopting = list(self._adopting)
        for task in adopting:
            task.cancel()
        await asyncio.gather(*adopting, return_exceptions=True)
        for connection in list(self.connections):
            connection.abort()
        await self._connections.gone()


def _read_preamble(waiting: _Waiting, opening: Opening) -> None:
    waiting.sock.recv(opening.size)
    waiting.proxied = True
    waiting.source = opening.source or waiting.source
    waiting.destination = opening.destination


def _wake_at(sock: socket.socket, size: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


async def bind(host: str, port: int, *, hold: bool = False) -> socket.socket:
    """Take a port; port 0 takes a free one. ``host`` is a name, an address, or "" for all.

    Clients are refused until ``listen_on``, unless the port is held against others by listening
    already. A free port is: another broker may come to the same number, as its fast port, and
    only one of them could listen in the end.

    Raises:
        PortBusy: another process listens there.
        OSError: the address is not ours, or the port not allowed.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or "0.0.0.0",  # noqa: S104 - as RocketMQ, unless bindAddress says otherwise
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        if hold or not port:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortBusy(host, port) from error
        raise
    return sock


def listen_on(
    sock: socket.socket,
    session_factory: SessionFactory,
    *,
    tls: TlsPolicy,
    limits: Limits,
    clock: Clock,
) -> Listener:
    """Listen on a socket that ``bind`` gave; the listener owns it.

    Raises:
        PortBusy: another process listens there since it was bound.
        TlsConfigError: the TLS settings cannot work.
    """
    try:
        server = TlsServer(tls, clock)
        sock.listen(BACKLOG)
    except OSError as error:
        host, port = plain_address(sock.getsockname())
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortBusy(host, port) from error
        raise
    except Exception:
        sock.close()
        raise
    return Listener(sock, session_factory, server, limits, clock)


async def listen(
    host: str,
    port: int,
    session_factory: SessionFactory,
    *,
    tls: TlsPolicy,
    limits: Limits,
    clock: Clock,
) -> Listener:
    """``bind`` and ``listen_on`` in one."""
    sock = await bind(host, port)
    return listen_on(sock, session_factory, tls=tls, limits=limits, clock=clock)
