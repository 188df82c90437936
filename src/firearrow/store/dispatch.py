"""The consume queues of a store, and how a record of the log gets into them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Final

from firearrow.codec.hashes import java_hash
from firearrow.codec.properties import find_property
from firearrow.store.api import Arrival
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


class Dispatcher:
    """All queues of one store by (topic, queue id), and who listens to them."""

    def __init__(
        self,
        settings: StoreSettings,
        commit_log: CommitLog,
        files: QueueFiles,
        queue_flusher: QueueFlusher,
        tags_rules: Mapping[str, TagsRule],
    ) -> None:
        self._settings = settings
        self._log = commit_log
        self._files = files
        self._queue_flusher = queue_flusher
        self._tags_rules = tags_rules
        self._tags: dict[bytes, int] = {}
        self._shapes: dict[str, TopicShape] = {}
        self._listeners: list[tuple[str | None, Arrival]] = []
        self.table: dict[tuple[str, int], ConsumeQueue] = {}
        self.unflushed: deque[tuple[ConsumeQueue, int, int, int]] = deque()

    def queue(self, topic: str, queue_id: int) -> ConsumeQueue:
        queue = self.table.get((topic, queue_id))
        if queue is None:
            queue = self.table[topic, queue_id] = ConsumeQueue(self.shape(topic), queue_id)
        return queue

    def shape(self, topic: str) -> TopicShape:
        shape = self._shapes.get(topic)
        if shape is None:
            rule = self._tags_rules.get(topic)
            shape = self._shapes[topic] = TopicShape(topic, rule, self._listeners_of(topic))
        return shape

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
        while unflushed and unflushed[0][1] + unflushed[0][2] <= flushed:
            self.add_entry(*unflushed.popleft())

    def add_entry(self, queue: ConsumeQueue, phy: int, size: int, tags_code: int) -> None:
        """Put one entry at the end of its queue and tell who listens."""
        pending = queue.pending
        if pending is None:
            queue.pending = bytearray(ENTRY.pack(phy, size, tags_code))
            queue.pending_start = queue.max_offset
            self._queue_flusher.dirty(queue, phy)
        else:
            pending += ENTRY.pack(phy, size, tags_code)
        queue.max_offset = offset = queue.max_offset + 1
        shape = queue.shape
        for listener in shape.listeners:
            listener(shape.name, queue.queue_id, offset, tags_code, phy, size)

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
                log.error(
                    "queue %s/%d has no entries from %d to %d; their messages are not readable",
                    topic,
                    queue_id,
                    queue.max_offset,
                    offset,
                )
                while queue.max_offset < offset:  # with a position, so that positions only grow
                    self.add_entry(queue, phy, FILLER_SIZE, 0)
        self.add_entry(queue, phy, size, tags)
        queue.next_offset = queue.max_offset

    def correct_min_offset(self, queue: ConsumeQueue) -> None:
        """Move the queue's minimum past entries whose records are gone (storage.md 3.4)."""
        minimum = self._log.min_offset
        low, high = queue.min_offset, queue.max_offset
        middle = low  # mostly it stays
        while low < high:
            entry = self._files.entry(queue, middle)
            before_all = entry is not None and entry[1] == FILLER_SIZE and entry[0] == 0
            if entry is None or before_all or entry[0] < minimum:
                low = middle + 1
            else:
                high = middle
            middle = (low + high) // 2
        queue.min_offset = low

    def on_arrival(self, listener: Arrival, topic: str | None = None) -> None:
        self._listeners.append((topic, listener))
        for name, shape in self._shapes.items():
            shape.listeners = self._listeners_of(name)

    def _listeners_of(self, name: str) -> tuple[Arrival, ...]:
        return tuple(listener for topic, listener in self._listeners if topic in (None, name))

    def forget(self, topic: str) -> list[int]:
        """Drop the topic's queues, but not their files; their ids."""
        ids = [queue_id for name, queue_id in self.table if name == topic]
        for queue_id in ids:
            self._queue_flusher.forget(self.table.pop((topic, queue_id)))
        self._shapes.pop(topic, None)
        return ids
