"""Reading queues: messages from an offset on, offsets by time, where a queue begins and ends."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Protocol

from firearrow.store import api, batchread
from firearrow.store.api import Entry, HidingRule, Read, RecordMatch
from firearrow.store.batchqueue import BatchQueue
from firearrow.store.commitlog import CommitLog
from firearrow.store.consumequeue import (
    ENTRY,
    ENTRY_BYTES,
    FILLER_SIZE,
    ConsumeQueue,
    QueueFiles,
    int32,
)
from firearrow.store.dispatch import Dispatcher
from firearrow.store.settings import StoreSettings


class Source(Protocol):
    """Has the messages of some topics in files of its own."""

    def read(
        self, topic: str, queue_id: int, offset: int, max_messages: int, max_bytes: int
    ) -> Read: ...

    def min_offset(self, topic: str, queue_id: int, of_log: int) -> int:
        """First offset that can be read, where ``of_log`` is the first in the commit log."""


class Reader:
    """The reading end of one store."""

    def __init__(
        self,
        settings: StoreSettings,
        commit_log: CommitLog,
        dispatcher: Dispatcher,
        files: QueueFiles,
    ) -> None:
        self._settings = settings
        self._log = commit_log
        self._table = dispatcher.table
        self._batches = dispatcher.batches
        self._batch_reader = batchread.BatchReader(settings, commit_log)
        self._files = files
        self._hidden: HidingRule | None = None
        self.sources: dict[str, Source] = {}  # by topic
        self.hot_bytes = _memory_bytes() * settings.access_message_in_memory_max_ratio // 100

    def read(
        self,
        topic: str,
        queue_id: int,
        offset: int,
        max_messages: int,
        *,
        max_bytes: int = 128 * 1024 * 1024,
        tags_codes: Collection[int] | None = None,
        match: RecordMatch | None = None,
    ) -> Read:
        if self.sources and topic in self.sources:
            return self.sources[topic].read(topic, queue_id, offset, max_messages, max_bytes)
        queue = self._table.get((topic, queue_id))
        if self._hidden is not None:
            match = _visible(self._hidden(topic), match)
        if queue is None:
            batches = self._batches.get((topic, queue_id))
            if batches is None:
                return Read(api.NO_MATCHED_LOGIC_QUEUE, 0, 0, 0)
            return self.read_batches(batches, offset, max_messages, max_bytes, tags_codes, match)
        low, high = queue.min_offset, queue.max_offset
        if not low <= offset < high:
            return _outside(offset, low, high)
        settings = self._settings
        if tags_codes is None and match is None:
            examined = min(max_messages, settings.max_transfer_count_on_message_in_memory)
        else:
            examined = max(settings.max_filter_message_size // ENTRY_BYTES, max_messages)
        entries = self._files.entries(queue, offset, max(examined, 1))
        if not entries:
            per_file = self._files.file_bytes // ENTRY_BYTES
            return Read(api.OFFSET_FOUND_NULL, offset - offset % per_file + per_file, low, high)
        return self.collect(offset, entries, low, high, max_messages, max_bytes, tags_codes, match)

    def collect(
        self,
        offset: int,
        entries: bytes,
        low: int,
        high: int,
        max_messages: int,
        max_bytes: int,
        tags_codes: Collection[int] | None,
        match: RecordMatch | None,
    ) -> Read:
        """The messages of some entries from ``offset`` on, as many as one read may have."""
        commit_log = self._log
        hot_from = commit_log.end - self.hot_bytes
        hot, cold = self.limits()
        log_min = commit_log.min_offset
        parts: list[bytes] = []
        count = total = 0
        run_start = run_end = -1  # adjacent records leave as one slice
        status = api.NO_MATCHED_MESSAGE
        for phy, size, tags_code in ENTRY.iter_unpack(entries):
            if phy < log_min or size == FILLER_SIZE:
                status = api.MESSAGE_WAS_REMOVING
                offset += 1
                continue
            if count:
                byte_limit, count_limit = hot if phy >= hot_from else cold
                if (
                    count >= max_messages
                    or count >= count_limit
                    or total + size > byte_limit
                    or total + size > max_bytes
                ):
                    break
            offset += 1
            if tags_codes is not None and int32(tags_code) not in tags_codes:
                continue
            if match is not None:
                record = commit_log.slice(phy, size)
                if not record or not match(record):
                    continue
            if phy == run_end and phy % commit_log.file_bytes:
                run_end += size
            elif commit_log.file_of(phy) is None:  # lost, with later ones still there
                status = api.MESSAGE_WAS_REMOVING
                continue
            else:
                if run_end > run_start:
                    parts.append(commit_log.slice(run_start, run_end - run_start))
                run_start, run_end = phy, phy + size
            count += 1
            total += size
        if run_end > run_start:
            parts.append(commit_log.slice(run_start, run_end - run_start))
        if count:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            return Read(api.FOUND, offset, low, high, body, count)
        return Read(status, offset, low, high)

    def read_batches(
        self,
        queue: BatchQueue,
        offset: int,
        max_messages: int,
        max_bytes: int,
        tags_codes: Collection[int] | None,
        match: RecordMatch | None,
    ) -> Read:
        """As ``read``, of a batch queue."""
        if not queue.min_offset <= offset < queue.max_offset:
            return _outside(offset, queue.min_offset, queue.max_offset)
        hot_from = self._log.end - self.hot_bytes
        limits = batchread.Limits(max_messages, max_bytes, hot_from, *self.limits())
        return self._batch_reader.read(queue, offset, limits, tags_codes, match)

    def entries(self, topic: str, queue_id: int, offset: int, count: int) -> list[Entry]:
        queue = self._table.get((topic, queue_id))
        if queue is None and (batches := self._batches.get((topic, queue_id))) is not None:
            return batchread.entries(batches, offset, count)
        if queue is None or not queue.min_offset <= offset < queue.max_offset:
            return []
        data = self._files.entries(queue, offset, count)
        return [Entry(offset + n, *entry) for n, entry in enumerate(ENTRY.iter_unpack(data))]

    def min_offset(self, topic: str, queue_id: int) -> int:
        queue = self.bounds(topic, queue_id)
        low = queue.min_offset if queue else 0
        if self.sources and topic in self.sources:
            return self.sources[topic].min_offset(topic, queue_id, low)
        return low

    def max_offset(self, topic: str, queue_id: int) -> int:
        queue = self.bounds(topic, queue_id)
        return queue.max_offset if queue else 0

    def bounds(self, topic: str, queue_id: int) -> ConsumeQueue | BatchQueue | None:
        """What there is of a queue in the commit log; ``None`` for nothing."""
        return self._table.get((topic, queue_id)) or self._batches.get((topic, queue_id))

    def search_offset(self, topic: str, queue_id: int, timestamp: int, *, upper: bool) -> int:
        queue = self.bounds(topic, queue_id)
        if queue is None or queue.max_offset <= queue.min_offset:
            return 0 if queue is None else queue.max_offset
        if isinstance(queue, BatchQueue):
            return batchread.search(queue, timestamp, upper=upper)
        low, high = queue.min_offset, queue.max_offset
        while low < high:  # first entry with a later time (upper), or not an earlier one
            middle = (low + high) // 2
            stored = self._store_time(queue, middle)
            if stored < timestamp or (upper and stored == timestamp):
                low = middle + 1
            else:
                high = middle
        return max(low - 1, queue.min_offset) if upper else low

    def _store_time(self, queue: ConsumeQueue, offset: int) -> int:
        entry = self._files.find(queue, offset)
        return -1 if entry is None or entry[1] == FILLER_SIZE else self._log.store_time(entry[0])

    def store_time(self, topic: str, queue_id: int, offset: int) -> int:
        queue = self.bounds(topic, queue_id)
        if isinstance(queue, BatchQueue):
            return batchread.store_time(queue, offset)
        if queue is None or not queue.min_offset <= offset < queue.max_offset:
            return -1
        return self._store_time(queue, offset)

    def is_hot(self, physical_offset: int) -> bool:
        return self._log.end - physical_offset <= self.hot_bytes

    def hide(self, rule: HidingRule | None) -> None:
        self._hidden = rule

    def visible(self, topic: str) -> RecordMatch | None:
        """Which records of a topic are not hidden; ``None`` when all are."""
        return None if self._hidden is None else _visible(self._hidden(topic), None)

    def limits(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Bytes and messages of one read: from memory, and where the disk may have to be asked."""
        settings = self._settings
        return (
            (
                settings.max_transfer_bytes_on_message_in_memory,
                settings.max_transfer_count_on_message_in_memory,
            ),
            (
                settings.max_transfer_bytes_on_message_in_disk,
                settings.max_transfer_count_on_message_in_disk,
            ),
        )


def _visible(hidden: RecordMatch | None, match: RecordMatch | None) -> RecordMatch | None:
    """``match``, for records that are not hidden."""
    if hidden is None:
        return match
    if match is None:
        return lambda record: not hidden(record)
    return lambda record: not hidden(record) and match(record)


def _outside(offset: int, low: int, high: int) -> Read:
    """The answer for an offset that the queue does not have."""
    if high == 0:
        return Read(api.NO_MESSAGE_IN_QUEUE, 0, low, high)
    if offset < low:
        return Read(api.OFFSET_TOO_SMALL, low, low, high)
    if offset == high:
        return Read(api.OFFSET_OVERFLOW_ONE, offset, low, high)
    return Read(api.OFFSET_OVERFLOW_BADLY, high, low, high)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
