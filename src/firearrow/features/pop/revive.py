"""Giving again what was not acknowledged in time (``PopReviveService``).

Each queue of the revive topic is read in order; acknowledgements are matched with the check points
before them. A check point is settled once everything that fell due up to two seconds after its end
was read: what is still open in it is copied into the group's retry topic. All of it happens in
short steps, so that a million open messages do not hold the loop.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

from firearrow.broker.groups import Groups
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.stats import BrokerStats
from firearrow.broker.topics import Topics
from firearrow.codec.record import (
    Record,
    RecordError,
    decode_record,
    record_queue_offset,
    split_records,
)
from firearrow.features.pop import checkpoints, copies
from firearrow.features.pop.checkpoints import Acknowledgement, CheckPoint, ReviveTopic
from firearrow.features.pop.inflight import Open, ReviveQueue
from firearrow.model import names
from firearrow.model.clock import Clock, Timer
from firearrow.model.topic import Topic
from firearrow.store import api
from firearrow.store.api import PutStatus, Store

log = logging.getLogger(__name__)

REVIVE_GROUP: Final = names.SYSTEM_GROUP_PREFIX + "REVIVE_GROUP"
# The timer delivers again what it delivered in the last second before a kill, or in some seconds
# where the disk or the processor are busy.
AGAIN_MS: Final = 15_000
AGAIN_RECORDS_MAX: Final = 100_000
REMEMBERED_S: Final = 60.0
RECORDS_A_STEP: Final = 32
MESSAGES_A_STEP: Final = 64
RETRY_QUEUES: Final = 1
REFUSED_S: Final = 1.0  # how long to wait when the store takes nothing
# How much longer a message waits that cannot be copied now, by how often that was tried.
RE_PUT_S: Final = (
    *(10, 20, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600),
    *(1200, 1800, 3600, 7200),
)


class ReviveSettings(Protocol):
    broker_name: str
    enable_retry_topic_v2: bool
    revive_interval: int
    skip_when_ck_re_put_reach_max_times: bool
    use_separate_retry_queue: bool


class _Refused(Exception):  # noqa: N818
    """The store takes nothing now: go on later where we are."""


class Revive:
    """All queues of the revive topic; one timer for all, none while nothing is in flight."""

    def __init__(
        self,
        settings: ReviveSettings,
        store: Store,
        topics: Topics,
        groups: Groups,
        offsets: ConsumerOffsets,
        clock: Clock,
        stats: BrokerStats,
        written: ReviveTopic,
        host: bytes,
        timed_until: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics
        self._groups = groups
        self._offsets = offsets
        self._clock = clock
        self._stats = stats
        self._written = written
        self._revive_topic = written.name
        self._host = host
        self._timed_until = timed_until
        # Revive queue -> settled up to here, if the log has so many bytes: not on the disk yet.
        self._ahead: dict[int, tuple[int, int]] = {}
        self._readable_ms = 0  # what was timed for this or earlier can be read
        self._asking = False
        self._queues: dict[int, ReviveQueue] = {}
        self._timer: Timer | None = None
        self._timer_at_s = 0.0
        self._running = False
        self._refused = ""  # said once

    # -- when to look

    def start(self) -> None:
        self._running = True
        topic = self._topics.table.get(self._revive_topic)
        for queue_id in range(topic.read_queues if topic else 0):
            settled = self._offsets.find(self._revive_topic, REVIVE_GROUP, queue_id)
            begin = 0 if settled is None else settled + 1
            self._queues[queue_id] = queue = ReviveQueue(queue_id, begin)
            self._remember_settled(queue)
            self._clock.call_later(REMEMBERED_S, queue.forget)
        self._store.on_arrival(self._arrived, self._revive_topic)
        self._wake(0.0)

    def stop(self) -> None:
        self._running = False
        if self._timer is not None:
            self._timer.cancel()

    def __len__(self) -> int:
        """Check points that are read and not settled."""
        return sum(map(len, self._queues.values()))

    def _arrived(
        self, topic: str, queue_id: int, offset: int, tags_code: int, phy: int, size: int
    ) -> None:
        if self._running:
            self._wake(self._settings.revive_interval / 1000)

    def _wake(self, delay_s: float) -> None:
        at_s = self._clock.monotonic() + delay_s
        if self._timer is not None:
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = self._clock.call_later(delay_s, self._look)

    def _look(self) -> None:
        """One step of every queue; again at once where more is to do."""
        self._timer = None
        if not self._running:
            return
        self._ask_timer()
        more = False
        try:
            for queue in self._queues.values():
                more |= self._step(queue)
        except (_Refused, OSError) as error:
            self._say_refused(str(error))
            self._wake(REFUSED_S)
            return
        if more:
            self._wake(0.0)
            return
        times = [at for at in (q.look_again_ms() for q in self._queues.values()) if at is not None]
        if times:
            delay_s = (min(times) - self._clock.now_ms()) / 1000
            # Due, but not let go: the timer is behind.
            self._wake(delay_s if delay_s > 0 else self._settings.revive_interval / 1000)

    def _ask_timer(self) -> None:
        """Up to when the timer is done. With SYNC_FLUSH that can be read only after the flush."""
        until_ms = self._timed_until()
        if until_ms > self._readable_ms and not self._asking:
            self._asking = True
            end = self._store.commit_log_range()[1]
            self._store.when_durable(end, partial(self._readable, until_ms))

    def _readable(self, until_ms: int, durable: bool) -> None:
        self._asking = False
        if durable:
            self._readable_ms = until_ms

    def _say_refused(self, reason: str) -> None:
        if reason != self._refused:
            log.error(
                "popped messages that were not acknowledged cannot be stored for another try (%s). "
                "They wait, nothing is lost; check the disk, and free space if it is full",
                reason,
            )
        self._refused = reason

    # -- one step of one queue

    def _step(self, queue: ReviveQueue) -> bool:
        """Read a little, then settle a little; whether more can be done now."""
        more = queue.due() is not None or self._read(queue)  # no more than can be settled
        if not more:
            queue.move_watermark(self._readable_ms)
        end = 0
        budget = MESSAGES_A_STEP
        try:
            while budget > 0 and (opened := queue.due()) is not None:
                budget -= 1 + opened.bits.bit_count()
                end = max(end, self._settle(queue, opened))
                queue.drop_settled()
        except (_Refused, OSError):
            # What is written next, whatever it is, does not settle the check point.
            self._note_ahead(queue, queue.settled, self._store.commit_log_range()[1])
            raise
        finally:
            if queue.settled > self._committed(queue):
                self._store.when_durable(end, partial(self._commit, queue.queue_id, queue.settled))
        return more or budget <= 0

    def _committed(self, queue: ReviveQueue) -> int:
        offset = self._offsets.find(self._revive_topic, REVIVE_GROUP, queue.queue_id)
        return -1 if offset is None else offset

    def _commit(self, queue_id: int, offset: int, durable: bool) -> None:
        self._offsets.commit_noted(self._revive_topic, REVIVE_GROUP, queue_id, offset)
        settled, end = self._ahead.get(queue_id, (-1, 0))
        if settled > offset:  # the newest note counts
            self._offsets.note_ahead(self._revive_topic, REVIVE_GROUP, queue_id, settled, end)
        else:
            self._ahead.pop(queue_id, None)

    def _note_ahead(self, queue: ReviveQueue, settled: int, end: int) -> None:
        """Let the next broker go on behind ``settled``, if its log has so many bytes."""
        self._ahead[queue.queue_id] = settled, end
        self._offsets.note_ahead(self._revive_topic, REVIVE_GROUP, queue.queue_id, settled, end)

    def _read(self, queue: ReviveQueue) -> bool:
        """Take the next records; whether there may be more."""
        read = self._store.read(
            self._revive_topic, queue.queue_id, queue.next_offset, RECORDS_A_STEP
        )
        if read.count:
            offset = queue.next_offset
            for data in split_records(read.records):
                self._take(queue, offset, data)
                offset += 1
        elif read.status == api.OFFSET_OVERFLOW_ONE or not read.max_offset:
            return False
        else:
            log.warning(
                "revive queue %d has nothing at offset %d (%s): on to %d. What retention took is "
                "not given again; raise fileReservedTime if it is too short",
                *(queue.queue_id, queue.next_offset, read.status, read.next_offset),
            )
        queue.next_offset = read.next_offset
        return read.next_offset < read.max_offset

    def _take(self, queue: ReviveQueue, offset: int, data: bytes) -> None:
        try:
            record = decode_record(data)
            found = checkpoints.read(record)
        except (RecordError, ValueError) as error:
            log.error(
                "the record at offset %d of revive queue %d is no check point (%s) and is left "
                "out: see who sends to that topic, or check the disk",
                *(offset, queue.queue_id, error),
            )
            return
        own_name = self._settings.broker_name
        if isinstance(found, Acknowledgement):
            queue.acknowledge(found, found.key(own_name), record.store_timestamp)
        elif found is not None and found.topic is not None and found.group is not None:
            queue.add(found, found.key(own_name), offset)
        if checkpoints.came_through_the_wheel(record):
            queue.move_watermark(min(checkpoints.deliver_ms(record), record.store_timestamp))

    def _remember_settled(self, queue: ReviveQueue) -> None:
        """Read what was settled last: should the timer deliver it again, it stays settled."""
        begin, newest_ms = queue.next_offset, 0
        low = self._store.min_offset(self._revive_topic, queue.queue_id)
        while begin > low and queue.next_offset - begin < AGAIN_RECORDS_MAX:
            end, begin = begin, max(low, begin - RECORDS_A_STEP)
            for record in self._records(queue.queue_id, begin, end):
                newest_ms = max(newest_ms, record.store_timestamp)
                if record.store_timestamp < newest_ms - AGAIN_MS:
                    begin = low
                    continue
                with contextlib.suppress(ValueError):
                    found = checkpoints.read(record)
                    if isinstance(found, CheckPoint):
                        queue.remember(found, found.key(self._settings.broker_name))

    def _records(self, queue_id: int, begin: int, end: int) -> Iterator[Record]:
        """The records of a revive queue from ``begin`` up to ``end`` that are there."""
        while begin < end:
            entries = self._store.entries(self._revive_topic, queue_id, begin, end - begin)
            if not entries:
                return
            for entry in entries:
                data = self._store.record(entry.physical_offset)
                if data is not None:
                    yield decode_record(data)
            begin = entries[-1].end  # a read ends with its file: on with the next

    # -- settle

    def _settle(self, queue: ReviveQueue, opened: Open) -> int:
        """Give again what is open in the queue's first check point; the end of what was written in
        the log. Before the last copy it is noted that this settles it, so that a kill, also one
        that comes before a flush, leaves both or neither.

        Raises:
            _Refused: the store takes nothing now; what was given again is not open any more.
        """
        point = opened.point
        assert point.topic is not None
        assert point.group is not None
        end = 0
        if not self._wanted(point.topic, point.group):
            opened.bits = 0
        offsets = point.offsets
        while opened.bits:
            first = (opened.bits & -opened.bits).bit_length() - 1
            if not opened.bits & (opened.bits - 1):
                now_end = self._store.commit_log_range()[1]
                self._note_ahead(queue, queue.settled_next, now_end + 1)
            end = max(end, self._give_again(point, point.topic, point.group, offsets[first]))
            opened.bits &= opened.bits - 1
        return end

    def _wanted(self, topic: str, group: str) -> bool:
        """Messages of a topic or group that is gone are gone too."""
        for v2 in (True, False):
            prefix = names.pop_retry_topic(group, "", v2=v2)
            if topic.startswith(prefix):
                topic = topic.removeprefix(prefix)
                break
        return self._topics.find(topic) is not None and self._groups.exists(group)

    def _create_retry(self, name: str, of: str, group: str) -> Topic:
        origin = self._topics.table.get(of)
        queues = RETRY_QUEUES
        if self._settings.use_separate_retry_queue and origin is not None:
            queues = max(queues, origin.write_queues)
        retry = self._topics.create_retry(name, queues)
        for queue_id in range(queues):
            if self._offsets.find(name, group, queue_id) is None:
                self._offsets.commit_noted(name, group, queue_id, 0)
        return retry

    def _give_again(self, point: CheckPoint, topic: str, group: str, offset: int) -> int:
        data = self._record(topic, point.queue_id, offset)
        if data is None:
            log.debug("%s queue %d has no message %d any more", topic, point.queue_id, offset)
            return 0
        origin = topic
        if not topic.startswith(names.RETRY_PREFIX):
            topic = names.pop_retry_topic(group, topic, v2=self._settings.enable_retry_topic_v2)
        retry = self._topics.table.get(topic) or self._create_retry(topic, origin, group)
        # With a queue for each of the topic's, a message keeps its own: its priority.
        queue_id = point.queue_id if point.queue_id < retry.write_queues else 0
        message = copies.revived(decode_record(data), topic, queue_id, point.pop_ms, self._host)
        put = self._store.append(message)  # past the rooms: it was delayed once already
        if put.status is PutStatus.OK:
            self._refused = ""
            self._stats.stored(topic, 1, put.end - put.physical_offset)
            return put.end
        if put.status is PutStatus.SERVICE_NOT_AVAILABLE:
            raise _Refused(put.reason)
        return self._re_put(point, offset, f"{put.status.value}: {put.reason}")

    def _record(self, topic: str, queue_id: int, offset: int) -> bytes | None:
        entries = self._store.entries(topic, queue_id, offset, 1)
        data = self._store.record(entries[0].physical_offset) if entries else None
        if data is None:  # of a compaction topic, it may be elsewhere
            read = self._store.read(topic, queue_id, offset, 1)
            if read.count and record_queue_offset(read.records) == offset:
                data = read.records
        return data

    def _re_put(self, point: CheckPoint, offset: int, reason: str) -> int:
        """The copy cannot be stored for a reason of its own: try again later and later."""
        tried = point.re_put_times
        if tried >= len(RE_PUT_S) and self._settings.skip_when_ck_re_put_reach_max_times:
            log.error(
                "the message at offset %d of queue %d of topic %s, popped by group %s, cannot be "
                "stored for another try and is given up after %d tries "
                "(skipWhenCKRePutReachMaxTimes); read it there",
                *(offset, point.queue_id, point.topic, point.group, tried),
            )
            return 0
        wait_ms = RE_PUT_S[min(tried, len(RE_PUT_S) - 1)] * 1000
        log.warning(
            "the message at offset %d of queue %d of topic %s, popped by group %s, cannot be "
            "stored for another try (%s). It is tried again in %d s; see whether its topic can be "
            "written",
            *(offset, point.queue_id, point.topic, point.group, reason, wait_ms // 1000),
        )
        again = CheckPoint(
            broker_name=point.broker_name,
            group=point.group,
            distances=[0],
            invisible_ms=point.invisible_ms + wait_ms,
            count=1,
            pop_ms=point.pop_ms,
            queue_id=point.queue_id,
            re_puts=str(tried + 1),
            start_offset=offset,
            topic=point.topic,
        )
        now_ms = self._clock.now_ms()
        # Into the queue that it came from; any would do.
        queue_id = offset % max(1, len(self._queues))
        put = self._written.check_point(again, queue_id, now_ms)
        if put.status is not PutStatus.OK:
            raise _Refused(put.reason)
        return put.end
