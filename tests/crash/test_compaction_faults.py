"""Every call of the disk fails, is torn, or is the last one, while a compaction topic is written
and compacted; then it is opened again. The newest acknowledged value of every key must be there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.brokers import Connection, World, send_fields
from tests.support.faults import FaultDisk, Stopped

from firearrow.codec.record import Record
from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.model.clock import VirtualClock

ROOT = Path("/store")
TOPIC = "prices"
INTERVAL_S: Final = 120
# Every third call by default, so that the quick run stays quick; all with FIREARROW_FAULT_STEP=1.
STEP: Final = int(os.environ.get("FIREARROW_FAULT_STEP", "3"))
REFUSALS: Final = {codes.SYSTEM_ERROR, codes.SERVICE_NOT_AVAILABLE, codes.FLUSH_DISK_TIMEOUT}


def open_world(disk: FaultDisk, clock: VirtualClock) -> World:
    disk.now_ms = clock.now_ms
    return World(
        ROOT,
        BrokerSettings(),
        disk,
        clock,
        mapped_file_size_commit_log=32 * 1024,
        mapped_file_size_consume_queue=200,
        compaction_cq_mapped_file_size=460,
        compaction_mapped_file_size=8000,
        compaction_schedule_internal=INTERVAL_S * 1000,
        message_index_enable=False,
    )


class Run:
    """The script, and what the broker promised meanwhile."""

    def __init__(self, disk: FaultDisk, clock: VirtualClock) -> None:
        self.disk = disk
        self.clock = clock
        self.sent: dict[int, tuple[str, bytes]] = {}  # acknowledged: offset -> key and body
        self.ends: dict[int, int] = {}  # ... where the record begins in the commit log
        self.flushed = 0
        self.codes: set[int] = set()

    def play(self) -> None:
        self.world = open_world(self.disk, self.clock)
        self.client = self.world.connect()
        fields = {"topic": TOPIC, "defaultTopic": "TBW102", "readQueueNums": 1, "perm": 6}
        fields |= {"writeQueueNums": 1, "topicFilterType": "SINGLE_TAG", "order": "false"}
        self.client.send(17, {**fields, "attributes": "+cleanup.policy=COMPACTION"})
        self.clock.advance(2)
        self.produce(24, keys=4)
        self.wait(2)
        self.wait(INTERVAL_S)  # a compaction
        self.produce(22, keys=7)
        self.produce(1, keys=1, body=b"")
        self.wait(2)
        self.wait(INTERVAL_S)  # another one, of files with gaps
        self.produce(3, keys=3)
        self.wait(62)
        self.world.stop()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.flushed = max(self.flushed, self.world.store.flushed_offset())

    def produce(self, count: int, keys: int, body: bytes | None = None) -> None:
        for _ in range(count):
            n = len(self.sent)
            key, text = f"k{n % keys}", b"v%d" % n if body is None else body
            self.client.received()
            properties = f"UNIQ_KEY\x01U{n}\x02KEYS\x01{key}\x02"
            self.client.send(310, send_fields(TOPIC, properties=properties), text)
            self.clock.advance()
            for answer in self.client.received():
                self.codes.add(answer.code)
                if answer.code == codes.SUCCESS:
                    offset = int(answer.ext["queueOffset"])
                    self.sent[offset] = key, text
                    self.ends[offset] = int(answer.ext["msgId"][-16:], 16)


def play(kind: str, at: int, seed: int = 0) -> Run:
    clock = VirtualClock()
    run = Run(FaultDisk(clock, at, kind, seed), clock)
    try:
        run.play()
    except Stopped:
        assert kind == "STOP"
    except OSError:
        if hasattr(run, "world"):  # else the start is refused, which is fine
            raise
    return run


def read_all(client: Connection) -> dict[int, Record]:
    found: dict[int, Record] = {}
    offset = 0
    while True:
        answer = client.pull(TOPIC, 0, offset)
        if answer.code == codes.SUCCESS:
            for record in answer.records():
                assert record.queue_offset >= offset
                found[record.queue_offset] = record
        elif answer.code != codes.PULL_RETRY_IMMEDIATELY:
            return found
        offset = int(answer.ext["nextBeginOffset"])


def check(run: Run, world: World, survived: int) -> None:
    """Everything that is there was sent; the newest value of each key is there."""
    found = read_all(world.connect())
    newest: dict[str, int] = {}
    for offset, (key, _) in run.sent.items():
        if run.ends[offset] < survived:
            newest[key] = offset
    for offset, record in found.items():
        if offset in run.sent:
            assert record.body == run.sent[offset][1], offset
    for key, offset in newest.items():
        newer = {n for n in found if n >= offset and run.sent.get(n, ("",))[0] == key}
        if run.sent[offset][1]:  # a newer one may have survived though nobody promised it
            assert newer, f"{key} at {offset} is lost"
            assert survived < 1 << 60 or min(newer) == offset


def judge(run: Run, disk: FaultDisk, survived: int = 1 << 60) -> None:
    for _ in range(2):
        clock = VirtualClock(run.clock.now_ms())
        world = open_world(disk, clock)
        check(run, world, survived)
        clock.advance(2 * INTERVAL_S)  # whatever was interrupted is done again
        check(run, world, survived)
        world.stop()
        names = {path for path in disk.files if "/compaction/" in path}
        assert not [path for path in names if ".delete" in path or "rewriting" in path]
        logs = {path.replace("compactionLog", "compactionCq") for path in names if "Log/" in path}
        assert logs == {path for path in names if "Cq/" in path}


@pytest.fixture
def complaints() -> Iterator[list[logging.LogRecord]]:
    """What an operator reads."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Keep(logging.WARNING)
    logger = logging.getLogger("firearrow")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    yield records
    logger.removeHandler(handler)
    logger.propagate = propagate


def test_the_script_itself_compacts() -> None:
    run = play("", 0)
    assert run.codes == {codes.SUCCESS}
    renamed = [call.path for call in run.disk.trace if call.what == "rename"]
    assert len([path for path in renamed if path.endswith(".delete")]) >= 8
    judge(run, run.disk)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["EIO", "BROKEN", "FULL", "TORN"])
def test_a_call_that_fails(kind: str, complaints: list[logging.LogRecord]) -> None:
    trace = play("", 0).disk.trace
    for at in range(1, len(trace) + 1, STEP):
        call = trace[at - 1]
        if call.mapped or (kind in ("FULL", "TORN") and not call.writes):
            continue
        complaints.clear()
        run = play(kind, at)
        try:
            assert run.codes <= {codes.SUCCESS, *REFUSALS}
            for record in complaints:
                assert record.exc_info is None, record.getMessage()
            told = [(r.msg, str(r.args)) for r in complaints if "compact" in r.name]
            assert len(told) == len(set(told)), "the same complaint again and again"
            run.disk.heal(run.clock)
            judge(run, run.disk)
        except Exception as error:
            error.add_note(f"{kind} at call {at}: {call}; {[r.getMessage() for r in complaints]}")
            raise


@pytest.mark.slow
def test_a_kill_at_any_call(complaints: list[logging.LogRecord]) -> None:
    trace = play("", 0).disk.trace
    for at in range(1, len(trace) + 1, STEP):
        run = play("STOP", at)
        run.disk.heal(run.clock)
        try:
            judge(run, run.disk)
        except Exception as error:
            error.add_note(f"killed at call {at}: {trace[at - 1]}")
            raise


@pytest.mark.slow
def test_a_kill_while_a_kill_is_mended(complaints: list[logging.LogRecord]) -> None:
    trace = play("", 0).disk.trace
    swapping = [
        n for n, call in enumerate(trace, 1) if call.what == "rename" and "/prices/" in call.path
    ]
    for at in swapping[::STEP]:
        opened_at = 0
        while True:
            run = play("STOP", at)
            run.disk.heal(run.clock)
            opened_at += STEP
            disk = run.disk
            disk.trace.clear()
            disk.at, disk.kind = opened_at, "STOP"
            try:
                open_world(disk, VirtualClock(run.clock.now_ms()))
            except Stopped:
                disk.heal(run.clock)
                judge(run, disk)
            else:
                break  # it was open before


@pytest.mark.slow
def test_a_power_failure_at_any_call(complaints: list[logging.LogRecord]) -> None:
    trace = play("", 0).disk.trace
    for at in range(1, len(trace) + 1, STEP):
        run = play("STOP", at, seed=at)
        try:
            judge(run, run.disk.after_power_failure(run.clock), run.flushed)
        except Exception as error:
            error.add_note(f"power failed at call {at}: {trace[at - 1]}")
            raise
