"""``kill -9`` of a real broker while consumers give messages back.

What was acknowledged as given back comes again, not early, until its tries are used up; then it is
a dead letter. Every message ends as consumed or as a dead letter.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from tests.support.brokers import pull_fields, send_fields
from tests.support.killing import ROUNDS, SEED, Campaign, Worker, now_ms
from tests.support.load import read_queue
from tests.support.program import BlockingClient

from firearrow.codec.record import Record
from firearrow.model import codes

TOPIC, GROUP = "work", "workers"
RETRY, DEAD = f"%RETRY%{GROUP}", f"%DLQ%{GROUP}"
QUEUES = ((TOPIC, 0), (TOPIC, 1), (RETRY, 0))
MAX_TRIES = 2  # as the consumer says
LEVEL_MS = 1000
SENDERS = 2
LOAD_S = (0.5, 2.0)
SETTLE_S = 40.0
SETTINGS = {
    "messageDelayLevel": "1s 2s",
    "flushDelayOffsetInterval": 1000,
    "flushConsumeQueueThoroughInterval": 500,
}
Try = tuple[bytes, int]  # body, reconsume times


class Book:
    """What clients know: filled by several threads."""

    def __init__(self) -> None:
        self.sent: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.offsets = dict.fromkeys(QUEUES, 0)  # of the group, as its members keep them
        self.consumed: set[bytes] = set()
        self.given_back_ms: dict[Try, int] = {}  # acknowledged: what must come, and not before
        self.asked: Counter[Try] = Counter()  # acknowledged or not


def failures(body: bytes) -> int:
    """So often the consumer cannot do it; more than its tries for some."""
    return int(body[:1])


class Sender(Worker):
    def __init__(
        self, address: str, name: str, errors: list[BaseException], book: Book, rng: random.Random
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._count = 0

    def step(self) -> None:
        self._count += 1
        fails = self._rng.choice((0, 1, 1, 2, 9))
        size = self._rng.choice((20, 100, 1000))
        body = f"{fails}-{self.name}-{self._count}-".encode().ljust(size, b".")
        self._book.sent.add(body)
        answer = self.call(310, send_fields(TOPIC, self._rng.randrange(2), queues=2), body)
        assert answer.code == codes.SUCCESS, answer
        self._book.acknowledged.add(body)


class Consumer(Worker):
    """Consumes every queue in turn, and gives back what it cannot do."""

    def __init__(self, address: str, errors: list[BaseException], book: Book) -> None:
        super().__init__(address, "consumer", errors)
        self._book = book

    def step(self) -> None:
        for queue in QUEUES:
            answer = self.call(11, pull_fields(*queue, self._book.offsets[queue], group=GROUP))
            if answer.code in (codes.PULL_NOT_FOUND, codes.TOPIC_NOT_EXIST):
                continue
            assert answer.code == codes.SUCCESS, answer
            for record in answer.records():
                assert record.queue_offset == self._book.offsets[queue]
                if record.reconsume_times < failures(record.body):
                    self._give_back(record)
                else:
                    self._book.consumed.add(record.body)
                self._book.offsets[queue] += 1

    def _give_back(self, record: Record) -> None:
        again = record.body, record.reconsume_times + 1
        dead = again[1] > MAX_TRIES
        fields = {"offset": record.physical_offset, "group": GROUP, "delayLevel": 1}
        self._book.asked[again] += 1
        not_before = now_ms() + (0 if dead else LEVEL_MS)
        answer = self.call(36, {**fields, "maxReconsumeTimes": MAX_TRIES, "originTopic": TOPIC})
        assert answer.code == codes.SUCCESS, answer
        self._book.given_back_ms.setdefault(again, not_before)


class Retries(Campaign):
    """Rounds on one store; every second one with SYNC_FLUSH."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, random.Random(SEED))
        self.book = Book()

    def round(self, number: int) -> None:
        flush = "SYNC_FLUSH" if number % 2 else "ASYNC_FLUSH"
        self.configure(flushDiskType=flush, **SETTINGS)
        self.kill_under(
            lambda address: [
                *(
                    Sender(address, f"{number}-{n}", self.errors, self.book, self.child_rng())
                    for n in range(SENDERS)
                ),
                Consumer(address, self.errors, self.book),
            ],
            LOAD_S,
        )

    def settle(self) -> tuple[list[Record], list[Record]]:
        """Everything in the retry topic and in the dead letters, once all is done."""
        book = self.book
        with self.running() as address:
            consumer = Consumer(address, self.errors, book)
            with BlockingClient(address) as client:
                self.work([consumer], lambda: self.unfinished(client) == 0, SETTLE_S)
        with self.connected() as client:
            return read_queue(client, RETRY, 0), read_queue(client, DEAD, 0)

    def unfinished(self, client: BlockingClient) -> int:
        missing = self.book.acknowledged - self.book.consumed
        if client.call(11, pull_fields(DEAD))[0].code != codes.TOPIC_NOT_EXIST:
            missing -= {record.body for record in read_queue(client, DEAD, 0)}
        return len(missing)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_retries(tmp_path: Path) -> None:
    print(f"FIREARROW_KILL_SEED={SEED}")
    campaign = Retries(tmp_path / "campaign")
    for number in range(ROUNDS):
        campaign.round(number)
    retries, dead = campaign.settle()
    book = campaign.book
    came = Counter((record.body, record.reconsume_times) for record in (*retries, *dead))
    lost = [again for again in book.given_back_ms if not came[again]]
    early = [
        record
        for record in retries
        if record.store_timestamp < book.given_back_ms.get((record.body, record.reconsume_times), 0)
    ]
    more = {again: times for again, times in came.items() if times > book.asked[again]}
    wrong_dead = [record for record in dead if failures(record.body) <= MAX_TRIES]
    ended = book.consumed | {record.body for record in dead}
    unfinished = book.acknowledged - ended
    print(
        f"retries: {ROUNDS} kills, {len(book.acknowledged)} acknowledged, "
        f"{len(unfinished)} lost, {len(book.given_back_ms)} given back, {len(lost)} of them lost, "
        f"{len(early)} early, {len(more)} more often than given back, {len(dead)} dead letters"
    )
    assert came.keys() <= book.asked.keys(), "given back by nobody"
    assert not unfinished, sorted(unfinished)[0][:40]
    assert not lost, lost[0]
    assert not early, early[0].body[:40]
    assert not wrong_dead, wrong_dead[0].body[:40]
    # Delay levels note their progress each second, and give again what came since.
    repeats = [again for again in more if again[1] > MAX_TRIES]
    assert not repeats, "a dead letter that nobody sent back is there twice"
    assert len(book.given_back_ms) > 20 * ROUNDS
    assert dead
