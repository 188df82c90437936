"""``kill -9`` of a real broker while it holds messages back: timed ones, delay levels, recalls.

What was acknowledged comes, never early, and twice only around a kill; what was acknowledged as
taken back never comes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.support.brokers import send_fields
from tests.support.killing import ROUNDS, SEED, Campaign, Worker, now_ms
from tests.support.load import read_queue
from tests.support.program import BlockingClient

from firearrow.codec.record import Record
from firearrow.model import codes

TOPIC = "later"
QUEUES = 2
SENDERS = 3
LOAD_S = (0.3, 1.2)
SETTLE_S = 20.0
# What was given back so shortly before a kill may be given back again: the timer notes its
# progress each second, delay levels theirs as often as the settings below say.
REPEAT_MS = 1500
SETTINGS = {
    "timerPrecisionMs": 100,
    "recallMessageEnable": "true",
    "messageDelayLevel": "1s 2s 3s",
    "flushDelayOffsetInterval": 1000,
    "flushConsumeQueueThoroughInterval": 500,
}


class Recallable(NamedTuple):
    body: bytes
    due_ms: int
    handle: str


class Book:
    """What senders know: filled by several threads."""

    def __init__(self) -> None:
        self.due_ms: dict[bytes, int] = {}  # of everything sent: not earlier than this
        self.acknowledged: set[bytes] = set()
        self.asked: set[bytes] = set()  # a recall was sent
        self.recalled: set[bytes] = set()  # and acknowledged


class Sender(Worker):
    """Sends messages for a later time."""

    def __init__(
        self, address: str, name: str, errors: list[BaseException], book: Book, rng: random.Random
    ) -> None:
        super().__init__(address, name, errors)
        self.book = book
        self.rng = rng
        self._count = 0

    def send(self, after_ms: int, properties: str) -> tuple[bytes, dict[str, str]]:
        self._count += 1
        size = self.rng.choice((20, 100, 1000))
        body = f"{self.name}-{self._count}-".encode().ljust(size, b".")
        self.book.due_ms[body] = now_ms() + after_ms
        properties += f"UNIQ_KEY\x01{self.name}-{self._count}\x02"
        fields = send_fields(TOPIC, self.rng.randrange(QUEUES), properties=properties)
        header, _ = self.client.call(310, fields, body)
        assert header.code == codes.SUCCESS, header
        self.book.acknowledged.add(body)
        return body, header.ext or {}


class Delayer(Sender):
    def step(self) -> None:
        level = self.rng.choice((1, 1, 2, 3))
        self.send(level * 1000, f"DELAY\x01{level}\x02")


class Timed(Sender):
    def step(self) -> None:
        after_ms = self.rng.randrange(100, 2500)
        if self.rng.random() < 0.5:
            self.send(after_ms, f"TIMER_DELAY_MS\x01{after_ms}\x02")
        else:
            self.send(after_ms, f"TIMER_DELIVER_MS\x01{now_ms() + after_ms}\x02")


class Recaller(Sender):
    """Takes half of the messages back, at any time at which that is still possible."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._held: list[Recallable] = []

    def step(self) -> None:
        after_ms = self.rng.randrange(300, 2500)
        body, ext = self.send(after_ms, f"TIMER_DELAY_MS\x01{after_ms}\x02")
        if self.rng.random() < 0.5:
            self._held.append(Recallable(body, self.book.due_ms[body], ext["recallHandle"]))
        if self._held and self.rng.random() < 0.6:
            self._recall(self._held.pop(self.rng.randrange(len(self._held))))

    def _recall(self, message: Recallable) -> None:
        self.book.asked.add(message.body)
        fields = {"producerGroup": "p", "topic": TOPIC, "recallHandle": message.handle}
        header, _ = self.client.call(370, fields)
        if header.code == codes.SUCCESS:
            self.book.recalled.add(message.body)
        else:  # it is due already
            assert header.code == codes.ILLEGAL_OPERATION, header
            assert now_ms() >= message.due_ms - 200, header


class Later(Campaign):
    """Rounds on one store; every second one with SYNC_FLUSH."""

    def __init__(self, root: Path, kind: type[Sender]) -> None:
        super().__init__(root, random.Random(SEED))
        self.book = Book()
        self.kind = kind

    def round(self, number: int) -> None:
        flush = "SYNC_FLUSH" if number % 2 else "ASYNC_FLUSH"
        self.configure(flushDiskType=flush, **SETTINGS)
        self.kill_under(
            lambda address: [
                self.kind(address, f"{number}-{n}", self.errors, self.book, self.child_rng())
                for n in range(SENDERS)
            ],
            LOAD_S,
        )

    def settle(self) -> dict[bytes, list[Record]]:
        """Every message that came, once nothing is missing any more or nobody can wait longer."""
        wanted = self.book.acknowledged - self.book.asked
        with self.connected() as client:
            deadline = time.monotonic() + SETTLE_S
            last_ms = max(self.book.due_ms.values()) + 1000
            found = came(client)
            while now_ms() < last_ms or (wanted - found.keys() and time.monotonic() < deadline):
                time.sleep(0.2)
                found = came(client)
        with self.connected() as client:
            again = came(client)
        assert {body: len(records) for body, records in again.items()} == {
            body: len(records) for body, records in found.items()
        }, "a clean stop and start changed what came"
        return found

    def repeats_without_reason(self, records: Sequence[Record]) -> bool:
        """Whether a message came again, though there was no kill just after the time before."""
        times = sorted(record.store_timestamp for record in records)
        return any(
            not any(first <= kill + 50 and kill - first <= REPEAT_MS for kill in self.kills_ms)
            for first in times[:-1]
        )


def came(client: BlockingClient) -> dict[bytes, list[Record]]:
    found: dict[bytes, list[Record]] = {}
    for queue_id in range(QUEUES):
        for record in read_queue(client, TOPIC, queue_id):
            found.setdefault(record.body, []).append(record)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Delayer, Timed, Recaller])
def test_a_kill_neither_hurries_nor_loses_what_is_for_later(
    kind: type[Sender], tmp_path: Path
) -> None:
    print(f"FIREARROW_KILL_SEED={SEED}")
    campaign = Later(tmp_path / "campaign", kind)
    for number in range(ROUNDS):
        campaign.round(number)
    found, book = campaign.settle(), campaign.book
    lost = book.acknowledged - book.asked - found.keys()
    early = [
        record
        for body, records in found.items()
        for record in records
        if record.store_timestamp < book.due_ms.get(body, 0)
    ]
    twice = [records for records in found.values() if len(records) > 1]
    wrong = [records for records in twice if campaign.repeats_without_reason(records)]
    undead = book.recalled & found.keys()
    print(
        f"{kind.__name__}: {ROUNDS} kills, {len(book.acknowledged)} acknowledged, "
        f"{len(found)} delivered, {len(lost)} lost, {len(early)} early, {len(twice)} twice, "
        f"{len(wrong)} of them far from a kill, {len(book.recalled)} taken back, "
        f"{len(undead)} of them delivered"
    )
    assert not found.keys() - book.due_ms.keys(), "a message that nobody sent"
    assert not lost, sorted(lost)[0][:40]
    assert not early, early[0].body[:40]
    assert not wrong, wrong[0][0].body[:40]
    assert not undead, sorted(undead)[0][:40]
    assert len(book.acknowledged) > 50 * ROUNDS
    assert book.recalled or kind is not Recaller
