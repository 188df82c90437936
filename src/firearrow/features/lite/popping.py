"""Pops of lite topics, and their acknowledgements (``PopLiteMessageProcessor``).

A lite topic gives a group one batch at a time, in order; the next when all of it is acknowledged,
the same again when its time is over. Batches are in memory: after a restart what was not
acknowledged is handed out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from firearrow.broker.offsets import ConsumerOffsets
from firearrow.codec.record import decode_record, split_records
from firearrow.features.lite.events import Events
from firearrow.features.lite.registry import Registry
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.store import api, lmq
from firearrow.store.api import Read, Store

MESSAGES_MAX: Final = 32  # of one pop
REVIVE_QUEUE: Final = 999  # in receipt handles: an ordered pop, which has no check point
REREADS_MAX: Final = 32
_CORRECTED: Final = frozenset(
    {
        api.OFFSET_TOO_SMALL,
        api.OFFSET_OVERFLOW_BADLY,
        api.OFFSET_FOUND_NULL,
        api.NO_MATCHED_MESSAGE,
        api.MESSAGE_WAS_REMOVING,
    }
)

Queue = tuple[str, str, int]  # light queue, group, 0


class Offsets(Protocol):
    """Where pops begin (the pop room's)."""

    def begin(self, queue: Queue, *, from_min: bool) -> int: ...
    def take_reset(self, queue: Queue) -> int | None: ...
    def set(self, queue: Queue, offset: int) -> None: ...
    def set_unless_reset(self, queue: Queue, offset: int) -> None: ...


class Acked(Protocol):
    @property
    def next_offset(self) -> int | None: ...
    @property
    def unknown_offset(self) -> bool: ...


class Orders(Protocol):
    """Which messages a group has now (the pop room's, in memory)."""

    released: Callable[[Queue], None]

    @property
    def table(self) -> Mapping[Queue, Any]: ...
    def blocked(
        self, queue: Queue, attempt_id: str | None, invisible_ms: int, now_ms: int
    ) -> bool: ...
    def hand_out(
        self,
        queue: Queue,
        offsets: list[int],
        pop_ms: int,
        invisible_ms: int,
        attempt_id: str | None,
    ) -> Mapping[int, int]: ...
    def acknowledge(self, queue: Queue, offset: int, pop_ms: int) -> Acked: ...
    def change_visible(self, queue: Queue, offset: int, pop_ms: int, visible_ms: int) -> None: ...
    def suspend(self, queue: Queue, pop_ms: int, visible_ms: int) -> None: ...
    def clear(self, queue: Queue) -> None: ...
    def forget_old(self) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class LitePopped(msgspec.Struct, gc=False):
    """Messages of some lite topics, whole records back to back; how often each was handed out
    before."""

    pop_ms: int
    records: list[bytes]
    attempts: list[int]


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """Why an acknowledgement or change did not count, or that it did."""

    code: int = codes.SUCCESS
    remark: str | None = None


class LitePopper:
    """Pops for clients, by their events."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        events: Events,
        offsets: Offsets,
        orders: Orders,
        consumer_offsets: ConsumerOffsets,
        clock: Clock,
    ) -> None:
        self._store = store
        self._registry = registry
        self._events = events
        self._offsets = offsets
        self._orders = orders
        self._consumer_offsets = consumer_offsets
        self._clock = clock

    # -- pop

    def pop(
        self, client_id: str, group: str, count: int, invisible_ms: int, attempt_id: str | None
    ) -> LitePopped:
        """At most ``count`` messages of the lite topics that have some for this client."""
        popped = LitePopped(self._clock.now_ms(), [], [])
        subscriber = self._registry.clients.get(client_id)
        for queue in self._events.take(client_id) if count > 0 else ():
            if subscriber is None or not self._registry.wants(subscriber, queue):
                self._events.dispatch(queue, group, avoid=client_id)  # it lost the subscription
                continue
            room = count - len(popped.attempts)
            self._pop_queue((queue, group, 0), room, invisible_ms, attempt_id, popped)
            if len(popped.attempts) >= count:
                break
        return popped

    def _pop_queue(
        self,
        queue: Queue,
        room: int,
        invisible_ms: int,
        attempt_id: str | None,
        popped: LitePopped,
    ) -> None:
        if self._offsets.take_reset(queue) is not None:
            self._orders.clear(queue)
        if self._orders.blocked(queue, attempt_id, invisible_ms, popped.pop_ms):
            return  # an event comes when it is free
        read, start = self._read(queue, room)
        if not read.count:
            return
        offsets = _offsets_of(queue[0], read, start)
        before = self._orders.hand_out(queue, offsets, popped.pop_ms, invisible_ms, attempt_id)
        popped.records.append(read.records)
        popped.attempts += [before.get(offset, 0) for offset in offsets]

    def _read(self, queue: Queue, room: int) -> tuple[Read, int]:
        """The next messages, and where they begin: what the queue does not have is passed by."""
        offset = self._offsets.begin(queue, from_min=False)
        for _ in range(REREADS_MAX):
            read = self._store.read(queue[0], queue[2], offset, room)
            if read.status not in _CORRECTED or read.next_offset == offset:
                break
            offset = read.next_offset
            self._offsets.set(queue, offset)
        else:
            self._events.dispatch(queue[0], queue[1])  # a long stretch: on with the next pop
        return read, offset

    # -- what becomes of them

    def acknowledge(self, queue: Queue, offset: int, pop_ms: int) -> Outcome:
        """One message is consumed."""
        committed = self._committed(queue)
        if offset < committed:
            return Outcome()
        if queue not in self._orders.table:
            # Handed out before a restart. Only the next one counts: nothing before it is skipped.
            if offset == committed:
                self._advance(queue, offset + 1)
            return Outcome()
        acked = self._orders.acknowledge(queue, offset, pop_ms)
        if acked.unknown_offset:
            return Outcome(codes.MESSAGE_ILLEGAL, "ack offset illegal.")
        if acked.next_offset is not None:
            self._advance(queue, acked.next_offset)
        return Outcome()

    def _advance(self, queue: Queue, offset: int) -> None:
        self._offsets.set_unless_reset(queue, offset)
        self.released(queue)

    def _committed(self, queue: Queue) -> int:
        found = self._consumer_offsets.find(*queue)
        return -1 if found is None else found

    def released(self, queue: Queue) -> None:
        """The queue may be free for the group: whoever gets it pops what is left."""
        if not self._orders.blocked(queue, None, 0, self._clock.now_ms()) and self.behind(
            queue[0], queue[1]
        ):
            self._events.dispatch(queue[0], queue[1])

    def behind(self, queue: str, group: str) -> bool:
        """Whether the queue has messages that the group has not acknowledged."""
        high = self._store.max_offset(queue, 0)
        return high > 0 and self._committed((queue, group, 0)) < high

    def change_visible(
        self, queue: Queue, offset: int, pop_ms: int, visible_ms: int, *, suspend: bool
    ) -> bool:
        """Make a message, or with ``suspend`` the batch, visible again at that time; ``False``
        when it is acknowledged already."""
        if offset < self._committed(queue):
            return False
        if suspend:
            self._orders.suspend(queue, pop_ms, visible_ms)
        else:
            self._orders.change_visible(queue, offset, pop_ms, visible_ms)
        self.released(queue)
        return True


def _offsets_of(queue: str, read: Read, start: int) -> list[int]:
    """The light queue's offset of every record of a read."""
    if read.next_offset - start == read.count:
        return list(range(start, read.next_offset))
    records = map(decode_record, split_records(read.records))
    return [dict(lmq.places(r.topic, r.properties))[queue] for r in records]
