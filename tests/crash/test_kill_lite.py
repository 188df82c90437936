"""``kill -9`` of a real broker while lite topics are made, written and popped.

Two groups read everything: one whose clients name each lite topic, one that gets all there are.
Whatever is killed when: nothing acknowledged is lost, a lite topic has each message once and in
order, and nobody gets what somebody else still has unless a kill came between.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.support import lite
from tests.support.killing import ROUNDS, SEED, Campaign, Worker
from tests.support.lite_load import INVISIBLE_MS, Reader, Sender, line_of, lite_topics
from tests.support.load import read_queue
from tests.support.pop_load import Batch, Book, Ownership

from firearrow.model import codes

SENDERS = READERS = 2
LOAD_S = (0.5, 2.0)
SETTLE_S = 60.0
GROUPS = (lite.GROUP, "everything")
SETTINGS = {
    "enableLmq": "true",
    "enableMultiDispatch": "true",
    "flushConsumerOffsetInterval": 1000,
    "flushConsumeQueueThoroughInterval": 500,
}


class LiteTopics(Campaign):
    """Rounds on one store; every second one with SYNC_FLUSH."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, random.Random(SEED), **SETTINGS)
        self.books = {group: Book() for group in GROUPS}
        first, *others = self.books.values()
        for book in others:
            book.sent, book.acknowledged = first.sent, first.acknowledged
        with self.running() as address:
            client = Worker(address, "operator", self.errors)
            assert lite.create_parent(client).code == codes.SUCCESS
            assert lite.create_group(client, GROUPS[0]).code == codes.SUCCESS
            made = lite.create_group(client, GROUPS[1], lite_sub_wildcard="true")
            assert made.code == codes.SUCCESS
            client.client.close()

    def round(self, number: int) -> None:
        flush = "SYNC_FLUSH" if number % 2 else "ASYNC_FLUSH"
        self.configure(flushDiskType=flush, **SETTINGS)
        self.kill_under(lambda address: self.workers(address, number), LOAD_S)

    def workers(self, address: str, number: int) -> list[Worker]:
        book = self.books[GROUPS[0]]
        senders = [
            Sender(address, f"{number}-{n}", self.errors, book, self.child_rng(), number)
            for n in range(SENDERS)
        ]
        return [*senders, *self.readers(address, str(number), number + 1)]

    def readers(self, address: str, name: str, rounds: int, *, tidy: bool = False) -> list[Reader]:
        return [
            Reader(
                *(address, f"{name}-{group}-{n}", self.errors, book, self.child_rng()),
                *(group, lite_topics(rounds)),
                tidy=tidy,
            )
            for group, book in self.books.items()
            for n in range(READERS)
        ]

    def settle(self) -> set[bytes]:
        """Let clients that acknowledge everything read until nothing is open any more; what is
        stored then."""
        with self.running() as address:
            tidy = self.readers(address, "tidy", ROUNDS, tidy=True)
            self.work(tidy, Drained([*self.books.values()]), SETTLE_S)
        with self.connected() as client:
            queues = (read_queue(client, lite.PARENT, queue_id) for queue_id in range(4))
            return {record.body for queue in queues for record in queue}

    def killed_between(self, first_ms: int, second_ms: int) -> bool:
        return any(first_ms <= kill <= second_ms for kill in self.kills_ms)


class Drained:
    """Whether everything is over, and nothing has come for so long that nothing will."""

    def __init__(self, books: list[Book]) -> None:
        self._books = books
        self._owned, self._since = -1, 0.0

    def __call__(self) -> bool:
        owned = sum(len(book.owned) for book in self._books)
        if owned != self._owned:
            self._owned, self._since = owned, time.monotonic()
        quiet_s = time.monotonic() - self._since
        return not any(map(lost, self._books)) and quiet_s > INVISIBLE_MS / 1000 + 1


def lost(book: Book) -> set[bytes]:
    return book.acknowledged - book.over.keys() - book.maybe_over


def undead(book: Book) -> list[Ownership]:
    """Owners of messages that were over already."""
    return [
        ownership
        for ownership in book.owned
        if (over := book.over.get(ownership.body)) is not None
        and over.owner is not ownership
        and ownership.since_ms > over.at_ms
    ]


def doubles(book: Book) -> Iterator[tuple[Ownership, Ownership]]:
    """Two owners of one message at a time."""
    by_body: dict[bytes, list[Ownership]] = {}
    for ownership in book.owned:
        by_body.setdefault(ownership.body, []).append(ownership)
    for owners in by_body.values():
        owners.sort(key=lambda ownership: ownership.since_ms)
        for first, second in pairwise(owners):
            if second.since_ms < first.until_ms:
                yield first, second


def out_of_order(book: Book) -> Iterator[tuple[Batch, Batch]]:
    """A batch that begins behind a message of its lite topic that nobody acknowledged."""
    by_line: dict[int, list[Batch]] = {}
    for batch in book.batches:
        by_line.setdefault(batch.queue_id, []).append(batch)
    for batches in by_line.values():
        batches.sort(key=lambda batch: batch.pop_ms)
        for first, second in pairwise(batches):
            open_ones = [o for o in first.ownerships if o.body not in book.maybe_over]
            if open_ones and second.ownerships[0].offset > open_ones[0].offset:
                yield first, second


def places(book: Book) -> dict[bytes, set[int]]:
    """Where in its lite topic each message was seen."""
    found: dict[bytes, set[int]] = {}
    for ownership in book.owned:
        found.setdefault(ownership.body, set()).add(ownership.offset)
    return found


def overtaken(book: Book) -> list[bytes]:
    """Messages that lie before one that their producer sent to the lite topic earlier."""
    by_sender: dict[tuple[int, bytes], list[tuple[int, int, bytes]]] = {}
    for body, offsets in places(book).items():
        _, sender, count, _ = body.split(b"/")
        of_sender = by_sender.setdefault((line_of(body), sender), [])
        of_sender.append((int(count), min(offsets), body))
    return [
        second[2]
        for sent in by_sender.values()
        for first, second in pairwise(sorted(sent))
        if second[1] <= first[1]
    ]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_lite_topics(tmp_path: Path) -> None:
    print(f"FIREARROW_KILL_SEED={SEED}")
    campaign = LiteTopics(tmp_path / "campaign")
    for number in range(ROUNDS):
        campaign.round(number)
    stored = campaign.settle()
    for group, book in campaign.books.items():
        both = list(doubles(book))
        wrong = [p for p in both if not campaign.killed_between(p[0].since_ms, p[1].since_ms)]
        again, disordered = undead(book), list(out_of_order(book))
        twice = [body for body, offsets in places(book).items() if len(offsets) > 1]
        behind = overtaken(book)
        print(
            f"lite topics ({group}): {ROUNDS} kills, {len(book.acknowledged)} acknowledged, "
            f"{len({o.body for o in book.owned})} delivered, {len(lost(book))} lost, "
            f"{len(book.over)} over, {len(again)} came again after that, {len(book.owned)} owners, "
            f"{len(both)} at the same time around a kill, {len(wrong)} otherwise, "
            f"{len(twice)} stored twice, {len(disordered)} batches and {len(behind)} messages "
            f"out of order"
        )
        assert {o.body for o in book.owned} <= book.sent, "a message nobody sent"
        assert not book.acknowledged - stored, "lost in the parent topic"
        assert not lost(book), sorted(lost(book))[0][:40]
        assert not again, again[0]
        assert not wrong, wrong[0]
        assert not twice, twice[0][:40]
        assert not disordered, disordered[0]
        assert not behind, behind[0][:40]
        assert len(book.over) > 20 * ROUNDS
        assert any(ownership.retry for ownership in book.owned)
