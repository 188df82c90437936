"""What a failing disk means for those who wait for it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from tests.support.brokers import World, send_fields

from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.store.disk import Mapped, RealDisk


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
