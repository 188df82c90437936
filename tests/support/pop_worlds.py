"""Brokers that tests of pop kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firearrow.config import BrokerSettings
from firearrow.model.clock import VirtualClock
from firearrow.store.memory import MemoryDisk
from tests.support.brokers import Connection, World
from tests.support.popping import (
    Got,
    ack,
    pop,
)

REVIVE = "rmq_sys_REVIVE_LOG_DefaultCluster"
TIMER = "rmq_sys_wheel_timer"


def in_memory(settings: BrokerSettings | None = None, **store_settings: Any) -> World:
    """A broker whose disk is memory, so that it can be killed."""
    clock = VirtualClock()
    return World(Path("/store"), settings, disk=MemoryDisk(clock), clock=clock, **store_settings)


def killed(world: World, **store_settings: Any) -> World:
    """The broker again, as it finds its files after kill -9: nobody has tidied up, and nothing of
    the one before runs on."""
    disk = world.store.disk
    assert isinstance(disk, MemoryDisk)
    clock = VirtualClock(world.clock.now_ms())
    disk.now_ms = clock.now_ms
    disk.unlock()
    return World(Path("/store"), world.settings, disk=disk, clock=clock, **store_settings)


def drain(world: World, client: Connection, seconds: int) -> list[Got]:
    """Everything that a consumer gets that acknowledges at once, second by second."""
    found: list[Got] = []
    for _ in range(seconds):
        while messages := pop(client):
            found += messages
            for message in messages:
                assert ack(client, message).code == 0
        world.clock.advance(1)
    return found
