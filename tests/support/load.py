"""Clients that put load on a real broker until it is killed, and remember what it promised."""

from __future__ import annotations

import random
from typing import Any, Final, NamedTuple

from firearrow.codec.record import Record, decode_record, split_records
from firearrow.model import codes
from tests.support.batches import create_fields, unwrapped
from tests.support.brokers import pull_fields, send_fields
from tests.support.killing import Worker, now_ms
from tests.support.program import BlockingClient

QUEUES: Final = 4
LONG_GROUP: Final = "g" * 120
LONG_TOPIC: Final = "%RETRY%" + LONG_GROUP  # its records have the second version's long topic
DELAYED_TOPIC: Final = "delayed"
DELAY_MS: Final = 1000
GROUP: Final = "consumers"
BATCHES: Final = "batches"  # with batch queues: batches stay whole
CREATE_BATCHES: Final = create_fields(BATCHES, QUEUES)


class Promise(NamedTuple):
    """Where an acknowledged message lies."""

    topic: str
    queue_id: int
    offset: int


class Book:
    """What was sent, and what was acknowledged; filled by several threads."""

    def __init__(self) -> None:
        self.sent: set[bytes] = set()
        self.promises: dict[bytes, Promise] = {}
        self.delayed: dict[bytes, int] = {}  # body -> ms before which it must not come
        self.may_repeat: set[bytes] = set()  # delayed, acknowledged or not: delivered at least once
        self.commits: dict[int, set[int]] = {}  # queue -> offsets


def batch_body(bodies: list[bytes]) -> bytes:
    """The body of a batch without properties."""
    items = (bytes(12) + len(body).to_bytes(4) + body + bytes(2) for body in bodies)
    return b"".join((len(item) + 4).to_bytes(4) + item for item in items)


class Producer(Worker):
    """Sends, one message at a time."""

    def __init__(
        self, address: str, name: str, errors: list[BaseException], book: Book, rng: random.Random
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._count = 0

    def step(self) -> None:
        dice = self._rng.random()
        if dice < 0.05:
            self._send_batch("load-0", "")
        elif dice < 0.08:
            self._send_delayed()
        elif dice < 0.10:
            self._send(f"fresh-{self.name}-{self._count}", 0)
        elif dice < 0.15:
            self._send(LONG_TOPIC, 0)
        elif dice < 0.20:
            self._send_batch(BATCHES, f"UNIQ_KEY\x01{self.name}-{self._count}\x02")
        elif dice < 0.23:
            self._send(BATCHES, self._rng.randrange(QUEUES))
        else:
            self._send(f"load-{self._rng.randrange(3)}", self._rng.randrange(QUEUES))

    def _body(self) -> bytes:
        self._count += 1
        size = self._rng.choice((20, 100, 1000, 10_000 if self._rng.random() < 0.1 else 200))
        body = f"{self.name}-{self._count}-".encode().ljust(size, b".")
        self._book.sent.add(body)
        return body

    def _call(self, topic: str, queue_id: int, body: bytes, **more: Any) -> int:
        fields = {**send_fields(topic, queue_id, **more), "g": now_ms()}
        header, _ = self.client.call(310, fields, body)
        assert header.code == codes.SUCCESS, header
        return int((header.ext or {})["queueOffset"])

    def _send(self, topic: str, queue_id: int) -> None:
        body = self._body()
        offset = self._call(topic, queue_id, body, properties=f"KEYS\x01{self._count}\x02")
        self._book.promises[body] = Promise(topic, queue_id, offset)

    def _send_batch(self, topic: str, envelope: str) -> None:
        bodies = [self._body() for _ in range(self._rng.randrange(2, 20))]
        queue_id = self._rng.randrange(QUEUES)
        offset = self._call(topic, queue_id, batch_body(bodies), batch=True, properties=envelope)
        for n, body in enumerate(bodies):
            self._book.promises[body] = Promise(topic, queue_id, offset + n)

    def _send_delayed(self) -> None:
        body = self._body()
        self._book.may_repeat.add(body)
        not_before = now_ms() + DELAY_MS
        self._call(DELAYED_TOPIC, 0, body, properties="DELAY\x011\x02")
        self._book.delayed[body] = not_before


class Consumer(Worker):
    """Pulls one queue from the committed offset on, and commits what it got."""

    def __init__(
        self, address: str, errors: list[BaseException], book: Book, queue_id: int
    ) -> None:
        super().__init__(address, f"consumer-{queue_id}", errors)
        self._book = book
        self._queue_id = queue_id
        self._offset = 0

    def begin(self) -> None:
        self._offset = committed_offset(self.client, self._queue_id)

    def step(self) -> None:
        offset = self._offset
        fields = pull_fields("load-0", self._queue_id, offset, group=GROUP, suspend_ms=1000)
        header, data = self.client.call(11, fields)
        if header.code in (codes.PULL_NOT_FOUND, codes.TOPIC_NOT_EXIST):
            return
        assert header.code == codes.SUCCESS, header
        records = [decode_record(part) for part in split_records(data)]
        assert [r.queue_offset for r in records] == list(range(offset, offset + len(records)))
        offset += len(records)
        # Even if the answer is lost, it may count.
        self._book.commits.setdefault(self._queue_id, set()).add(offset)
        self.client.call(
            15,
            {
                "consumerGroup": GROUP,
                "topic": "load-0",
                "queueId": self._queue_id,
                "commitOffset": offset,
            },
        )
        self._offset = offset


def committed_offset(client: BlockingClient, queue_id: int) -> int:
    fields = {"consumerGroup": GROUP, "topic": "load-0", "queueId": queue_id}
    header, _ = client.call(14, fields)
    return int((header.ext or {}).get("offset", 0)) if header.code == codes.SUCCESS else 0


def read_queue(client: BlockingClient, topic: str, queue_id: int) -> list[Record]:
    """Every message of a queue, from its beginning."""
    records: list[Record] = []
    while True:
        fields = pull_fields(topic, queue_id, len(records), group="judge")
        header, data = client.call(11, fields)
        if header.code == codes.PULL_NOT_FOUND:
            return records
        assert header.code == codes.SUCCESS, (topic, queue_id, len(records), header)
        stored = [decode_record(part, check_crc=True) for part in split_records(data)]
        got = [message for record in stored for message in unwrapped(record)]
        expected = list(range(len(records), len(records) + len(got)))
        assert [r.queue_offset for r in got] == expected, (topic, queue_id)
        records += got
