"""The one way into the store for every message, a client's or a room's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from firearrow.broker.rooms import Guard, Room
from firearrow.codec.batch import INNER_COUNT
from firearrow.codec.properties import find_property
from firearrow.codec.sysflags import SYS_INNER_BATCH, SYS_TRANSACTION_MASK
from firearrow.model.message import Message
from firearrow.store.api import Put, PutStatus, Store

Hook = Callable[[Message], Message | Put]


class Writer:
    """Lets the rooms look at marked messages, then appends."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.guards: dict[str, Guard] = {}  # by topic
        self._hooks: tuple[tuple[bytes, Hook], ...] = ()
        self._marks: frozenset[bytes] = frozenset()
        self._batch_hooks: tuple[tuple[bytes, Hook], ...] = ()

    def use(self, rooms: Iterable[Room]) -> None:
        rooms = tuple(rooms)
        hooks = ((mark, room.before_store) for room in rooms for mark in room.marks)
        self._hooks = ((INNER_COUNT + b"\x01", _inner_batch_or_none), *hooks)
        self._batch_hooks = tuple(
            (mark, room.before_store) for room in rooms if room.in_batches for mark in room.marks
        )
        self._marks = frozenset(mark.removesuffix(b"\x01") for mark, _ in self._hooks)

    def marked(self, properties: bytes) -> bool:
        """Whether a room may want such a message: one look, however many rooms there are."""
        return not self._marks.isdisjoint(properties.replace(b"\x01", b"\x02").split(b"\x02"))

    def put(self, message: Message) -> Put:
        """Store one message, or say why not."""
        guard = self.guards.get(message.topic)
        return self._put(message) if guard is None else guard.put(message, self._put)

    def _put(self, message: Message) -> Put:
        properties = message.properties
        if not self.marked(properties):
            return self._store.append(message)
        for mark, hook in self._hooks:
            if mark in properties:
                result = hook(message)
                if isinstance(result, Put):
                    return result
                message = result
        return self._store.append(message)

    def put_batch(self, messages: list[Message]) -> Put:
        """All or nothing; neither transactions nor delays are possible in a batch."""
        for message in messages:
            if message.sys_flag & SYS_TRANSACTION_MASK or b"DELAY\x01" in message.properties:
                return Put(PutStatus.MESSAGE_ILLEGAL, "a batch carries no delayed or half messages")
            if INNER_COUNT in message.properties:
                refusal = _inner_batch_or_none(message)
                if isinstance(refusal, Put):
                    return refusal
            for mark, hook in self._batch_hooks:
                if mark in message.properties:
                    hook(message)
        guard = self.guards.get(messages[0].topic)
        if guard is not None:
            return guard.put_batch(messages, self._store.append_batch)
        return self._store.append_batch(messages)


def _inner_batch_or_none(message: Message) -> Message | Put:
    """Only an inner batch has a number of messages (``HookUtils.checkInnerBatch``)."""
    if message.sys_flag & SYS_INNER_BATCH or not find_property(message.properties, INNER_COUNT):
        return message
    return Put(PutStatus.MESSAGE_ILLEGAL, "INNER_NUM in a message that is no inner batch")
