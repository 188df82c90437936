"""A real file system that is full: nothing kills the broker, reads go on, writes come back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.brokers import send_fields
from tests.support.load import read_queue
from tests.support.program import BlockingClient, Program

from firearrow.model import codes

pytestmark = pytest.mark.slow

DISK_BYTES = 24 * 1024 * 1024
BALLAST_BYTES = 6 * 1024 * 1024
BODY_BYTES = 50_000
RECOVERY_S = 15.0
CONF = """
brokerName=full
flushDiskType={flush}
mappedFileSizeCommitLog=4194304
mappedFileSizeConsumeQueue=20000
maxHashSlotNum=10000
maxIndexNum=40000
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(where)]
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not possible here: {mounted.stderr.strip()}")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


class Broker:
    """The program on that disk, and what it acknowledged."""

    def __init__(self, disk: Path, home: Path, flush: str) -> None:
        self.disk, self.home = disk, home
        self.conf = home / "broker.conf"
        self.conf.write_text(CONF.format(flush=flush))
        self.acknowledged: list[bytes] = []

    def start(self) -> tuple[Program, BlockingClient]:
        program = Program(
            self.home,
            *("up", "--namesrv-port", "0", "--broker-port", "0"),
            *("--store", str(self.disk / "store"), "-c", str(self.conf)),
        )
        return program, BlockingClient(program.ready()["broker"])

    def send(self, client: BlockingClient) -> int:
        body = f"{len(self.acknowledged)}-{os.urandom(8).hex()}".encode().ljust(BODY_BYTES, b".")
        header, _ = client.call(310, send_fields("orders", 0, properties="KEYS\x01k\x02"), body)
        if header.code == codes.SUCCESS:
            self.acknowledged.append(body)
        return header.code

    def send_until_refused(self, client: BlockingClient) -> None:
        for _ in range(2 * DISK_BYTES // BODY_BYTES):
            code = self.send(client)
            if code != codes.SUCCESS:
                assert code == codes.SERVICE_NOT_AVAILABLE
                return
        raise AssertionError("the disk never was full")

    def send_until_accepted(self, client: BlockingClient) -> None:
        deadline = time.monotonic() + RECOVERY_S
        while self.send(client) != codes.SUCCESS:
            assert time.monotonic() < deadline, "writes do not come back"
            time.sleep(0.1)

    def check(self, client: BlockingClient) -> None:
        assert [r.body for r in read_queue(client, "orders", 0)] == self.acknowledged


def fill(path: Path) -> None:
    """Take all the space that is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(path).f_bavail == 0


@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", "SYNC_FLUSH"])
def test_a_full_disk_refuses_writes_serves_reads_and_recovers(
    disk: Path, tmp_path: Path, flush: str
) -> None:
    broker = Broker(disk, tmp_path, flush)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(BALLAST_BYTES))
    program, client = broker.start()
    with program, client:
        broker.send_until_refused(client)
        broker.check(client)
        fill(disk / "rest")  # not even a page is free
        assert broker.send(client) == codes.SERVICE_NOT_AVAILABLE
        header, _ = client.call(310, send_fields("a new topic".replace(" ", "-")), b"x")
        assert header.code == codes.SERVICE_NOT_AVAILABLE
        broker.check(client)
        assert program.stop() == 0, program.err
        assert "Traceback" not in program.err
    program, client = broker.start()  # still full
    with program, client:
        broker.check(client)
        broker.send_until_refused(client)
        ballast.unlink()
        (disk / "rest").unlink()
        broker.send_until_accepted(client)
        fill(disk / "rest")
        broker.send_until_refused(client)  # in the middle of what was reserved
        broker.check(client)
        program.kill()
    program, client = broker.start()  # full, and after a crash
    with program, client:
        broker.check(client)
        (disk / "rest").unlink()
        broker.send_until_accepted(client)
        broker.check(client)
        assert program.stop() == 0
        assert "Traceback" not in program.err
    program, client = broker.start()
    with program, client:
        broker.check(client)
