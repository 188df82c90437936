"""What a failing disk means for those who wait for it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from tests.support.brokers import Connection, World, send_fields

from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.store.disk import Mapped, RealDisk
from firearrow.store.flush import GATHER_TURNS_MAX


class BrokenDisk(RealDisk):
    """A disk whose first sync of the log's records fails, and whose next ones lie."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs = 0

    def map(self, path: str, size: int) -> Mapped:
        mapped = super().map(path, size)
        if "commitlog" in path:
            mapped.sync = self._sync  # type: ignore[method-assign]
        return mapped

    def _sync(self) -> None:
        self.syncs += 1
        if self.syncs == 2:  # the first one is that of the new, empty file
            raise OSError(errno.EIO, "Input/output error")


def test_a_failed_sync_is_never_repeated_as_a_success(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = BrokerSettings()
    settings.flush_disk_type = "SYNC_FLUSH"
    world = World(tmp_path, settings, BrokenDisk())
    client = world.connect()
    client.send(310, send_fields("orders"), b"x")
    world.clock.advance(0)
    (answer,) = client.received()
    assert answer.code == codes.FLUSH_DISK_TIMEOUT
    assert "restart" in caplog.text
    assert client.produce("orders").code == codes.SERVICE_NOT_AVAILABLE
    world.clock.advance(30)
    assert client.produce("orders").code == codes.SERVICE_NOT_AVAILABLE
    world.stop()
    assert (tmp_path / "abort").exists()


def test_with_async_flush_too_nothing_more_is_accepted(tmp_path: Path) -> None:
    world = World(tmp_path, None, BrokenDisk())
    client = world.connect()
    assert client.produce("orders", b"before").code == codes.SUCCESS
    world.clock.advance(1)
    assert client.produce("orders").code == codes.SERVICE_NOT_AVAILABLE
    assert [r.body for r in client.pull("orders").records()] == [b"before"]
    world.stop()


class CountingDisk(RealDisk):
    """Counts the syncs of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs = 0

    def map(self, path: str, size: int) -> Mapped:
        mapped = super().map(path, size)
        if "commitlog" in path:
            sync = mapped.sync
            mapped.sync = lambda: self._count(sync)  # type: ignore[method-assign]
        return mapped

    def _count(self, sync: Callable[[], None]) -> None:
        self.syncs += 1
        sync()


@pytest.fixture
def synced(tmp_path: Path) -> Iterator[tuple[World, CountingDisk, list[Connection]]]:
    """A broker that has flushed the messages of four clients together, and they are answered."""
    disk = CountingDisk()
    world = World(tmp_path, BrokerSettings(flush_disk_type="SYNC_FLUSH"), disk)
    clients = [world.connect() for _ in range(4)]
    clients[0].send(310, send_fields("orders"))  # makes topic and file
    world.clock.advance(0)
    for client in clients:
        client.send(310, send_fields("orders"))
    world.clock.advance(0)
    for client in clients:
        client.received()
    disk.syncs = 0
    yield world, disk, clients
    world.stop()


def one_each_turn(world: World, clients: Iterable[Connection]) -> None:
    """Let them send one message each, every one in a turn of the loop of its own."""
    left = iter(clients)

    def turn() -> None:
        client = next(left, None)
        if client is not None:
            client.send(310, send_fields("orders"))
            world.clock.call_soon(turn)

    turn()
    world.clock.advance(0)


def test_those_who_come_again_one_after_the_other_share_a_flush_again(
    synced: tuple[World, CountingDisk, list[Connection]],
) -> None:
    world, disk, clients = synced
    one_each_turn(world, clients)
    assert [len(client.received()) for client in clients] == [1, 1, 1, 1]
    assert disk.syncs == 1


def test_a_flush_does_not_wait_for_who_does_not_come(
    synced: tuple[World, CountingDisk, list[Connection]],
) -> None:
    """Nor for a tick of the clock: a turn of the loop that brings nothing is enough."""
    world, disk, clients = synced
    clients[0].send(310, send_fields("orders"))
    world.clock.advance(0)
    assert len(clients[0].received()) == 1
    assert disk.syncs == 1


def test_a_trickle_that_never_becomes_a_group_does_not_hold_up_the_flush(
    synced: tuple[World, CountingDisk, list[Connection]],
) -> None:
    world, disk, clients = synced
    for client in clients:
        for _ in range(20):
            client.send(310, send_fields("orders"))
    world.clock.advance(0)
    disk.syncs = 0
    one_each_turn(world, clients * 5)
    assert disk.syncs >= 20 // (GATHER_TURNS_MAX + 2)
    assert sum(len(client.received()) for client in clients) == 80 + 20
