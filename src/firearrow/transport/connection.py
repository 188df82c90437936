"""One socket and the session that lives on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from firearrow.model.clock import Clock
from firearrow.model.network import Leaving, Session, SessionError, SessionFactory
from firearrow.transport.limits import Limits
from firearrow.transport.loop import Wakefulness

log = logging.getLogger(__name__)

Address = tuple[str, int]


def plain_address(name: Any) -> Address:
    """A socket name as host and port; an IPv4 peer of a dual-stack socket keeps its IPv4 form."""
    if not name:  # the peer was gone before we asked
        return ("0.0.0.0", 0)  # noqa: S104 - an unknown address, nothing listens on it
    host, port = name[0], name[1]
    return (host.removeprefix("::ffff:") if "." in host else host, port)


class Connections:
    """The open connections of one listener or network, and a way to wait for the last."""

    __slots__ = ("_waiting", "members", "wakefulness")

    def __init__(self) -> None:
        self.members: set[Connection] = set()
        self.wakefulness = Wakefulness()
        self._waiting: asyncio.Event | None = None

    def lost(self, connection: Connection) -> None:
        self.members.discard(connection)
        if self._waiting is not None and not self.members:
            self._waiting.set()

    async def gone(self, clock: Clock | None = None, grace_s: float = 0.0) -> None:
        """Return when none is left, or, with a clock, after the grace."""
        if not self.members:
            return
        self._waiting = event = asyncio.Event()
        timer = clock.call_later(grace_s, event.set) if clock is not None else None
        await event.wait()
        if timer is not None:
            timer.cancel()


class Connection(asyncio.Protocol):
    """Implements ``model.network.Peer``: one write for what one read brought.

    ``asyncio.Protocol`` and not ``BufferedProtocol``: a session keeps parts of what it was given,
    so it needs bytes of its own, and one callback a read is cheaper than two. ``send`` writes at
    once: the turn of the loop that collecting needs costs every lone send more than it saves.
    """

    __slots__ = (
        "_factory",
        "_limits",
        "_owner",
        "_paused",
        "_receive",
        "_session",
        "_stay_awake",
        "_transport",
        "_write",
        "active",
        "closed",
        "local",
        "quiet_sweeps",
        "remote",
    )

    remote: Address
    local: Address
    _transport: asyncio.Transport
    _receive: Callable[[bytes], bytes]
    _write: Callable[[bytes], None]

    def __init__(
        self,
        factory: SessionFactory,
        limits: Limits,
        owner: Connections,
        remote: Address | None = None,
        local: Address | None = None,
    ) -> None:
        self._factory = factory
        self._limits = limits
        self._owner = owner
        self._stay_awake = owner.wakefulness.extend
        self._session: Session | None = None
        self._paused = False
        self.closed = False
        self.active = True  # something moved since the last sweep
        self.quiet_sweeps = 0
        if remote is not None:
            self.remote = remote
        if local is not None:
            self.local = local

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = wire = cast(asyncio.Transport, transport)
        self._write = wire.write
        self._owner.members.add(self)
        if not hasattr(self, "remote"):
            self.remote = plain_address(wire.get_extra_info("peername"))
        if not hasattr(self, "local"):
            self.local = plain_address(wire.get_extra_info("sockname"))
        wire.set_write_buffer_limits(high=self._limits.write_high_water_bytes)
        try:
            self._session = self._factory(self)
        except Exception:
            log.exception("cannot serve %s:%d; this is a defect, please report it", *self.remote)
            self.abort()
        else:
            self._receive = self._session.receive

    def data_received(self, data: bytes) -> None:
        self.active = True
        if self.closed:
            return
        try:
            answer = self._receive(data)
        except SessionError as error:
            self.close(str(error), logging.DEBUG if error.counted else logging.INFO)
        except Exception:
            log.exception(
                "closing %s:%d, its session failed; this is a defect, please report it",
                *self.remote,
            )
            self.abort()
        else:
            if answer and not self.closed:
                self._write(answer)
                if self._paused:
                    self._check_buffer()
            self._stay_awake()  # from here on the client has its time for the next request

    def pause_writing(self) -> None:
        self._paused = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        session, self._session = self._session, None
        if session is not None:
            del self._receive  # it holds the session, which holds this
            try:
                session.disconnected()
            except Exception:
                log.exception(
                    "the session of %s:%d failed while it ended; this is a defect, please report "
                    "it",
                    *self.remote,
                )
        self._owner.lost(self)

    # -- Peer

    def send(self, data: bytes) -> None:
        if self.closed:
            return
        self.active = True
        self._write(data)
        if self._paused:
            self._check_buffer()

    def close(self, reason: str, level: int = logging.INFO) -> None:
        if self.closed:
            return
        self.closed = True
        if reason:
            log.log(level, "closing %s:%d: %s", *self.remote, reason)
        self._transport.close()

    # -- what the owner calls

    def hang_up(self, reason: str) -> None:
        """Close, after the protocol's own goodbye where it has one."""
        if not self.closed and isinstance(self._session, Leaving):
            self._session.leave(reason)
        else:
            self.close(reason)

    def abort(self) -> None:
        """Close at once; what was not yet sent is lost."""
        self.closed = True
        self._transport.abort()

    def sweep(self, quiet_sweeps_max: int) -> None:
        """Close when nothing moved for so many sweeps; end a close that the peer holds up."""
        if self.active:
            self.active = False
            self.quiet_sweeps = 0
            return
        self.quiet_sweeps += 1
        if self.closed:
            self.abort()
        elif self.quiet_sweeps >= quiet_sweeps_max:
            self.hang_up(f"idle for {self._limits.idle_s:g} s")

    def _check_buffer(self) -> None:
        waiting = self._transport.get_write_buffer_size()
        if waiting > self._limits.write_buffer_bytes_max and not self.closed:
            log.warning(
                "closing %s:%d: it does not read; %d bytes wait for it, the limit is %d",
                *self.remote,
                waiting,
                self._limits.write_buffer_bytes_max,
            )
            self.abort()
