"""Reading batch queues: what ``reading.Reader`` does for plain ones.

Whole records are delivered, each of which counts as the messages in it (``DefaultMessageStore``):
who asks for an offset in the middle of one gets it from its start, and goes on behind its end.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from firearrow.store import api
from firearrow.store.api import Entry, Read, RecordMatch
from firearrow.store.batchqueue import UNIT_BYTES, BatchQueue, Unit
from firearrow.store.commitlog import CommitLog
from firearrow.store.consumequeue import int32
from firearrow.store.settings import StoreSettings


class Limits(NamedTuple):
    """Of one read. One record is always read, whatever they say."""

    messages: int
    bytes: int
    hot_from: int  # physical offset from which the log is in memory
    hot: tuple[int, int]  # bytes and messages from there, and before it
    cold: tuple[int, int]

    def allow(self, unit: Unit, count: int, total: int) -> bool:
        """Whether the unit may follow so many messages and bytes."""
        if not count:
            return True
        byte_limit, count_limit = self.hot if unit.physical_offset >= self.hot_from else self.cold
        return (
            count + unit.messages <= self.messages
            and count < count_limit
            and total + unit.size <= min(self.bytes, byte_limit)
        )


class BatchReader:
    """The reading end of all batch queues of one store."""

    def __init__(self, settings: StoreSettings, commit_log: CommitLog) -> None:
        self._settings = settings
        self._log = commit_log

    def read(
        self,
        queue: BatchQueue,
        offset: int,
        limits: Limits,
        tags_codes: Collection[int] | None,
        match: RecordMatch | None,
    ) -> Read:
        """From an offset that the queue has."""
        low, high = queue.min_offset, queue.max_offset
        reach = min(limits.messages, limits.hot[1])  # how far records are looked at
        if tags_codes is not None or match is not None:
            reach = max(self._settings.max_filter_message_size // UNIT_BYTES, limits.messages)
        index = queue.index_of(offset)
        status, position = api.NO_MATCHED_MESSAGE, offset
        parts: list[bytes] = []
        count = total = 0
        for unit in queue.units_from(index, max(1, reach)):
            too_far = unit.base - offset >= reach and position > offset
            if too_far or not limits.allow(unit, count, total):
                break
            position = unit.end
            index += 1
            if tags_codes is not None and int32(unit.tags_code) not in tags_codes:
                continue
            record = self._log.slice(unit.physical_offset, unit.size)
            if not record or unit.physical_offset < self._log.min_offset:
                status = api.MESSAGE_WAS_REMOVING
            elif match is None or match(record):
                parts.append(record)
                count += unit.messages
                total += unit.size
        if position == offset:
            return Read(api.OFFSET_FOUND_NULL, queue.base_behind_file(index), low, high)
        queue.following = index
        if not parts:
            return Read(status, position, low, high)
        return Read(api.FOUND, position, low, high, b"".join(parts), count, len(parts))


def search(queue: BatchQueue, timestamp: int, *, upper: bool) -> int:
    """Offset of a whole record by store time. Unlike in a plain queue, a time behind the last
    record of a file is that record's (``BatchConsumeQueue.getOffsetInQueueByTime``)."""
    index = queue.index_at(timestamp, later=upper)
    if upper or _ends_file(queue, index - 1, timestamp):
        index = max(index - 1, queue.units.min_offset)
    found = queue.unit(index)
    return queue.max_offset if found is None else max(found.base, queue.min_offset)


def _ends_file(queue: BatchQueue, index: int, timestamp: int) -> bool:
    """Whether the unit is the last of its file, and the next one is later than the time."""
    following = queue.unit(index + 1)
    if following is None:
        return True
    per_file = queue.shape.files.file_bytes // UNIT_BYTES
    return (index + 1) % per_file == 0 and following.store_time > timestamp


def entries(queue: BatchQueue, offset: int, count: int) -> list[Entry]:
    """The records that hold the messages from ``offset`` to ``offset + count``."""
    if not queue.min_offset <= offset < queue.max_offset:
        return []
    return [
        Entry(unit.base, unit.physical_offset, unit.size, unit.tags_code, unit.messages)
        for unit in queue.units_from(queue.index_of(offset), count)
        if unit.base < offset + count
    ]


def store_time(queue: BatchQueue, offset: int) -> int:
    """Store timestamp of the message at ``offset``, or -1."""
    if not queue.min_offset <= offset < queue.max_offset:
        return -1
    unit = queue.unit(queue.index_of(offset))
    return -1 if unit is None else unit.store_time
