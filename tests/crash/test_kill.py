"""``kill -9`` of a real broker under load, again and again on one store.

Producers send single messages, batches (taken apart and whole), delayed messages and first messages
of new topics, small files of the log roll, consumers pull and commit. At a random moment the
process is killed; the next one must have everything that was acknowledged, where it was put.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.support.killing import ROUNDS, SEED, Campaign, Worker
from tests.support.load import (
    BATCHES,
    CREATE_BATCHES,
    DELAYED_TOPIC,
    GROUP,
    QUEUES,
    Book,
    Consumer,
    Producer,
    committed_offset,
    read_queue,
)
from tests.support.program import BlockingClient

from firearrow.codec import lenient_json

ROUNDS_PER_STORE = 5  # every round reads everything again
LOAD_S = (0.1, 1.0)  # the kill comes so long after the load began
PRODUCERS = 4
DELIVERY_S = 20.0

SETTINGS = {
    "maxHashSlotNum": 1000,
    "maxIndexNum": 4000,
    "flushConsumerOffsetInterval": 100,
    "flushDelayOffsetInterval": 1000,
    "flushIntervalConsumeQueue": 100,
    "flushConsumeQueueThoroughInterval": 500,
    "messageDelayLevel": "1s 2s",
}


class Plain(Campaign):
    """Rounds on one store."""

    def __init__(self, root: Path, flush: str, rng: random.Random) -> None:
        super().__init__(root, rng, flushDiskType=flush, **SETTINGS)
        self.book = Book()
        self.floor: dict[int, int] = {}  # offsets that were there after a start
        self.queues: set[tuple[str, int]] = {(DELAYED_TOPIC, 0)}

    def round(self, number: int) -> None:
        """Load, kill, start again, look."""

        def workers(address: str) -> list[Worker]:
            with BlockingClient(address) as client:
                client.call(17, CREATE_BATCHES)
            producers = [
                Producer(address, f"{number}-{n}", self.errors, self.book, self.child_rng())
                for n in range(PRODUCERS)
            ]
            consumers = [Consumer(address, self.errors, self.book, n) for n in range(QUEUES)]
            return [*producers, *consumers]

        self.kill_under(workers, LOAD_S)
        saved = self.saved_offsets()
        program, address = self.start()
        with program, BlockingClient(address) as client:
            self.check(client, saved)
            if number % 3 == 0:
                assert program.stop() == 0

    def saved_offsets(self) -> dict[int, int]:
        """What the dead broker left in its file."""
        config = self.root / "store" / "config"
        for name in ("consumerOffset.json", "consumerOffset.json.bak"):
            if (config / name).exists():
                table = lenient_json.loads((config / name).read_bytes())["offsetTable"]
                queues = table.get(f"load-0@{GROUP}", {})
                return {int(queue_id): int(offset) for queue_id, offset in queues.items()}
        return {}

    def check(self, client: BlockingClient, saved: dict[int, int]) -> None:
        self.queues |= {(p.topic, p.queue_id) for p in self.book.promises.values()}
        found = {queue: read_queue(client, *queue) for queue in sorted(self.queues)}
        seen = Counter(record.body for records in found.values() for record in records)
        assert not seen.keys() - self.book.sent, "a message that nobody sent"
        twice = {body for body, times in seen.items() if times > 1}
        wrong = twice - self.book.may_repeat
        assert not wrong, f"sent once, there twice: {sorted(wrong)[:3]}"
        for body, (topic, queue_id, offset) in self.book.promises.items():
            records = found[topic, queue_id]
            assert offset < len(records), f"lost: {body[:40]!r} at {offset} of {topic}/{queue_id}"
            assert records[offset].body == body, f"changed: {topic}/{queue_id} at {offset}"
        for record in found[DELAYED_TOPIC, 0]:
            not_before = self.book.delayed.get(record.body, 0)
            assert record.store_timestamp >= not_before, "a delayed message came too early"
        for queue_id, commits in self.book.commits.items():
            offset = committed_offset(client, queue_id)
            assert offset == saved.get(queue_id, 0)
            assert offset in {0, *commits}
            assert self.floor.get(queue_id, 0) <= offset <= len(found["load-0", queue_id])
            self.floor[queue_id] = offset

    def finish(self) -> None:
        """Every delayed message comes, and a clean stop and start changes nothing."""
        with self.connected() as client:
            deadline = time.monotonic() + DELIVERY_S
            missing = set(self.book.delayed)
            while missing and time.monotonic() < deadline:
                missing -= {r.body for r in read_queue(client, DELAYED_TOPIC, 0)}
                time.sleep(0.1)
            assert not missing, f"{len(missing)} delayed messages are lost"
        saved = self.saved_offsets()
        with self.connected() as client:
            self.check(client, saved)
        assert any(self.floor.values()), "no offset was ever saved"


@pytest.mark.slow
@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", "SYNC_FLUSH"])
def test_what_was_acknowledged_survives_a_kill(flush: str, tmp_path: Path) -> None:
    print(f"FIREARROW_KILL_SEED={SEED}")
    rng = random.Random(SEED)
    acknowledged = batched = delayed = 0
    for first in range(0, ROUNDS, ROUNDS_PER_STORE):
        campaign = Plain(tmp_path / f"{first}", flush, rng)
        for number in range(first, min(first + ROUNDS_PER_STORE, ROUNDS)):
            campaign.round(number)
        campaign.finish()
        acknowledged += len(campaign.book.promises)
        batched += sum(p.topic == BATCHES for p in campaign.book.promises.values())
        delayed += len(campaign.book.delayed)
    print(
        f"{flush}: {ROUNDS} kills, {acknowledged} acknowledged, {batched} of them in batch queues, "
        f"{delayed} delayed"
    )
    assert acknowledged > 50 * ROUNDS
    assert batched > 5 * ROUNDS
