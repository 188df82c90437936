"""Clients of lite topics that work until the broker is killed, and remember whose each message was.

Lite topics have numbers; a body begins with that of its lite topic.
"""

from __future__ import annotations

import random
from typing import Final

from firearrow.model import codes
from tests.support import lite
from tests.support.brokers import send_fields
from tests.support.killing import Worker, now_ms
from tests.support.lite import Got
from tests.support.pop_load import Batch, Book, Over, Ownership

INVISIBLE_MS: Final = 1500
STEADY: Final = 8  # lite topics that every round writes to
FRESH: Final = 4  # that a round makes


def lite_topics(rounds: int) -> range:
    """The lite topics of so many rounds."""
    return range(STEADY + FRESH * rounds)


def name_of(number: int) -> str:
    return f"line-{number}"


class Sender(Worker):
    """Sends to the steady lite topics, and to those that the round ``number`` makes."""

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
        self._lines = [*range(STEADY), *lite_topics(number + 1)[-FRESH:]]
        self._count = 0

    def step(self) -> None:
        self._count += 1
        line = self._rng.choice(self._lines)
        size = self._rng.choice((30, 100, 1000))
        body = f"{line}/{self.name}/{self._count}/".encode().ljust(size, b".")
        self._book.sent.add(body)
        properties = f"__LITE_TOPIC\x01{name_of(line)}\x02"
        fields = send_fields(lite.PARENT, self._rng.randrange(4), properties=properties)
        answer = self.call(310, fields, body)
        assert answer.code == codes.SUCCESS, answer
        self._book.acknowledged.add(body)


class Reader(Worker):
    """A client of ``group``: subscribes to everything there is, pops, and acknowledges each lite
    topic from the front: all, some or none. ``tidy``: acknowledges all."""

    def __init__(
        self,
        address: str,
        name: str,
        errors: list[BaseException],
        book: Book,
        rng: random.Random,
        group: str,
        lines: range,
        *,
        tidy: bool = False,
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._group = group
        self._lines = lines
        self._tidy = tidy

    def begin(self) -> None:
        wanted = map(name_of, self._lines)
        more = {"client_id": self.name, "action": "COMPLETE_ADD", "group": self._group}
        assert lite.subscribe(self, *wanted, **more).code == codes.SUCCESS

    def step(self) -> None:
        most = self._rng.choice((1, 4, 16, 32))
        more = {"maxMsgNum": most, "invisibleTime": INVISIBLE_MS, "pollTime": 200}
        found = lite.pop(self, self.name, consumerGroup=self._group, bornTime=now_ms(), **more)
        by_line: dict[int, list[tuple[Got, Ownership]]] = {}
        for message in found:
            by_line.setdefault(line_of(message.body), []).append((message, _own(message)))
        for line, owned in by_line.items():
            assert {message.lite_topic for message, _ in owned} == {name_of(line)}
            ownerships = [ownership for _, ownership in owned]
            self._book.owned += ownerships
            self._book.batches.append(Batch(line, ownerships[0].since_ms, ownerships))
        for owned in by_line.values():
            self._consume(owned)

    def _consume(self, owned: list[tuple[Got, Ownership]]) -> None:
        dice = 0.0 if self._tidy else self._rng.random()
        wanted = len(owned) if dice < 0.8 else self._rng.randrange(len(owned))
        for message, ownership in owned[:wanted]:
            if not self._acknowledge(message, ownership):
                return
        if wanted < len(owned) and dice > 0.9:
            self._give_back(owned[wanted:])

    def _acknowledge(self, message: Got, ownership: Ownership) -> bool:
        """Whether it was in time: if not, those behind it must not be acknowledged either."""
        self._book.maybe_over.add(message.body)
        answer = lite.ack(self, message, consumerGroup=self._group)
        assert answer.code == codes.SUCCESS, answer
        if now_ms() >= ownership.until_ms:
            return False
        self._book.over.setdefault(message.body, Over(now_ms(), ownership))
        return True

    def _give_back(self, owned: list[tuple[Got, Ownership]]) -> None:
        """Suspend the rest of the batch: it may come again at once."""
        for _, ownership in owned:
            ownership.until_ms = min(now_ms(), ownership.until_ms)
        more = {"invisibleTime": 0, "suspend": "true", "consumerGroup": self._group}
        answer = self.call(lite.CHANGE, lite.ack_fields(owned[0][0], **more))
        assert answer.code == codes.SUCCESS, answer


def line_of(body: bytes) -> int:
    return int(body.partition(b"/")[0])


def _own(message: Got) -> Ownership:
    """Whose it is from its handle's pop time on."""
    fields = message.handle.split(" ")
    since_ms, invisible_ms = int(fields[1]), int(fields[2])
    line, until_ms = line_of(message.body), since_ms + invisible_ms
    retry = message.attempt > 0
    return Ownership(message.body, line, message.offset, since_ms, until_ms, retry)
