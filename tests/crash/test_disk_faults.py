"""Every call of the disk fails once, is torn, or is the last one; then the store is opened again.

One script uses a whole broker: topics made by first messages, batches, files that roll, flushes,
offsets, delayed messages, retention, a deleted topic, a clean end. It runs once for each call and
each kind of fault. What the broker acknowledged must be there afterwards, once, in order.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.batches import create_fields, unwrapped
from tests.support.brokers import World, pull_fields, send_fields
from tests.support.faults import FaultDisk, Stopped

from firearrow.codec.record import Record
from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.model.clock import VirtualClock

ROOT = Path("/store")
FILE_BYTES: Final = 16 * 1024
GROUP = "g" * 120
LONG_TOPIC = "%RETRY%" + GROUP  # its records are of the second version
QUEUES: Final = (
    *(("orders", 0), ("orders", 1), ("second", 0), (LONG_TOPIC, 0), ("again", 0)),
    ("whole", 0),  # with batch queues
)
REFUSALS: Final = {codes.SYSTEM_ERROR, codes.SERVICE_NOT_AVAILABLE, codes.FLUSH_DISK_TIMEOUT}
NOTHING_THERE: Final = {codes.PULL_NOT_FOUND, codes.PULL_RETRY_IMMEDIATELY}
# Every third call by default, so that the quick run stays quick; all with FIREARROW_FAULT_STEP=1.
STEP: Final = int(os.environ.get("FIREARROW_FAULT_STEP", "3"))


class Run:
    """The script, and what the broker promised meanwhile."""

    def __init__(self, disk: FaultDisk, clock: VirtualClock, flush: str) -> None:
        self.disk = disk
        self.clock = clock
        self.flush = flush
        self.sent: dict[bytes, tuple[str, int]] = {}  # body -> queue
        self.acknowledged: dict[bytes, tuple[str, int, int, int]] = {}  # ... offset, position
        self.flushed = 0  # what the store said
        self.kept_from = 0  # retention may have removed what is before
        self.deleting = False
        self.delayed: dict[bytes, int] = {}  # body -> due time
        self.committed = self.saved = 0  # consumer offset: heard by the broker, sure to be saved
        self.codes: set[int] = set()

    def play(self) -> None:
        """All of it. Whatever fails, the script goes on, as clients do."""
        self.world = world = open_world(self.disk, self.clock, self.flush)
        self.client = world.connect()
        self.call(17, create_fields("whole", 1))
        for n in range(3):
            self.send("orders", n % 2, f"first {n}")
        self.batch("whole", 0, [f"whole {n}" for n in range(3)], properties="UNIQ_KEY\x01w\x02")
        self.send("whole", 0, "alone")
        self.send("again", 0, "before its deletion")
        self.send(LONG_TOPIC, 0, "long")
        self.batch("orders", 0, [f"batch {n}" for n in range(4)])
        self.delay("second", "late", level=1)
        self.wait(1)
        for n in range(24):
            self.send("orders", n % 2, f"roll {n}", size=900)
        self.batch("orders", 1, [f"large batch {n}" for n in range(8)], size=900)
        self.commit(3)
        self.wait(7)
        self.saved = self.committed
        for n in range(3):  # several files of its queue
            texts = [f"whole {n} {m}" for m in range(n + 1)]
            self.batch("whole", 0, texts, properties="UNIQ_KEY\x01w\x02")
        self.send("second", 0, "after the offsets")
        self.wait(62)
        self.send(LONG_TOPIC, 0, "second long")
        self.commit(5)
        self.delete("again")
        self.send("again", 0, "after its deletion")
        self.wait(7)
        self.saved = self.committed
        self.expire()
        self.send("orders", 0, "after retention")
        self.batch("whole", 0, ["last 1", "last 2"], properties="UNIQ_KEY\x01w\x02")
        self.pull("orders", 0)
        self.delay("second", "later", level=1)
        world.stop()
        self.flushed = 1 << 60  # a stop without complaint is a promise too
        if f"{ROOT}/abort" in self.disk.files:
            self.flushed = 0

    # -- steps

    def call(self, code: int, fields: dict[str, Any], body: bytes = b"") -> Any:
        self.client.received()
        self.client.send(code, fields, body)
        self.clock.advance()
        answers = self.client.received()
        if answers:
            self.codes.add(answers[0].code)
        self.flushed = max(self.flushed, self.world.store.flushed_offset())
        return answers[0] if answers else None

    def send(self, topic: str, queue_id: int, text: str, size: int = 40, **more: Any) -> None:
        body = text.encode().ljust(size, b".")
        self.sent[body] = (topic, queue_id)
        properties = more.pop("properties", f"KEYS\x01{text.replace(' ', '-')}\x02")
        fields = send_fields(topic, queue_id, properties=properties, **more)
        self._note([body], topic, queue_id, self.call(310, fields, body))

    def batch(
        self, topic: str, queue_id: int, texts: list[str], size: int = 40, properties: str = ""
    ) -> None:
        bodies = [text.encode().ljust(size, b".") for text in texts]
        self.sent.update(dict.fromkeys(bodies, (topic, queue_id)))
        body = b"".join(_batch_item(body) for body in bodies)
        fields = send_fields(topic, queue_id, batch=True, properties=properties)
        self._note(bodies, topic, queue_id, self.call(310, fields, body))

    def delay(self, topic: str, text: str, level: int) -> None:
        body = text.encode()
        self.sent[body] = (topic, 0)
        fields = send_fields(topic, 0, properties=f"DELAY\x01{level}\x02")
        due = self.clock.now_ms() + 1000
        answer = self.call(310, fields, body)
        if answer is not None and answer.code == codes.SUCCESS:
            self.delayed[body] = due
            self.acknowledged[body] = ("", 0, 0, _positions(answer)[0])

    def _note(self, bodies: list[bytes], topic: str, queue_id: int, answer: Any) -> None:
        if answer is None or answer.code != codes.SUCCESS:
            return
        offset = int(answer.ext["queueOffset"])
        positions = _positions(answer)
        if "batchUniqId" in answer.ext:
            positions *= len(bodies)
        for n, (body, position) in enumerate(zip(bodies, positions, strict=True)):
            self.acknowledged[body] = (topic, queue_id, offset + n, position)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.flushed = max(self.flushed, self.world.store.flushed_offset())

    def commit(self, offset: int) -> None:
        offset = min(offset, self.world.store.max_offset("orders", 0))
        fields = {"consumerGroup": "g", "topic": "orders", "queueId": 0, "commitOffset": offset}
        if self.call(15, fields).code == codes.SUCCESS:
            self.committed = offset

    def delete(self, topic: str) -> None:
        self.deleting = True
        self.call(215, {"topic": topic})

    def expire(self) -> None:
        self.clock.jump_wall_clock(100 * 3_600_000)
        self.kept_from = self.world.store.commit_log_range()[1] // FILE_BYTES * FILE_BYTES
        self.call(329, {})

    def pull(self, topic: str, queue_id: int) -> None:
        offset = self.world.store.min_offset(topic, queue_id)
        self.call(11, pull_fields(topic, queue_id, offset))


def open_world(disk: FaultDisk, clock: VirtualClock, flush: str) -> World:
    settings = BrokerSettings()
    settings.flush_disk_type = flush
    return World(
        ROOT,
        settings,
        disk,
        clock,
        mapped_file_size_commit_log=FILE_BYTES,
        mapped_file_size_consume_queue=200,
        mapper_file_size_batch_consume_queue=2 * 46,
        max_hash_slot_num=50,
        max_index_num=100,
    )


def _positions(answer: Any) -> list[int]:
    return [int(part[-16:], 16) for part in answer.ext["msgId"].split(",")]


def _batch_item(body: bytes) -> bytes:
    properties = b"TAGS\x01b\x02"
    head = bytes(12) + len(body).to_bytes(4) + body + len(properties).to_bytes(2) + properties
    return (len(head) + 4).to_bytes(4) + head


# -- judging


def judge(run: Run, disk: FaultDisk, survivors: Callable[[int], bool]) -> None:
    """Open what is left; ``survivors`` says whether a record that ends there had to survive."""
    clock = VirtualClock(run.clock.now_ms())
    disk.now_ms = clock.now_ms
    world = open_world(disk, clock, run.flush)
    found = read_all(world)
    check_messages(run, world, found, survivors)
    check_rest(run, world, survivors)
    clock.advance(5)
    world.stop()
    assert f"{ROOT}/abort" not in disk.files
    clock = VirtualClock(clock.now_ms())
    disk.now_ms = clock.now_ms
    world = open_world(disk, clock, run.flush)
    again = read_all(world)
    for queue, records in found.items():
        assert [r.body for r in again[queue]][: len(records)] == [r.body for r in records], queue
    world.stop()


def read_all(world: World) -> dict[tuple[str, int], list[Record]]:
    """Everything that a consumer would get, queue by queue."""
    client = world.connect()
    found: dict[tuple[str, int], list[Record]] = {}
    for queue in world.store.queues():
        if queue[0] not in world.core.topics.table:
            continue  # not known to be durable, or deleted
        offset, records = world.store.min_offset(*queue), []
        while offset < world.store.max_offset(*queue):
            answer = client.pull(*queue, offset, group="judge")
            assert answer.code == codes.SUCCESS, (queue, offset, answer.header)
            records += [message for record in answer.records() for message in unwrapped(record)]
            offset = int(answer.ext["nextBeginOffset"])
        found[queue] = records
    return found


def check_messages(
    run: Run,
    world: World,
    found: dict[tuple[str, int], list[Record]],
    survivors: Callable[[int], bool],
) -> None:
    assert world.store.commit_log_range()[0] <= run.kept_from
    for queue, records in found.items():
        if queue[0] == "SCHEDULE_TOPIC_XXXX":
            continue
        kept = [r.queue_offset for r in records if r.physical_offset >= run.kept_from]
        assert kept == list(range(kept[0], kept[0] + len(kept))) if kept else True, "a gap"
        places = [(r.physical_offset, r.queue_offset) for r in records]
        assert places == sorted(set(places))
        bodies = [r.body for r in records]
        for body in bodies:
            assert run.sent.get(body) == queue, (body, queue)
            again = bodies.count(body) > 1
            assert not again or body in run.delayed, f"twice: {body!r}"
        order = list(run.sent)
        ordered = [order.index(b) for b in bodies if b in run.acknowledged and b not in run.delayed]
        assert ordered == sorted(ordered)
    for body, (topic, queue_id, offset, position) in run.acknowledged.items():
        gone = position < run.kept_from or (run.deleting and topic == "again")
        if gone or not survivors(position) or body in run.delayed:
            continue
        by_offset = {r.queue_offset: r for r in found.get((topic, queue_id), [])}
        assert offset in by_offset, f"{body!r} at {offset} of {topic}/{queue_id} is lost"
        assert by_offset[offset].body == body
        assert topic in world.core.topics.table, f"{topic} is lost"


def check_rest(run: Run, world: World, survivors: Callable[[int], bool]) -> None:
    """Offsets, delayed messages, and that the broker works on."""
    client = world.connect()
    committed = world.core.offsets.find("orders", "g", 0) or 0
    assert committed <= max(run.committed, 5)
    if run.disk.kind in ("", "STOP"):
        assert committed >= run.saved
    assert committed <= world.store.max_offset("orders", 0)
    world.clock.advance(3)
    late = {r.body: r for r in read_all(world).get(("second", 0), [])}
    log_min = world.store.commit_log_range()[0]
    for body, due in run.delayed.items():
        position = run.acknowledged[body][3]
        if survivors(position) and position >= log_min and run.kept_from == 0:
            assert body in late, f"delayed {body!r} is lost"
        if body in late:
            assert late[body].store_timestamp >= due
    for topic, queue_id in QUEUES:
        expected = world.store.max_offset(topic, queue_id)
        client.send(310, send_fields(topic, queue_id), b"new")
        world.clock.advance(1)
        (answer,) = client.received()
        assert answer.code == codes.SUCCESS
        assert int(answer.ext["queueOffset"]) == expected
        pulled = client.pull(topic, queue_id, expected)
        assert [r.body for r in pulled.records()] == [b"new"]


# -- the tests


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


def play(kind: str, at: int, flush: str, seed: int = 0) -> Run:
    clock = VirtualClock()
    disk = FaultDisk(clock, at, kind, seed)
    run = Run(disk, clock, flush)
    try:
        run.play()
    except Stopped:
        assert kind == "STOP"
    except OSError:
        if hasattr(run, "world"):  # else the start is refused, which is fine
            raise
    return run


def dry_run(flush: str) -> FaultDisk:
    return play("", 0, flush).disk


FLUSHES: Final = ("ASYNC_FLUSH", "SYNC_FLUSH")


@pytest.mark.parametrize("flush", FLUSHES)
def test_the_script_itself_uses_everything(flush: str) -> None:
    run = play("", 0, flush)
    assert run.codes == {codes.SUCCESS}
    assert len(run.acknowledged) == len(run.sent)
    assert len(run.disk.trace) > 300
    assert run.world.store.log.min_offset > 0 or run.kept_from > 0
    judge(run, run.disk, lambda position: True)


@pytest.mark.slow
@pytest.mark.parametrize("flush", FLUSHES)
@pytest.mark.parametrize("kind", ["EIO", "BROKEN", "FULL", "TORN"])
def test_a_call_that_fails(kind: str, flush: str, complaints: list[logging.LogRecord]) -> None:
    trace = dry_run(flush).trace
    for at in range(1, len(trace) + 1, STEP):
        call = trace[at - 1]
        if call.mapped or (kind in ("FULL", "TORN") and not call.writes):
            continue
        complaints.clear()
        run = play(kind, at, flush)
        where = f"{kind} at call {at}: {call}"
        try:
            assert run.codes <= {codes.SUCCESS, *REFUSALS, *NOTHING_THERE}
            for record in complaints:
                assert record.exc_info is None, record.getMessage()
            same = Counter((r.msg, str(r.args)) for r in complaints)
            assert max(same.values(), default=0) <= 2, "the same complaint again and again"
            run.disk.heal(run.clock)
            judge(run, run.disk, lambda position: True)
        except Exception as error:
            error.add_note(where + "; " + "; ".join(r.getMessage() for r in complaints))
            raise


@pytest.mark.slow
@pytest.mark.parametrize("flush", FLUSHES)
def test_a_kill_at_any_call(flush: str, complaints: list[logging.LogRecord]) -> None:
    trace = dry_run(flush).trace
    for at in range(1, len(trace) + 1, STEP):
        run = play("STOP", at, flush)
        run.disk.heal(run.clock)
        try:
            judge(run, run.disk, lambda position: True)
        except Exception as error:
            error.add_note(f"killed at call {at}: {trace[at - 1]}")
            raise


@pytest.mark.slow
@pytest.mark.parametrize("flush", FLUSHES)
def test_a_power_failure_at_any_call(flush: str, complaints: list[logging.LogRecord]) -> None:
    trace = dry_run(flush).trace
    for at in range(1, len(trace) + 1, STEP):
        run = play("STOP", at, flush, seed=at)
        flushed = run.flushed

        def survives(position: int, flush: str = flush, flushed: int = flushed) -> bool:
            return flush == "SYNC_FLUSH" or position < flushed

        try:
            judge(run, run.disk.after_power_failure(run.clock), survives)
        except Exception as error:
            error.add_note(f"power failed at call {at}: {trace[at - 1]}")
            raise
