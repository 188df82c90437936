"""``firearrow redrive``: asks a broker to send a group's dead letters back."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from firearrow.protocol.remoting.requests import REDRIVE_DEAD_LETTERS
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession
from firearrow.transport import loop
from firearrow.transport.network import SocketNetwork

STEP: Final = 256
CALL_S: Final = 10.0


class RedriveError(Exception):
    """It did not work; the text says why."""


async def redrive(host: str, port: int, group: str, to: str, count: int | None) -> tuple[int, int]:
    """Send back up to ``count`` dead letters (all without it); how many, and how many remain.

    Raises:
        RedriveError: no connection, or the broker refuses.
    """
    network = SocketNetwork()
    clock = loop.LoopClock()
    opened: asyncio.Future[RemotingSession] = asyncio.get_running_loop().create_future()

    def session(peer: Any) -> RemotingSession:
        made = RemotingSession(peer, Dispatcher({}), clock)
        opened.set_result(made)
        return made

    network.connect(host, port, session, lambda reason: opened.set_exception(_no_broker(reason)))
    moved = 0
    try:
        broker = await opened
        while True:
            step = STEP if count is None else min(STEP, count - moved)
            ext = await _step(broker, {"group": group, "to": to, "maxMessages": str(step)})
            moved += int(ext["moved"])
            done = int(ext["moved"]) + int(ext["skipped"])
            if not done or not int(ext["remaining"]) or moved == count:
                return moved, int(ext["remaining"])
    finally:
        await network.close()


def _no_broker(reason: str) -> RedriveError:
    return RedriveError(f"{reason}; start the broker, or give its address with -b")


async def _step(broker: RemotingSession, fields: dict[str, str]) -> dict[str, str]:
    answered: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    def done(header: Any, body: bytes) -> None:
        if header is None:
            answered.set_exception(RedriveError("the broker did not answer"))
        elif header.code != 0:
            answered.set_exception(RedriveError(header.remark or f"code {header.code}"))
        else:
            answered.set_result(header.ext or {})

    broker.call(REDRIVE_DEAD_LETTERS, fields, b"", CALL_S, done)
    return await answered


def run(address: str, group: str, to: str, count: int | None) -> tuple[int, int]:
    """``redrive`` at ``host:port``, in a loop of its own."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise RedriveError(f"{address} is no address; write host:port")
    return loop.run(redrive(host.strip("[]"), int(port), group, to, count))
