"""``kill -9`` of a real broker while messages are handed out: pops, ordered pops, priorities.

Whatever is killed when: nothing is lost, what is acknowledged is over, and nobody gets what
somebody else still has.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from tests.support.brokers import Answered
from tests.support.killing import ROUNDS, SEED, Campaign, Worker
from tests.support.load import read_queue
from tests.support.pop_load import (
    INVISIBLE_MS,
    QUEUES,
    TOPIC,
    Batch,
    Book,
    OrderedPopper,
    Ownership,
    Popper,
    Sender,
)
from tests.support.popping import GROUP, POP, got, pop_fields
from tests.support.program import BlockingClient

from firearrow.model import codes

SENDERS = POPPERS = 2
LOAD_S = (0.5, 2.0)
SETTLE_S = 40.0
COPIED_MS = 1000
SETTINGS = {
    "timerPrecisionMs": 100,
    "flushConsumerOffsetInterval": 1000,
    "flushConsumeQueueThoroughInterval": 500,
    "reviveInterval": 200,
    "useSeparateRetryQueue": "true",
}


class Pops(Campaign):
    """Rounds on one store; every second one with SYNC_FLUSH."""

    def __init__(
        self, root: Path, popper: type[Popper] | type[OrderedPopper], priorities: int = 0
    ) -> None:
        super().__init__(root, random.Random(SEED), **SETTINGS)
        self.book = Book()
        self.popper = popper
        self.priorities = priorities
        self.copied_twice: set[bytes] = set()
        with self.connected() as client:
            fields = {"topic": TOPIC, "readQueueNums": QUEUES, "writeQueueNums": QUEUES, "perm": 6}
            fields |= {"defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "order": "false"}
            if priorities:
                fields["attributes"] = "+message.type=PRIORITY"
            assert client.call(17, fields)[0].code == codes.SUCCESS

    def round(self, number: int) -> None:
        flush = "SYNC_FLUSH" if number % 2 else "ASYNC_FLUSH"
        self.configure(flushDiskType=flush, **SETTINGS)
        self.kill_under(lambda address: self.workers(address, str(number)), LOAD_S)

    def workers(self, address: str, name: str) -> list[Worker]:
        senders = [
            Sender(
                *(address, f"{name}-{n}", self.errors, self.book, self.child_rng()),
                priorities=self.priorities,
            )
            for n in range(SENDERS)
        ]
        poppers = [
            self.popper(address, f"{name}-popper-{n}", self.errors, self.book, self.child_rng())
            for n in range(POPPERS)
        ]
        return [*senders, *poppers]

    def settle(self) -> None:
        """Consumers that acknowledge everything, until nothing is open any more."""
        book = self.book
        with self.running() as address:
            tidy = [
                self.popper(address, f"tidy-{n}", self.errors, book, self.child_rng(), tidy=True)
                for n in range(POPPERS)
            ]
            self.work(tidy, Drained(book), SETTLE_S)
        if self.popper is Popper:
            with self.connected() as client:
                self.copied_twice = self._copied_twice(client)

    def _copied_twice(self, client: BlockingClient) -> set[bytes]:
        """Messages that were given again just before a kill, and by the next broker once more: its
        note that it was done went with the kill. From then on there are two of them."""
        times: dict[bytes, dict[int, list[int]]] = {}
        for queue_id in range(QUEUES):
            for record in read_queue(client, f"%RETRY%{GROUP}_{TOPIC}", queue_id):
                tries = times.setdefault(record.body, {}).setdefault(record.reconsume_times, [])
                tries.append(record.store_timestamp)
        return {
            body
            for body, tries in times.items()
            if (pair := next((tries[n] for n in sorted(tries) if len(tries[n]) > 1), None))
            and any(
                kill - COPIED_MS <= min(pair) <= kill + 50 <= max(pair) for kill in self.kills_ms
            )
        }

    def counts(self) -> str:
        book = self.book
        return (
            f"{ROUNDS} kills, {len(book.acknowledged)} acknowledged, "
            f"{len({ownership.body for ownership in book.owned})} delivered, "
            f"{len(self.lost())} lost, {len(book.over)} over, {len(self.undead())} came again "
            f"after that, {len(book.owned)} owners, {len(self.doubles())} at the same time, "
            f"{len(self.copied_twice)} copied twice around a kill"
        )

    def lost(self) -> set[bytes]:
        return self.book.acknowledged - self.book.over.keys() - self.book.maybe_over

    def undead(self) -> list[Ownership]:
        """Owners of messages that were over already."""
        found = []
        for ownership in self.book.owned:
            over = self.book.over.get(ownership.body)
            if over is not None and over.owner is not ownership and ownership.since_ms > over.at_ms:
                found.append(ownership)
        return found

    def doubles(self) -> list[tuple[Ownership, Ownership]]:
        """Two owners of one message at a time."""
        found = []
        by_body: dict[bytes, list[Ownership]] = {}
        for ownership in self.book.owned:
            by_body.setdefault(ownership.body, []).append(ownership)
        for owners in by_body.values():
            owners.sort(key=lambda ownership: ownership.since_ms)
            for first, second in pairwise(owners):
                if second.since_ms < first.until_ms:
                    found.append((first, second))
        return found


class Drained:
    """Whether everything is over, and nothing has come for so long that nothing will."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._owned, self._since = -1, 0.0

    def __call__(self) -> bool:
        if len(self._book.owned) != self._owned:
            self._owned, self._since = len(self._book.owned), time.monotonic()
        quiet_s = time.monotonic() - self._since
        missing = self._book.acknowledged - self._book.over.keys() - self._book.maybe_over
        return not missing and quiet_s > INVISIBLE_MS / 1000 + 3


def run(root: Path, popper: type[Popper] | type[OrderedPopper], priorities: int = 0) -> Pops:
    print(f"FIREARROW_KILL_SEED={SEED}")
    campaign = Pops(root, popper, priorities)
    for number in range(ROUNDS):
        campaign.round(number)
    campaign.settle()
    return campaign


def check(campaign: Pops) -> None:
    book = campaign.book
    assert {ownership.body for ownership in book.owned} <= book.sent, "a message nobody sent"
    assert not campaign.lost(), sorted(campaign.lost())[0][:40]
    # A change sets the new check point before it ends the old one, as RocketMQ's: a kill in between
    # leaves both, and the client without an answer.
    twice = campaign.copied_twice | book.changing
    undead = [o for o in campaign.undead() if o.body not in twice]
    assert not undead, undead[0]
    doubles = [pair for pair in campaign.doubles() if pair[0].body not in twice]
    assert not doubles, doubles[0]
    assert len(book.over) > 20 * ROUNDS


@pytest.mark.slow
def test_a_kill_in_the_middle_of_pops(tmp_path: Path) -> None:
    campaign = run(tmp_path / "campaign", Popper)
    print(f"pop: {campaign.counts()}")
    check(campaign)
    assert any(ownership.retry for ownership in campaign.book.owned)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_ordered_pops(tmp_path: Path) -> None:
    campaign = run(tmp_path / "campaign", OrderedPopper)
    wrong = list(out_of_order(campaign.book))
    print(f"ordered pop: {campaign.counts()}, {len(wrong)} batches out of order")
    check(campaign)
    assert not wrong, wrong[0]


def out_of_order(book: Book) -> Iterator[tuple[Batch, Batch]]:
    """A batch that does not begin where the one before it in its queue was not acknowledged, or
    that came before the time of that was over."""
    by_queue: dict[int, list[Batch]] = {}
    for batch in book.batches:
        by_queue.setdefault(batch.queue_id, []).append(batch)
    for batches in by_queue.values():
        batches.sort(key=lambda batch: batch.pop_ms)
        for first, second in pairwise(batches):
            open_ones = [o for o in first.ownerships if o.body not in book.maybe_over]
            start = second.ownerships[0].offset
            if not open_ones:
                continue  # the queue was free, and may have been given to somebody who was killed
            if start > open_ones[0].offset or second.pop_ms < open_ones[0].until_ms:
                yield first, second


@pytest.mark.slow
def test_a_kill_in_the_middle_of_priorities(tmp_path: Path) -> None:
    campaign = run(tmp_path / "campaign", Popper, QUEUES)
    wrong = [o for o in campaign.book.owned if o.queue_id != priority_of(o.body)]
    print(f"priority: {campaign.counts()}, {len(wrong)} with another priority than they had")
    check(campaign)
    assert not wrong, wrong[0]
    order = from_the_beginning(campaign)
    assert order.keys() == set(range(QUEUES))
    assert [*order] == sorted(order, reverse=True), "the highest priority was not the first"


def priority_of(body: bytes) -> int:
    return int(body.partition(b"/")[0])


def from_the_beginning(campaign: Pops) -> Mapping[int, int]:
    """Messages of each priority, as a new group gets them: a priority that comes back is wrong."""
    counts: dict[int, int] = {}
    last = -1
    with campaign.connected() as client:
        fields = pop_fields(TOPIC, consumerGroup=f"{GROUP}-2", maxMsgNums=32)
        while found := got(Answered(*client.call(POP, fields))):
            for message in found:
                priority = priority_of(message.body)
                assert priority == last or priority not in counts, "a lower one came between"
                counts[priority] = counts.get(priority, 0) + 1
                last = priority
    return counts
