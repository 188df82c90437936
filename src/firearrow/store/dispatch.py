"""The consume queues of a store, and how a record of the log gets into them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Final

from firearrow.codec.hashes import java_hash
from firearrow.codec.properties import find_property
from firearrow.store import lmq
from firearrow.store.api import Arrival
from firearrow.store.batchqueue import UNIT, BatchQueue, Unit, UnitFiles
from firearrow.store.commitlog import CommitLog
from firearrow.store.consumequeue import (
    ENTRY,
    FILLER_SIZE,
    ConsumeQueue,
    QueueFiles,
    TagsRule,
    TopicShape,
)
from firearrow.store.queueflush import QueueFlusher
from firearrow.store.settings import StoreSettings

log = logging.getLogger(__name__)

TAG_CACHE_ENTRIES_MAX: Final = 65536
QUICK_QUEUES_MAX: Final = 1024  # of one topic


class Dispatcher:
    """All queues of one store by (topic, queue id), and who listens to them."""

    def __init__(
        self,
        settings: StoreSettings,
        commit_log: CommitLog,
        files: QueueFiles,
        unit_files: UnitFiles,
        queue_flusher: QueueFlusher,
        tags_rules: Mapping[str, TagsRule],
    ) -> None:
        self._settings = settings
        self._log = commit_log
        self._files = files
        self._unit_files = unit_files
        self._queue_flusher = queue_flusher
        self._tags_rules = tags_rules
        self._tags: dict[bytes, int] = {}
        self.shapes: dict[str, TopicShape] = {}
        # By topic; those of all topics stand under ``None``, with what the names begin with.
        self._listeners: dict[str | None, list[tuple[int, str, Arrival]]] = {}
        self._listener_count = 0
        self._shared: dict[tuple[Arrival, ...], tuple[Arrival, ...]] = {}
        # Whether a topic has batch queues; ``None`` for a topic that nobody knows. Asked once.
        self.batch_rule: Callable[[str], bool | None] = lambda topic: None
        # A topic's queues are in one of these: who finds none in the first looks into the other.
        self.table: dict[tuple[str, int], ConsumeQueue] = {}
        self.batches: dict[tuple[str, int], BatchQueue] = {}
        # What is in the log, but not yet on the disk: (queue, physical offset, size, tags code or
        # unit).
        self.unflushed: deque[tuple[ConsumeQueue, int, int, int | Unit]] = deque()

    def queue(self, topic: str, queue_id: int) -> ConsumeQueue:
        queue = self.table.get((topic, queue_id))
        if queue is None:
            queue = ConsumeQueue(self.shape(topic), queue_id)
            self.add(queue)
        return queue

    def add(self, queue: ConsumeQueue) -> None:
        self.table[queue.shape.name, queue.queue_id] = queue
        self._place(queue.shape, queue.queue_id, queue)

    def remove(self, queue: ConsumeQueue) -> None:
        del self.table[queue.shape.name, queue.queue_id]
        self._place(queue.shape, queue.queue_id, None)

    def _place(self, shape: TopicShape, queue_id: int, queue: ConsumeQueue | None) -> None:
        if queue_id < QUICK_QUEUES_MAX:
            queues = [*shape.queues]
            queues += [None] * (queue_id + 1 - len(queues))
            queues[queue_id] = queue
            shape.queues = tuple(queues)

    def shape(self, topic: str) -> TopicShape:
        shape = self.shapes.get(topic)
        if shape is None:
            files = self._unit_files if self.batch_rule(topic) else self._files
            shape = self.add_shape(topic, files)
        return shape

    def knows(self, topic: str) -> bool:
        return topic in self.shapes

    def add_shape(self, topic: str, files: QueueFiles) -> TopicShape:
        rule, listeners = self._tags_rules.get(topic), self._listeners_of(topic)
        shape = self.shapes[topic] = TopicShape(topic, files, rule, listeners)
        return shape

    def batch_queue(self, topic: str, queue_id: int) -> BatchQueue | None:
        """The queue of a topic that has batch queues."""
        queue = self.batches.get((topic, queue_id))
        if queue is None and (shape := self.shape(topic)).files is self._unit_files:
            queue = self.batches[topic, queue_id] = BatchQueue(ConsumeQueue(shape, queue_id))
        return queue

    def add_list(self, topic: str, queue_id: int, end: int) -> ConsumeQueue:
        """A queue with so many entries or units on the disk."""
        shape = self.shape(topic)
        queue = ConsumeQueue(shape, queue_id, end)
        if shape.files is self._unit_files:
            self.batches[topic, queue_id] = BatchQueue(queue)
        else:
            self.add(queue)
        return queue

    def has_batches(self, topic: str) -> bool:
        return self.shape(topic).files is self._unit_files

    def lists(self) -> Iterator[tuple[tuple[str, int], ConsumeQueue]]:
        """Every queue's list of entries or units."""
        yield from list(self.table.items())
        for key, queue in list(self.batches.items()):
            yield key, queue.units

    def tags_code(self, shape: TopicShape, properties: bytes, timestamp: int) -> int:
        """Java hash of the TAGS property, 0 without one; a topic may have a rule of its own."""
        if shape.tags_rule is not None:
            return shape.tags_rule(properties, timestamp)
        tag = find_property(properties, b"TAGS")
        if tag is None:
            return 0
        code = self._tags.get(tag)
        if code is None:
            if len(self._tags) >= TAG_CACHE_ENTRIES_MAX:
                self._tags.clear()
            code = self._tags[tag] = java_hash(tag.decode("utf-8", "replace"))
        return code

    # -- dispatch: the log's record becomes readable

    @property
    def _visible_at_once(self) -> bool:
        return self._settings.flush_disk_type != "SYNC_FLUSH"

    def dispatch(self, queue: ConsumeQueue, phy: int, size: int, tags_code: int) -> None:
        if self._visible_at_once:
            self.show_flushed(phy)  # the setting changed meanwhile: keep the order
            self.add_entry(queue, phy, size, tags_code)
        else:
            self.unflushed.append((queue, phy, size, tags_code))

    def show_flushed(self, flushed: int) -> None:
        """Make what the flush covered readable (storage.md 5.6: only flushed with SYNC_FLUSH)."""
        unflushed = self.unflushed
        while unflushed:
            queue, phy, size, rest = unflushed[0]
            if phy + size > flushed:
                break
            unflushed.popleft()
            if isinstance(rest, int):
                self.add_entry(queue, phy, size, rest)
            elif (batch := self.batches.get((queue.shape.name, queue.queue_id))) is not None:
                self.add_unit(batch, rest)

    def add_entry(self, queue: ConsumeQueue, phy: int, size: int, tags_code: int) -> None:
        """Put one entry at the end of its queue and tell who listens."""
        pending = queue.pending
        if pending is None:
            queue.pending = bytearray(ENTRY.pack(phy, size, tags_code))
            queue.pending_start = queue.max_offset
            self._queue_flusher.dirty(queue, phy)
        else:
            pending += ENTRY.pack(phy, size, tags_code)
        offset = queue.max_offset + 1
        if offset == queue.next_offset:  # mostly; one number for both is one wait for memory less
            offset = queue.next_offset
        queue.max_offset = offset
        shape = queue.shape
        for listener in shape.listeners:
            listener(shape.name, queue.queue_id, offset, tags_code, phy, size)

    def dispatch_unit(self, queue: BatchQueue, unit: Unit) -> None:
        if self._visible_at_once:
            self.show_flushed(unit.physical_offset)
            self.add_unit(queue, unit)
        else:
            self.unflushed.append((queue.units, unit.physical_offset, unit.size, unit))

    def add_unit(self, queue: BatchQueue, unit: Unit) -> None:
        """Put one unit at the end of its queue and tell who listens."""
        units = queue.units
        if units.pending is None:
            units.pending = bytearray()
            units.pending_start = units.max_offset
            self._queue_flusher.dirty(units, unit.physical_offset)
        units.pending += UNIT.pack(*unit)
        units.max_offset += 1
        queue.max_offset = unit.end
        shape = queue.shape
        for listener in shape.listeners:
            listener(
                shape.name,
                units.queue_id,
                unit.end,
                unit.tags_code,
                unit.physical_offset,
                unit.size,
            )

    def restore_unit(self, topic: str, queue_id: int, unit: Unit) -> None:
        """For recovery."""
        queue = self.batch_queue(topic, queue_id)
        if queue is None or unit.base < queue.max_offset:
            return
        if queue.units.max_offset == queue.units.min_offset:
            queue.min_offset = unit.base
        elif unit.base > queue.max_offset:
            _note_gap(topic, queue_id, queue.max_offset, unit.base)
        self.add_unit(queue, unit)
        queue.next_offset = queue.max_offset

    def restore_entry(
        self, topic: str, queue_id: int, offset: int, phy: int, size: int, tags: int
    ) -> None:
        """For recovery: an entry whose offset the record itself tells."""
        queue = self.queue(topic, queue_id)
        if offset < queue.max_offset:
            return
        if offset > queue.max_offset:
            if queue.max_offset == 0:
                queue.min_offset = queue.max_offset = queue.pending_start = offset
            else:
                _note_gap(topic, queue_id, queue.max_offset, offset)
                while queue.max_offset < offset:  # with a position, so that positions only grow
                    self.add_entry(queue, phy, FILLER_SIZE, 0)
        self.add_entry(queue, phy, size, tags)
        queue.next_offset = queue.max_offset

    def begin_at(self, topic: str, queue_id: int, offset: int) -> None:
        """Let an empty queue begin at an offset: other files still have what was before it."""
        queue = self.batch_queue(topic, queue_id) or self.queue(topic, queue_id)
        queue.min_offset = queue.max_offset = queue.next_offset = offset
        if isinstance(queue, ConsumeQueue):
            queue.pending_start = offset

    def correct_min_offset(self, queue: ConsumeQueue) -> None:
        """Move the queue's minimum past entries whose records are gone (storage.md 3.4)."""
        minimum = self._log.min_offset
        low, high = queue.min_offset, queue.max_offset
        middle = low  # mostly it stays
        while low < high:
            entry = queue.shape.files.find(queue, middle)
            before_all = entry is not None and entry[1] == FILLER_SIZE and entry[0] == 0
            if entry is None or before_all or entry[0] < minimum:
                low = middle + 1
            else:
                high = middle
            middle = (low + high) // 2
        queue.min_offset = low

    def on_arrival(self, listener: Arrival, topic: str | None = None, *, prefix: str = "") -> None:
        number = self._listener_count = self._listener_count + 1
        self._listeners.setdefault(topic, []).append((number, prefix, listener))
        shapes = self.shapes
        for name in shapes if topic is None else shapes.keys() & {topic}:
            shapes[name].listeners = self._listeners_of(name)

    def _listeners_of(self, name: str) -> tuple[Arrival, ...]:
        """In the order in which they came; one tuple for all topics that have the same."""
        found = [*self._listeners.get(None, ()), *self._listeners.get(name, ())]
        listeners = tuple(
            listener
            for _, prefix, listener in sorted(found, key=itemgetter(0))
            if name.startswith(prefix)
        )
        return self._shared.setdefault(listeners, listeners)

    def forget(self, topic: str) -> list[ConsumeQueue]:
        """Drop the topic's queues, but not their files."""
        if lmq.is_queue(topic):  # one of very many, which are not looked through for it
            queue = self.table.get((topic, lmq.QUEUE_ID))
            dropped = [queue] if queue is not None else []
        else:
            dropped = [queue for (name, _), queue in self.lists() if name == topic]
        for queue in dropped:
            self.drop(topic, queue.queue_id)
        self.shapes.pop(topic, None)
        return dropped

    def drop(self, topic: str, queue_id: int) -> None:
        """Drop one queue, but not its files."""
        queue = self.table.get((topic, queue_id))
        if queue is None:
            queue = self.batches.pop((topic, queue_id)).units
        else:
            self.remove(queue)
        self._queue_flusher.forget(queue)


def _note_gap(topic: str, queue_id: int, start: int, end: int) -> None:
    log.error(
        "queue %d of topic %s lost its entries from %d to %d: their messages are not readable by "
        "offset, but by id and key. Check the disk",
        queue_id,
        topic,
        start,
        end,
    )
