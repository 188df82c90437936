"""Topics that keep their messages shorter than the log does.

Attribute ``retention.ms``: a message older than this is no longer readable. ``retention.bytes``: of
each queue, only the newest messages with so many bytes in the log are. A look at every
``cleanResourceInterval`` moves the minimum offsets of such topics' queues; the log's bytes go with
its files. Nothing is saved: what the rules mean can be found out again after a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol

from firearrow.broker.admin.attributes import Attribute, number
from firearrow.broker.rooms import BaseRoom
from firearrow.broker.topics import Topics
from firearrow.model.clock import Clock
from firearrow.store.api import Entry, Store

BY_TIME: Final = "retention.ms"
BY_SIZE: Final = "retention.bytes"

ENTRIES_PER_STEP: Final = 4096  # about a millisecond
QUEUES_PER_STEP: Final = 256
RECORD_BYTES_MAX: Final = 1 << 30  # more is no record, but fills a gap of the queue

Queue = tuple[str, int]


class RetentionSettings(Protocol):
    clean_resource_interval: int


class Counted:
    """The bytes of a queue's messages from ``low`` up to ``high``."""

    __slots__ = ("high", "low", "total")

    def __init__(self, low: int) -> None:
        self.low = self.high = low
        self.total = 0


class TopicRetentionRoom(BaseRoom):
    """Moves minimum offsets."""

    topic_attributes: Mapping[str, Attribute] = {
        BY_TIME: Attribute(number(1), changeable=True),
        BY_SIZE: Attribute(number(1), changeable=True),
    }

    def __init__(
        self, settings: RetentionSettings, store: Store, topics: Topics, clock: Clock
    ) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics
        self._clock = clock
        self._sizes: dict[Queue, Counted] = {}
        self._work: deque[Queue] = deque()
        self._running = False

    def start(self) -> None:
        """What was too old before the restart is not readable after it, not even for a moment."""
        self._running = True
        for queue in self._queues():
            self._by_time(queue)
        self._tick()

    def stop(self) -> None:
        self._running = False

    def _tick(self) -> None:
        if self._running and not self._work:
            self._work.extend(self._queues())
            self._sizes = {q: self._sizes[q] for q in self._work if q in self._sizes}
            if self._work:
                self._clock.call_soon(self._step)
        if self._running:
            self._clock.call_later(self._settings.clean_resource_interval / 1000, self._tick)

    def _queues(self) -> list[Queue]:
        """The queues of all topics with such an attribute."""
        return [
            (topic.name, queue_id)
            for topic in self._topics.attributed.values()
            if not topic.attributes.keys().isdisjoint((BY_TIME, BY_SIZE))
            for queue_id in range(max(topic.read_queues, topic.write_queues))
        ]

    def _step(self) -> None:
        """Look at some queues; a large one takes several steps."""
        if not self._running:
            return
        left = ENTRIES_PER_STEP
        for _ in range(QUEUES_PER_STEP):
            if not self._work:
                return
            queue = self._work[0]
            self._by_time(queue)
            left = self._by_size(queue, left)
            if left <= 0:
                break
            self._work.popleft()
        self._clock.call_soon(self._step)

    def _by_time(self, queue: Queue) -> None:
        keep_ms = self._topics.number(queue[0], BY_TIME)
        low = self._store.min_offset(*queue)
        if not keep_ms or low >= self._store.max_offset(*queue):
            return
        oldest_kept_ms = self._clock.now_ms() - keep_ms
        if self._store.store_time(*queue, low) < oldest_kept_ms:
            offset = self._store.search_offset(*queue, oldest_kept_ms, upper=False)
            if -1 < self._store.store_time(*queue, offset) < oldest_kept_ms:  # a whole batch
                offset = self._store.entries(*queue, offset, 1)[0].end
            self._store.raise_min_offset(*queue, offset)

    def _by_size(self, queue: Queue, left: int) -> int:
        """Count what is new, give up what is too much. How many more entries may be looked at."""
        limit = self._topics.number(queue[0], BY_SIZE)
        if not limit:
            return left
        low = self._store.min_offset(*queue)
        counted = self._sizes.get(queue)
        if counted is None or counted.low < low:
            counted = self._sizes[queue] = Counted(low)  # others moved it: count anew
        while left > 0 and (entries := self._store.entries(*queue, counted.high, left)):
            counted.total += sum(map(_size, entries))
            counted.high = entries[-1].end
            left -= len(entries)
        while left > 0 and counted.total > limit:
            entries = self._store.entries(*queue, counted.low, min(left, ENTRIES_PER_STEP // 16))
            left -= max(1, len(entries))
            for entry in entries:
                if counted.total <= limit:
                    break
                counted.total -= _size(entry)
                counted.low = entry.end
            if not entries:
                break
        self._store.raise_min_offset(*queue, counted.low)
        return left


def _size(entry: Entry) -> int:
    return entry.size if entry.size < RECORD_BYTES_MAX else 0
