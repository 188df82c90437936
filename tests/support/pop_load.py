"""Clients that pop from a real broker until it is killed, and remember whose each message was."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

import msgspec

from firearrow.model import codes
from tests.support.brokers import send_fields
from tests.support.killing import Worker, now_ms
from tests.support.popping import Got, ack, batch_ack, change, pop

QUEUES: Final = 3
INVISIBLE_MS: Final = 1500
TOPIC: Final = "orders"


class Ownership(msgspec.Struct):
    """A message was somebody's from ``since_ms`` to ``until_ms`` (the broker's clock)."""

    body: bytes
    queue_id: int
    offset: int
    since_ms: int
    until_ms: int
    retry: bool


class Over(NamedTuple):
    """A message was acknowledged in time by its owner, which was answered at ``at_ms``."""

    at_ms: int
    owner: Ownership


class Batch(NamedTuple):
    """What an ordered pop got: ``ownerships`` follow each other in one queue."""

    queue_id: int
    pop_ms: int
    ownerships: list[Ownership]


class Book:
    """What clients know: filled by several threads."""

    def __init__(self) -> None:
        self.sent: set[bytes] = set()
        self.acknowledged: set[bytes] = set()  # sends
        self.owned: list[Ownership] = []
        self.over: dict[bytes, Over] = {}
        self.maybe_over: set[bytes] = set()  # too late, or never answered
        self.changing: set[bytes] = set()  # changes of the invisible time that were never answered
        self.batches: list[Batch] = []


class Sender(Worker):
    def __init__(
        self,
        address: str,
        name: str,
        errors: list[BaseException],
        book: Book,
        rng: random.Random,
        priorities: int = 0,
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._priorities = priorities
        self._count = 0

    def step(self) -> None:
        self._count += 1
        size = self._rng.choice((20, 100, 1000))
        text, properties = f"{self.name}-{self._count}-", ""
        if self._priorities:
            priority = self._rng.randrange(self._priorities)
            text = f"{priority}/{text}"
            properties = f"_SYS_MSG_PRIORITY_\x01{priority}\x02"
        body = text.encode().ljust(size, b".")
        self._book.sent.add(body)
        fields = send_fields(
            TOPIC, self._rng.randrange(QUEUES), queues=QUEUES, properties=properties
        )
        answer = self.call(310, fields, body)
        assert answer.code == codes.SUCCESS, answer
        self._book.acknowledged.add(body)


class Popper(Worker):
    """Pops; acknowledges most, keeps some, changes the time of some. ``tidy``: acknowledges all."""

    def __init__(
        self,
        address: str,
        name: str,
        errors: list[BaseException],
        book: Book,
        rng: random.Random,
        tidy: bool = False,
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._tidy = tidy

    def step(self) -> None:
        most = self._rng.choice((1, 8, 32))
        found = pop(self, TOPIC, maxMsgNums=most, invisibleTime=INVISIBLE_MS, pollTime=200)
        owned = [(message, own(message)) for message in found]
        self._book.owned += [ownership for _, ownership in owned]
        whole = (
            found
            and len({message.stored_topic + str(message.record.queue_id) for message in found}) == 1
        )
        if whole and (self._tidy or self._rng.random() < 0.2):
            self._acknowledge_together(owned)
            return
        for message, ownership in owned:
            dice = 0.0 if self._tidy else self._rng.random()
            if dice < 0.7:
                self._acknowledge(message, ownership)
            elif dice < 0.8:
                self._change(message, ownership)

    def _acknowledge(self, message: Got, ownership: Ownership) -> None:
        self._book.maybe_over.add(message.body)
        assert ack(self, message).code == codes.SUCCESS
        self._over(ownership)

    def _acknowledge_together(self, owned: list[tuple[Got, Ownership]]) -> None:
        self._book.maybe_over.update(message.body for message, _ in owned)
        assert batch_ack(self, [message for message, _ in owned]).code == codes.SUCCESS
        for _, ownership in owned:
            self._over(ownership)

    def _over(self, ownership: Ownership) -> None:
        if now_ms() < ownership.until_ms:
            self._book.over.setdefault(ownership.body, Over(now_ms(), ownership))

    def _change(self, message: Got, ownership: Ownership) -> None:
        old_until_ms = ownership.until_ms
        ownership.until_ms = min(now_ms(), old_until_ms)  # unless the change is answered in time
        invisible_ms = self._rng.choice((0, 300, 2500))
        self._book.changing.add(message.body)
        assert change(self, message, invisible_ms).code == codes.SUCCESS
        self._book.changing.discard(message.body)
        if now_ms() < old_until_ms:
            changed = own(message)
            self._book.owned.append(changed)
            if invisible_ms and self._rng.random() < 0.5:
                self._acknowledge(message, changed)


class OrderedPopper(Worker):
    """Pops in order, and acknowledges from the front: all, some or none."""

    def __init__(
        self,
        address: str,
        name: str,
        errors: list[BaseException],
        book: Book,
        rng: random.Random,
        tidy: bool = False,
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._tidy = tidy

    def step(self) -> None:
        most = self._rng.choice((1, 4, 16))
        found = pop(
            self, TOPIC, maxMsgNums=most, invisibleTime=INVISIBLE_MS, pollTime=200, order="true"
        )
        by_queue: dict[int, list[tuple[Got, Ownership]]] = {}
        for message in found:
            by_queue.setdefault(message.record.queue_id, []).append((message, own(message)))
        for queue_id, owned in by_queue.items():
            ownerships = [ownership for _, ownership in owned]
            self._book.owned += ownerships
            self._book.batches.append(Batch(queue_id, ownerships[0].since_ms, ownerships))
        for owned in by_queue.values():
            dice = 0.0 if self._tidy else self._rng.random()
            wanted = len(owned) if dice < 0.8 else self._rng.randrange(len(owned))
            for message, ownership in owned[:wanted]:
                if not self._acknowledge(message, ownership):
                    break

    def _acknowledge(self, message: Got, ownership: Ownership) -> bool:
        """Whether it was in time: if not, those behind it must not be acknowledged either."""
        self._book.maybe_over.add(message.body)
        assert ack(self, message).code == codes.SUCCESS
        if now_ms() >= ownership.until_ms:
            return False
        self._book.over.setdefault(message.body, Over(now_ms(), ownership))
        return True


def own(message: Got) -> Ownership:
    """Whose it is from its handle's pop time on."""
    fields = message.handle.split(" ")
    since_ms, invisible_ms = int(fields[1]), int(fields[2])
    return Ownership(
        message.body,
        message.record.queue_id,
        message.offset,
        since_ms,
        since_ms + invisible_ms,
        fields[4] != "0",
    )
