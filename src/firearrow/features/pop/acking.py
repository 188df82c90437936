"""What becomes of messages that were handed out: acknowledged, or invisible for longer.

An acknowledgement is believed without a look at its check point: it may come late or twice, and
does no harm. It is written down before it is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.topics import Topics
from firearrow.features.pop.checkpoints import Acknowledgement, CheckPoint, ReviveTopic
from firearrow.features.pop.handles import Handle
from firearrow.features.pop.offsets import PopOffsets, Queue
from firearrow.features.pop.order import Orders
from firearrow.features.pop.popping import ILLEGAL
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.store.api import PutStatus, Store

log = logging.getLogger(__name__)


class AckSettings(Protocol):
    broker_name: str


class Outcome(msgspec.Struct, gc=False):
    """What an acknowledgement or change came to. ``end``: safe once the log is, up to here."""

    code: int = codes.SUCCESS
    remark: str | None = None
    end: int = 0


class Invisible(msgspec.Struct, frozen=True, gc=False):
    """The new times of a message whose invisible time was changed."""

    pop_ms: int
    invisible_ms: int
    revive_queue: int
    end: int = 0


class Acker:
    """Acknowledges popped messages and changes their invisible time."""

    def __init__(
        self,
        settings: AckSettings,
        store: Store,
        revive_topic: ReviveTopic,
        topics: Topics,
        consumer_offsets: ConsumerOffsets,
        offsets: PopOffsets,
        orders: Orders,
        clock: Clock,
        released: Callable[[Queue], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._revive_topic = revive_topic
        self._topics = topics
        self._consumer_offsets = consumer_offsets
        self._offsets = offsets
        self._orders = orders
        self._clock = clock
        self._released = released
        self._ack_failed = ""  # said once

    def check(self, topic: str, queue_id: int, offset: int, *, above: int) -> Outcome | None:
        """Why a message cannot be acknowledged, in RocketMQ's order; ``above``: so many offsets
        behind the last one still count."""
        found = self._topics.find(topic)
        if found is None:
            return Outcome(codes.TOPIC_NOT_EXIST, f"topic[{topic}] not exist, apply first please!")
        if not 0 <= queue_id < found.read_queues:
            return Outcome(
                codes.MESSAGE_ILLEGAL,
                f"queueId[{queue_id}] is illegal, topic:[{topic}] "
                f"topicConfig.readQueueNums:[{found.read_queues}]",
            )
        low = self._store.min_offset(topic, queue_id)
        high = self._store.max_offset(topic, queue_id)
        if not low <= offset < high + above:
            return Outcome(
                codes.NO_MESSAGE,
                f"offset is illegal, key:{topic}@{queue_id}, commit:{offset}, store:{low}~{high}",
            )
        return None

    # -- acknowledge

    def acknowledge(self, topic: str, group: str, offset: int, handle: Handle) -> Outcome:
        """One message of the stored ``topic`` that ``check`` let pass; ``handle.queue_id`` is its
        queue."""
        if handle.ordered:
            return self._acknowledge_ordered((topic, group, handle.queue_id), offset, handle.pop_ms)
        ack = Acknowledgement(
            offset=offset,
            broker_name=handle.broker_name,
            group=group,
            pop_ms=handle.pop_ms,
            queue_id=handle.queue_id,
            start_offset=handle.start_offset,
            topic=topic,
        )
        return self._write_ack(ack, handle)

    def acknowledge_batch(
        self, topic: str, group: str, offsets: list[int], handle: Handle
    ) -> Outcome:
        """Some messages of one check point; those that the queue does not have are left out."""
        found = self._topics.find(topic)
        if found is None or not 0 <= handle.queue_id < found.read_queues:
            return Outcome()
        low = self._store.min_offset(topic, handle.queue_id)
        high = self._store.max_offset(topic, handle.queue_id)
        offsets = [offset for offset in offsets if low <= offset <= high]
        if handle.ordered:
            queue = (topic, group, handle.queue_id)
            outcomes = [self._acknowledge_ordered(queue, o, handle.pop_ms) for o in offsets]
            return next((o for o in outcomes if o.code != codes.SUCCESS), Outcome())
        if not offsets:
            return Outcome()
        ack = Acknowledgement(
            offsets=offsets,
            broker_name=handle.broker_name,
            group=group,
            pop_ms=handle.pop_ms,
            queue_id=handle.queue_id,
            start_offset=handle.start_offset,
            topic=topic,
        )
        return self._write_ack(ack, handle)

    def _write_ack(self, ack: Acknowledgement, handle: Handle) -> Outcome:
        if not self._revives(handle.revive_queue):
            return Outcome()  # matches no check point, as in RocketMQ, and makes no queue
        revive_ms = handle.pop_ms + handle.invisible_ms
        now_ms = self._clock.now_ms()
        put = self._revive_topic.acknowledgement(ack, handle.revive_queue, revive_ms, now_ms)
        if put.status is PutStatus.OK:
            self._ack_failed = ""
            return Outcome(end=put.end)
        if put.status in ILLEGAL:
            return Outcome()  # times that no check point can have
        reason = f"{put.status.value}: {put.reason}"
        if reason != self._ack_failed:
            log.error(
                "no message can be acknowledged: the store refuses records (%s). They come again "
                "after their invisible time; check the disk, and free space if it is full",
                reason,
            )
        self._ack_failed = reason
        return Outcome(codes.SERVICE_NOT_AVAILABLE, reason)

    def _revives(self, queue_id: int) -> bool:
        topic = self._topics.table.get(self._revive_topic.name)
        return topic is not None and 0 <= queue_id < topic.write_queues

    def _acknowledge_ordered(self, queue: Queue, offset: int, pop_ms: int) -> Outcome:
        topic, group, queue_id = queue
        committed = self._consumer_offsets.find(topic, group, queue_id)
        if committed is not None and offset < committed:
            return Outcome()
        acked = self._orders.acknowledge(queue, offset, pop_ms)
        if acked.unknown_offset:
            return Outcome(
                codes.MESSAGE_ILLEGAL,
                f"offset is illegal, key:{topic}@{group}@{queue_id}, old:{committed}, "
                f"commit:{offset}: it is not in the batch that the group has",
            )
        if acked.next_offset is not None:
            self._offsets.set_unless_reset(queue, acked.next_offset)
            if not self._orders.blocked(queue, None, 0, self._clock.now_ms()):
                self._released(queue)
        return Outcome()

    # -- change the invisible time

    def change_invisible(
        self, topic: str, group: str, offset: int, handle: Handle, invisible_ms: int
    ) -> Invisible | Outcome:
        """Let a message that ``check`` let pass be invisible for ``invisible_ms`` from now; 0 gives
        it back."""
        queue = (topic, group, handle.queue_id)
        if handle.ordered:
            return self._change_ordered(queue, offset, handle, invisible_ms)
        if not self._revives(handle.revive_queue):
            return Outcome(
                codes.SYSTEM_ERROR, f"there is no revive queue {handle.revive_queue} here"
            )
        # Not the same time: the two check points must not be taken for each other.
        now_ms = max(self._clock.now_ms(), handle.pop_ms + 1)
        point = CheckPoint(
            broker_name=handle.broker_name,
            group=group,
            distances=[0],
            invisible_ms=invisible_ms,
            count=1,
            pop_ms=now_ms,
            queue_id=handle.queue_id,
            start_offset=offset,
            topic=topic,
        )
        put = self._revive_topic.check_point(point, handle.revive_queue, now_ms)
        if put.status is not PutStatus.OK:
            # A time that no record can have, or a store that takes nothing: nothing is changed.
            return Outcome(codes.SYSTEM_ERROR, f"{put.status.value}: {put.reason}")
        ack = Acknowledgement(
            offset=offset,
            broker_name=handle.broker_name,
            group=group,
            pop_ms=handle.pop_ms,
            queue_id=handle.queue_id,
            start_offset=handle.start_offset,
            topic=topic,
        )
        acked = self._write_ack(ack, handle)
        return Invisible(now_ms, invisible_ms, handle.revive_queue, max(put.end, acked.end))

    def _change_ordered(
        self, queue: Queue, offset: int, handle: Handle, invisible_ms: int
    ) -> Invisible | Outcome:
        committed = self._consumer_offsets.find(*queue)
        if committed is not None and offset < committed:
            return Outcome()
        visible_ms = self._clock.now_ms() + invisible_ms
        self._orders.change_visible(queue, offset, handle.pop_ms, visible_ms)
        if not self._orders.blocked(queue, None, 0, self._clock.now_ms()):
            self._released(queue)
        return Invisible(handle.pop_ms, visible_ms - handle.pop_ms, handle.revive_queue)
