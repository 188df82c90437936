"""All compaction logs of a store (``CompactionStore``): when they are written, compacted, read, and
what they need of the commit log."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from firearrow.store import api
from firearrow.store.api import Read
from firearrow.store.batchqueue import BatchQueue
from firearrow.store.compaction.compactor import Compactor
from firearrow.store.compaction.copying import Copier
from firearrow.store.compaction.pairs import PairFiles, sizes_of
from firearrow.store.compaction.positions import Positions
from firearrow.store.compaction.queue import CompactedQueue, Limits
from firearrow.store.compaction.swap import mend

if TYPE_CHECKING:
    from firearrow.store.consumequeue import ConsumeQueue
    from firearrow.store.filestore import FileStore

log = logging.getLogger(__name__)

DIRECTORY: Final = "compaction"
RETRY_S: Final = 60.0  # after a compaction that the disk refused

Key = tuple[str, int]


class CompactionStore:
    """See ``compactionapi.CompactedTopics``; the store asks it for reads, and for what it may
    delete. It costs nothing while there is no such topic."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._root = f"{store.root}/{DIRECTORY}"
        settings = store.settings
        sizes = sizes_of(
            settings.compaction_mapped_file_size, settings.compaction_cq_mapped_file_size
        )
        self._files = PairFiles(store.disk, self._root, sizes)
        self._positions = Positions(store.disk, self._root, store.background)
        self._copier = Copier(store, self._files)
        self._compactor = Compactor(store, self._files, self._positions)
        self._queues: dict[Key, CompactedQueue] = {}
        self.topics: set[str] = set()
        self._listening: set[str] = set()
        self._stopped = False

    def load(self) -> None:
        """Find what there is, and finish what was interrupted (blocks).

        Raises:
            CompactionDamaged: the files do not fit together, or have other sizes than configured.
            OSError: the disk refuses.
        """
        for topic, queue_id in self._files.queues():
            queue = CompactedQueue(self._files, topic, queue_id)
            mend(self._files, queue.place)
            queue.load()
            self._queues[queue.key] = queue
        if self._queues:
            self._positions.load()

    # -- topics

    def use(self, topics: Collection[str], *, made_now: bool) -> None:
        new = set(topics) - self.topics
        if not new:
            return
        store = self._store
        ends = {key: store.max_offset(*key) for key in store.queues() if key[0] in new}
        used = {topic for (topic, _), end in ends.items() if end}
        for queue in [queue for queue in self._queues.values() if queue.topic in new]:
            if made_now and queue.topic not in used:
                self._drop(queue)  # of an earlier topic with this name
            else:
                queue.use_batches(store.dispatcher.has_batches(queue.topic))
                self._fit_to_log(queue)
        self.topics |= new
        store.reader.sources.update(dict.fromkeys(new, self))
        for (topic, queue_id), end in ends.items():
            self._arrived(topic, queue_id, end, 0, 0, 0)
        for topic in new - self._listening:
            store.on_arrival(self._arrived, topic)
        self._listening |= new

    def delete(self, topic: str) -> None:
        """The topic is deleted."""
        self.topics.discard(topic)
        self._store.reader.sources.pop(topic, None)
        for queue in [queue for queue in self._queues.values() if queue.topic == topic]:
            self._drop(queue)

    def _drop(self, queue: CompactedQueue) -> None:
        queue.dropped = True
        del self._queues[queue.key]
        self._copier.forget(queue)
        self._positions.forget(queue.key)
        files, place, topic = self._files, queue.place, queue.topic
        for directory in place.directories:
            files.disk.forget(directory)
        self._store.background.submit(
            lambda: files.delete(place, topic), lambda _, error: self._deleted(topic, error)
        )

    def _deleted(self, topic: str, error: OSError | None) -> None:
        if error is not None:
            log.error(
                "cannot remove the compaction logs of the deleted topic %s: %s. Remove "
                "%s/compactionLog/%s and %s/compactionCq/%s by hand while the broker is down",
                topic,
                error.strerror,
                self._root,
                topic,
                self._root,
                topic,
            )

    def _fit_to_log(self, queue: CompactedQueue) -> None:
        """The compaction log and the queue must be of the same messages."""
        store, last = self._store, queue.last
        end = store.max_offset(*queue.key)
        if not end:
            store.dispatcher.begin_at(queue.topic, queue.queue_id, queue.next_offset)
            return
        newest = queue.entry_at(end - 1)
        if newest is not None:
            stored_ms = store.store_time(*queue.key, newest.offset)
            if stored_ms not in (-1, newest.stored_ms):
                log.warning(
                    "the compaction log of queue %d of topic %s is of an earlier topic with this "
                    "name, and is removed",
                    queue.queue_id,
                    queue.topic,
                )
                self._drop(queue)
                return
        if last >= end:
            log.warning(
                "the compaction log of queue %d of topic %s had messages up to offset %d, which "
                "the commit log lost: it ends at %d now, too",
                queue.queue_id,
                queue.topic,
                last,
                end - 1,
            )
            queue.cut(end)

    def _arrived(self, topic: str, queue_id: int, offset: int, _: int, __: int, ___: int) -> None:
        """Messages up to ``offset`` are readable: see that they get copied."""
        if topic not in self.topics:
            return
        queue = self._queues.get((topic, queue_id))
        if queue is None:
            queue = CompactedQueue(self._files, topic, queue_id)
            queue.use_batches(self._store.dispatcher.has_batches(topic))
            self._queues[topic, queue_id] = queue
        if queue.waiting or queue.next_offset >= offset:
            return
        store = self._store
        of_log = store.reader.bounds(topic, queue_id)
        low = 0 if of_log is None else of_log.min_offset
        first = store.entries(topic, queue_id, max(queue.next_offset, low), 1)
        if first:
            self._copier.want(queue, first[0].physical_offset)

    @property
    def floor(self) -> int | None:
        """The first position of the commit log that was not copied; ``None`` when all was."""
        return self._copier.floor

    # -- time

    def start(self) -> None:
        self._store.clock.call_later(self._interval_s, self._compact)

    @property
    def _interval_s(self) -> float:
        return self._store.settings.compaction_schedule_internal / 1000

    def _compact(self) -> None:
        if self._stopped or self._store.closed:
            return
        self._compactor.compact([q for q in self._queues.values() if q.topic in self.topics])
        failing = self._compactor.failing
        next_s = min(self._interval_s, RETRY_S) if failing else self._interval_s
        self._store.clock.call_later(next_s, self._compact)

    def stop(self) -> None:
        self._stopped = True
        self._compactor.stop()

    def finish(self) -> None:
        """Copy what is not copied yet (blocks); the commit log is flushed.

        Raises:
            OSError: the disk refuses.
        """
        self._copier.finish()

    # -- read (``reading.Source``)

    def min_offset(self, topic: str, queue_id: int, of_log: int) -> int:
        queue = self._queues.get((topic, queue_id))
        return of_log if queue is None or queue.first < 0 else min(of_log, queue.first)

    def read(
        self, topic: str, queue_id: int, offset: int, max_messages: int, max_bytes: int
    ) -> Read:
        """The next messages that there are at or behind the offset, without any filter
        (``CompactionLog.getMessage``)."""
        of_log = self._store.reader.bounds(topic, queue_id)
        if of_log is None:
            return Read(api.NO_MATCHED_LOGIC_QUEUE, 0, 0, 0)
        queue = self._queues.get((topic, queue_id))
        low, high = of_log.min_offset, of_log.max_offset
        if queue is not None and queue.first >= 0:
            low = queue.first
        if high == 0:
            return Read(api.NO_MESSAGE_IN_QUEUE, 0, low, high)
        if offset == high:
            return Read(api.OFFSET_OVERFLOW_ONE, offset, low, high)
        if offset > high:
            return Read(api.OFFSET_OVERFLOW_BADLY, high if low else 0, low, high)
        try:
            start = offset if queue is None else queue.start_of(offset)
            if queue is None or start > queue.last:
                read = self._read_tail(of_log, queue, offset, max_messages, max_bytes)
            else:
                read = self._read_copied(queue, start, max_messages, max_bytes)
        except FileNotFoundError:  # on its way to another name
            read = Read(api.OFFSET_FOUND_NULL, offset, 0, 0)
        read.min_offset, read.max_offset = low, high
        return read

    def _read_copied(
        self, queue: CompactedQueue, offset: int, max_messages: int, max_bytes: int
    ) -> Read:
        reader = self._store.reader
        hot, cold = reader.limits()
        is_hot = queue.end - queue.pairs[0].start <= reader.hot_bytes
        bytes_max, count_max = hot if is_hot else cold
        limits = Limits(max(1, min(max_messages, count_max)), min(max_bytes, bytes_max))
        found = queue.read(offset, limits, reader.visible(queue.topic))
        if found is None:
            return Read(api.OFFSET_FOUND_NULL, offset, 0, 0)
        if found.messages:
            return Read(
                api.FOUND, found.next_offset, 0, 0, found.records, found.messages, found.batched
            )
        if found.lost:
            self._tell_damaged(queue, found.next_offset - 1)
            return Read(api.MESSAGE_WAS_REMOVING, found.next_offset, 0, 0)
        return Read(api.NO_MATCHED_MESSAGE, found.next_offset, 0, 0)

    def _tell_damaged(self, queue: CompactedQueue, offset: int) -> None:
        if not queue.damaged:
            log.error(
                "message %d of queue %d of topic %s is unreadable in %s and is passed over; check "
                "the disk",
                offset,
                queue.queue_id,
                queue.topic,
                queue.place.logs,
            )
        queue.damaged = True

    def _read_tail(
        self,
        of_log: ConsumeQueue | BatchQueue,
        queue: CompactedQueue | None,
        offset: int,
        max_messages: int,
        max_bytes: int,
    ) -> Read:
        """What is not copied yet."""
        offset = max(offset, of_log.min_offset, 0 if queue is None else queue.next_offset)
        if offset >= of_log.max_offset:  # only messages without a key, which have no place here
            return Read(api.NO_MATCHED_MESSAGE, of_log.max_offset, 0, 0)
        reader = self._store.reader
        match = reader.visible(of_log.shape.name)
        if isinstance(of_log, BatchQueue):
            return reader.read_batches(of_log, offset, max_messages, max_bytes, None, match)
        count = min(max_messages, self._store.settings.max_transfer_count_on_message_in_memory)
        data = self._store.files.entries(of_log, offset, max(1, count))
        if not data:
            return Read(api.OFFSET_FOUND_NULL, offset, 0, 0)
        return reader.collect(offset, data, 0, 0, max_messages, max_bytes, None, match)
