"""``kill -9`` of a real broker while consumers filter with SQL92, and while messages are sent twice
to a topic that stores each once."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import pull_fields, send_fields
from tests.support.killing import ROUNDS, SEED, Campaign, Worker
from tests.support.load import read_queue

from firearrow.model import codes

QUEUES = 2
SENDERS = 2
LOAD_S = (0.3, 1.5)
SETTLE_S = 20.0
SETTINGS = {
    "enablePropertyFilter": "true",
    "flushConsumerOffsetInterval": 300,
    "flushConsumeQueueThoroughInterval": 500,
}


class Rounds(Campaign):
    """Rounds on one store; every second one with SYNC_FLUSH."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, random.Random(SEED), **SETTINGS)

    def round(self, number: int) -> None:
        flush = "SYNC_FLUSH" if number % 2 else "ASYNC_FLUSH"
        self.configure(flushDiskType=flush, **SETTINGS)
        self.kill_under(lambda address: self.workers(address, str(number)), LOAD_S)

    def workers(self, address: str, name: str) -> list[Worker]:
        raise NotImplementedError


# -- filters

FILTERED = "filtered"
EXPRESSION = "amount BETWEEN 3 AND 6 AND region = 'eu'"
GROUPS = ("brings", "registered")  # the filter with each pull, or with a heartbeat


class FilterBook:
    def __init__(self) -> None:
        self.sent: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.delivered = {group: Counter[bytes]() for group in GROUPS}
        self.asked_to_commit: dict[tuple[str, int], int] = {}  # the highest


def matches(body: bytes) -> bool:
    amount, region = body.split(b"-")[:2]
    return 3 <= int(amount) <= 6 and region == b"eu"


class FilterSender(Worker):
    def __init__(
        self,
        address: str,
        name: str,
        errors: list[BaseException],
        book: FilterBook,
        rng: random.Random,
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._count = 0

    def step(self) -> None:
        self._count += 1
        amount, region = self._rng.randrange(10), self._rng.choice(("eu", "us"))
        text = f"{amount}-{region}-{self.name}-{self._count}-"
        body = text.encode().ljust(self._rng.choice((30, 300)), b".")
        self._book.sent.add(body)
        properties = f"amount\x01{amount}\x02region\x01{region}\x02"
        queue_id = self._rng.randrange(QUEUES)
        fields = send_fields(FILTERED, queue_id, queues=QUEUES, properties=properties)
        answer = self.call(310, fields, body)
        assert answer.code == codes.SUCCESS, answer
        self._book.acknowledged.add(body)


class FilterConsumer(Worker):
    """One queue of one group, from the committed offset on."""

    def __init__(
        self, address: str, errors: list[BaseException], book: FilterBook, group: str, queue_id: int
    ) -> None:
        super().__init__(address, f"{group}-{queue_id}", errors)
        self._book = book
        self._group = group
        self._queue_id = queue_id
        self._offset = 0

    def begin(self) -> None:
        if self._group == "registered":
            wanted = {"topic": FILTERED, "subString": EXPRESSION, "subVersion": 1}
            consumer = {
                "groupName": self._group,
                "consumeType": "CONSUME_PASSIVELY",
                "messageModel": "CLUSTERING",
                "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
                "subscriptionDataSet": [{"expressionType": "SQL92", **wanted}],
            }
            beat = {"clientID": self.name, "consumerDataSet": [consumer], "producerDataSet": []}
            answer = self.call(34, body=msgspec.json.encode(beat))
            assert answer.code == codes.SUCCESS, answer
        answer = self.call(14, self._queue())
        if answer.code == codes.SUCCESS:
            self._offset = int(answer.ext["offset"])
            asked = self._book.asked_to_commit.get((self._group, self._queue_id), 0)
            assert self._offset <= asked, "an offset that nobody committed"

    def _queue(self) -> dict[str, Any]:
        return {"consumerGroup": self._group, "topic": FILTERED, "queueId": self._queue_id}

    def step(self) -> None:
        fields = pull_fields(
            FILTERED,
            self._queue_id,
            self._offset,
            group=self._group,
            suspend_ms=500,
            expression=EXPRESSION if self._group == "brings" else None,
            version=1,
        )
        answer = self.call(11, {**fields, "expressionType": "SQL92"})
        if answer.code in (codes.PULL_NOT_FOUND, codes.TOPIC_NOT_EXIST):
            return
        if answer.code == codes.PULL_RETRY_IMMEDIATELY:  # passed over what does not match
            records = []
        else:
            assert answer.code == codes.SUCCESS, answer
            records = answer.records()
        self._book.delivered[self._group].update(record.body for record in records)
        self._offset = int(answer.ext["nextBeginOffset"])
        self._book.asked_to_commit[self._group, self._queue_id] = max(
            self._offset, self._book.asked_to_commit.get((self._group, self._queue_id), 0)
        )
        self.call(15, {**self._queue(), "commitOffset": self._offset})


class Filters(Rounds):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.book = FilterBook()

    def consumers(self, address: str) -> list[Worker]:
        return [
            FilterConsumer(address, self.errors, self.book, group, queue_id)
            for group in GROUPS
            for queue_id in range(QUEUES)
        ]

    def workers(self, address: str, name: str) -> list[Worker]:
        senders = [
            FilterSender(address, f"{name}-{n}", self.errors, self.book, self.child_rng())
            for n in range(SENDERS)
        ]
        return [*senders, *self.consumers(address)]

    def missing(self) -> dict[str, set[bytes]]:
        wanted = {body for body in self.book.acknowledged if matches(body)}
        return {group: wanted - found.keys() for group, found in self.book.delivered.items()}

    def settle(self) -> None:
        with self.running() as address:
            self.work(self.consumers(address), lambda: not any(self.missing().values()), SETTLE_S)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_filtered_consumption(tmp_path: Path) -> None:
    print(f"FIREARROW_KILL_SEED={SEED}")
    campaign = Filters(tmp_path / "campaign")
    for number in range(ROUNDS):
        campaign.round(number)
    campaign.settle()
    book = campaign.book
    for group, delivered in book.delivered.items():
        lost = campaign.missing()[group]
        wrong = [body for body in delivered if not matches(body)]
        repeated = sum(times > 1 for times in delivered.values())
        print(
            f"SQL92 filter ({group}): {ROUNDS} kills, {len(book.acknowledged)} acknowledged, "
            f"{len(delivered)} delivered, {len(lost)} lost, {len(wrong)} that do not match, "
            f"{repeated} again from the saved offset"
        )
        assert delivered.keys() <= book.sent, "a message that nobody sent"
        assert not lost, sorted(lost)[0][:40]
        assert not wrong, wrong[0][:40]
        assert len(delivered) > 20 * ROUNDS


# -- no duplicates

ONCE = "once"
Place = tuple[int, int, str]  # queue, offset, where in the log


class OnceBook:
    def __init__(self) -> None:
        self.keys: list[str] = []  # every one that was ever sent, acknowledged or not
        self.sends = 0  # acknowledged
        self.places: dict[str, Place] = {}
        self.moved: list[tuple[str, Place, Place]] = []


class OnceSender(Worker):
    """Every second time a message whose key was sent before, by anybody, in any round."""

    def __init__(
        self, address: str, name: str, errors: list[BaseException], book: OnceBook, rng: Any
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._count = 0

    def step(self) -> None:
        if self._rng.random() < 0.1:
            self._batch()
            return
        key = self._key()
        fields = send_fields(
            ONCE, self._rng.randrange(QUEUES), queues=QUEUES, properties=f"KEYS\x01{key}\x02"
        )
        ext = self._answer(fields, key.encode())
        self._note(key, (int(ext["queueId"]), int(ext["queueOffset"]), ext["msgId"][-16:]))

    def _batch(self) -> None:
        """The answer names the place in the log for each of its messages."""
        keys = [self._key() for _ in range(self._rng.randrange(2, 6))]
        fields = send_fields(ONCE, self._rng.randrange(QUEUES), queues=QUEUES, batch=True)
        ext = self._answer(fields, b"".join(map(_item, keys)))
        for key, message_id in zip(keys, ext["msgId"].split(","), strict=True):
            self._note(key, (-1, -1, message_id[-16:]))

    def _key(self) -> str:
        known = self._book.keys
        if known and self._rng.random() < 0.5:
            recent = known[-20:] if self._rng.random() < 0.3 else known
            return str(self._rng.choice(recent))
        self._count += 1
        key = f"{self.name}-{self._count}"
        known.append(key)
        return key

    def _answer(self, fields: dict[str, Any], body: bytes) -> dict[str, str]:
        answer = self.call(310, fields, body)
        assert answer.code == codes.SUCCESS, answer
        self._book.sends += 1
        return answer.ext

    def _note(self, key: str, place: Place) -> None:
        known = self._book.places.setdefault(key, place)
        if known[2] != place[2] or (known[0] >= 0 <= place[0] and known != place):
            self._book.moved.append((key, known, place))


def _item(key: str) -> bytes:
    """One message of a batch."""
    body, properties = key.encode(), f"KEYS\x01{key}\x02".encode()
    head = bytes(12) + len(body).to_bytes(4) + body + len(properties).to_bytes(2) + properties
    return (len(head) + 4).to_bytes(4) + head


class Once(Rounds):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.book = OnceBook()
        with self.connected() as client:
            fields = {"topic": ONCE, "readQueueNums": QUEUES, "writeQueueNums": QUEUES, "perm": 6}
            fields |= {"defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "order": "false"}
            fields["attributes"] = "+dedup.window.ms=3600000"
            assert client.call(17, fields)[0].code == codes.SUCCESS

    def workers(self, address: str, name: str) -> list[Worker]:
        return [
            OnceSender(address, f"{name}-{n}", self.errors, self.book, self.child_rng())
            for n in range(SENDERS)
        ]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_repeated_sends(tmp_path: Path) -> None:
    print(f"FIREARROW_KILL_SEED={SEED}")
    campaign = Once(tmp_path / "campaign")
    for number in range(ROUNDS):
        campaign.round(number)
    stored: Counter[str] = Counter()
    where: dict[str, str] = {}
    with campaign.connected() as client:
        for queue_id in range(QUEUES):
            for record in read_queue(client, ONCE, queue_id):
                stored[record.body.decode()] += 1
                where[record.body.decode()] = f"{record.physical_offset:016X}"
    book = campaign.book
    lost = book.places.keys() - stored.keys()
    twice = [key for key, times in stored.items() if times > 1]
    elsewhere = [key for key, place in book.places.items() if where.get(key) != place[2]]
    print(
        f"no duplicates: {ROUNDS} kills, {book.sends} sends acknowledged, {len(book.places)} keys, "
        f"{len(stored)} stored, {len(lost)} lost, {len(twice)} twice, "
        f"{len(book.moved)} acknowledged at two places"
    )
    assert stored.keys() <= set(book.keys), "a key that nobody sent"
    assert not lost, sorted(lost)[0]
    assert not twice, twice[0]
    assert not book.moved, book.moved[0]
    assert not elsewhere, elsewhere[0]
    assert book.sends > 1.2 * len(book.places), "hardly anything was sent twice"
    assert len(book.places) > 20 * ROUNDS
