"""Clients of a compaction topic that work until the broker is killed, and remember what was there.

A key has its queue, many senders write it, and sometimes one of them takes it away: an empty body.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from firearrow.codec.properties import find_property
from firearrow.codec.record import Record, decode_record, split_records
from firearrow.model import codes
from tests.support.brokers import pull_fields, send_fields
from tests.support.killing import Worker
from tests.support.program import BlockingClient

TOPIC: Final = "prices"
QUEUES: Final = 2
KEYS: Final = 48
CREATE: Final[dict[str, Any]] = {
    "topic": TOPIC,
    "defaultTopic": "TBW102",
    "readQueueNums": QUEUES,
    "writeQueueNums": QUEUES,
    "perm": 6,
    "topicFilterType": "SINGLE_TAG",
    "order": "false",
    "attributes": "+cleanup.policy=COMPACTION",
}
END_S: Final = 20.0
_OLD: Final = 2000  # a reader of old messages goes back so far at most
_GOING_ON: Final = {codes.PULL_NOT_FOUND, codes.PULL_RETRY_IMMEDIATELY}

Place = tuple[int, int]  # queue, offset
Found = dict[Place, Record]


class Promise(NamedTuple):
    """An acknowledged version of a key; an empty body takes it away."""

    key: str
    body: bytes
    round: int


class Book:
    """What was sent, acknowledged and read; filled by several threads."""

    def __init__(self) -> None:
        self.sent: set[bytes] = set()
        self.promises: dict[Place, Promise] = {}
        self.twice: list[Place] = []  # given to two messages
        self.removals: dict[str, tuple[str, int]] = {}  # sender -> key, round: not acknowledged yet
        self.stall_s = 0.0  # the longest that a send took
        self.read_on: dict[int, Table] = {queue: Table() for queue in range(QUEUES)}
        self.old_reads = 0

    def newest(self) -> dict[str, tuple[Place, Promise]]:
        """Of each key the newest acknowledged version."""
        return {promise.key: (place, promise) for place, promise in sorted(self.promises.items())}

    def perhaps_removed(self, promise: Promise) -> bool:
        """Whether a removal that nobody acknowledged may have come behind this version."""
        return any(
            key == promise.key and number >= promise.round for key, number in self.removals.values()
        )


class Table:
    """What somebody knows who has read a queue up to ``offset``."""

    def __init__(self) -> None:
        self.offset = 0
        self.newest: dict[str, int] = {}

    def learn(self, records: Iterable[Record]) -> None:
        self.newest |= {key_of(record): record.queue_offset for record in records}


class Sender(Worker):
    """Writes new versions of keys, in the round ``number``."""

    def __init__(
        self,
        address: str,
        name: str,
        errors: list[BaseException],
        book: Book,
        rng: random.Random,
        number: int,
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._round = number
        self._count = 0
        self._last = dict.fromkeys(range(QUEUES), -1)
        for queue, offset in book.promises:
            self._last[queue] = max(self._last[queue], offset)

    def step(self) -> None:
        number = self._rng.randrange(KEYS)
        key, queue = f"key-{number}", number % QUEUES
        if self._rng.random() < 0.03:
            self._book.removals[self.name] = key, self._round
            self._send(key, queue, b"")
            del self._book.removals[self.name]
        else:
            self._count += 1
            size = self._rng.choice((30, 100, 300, 2000))
            body = f"{key}/{self.name}/{self._count}/".encode().ljust(size, b".")
            self._book.sent.add(body)
            self._send(key, queue, body)

    def _send(self, key: str, queue: int, body: bytes) -> None:
        book, begun = self._book, time.monotonic()
        fields = send_fields(TOPIC, queue, properties=f"KEYS\x01{key}\x02")
        answer = self.call(310, fields, body)
        book.stall_s = max(book.stall_s, time.monotonic() - begun)
        assert answer.code == codes.SUCCESS, answer
        offset = int(answer.ext["queueOffset"])
        assert offset > self._last[queue], f"offset {offset} of {queue} after {self._last[queue]}"
        self._last[queue] = offset
        if (queue, offset) in book.promises:
            book.twice.append((queue, offset))
        book.promises[queue, offset] = Promise(key, body, self._round)


class Follower(Worker):
    """Reads a queue from where the one before it stopped."""

    def __init__(
        self, address: str, name: str, errors: list[BaseException], book: Book, queue: int
    ) -> None:
        super().__init__(address, name, errors)
        self._queue = queue
        self._table = book.read_on[queue]

    def step(self) -> None:
        records, offset = pull(self.client, self._queue, self._table.offset, suspend_ms=200)
        self._table.learn(records)
        self._table.offset = offset


class Rereader(Worker):
    """Reads a queue from some old offset to its end, again and again."""

    def __init__(
        self,
        address: str,
        name: str,
        errors: list[BaseException],
        book: Book,
        rng: random.Random,
        queue: int,
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._queue = queue
        self._offset = 0

    def step(self) -> None:
        records, offset = pull(self.client, self._queue, self._offset)
        if offset == self._offset and not records:
            offset = self._rng.randrange(max(0, offset - _OLD), offset + 1)
            self._book.old_reads += 1
        self._offset = offset


def pull(
    client: BlockingClient, queue: int, offset: int, suspend_ms: int = 0
) -> tuple[list[Record], int]:
    """What is at or behind the offset, and where to go on. No offset is told to be wrong."""
    fields = pull_fields(TOPIC, queue, offset, group="judge", suspend_ms=suspend_ms)
    header, data = client.call(11, fields)
    if header.code == codes.TOPIC_NOT_EXIST:
        return [], offset
    assert header.code in {codes.SUCCESS, *_GOING_ON}, (queue, offset, header)
    found = [] if header.code != codes.SUCCESS else split_records(data)
    records = [decode_record(part, check_crc=True) for part in found]
    following = int((header.ext or {}).get("nextBeginOffset", offset))
    offsets = [offset - 1, *(record.queue_offset for record in records), following]
    assert offsets == sorted(set(offsets)) or not records, offsets
    assert following >= offset, (offset, header)
    if header.code == codes.PULL_NOT_FOUND:
        assert following == offset, (offset, header)
    return records, following


def key_of(record: Record) -> str:
    return (find_property(record.properties, b"KEYS") or b"").decode()


def newest_in(found: Found) -> dict[str, int]:
    """The newest offset of each key."""
    return {key_of(record): offset for (_, offset), record in sorted(found.items())}


def read_to_the_end(client: BlockingClient, queue: int, offset: int) -> Iterator[Record]:
    """Everything at and behind the offset, while nobody writes."""
    header, _ = client.call(30, {"topic": TOPIC, "queueId": queue})
    end, deadline = int((header.ext or {})["offset"]), time.monotonic() + END_S
    while offset < end:  # files that change their names may hide one for a moment
        records, offset = pull(client, queue, offset)
        yield from records
        assert time.monotonic() < deadline, f"queue {queue} ends at {end}, but goes to {offset}"


def read_all(client: BlockingClient) -> Found:
    """Everything that there is."""
    return {
        (queue, record.queue_offset): record
        for queue in range(QUEUES)
        for record in read_to_the_end(client, queue, 0)
    }
