"""Handing out messages: which queues a pop reads, and what it must leave behind.

A pop is one synchronous call on the loop, so it needs no lock: nobody else looks at a queue
between its read and the move of its offset.
"""

from __future__ import annotations

import logging
import random
import struct
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from firearrow.broker.stats import BrokerStats
from firearrow.broker.subscription import Subscription
from firearrow.broker.topics import Topics
from firearrow.codec.record import PHYSICAL_OFFSET_AT, QUEUE_OFFSET_AT
from firearrow.features.pop.checkpoints import CheckPoint, ReviveTopic
from firearrow.features.pop.handles import NORMAL, ORDER_REVIVE_QUEUE, Handle, retry_flag
from firearrow.features.pop.offsets import PopOffsets, Queue
from firearrow.features.pop.order import Orders
from firearrow.model import names
from firearrow.model.clock import Clock
from firearrow.model.topic import Topic
from firearrow.store import api
from firearrow.store.api import Put, PutStatus, Read, Store

log = logging.getLogger(__name__)

MESSAGES_MAX: Final = 32  # of one pop
# The times of the request are such as no record can have.
ILLEGAL: Final = frozenset({PutStatus.MESSAGE_ILLEGAL, PutStatus.WHEEL_TIMER_MSG_ILLEGAL})

_SIZE = struct.Struct(">i")
_OFFSET = struct.Struct(">q")
# The offset is not one of the queue; the store says which one is.
_CORRECTED: Final = frozenset(
    {api.OFFSET_TOO_SMALL, api.OFFSET_OVERFLOW_BADLY, api.OFFSET_FOUND_NULL}
)
_PASSED_BY: Final = frozenset(
    {
        api.NO_MATCHED_MESSAGE,
        api.OFFSET_FOUND_NULL,
        api.MESSAGE_WAS_REMOVING,
        api.NO_MATCHED_LOGIC_QUEUE,
    }
)


# (topic, queue id or -1, random number) -> the queues to read, in order
QueueOrder = Callable[[Topic, int, int], Iterator[tuple[Topic, int]]]


class PopSettings(Protocol):
    broker_name: str
    enable_retry_topic_v2: bool
    retrieve_message_from_pop_retry_topic_v1: bool
    pop_from_retry_probability: int
    pop_from_retry_probability_for_priority: int
    priority_order_asc: bool
    revive_queue_num: int


class Pop(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What somebody wants to pop. The topic and the group exist; a negative queue is all."""

    group: str
    topic: Topic
    queue_id: int = -1
    max_messages: int = MESSAGES_MAX
    invisible_ms: int
    subscription: Subscription
    from_min: bool = False  # where a group without an offset starts
    order: bool = False
    attempt_id: str | None = None
    priority_factor: int = 100  # of so many pops in 100 a topic's priorities count


class Part(msgspec.Struct, gc=False):
    """Messages of one queue, whole records back to back as stored."""

    topic: str  # the stored one: a retry topic, where they were read there
    queue_id: int
    start_offset: int
    offsets: list[int]
    records: bytes
    consumed: dict[int, int]  # ordered pops: offset -> how often it was handed out before

    @property
    def retry_flag(self) -> str:
        return retry_flag(self.topic)


class Popped(msgspec.Struct, gc=False):
    """What a pop got. Nobody else gets these messages for ``invisible_ms``."""

    pop_ms: int
    invisible_ms: int
    revive_queue: int
    parts: list[Part] = []
    count: int = 0
    rest: int = 0  # messages that wait in the queues it looked at; roughly
    passed_by: bool = False  # messages that the filter does not want were left behind
    end: int = 0  # the check points are safe once the log is, up to here
    refused: Put | None = None  # the store took no check point: messages stayed where they were

    def has_retries_of_another(self, topic: str) -> bool:
        return any(part.retry_flag != NORMAL and part.topic != topic for part in self.parts)

    def handle(self, part: Part, offset: int, broker_name: str) -> Handle:
        """The receipt handle of one message."""
        return Handle(
            part.start_offset,
            self.pop_ms,
            self.invisible_ms,
            self.revive_queue,
            part.retry_flag,
            broker_name,
            part.queue_id,
            offset,
        )


class Popper:
    """Pops and peeks."""

    def __init__(
        self,
        settings: PopSettings,
        store: Store,
        revive_topic: ReviveTopic,
        topics: Topics,
        offsets: PopOffsets,
        orders: Orders,
        clock: Clock,
        stats: BrokerStats,
    ) -> None:
        self._settings = settings
        self._store = store
        self._revive_topic = revive_topic
        self._topics = topics
        self._offsets = offsets
        self._orders = orders
        self._clock = clock
        self._stats = stats
        self._pops = 0
        self._refused = ""  # said once

    def pop(self, wanted: Pop) -> Popped:
        """Take messages for a group; empty when there are none, or none that are free."""
        if wanted.order:
            revive_queue = ORDER_REVIVE_QUEUE
        else:
            revive_queue = self._pops % max(1, self._settings.revive_queue_num)
            self._pops += 1
        popped = Popped(self._clock.now_ms(), wanted.invisible_ms, revive_queue)
        more_urgent = False  # a queue of a priority topic has more than one read gives
        for topic, queue_id in self._sources(wanted.topic, wanted.group, wanted.queue_id, wanted):
            room = 0 if more_urgent else wanted.max_messages - popped.count
            if topic is not wanted.topic and popped.has_retries_of_another(topic.name):
                room = 0  # clients cannot tell the two kinds of retry topics apart
            left = self._pop_queue(wanted, popped, topic, queue_id, room)
            more_urgent = more_urgent or (left and wanted.topic.prioritized)
        return popped

    def _sources(
        self, topic: Topic, group: str, queue_id: int, wanted: Pop | None
    ) -> Iterator[tuple[Topic, int]]:
        """The queues to read, in order. Now and then the retry topic goes first, so that neither
        starves."""
        draw = random.randrange(100)
        if wanted is not None and wanted.order:
            yield from _queues(topic, queue_id, draw)
            return
        settings = self._settings
        retries = self._retry_topics(topic, group, draw)
        retry_probability = settings.pop_from_retry_probability
        queues: QueueOrder = _queues
        if topic.prioritized:
            retry_probability = settings.pop_from_retry_probability_for_priority
            if wanted is not None and draw < wanted.priority_factor:
                queues = _largest_first if settings.priority_order_asc else _smallest_first
        retry_first = draw < retry_probability
        if retry_first:
            for retry in retries:
                yield from queues(retry, -1, draw)
        yield from queues(topic, queue_id, draw)
        if not retry_first:
            for retry in retries:
                yield from queues(retry, -1, draw)

    def _retry_topics(self, topic: Topic, group: str, draw: int) -> list[Topic]:
        """Those that exist, of both kinds of names; which one goes first is drawn."""
        settings = self._settings
        kinds: tuple[bool, ...] = (False, True)
        if settings.enable_retry_topic_v2:
            kinds = (True,)
            if settings.retrieve_message_from_pop_retry_topic_v1:
                kinds = (False, True) if draw % 2 == 0 else (True, False)
        found = [
            self._topics.table.get(names.pop_retry_topic(group, topic.name, v2=v2)) for v2 in kinds
        ]
        return [retry for retry in found if retry is not None]

    # -- one queue

    def _pop_queue(
        self, wanted: Pop, popped: Popped, topic: Topic, queue_id: int, room: int
    ) -> bool:
        """Whether messages were taken and there are more."""
        queue = (topic.name, wanted.group, queue_id)
        if self._offsets.take_reset(queue) is not None:
            self._orders.clear(queue)
        offset = self._offsets.begin(queue, from_min=wanted.from_min)
        if wanted.order and self._orders.blocked(
            queue, wanted.attempt_id, wanted.invisible_ms, popped.pop_ms
        ):
            return False  # what waits here does not count: it must not wake anybody
        if room <= 0:
            popped.rest += max(0, self._store.max_offset(topic.name, queue_id) - offset)
            return False
        read, offset = self._read(queue, offset, room, wanted.subscription)
        if read.count:
            offsets = self._queue_offsets(topic.name, queue_id, read, offset)
            first = min(offset, offsets[0])  # an inner batch may begin before the offset
            part = Part(topic.name, queue_id, first, offsets, read.records, {})
            if not self._leave_trace(wanted, popped, queue, part, read.next_offset):
                popped.rest += read.count
                return False
            popped.parts.append(part)
            popped.count += read.count
            self._stats.delivered(topic.name, wanted.group, read.count, len(read.records))
        elif read.status in _PASSED_BY and read.next_offset != offset:
            self._offsets.pass_by(queue, read.next_offset)
            popped.passed_by = True
        left = max(0, read.max_offset - read.next_offset)
        popped.rest += left
        return bool(read.count and left)

    def _read(
        self, queue: Queue, offset: int, room: int, subscription: Subscription
    ) -> tuple[Read, int]:
        topic, _, queue_id = queue
        codes, match = subscription.codes, subscription.match
        read = self._store.read(topic, queue_id, offset, room, tags_codes=codes, match=match)
        if read.status in _CORRECTED:
            log.warning(
                "group %s pops %s queue %d at %d, which the queue does not have: on to %d",
                queue[1],
                topic,
                queue_id,
                offset,
                read.next_offset,
            )
            offset = read.next_offset
            self._offsets.set(queue, offset)
            read = self._store.read(topic, queue_id, offset, room, tags_codes=codes, match=match)
        return read, offset

    def _queue_offsets(self, topic: str, queue_id: int, read: Read, start: int) -> list[int]:
        """The queue offset of every record of a read."""
        if read.next_offset - start == read.count and not read.batched:
            return list(range(start, read.next_offset))
        starts = _starts(read.records, read.batched or read.count)
        if not topic.startswith(names.LMQ_PREFIX):
            return [_OFFSET.unpack_from(read.records, at + QUEUE_OFFSET_AT)[0] for at in starts]
        # The records of a light message queue tell their offset in another one.
        entries = self._store.entries(topic, queue_id, start, read.next_offset - start)
        by_place = {entry.physical_offset: entry.offset for entry in entries}
        return [
            by_place[_OFFSET.unpack_from(read.records, at + PHYSICAL_OFFSET_AT)[0]] for at in starts
        ]

    def _leave_trace(
        self, wanted: Pop, popped: Popped, queue: Queue, part: Part, next_offset: int
    ) -> bool:
        """Write down who has the messages; whether they may be handed out."""
        if wanted.order:
            part.consumed = self._orders.hand_out(
                queue, part.offsets, popped.pop_ms, wanted.invisible_ms, wanted.attempt_id
            )
            self._offsets.set(queue, part.start_offset)
            return True
        start = part.start_offset
        point = CheckPoint(
            broker_name=self._settings.broker_name,
            group=wanted.group,
            distances=[offset - start for offset in part.offsets],
            invisible_ms=wanted.invisible_ms,
            count=len(part.offsets),
            pop_ms=popped.pop_ms,
            queue_id=part.queue_id,
            start_offset=start,
            topic=part.topic,
        )
        self._offsets.announce(queue, next_offset)
        put = self._revive_topic.check_point(point, popped.revive_queue, popped.pop_ms)
        if put.status is not PutStatus.OK:
            self._offsets.withdraw(queue)
            popped.refused = put
            if put.status not in ILLEGAL:
                self._say_refused(f"{put.status.value}: {put.reason}")
            return False
        popped.end = put.end
        self._offsets.advance(queue, next_offset, put.end)
        self._refused = ""
        return True

    def _say_refused(self, reason: str) -> None:
        if reason != self._refused:
            log.error(
                "no message can be popped: the store refuses check points (%s). Consumers ask "
                "again; check the disk, and free space if it is full",
                reason,
            )
        self._refused = reason

    # -- looking only

    def peek(self, topic: Topic, group: str, queue_id: int, max_messages: int) -> Popped:
        """What a pop would find, without taking it; no filter."""
        popped = Popped(self._clock.now_ms(), 0, 0)
        for source, source_queue in self._sources(topic, group, queue_id, None):
            offset = self._offsets.look((source.name, group, source_queue))
            popped.rest += max(0, self._store.max_offset(source.name, source_queue) - offset)
            room = max_messages - popped.count
            if room <= 0:
                continue
            read = self._store.read(source.name, source_queue, offset, room)
            if read.status in _CORRECTED:
                offset = read.next_offset
                read = self._store.read(source.name, source_queue, offset, room)
            if read.count:
                offsets = self._queue_offsets(source.name, source_queue, read, offset)
                popped.parts.append(
                    Part(source.name, source_queue, offset, offsets, read.records, {})
                )
                popped.count += read.count
                self._stats.delivered(source.name, group, read.count, len(read.records))
        return popped

    def anything(
        self, topic: Topic, group: str, queue_id: int, *, order: bool, attempt_id: str | None
    ) -> bool:
        """Whether a pop may find something: the offsets are compared, no message is read."""
        now_ms = self._clock.now_ms()
        sources = [*_queues(topic, queue_id, 0)]
        if not order:
            for retry in self._retry_topics(topic, group, 0):
                sources += _queues(retry, -1, 0)
        for source, source_queue in sources:
            queue = (source.name, group, source_queue)
            if order and self._orders.blocked(queue, attempt_id, 0, now_ms):
                continue
            if self._store.max_offset(source.name, source_queue) > self._offsets.look(queue):
                return True
        return False


def _queues(topic: Topic, queue_id: int, draw: int) -> Iterator[tuple[Topic, int]]:
    if queue_id >= 0:
        yield topic, queue_id
        return
    count = topic.read_queues
    for n in range(count):
        yield topic, (draw + n) % count


def _smallest_first(topic: Topic, queue_id: int, _draw: int) -> Iterator[tuple[Topic, int]]:
    return _queues(topic, queue_id, 0)


def _largest_first(topic: Topic, queue_id: int, draw: int) -> Iterator[tuple[Topic, int]]:
    return reversed(list(_smallest_first(topic, queue_id, draw)))


def _starts(records: bytes, count: int) -> Iterator[int]:
    """Where each record of a read begins."""
    position = 0
    for _ in range(count):
        yield position
        position += _SIZE.unpack_from(records, position)[0]
