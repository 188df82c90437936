"""The process is gone at any call of the disk while a message is popped and acknowledged."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from tests.support.brokers import World
from tests.support.faults import FaultDisk, Stopped
from tests.support.popping import ack, bodies, pop, produce

from firearrow.config import BrokerSettings
from firearrow.model.clock import VirtualClock

ROOT: Final = Path("/store")
MESSAGES: Final = 4
INVISIBLE_S: Final = 10


class Run:
    """One consumer, and what it knows when the end comes."""

    def __init__(self, at: int) -> None:
        self.clock = VirtualClock()
        self.disk = FaultDisk(self.clock, at, "STOP" if at else "")
        self.had: list[bytes] = []  # popped
        self.over: list[bytes] = []  # acknowledged
        self.asked: list[bytes] = []  # ... or perhaps
        self.first_call = 0

    def play(self) -> None:
        world = World(ROOT, BrokerSettings(revive_queue_num=1), self.disk, self.clock)
        client = world.connect()
        produce(client, *(b"%d" % n for n in range(MESSAGES)))
        pop(client, maxMsgNums=0)  # the group and the retry topic's rules are known
        self.clock.advance(1)
        self.first_call = len(self.disk.trace)
        for _ in range(MESSAGES - 1):
            (message,) = pop(client, maxMsgNums=1)
            self.had.append(message.body)
            if message.body != b"1":
                self.asked.append(message.body)
                ack(client, message)
                self.over.append(message.body)


def calls() -> range:
    run = Run(0)
    run.play()
    return range(run.first_call + 1, len(run.disk.trace) + 1)


@pytest.mark.parametrize("at", calls())
def test_nothing_is_lost_and_nobody_gets_what_somebody_has(at: int) -> None:
    run = Run(at)
    with pytest.raises(Stopped):
        run.play()
    clock = VirtualClock(run.clock.now_ms())
    run.disk.heal(clock)
    world = World(ROOT, BrokerSettings(revive_queue_num=1), run.disk, clock)
    client = world.connect()
    now: list[bytes] = []  # at once, and acknowledged
    while messages := pop(client):
        now += bodies(messages)
        for message in messages:
            ack(client, message)
    later: list[bytes] = []
    for _ in range(60):
        clock.advance(1)
        messages = pop(client)
        later += bodies(messages)
        for message in messages:
            ack(client, message)
    world.stop()
    assert not set(now) & set(run.had), "it had an owner"
    came = now + later
    assert not set(came) & set(run.over), "it was over"
    assert len(came) == len(set(came)), "it came twice"
    assert {*came, *run.asked} == {b"%d" % n for n in range(MESSAGES)}, "something is lost"
