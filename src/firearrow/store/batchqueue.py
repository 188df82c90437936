"""Batch queues: consume queues of topics with ``queue.type=BatchCQ`` (``BatchConsumeQueue``).

A record may hold several messages there, so a unit tells its offsets; where it stands does not:
    8  physical offset
    4  record size
    8  tags code
    8  store time, ms
    8  queue offset of the record's first message
    2  messages in the record
    4  -1 (used by compaction)
    4  0

Units stand one behind the other. So a batch queue is a plain queue whose entries are units, counted
from 0, with which it shares how entries are kept, written and cut; and the messages' offsets.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from firearrow.codec.batch import inner_count
from firearrow.codec.record import SYS_FLAG_AT, record_properties
from firearrow.codec.sysflags import SYS_INNER_BATCH
from firearrow.store.consumequeue import BLOCK_ENTRIES, ConsumeQueue, QueueFiles, TopicShape

if TYPE_CHECKING:
    from firearrow.codec.record import Record

UNIT: Final = struct.Struct(">qiqqqhii")
UNIT_BYTES: Final = UNIT.size
_STORE_TIME: Final = 3  # fields of a unit
_BASE: Final = 4


class Unit(NamedTuple):
    """One record of a batch queue."""

    physical_offset: int
    size: int
    tags_code: int
    store_time: int
    base: int
    messages: int
    compacted_offset: int = -1
    reserved: int = 0

    @property
    def end(self) -> int:
        """The queue offset behind its last message."""
        return self.base + self.messages


class UnitFiles(QueueFiles):
    """The files of all batch queues."""

    layout = UNIT
    filler = bytes(UNIT_BYTES)

    def is_used(self, entry: tuple[int, ...]) -> bool:
        return entry[0] >= 0 and entry[1] > 0 and entry[4] >= 0 and entry[5] > 0

    def write(self, topic: str, queue_id: int, offset: int, data: bytes) -> list[str]:
        paths = super().write(topic, queue_id, offset, data)
        # Unlike that of plain queues, their directory may be new too.
        return [*paths, self.root.rpartition("/")[0]] if len(paths) > 1 else paths


class BatchQueue:
    """One batch queue. Its offsets are those of messages; those of ``units`` count units."""

    __slots__ = ("following", "max_offset", "min_offset", "next_offset", "units")

    def __init__(self, units: ConsumeQueue) -> None:
        self.units = units
        self.min_offset = 0
        self.max_offset = 0
        self.next_offset = 0
        self.following = 0  # the unit behind the last read: where the next one begins, mostly

    @property
    def shape(self) -> TopicShape:
        return self.units.shape

    def unit(self, index: int) -> Unit | None:
        if not self.units.min_offset <= index < self.units.max_offset:
            return None
        found = self.shape.files.find(self.units, index)
        return None if found is None else Unit(*found)

    def units_from(self, index: int, count: int) -> Iterator[Unit]:
        """At most so many, at most to the end of one file."""
        return map(Unit._make, self._tuples(index, count))

    def _tuples(self, index: int, count: int) -> Iterator[tuple[int, ...]]:
        data = self.shape.files.entries(self.units, index, count)
        return UNIT.iter_unpack(data[: len(data) // UNIT_BYTES * UNIT_BYTES])

    def index_of(self, offset: int) -> int:
        """The unit that holds the message at ``offset``, or the first one behind it."""
        following = self.unit(self.following)
        if following is not None and following.base <= offset < following.end:
            return self.following
        low = self._first(_BASE, offset + 1)
        before = self.unit(low - 1)
        return low - 1 if before is not None and offset < before.end else low

    def index_at(self, timestamp: int, *, later: bool) -> int:
        """The first unit with a later time, or with one that is not earlier."""
        return self._first(_STORE_TIME, timestamp + 1 if later else timestamp)

    def _first(self, field: int, value: int) -> int:
        """The first unit with such a value or a larger one; values only grow. The last steps of
        the search are one read."""
        low, high = self.units.min_offset, self.units.max_offset
        while high - low > BLOCK_ENTRIES:
            middle = (low + high) // 2
            unit = self.unit(middle)
            if unit is None or unit[field] < value:  # one that is lost is as old as what is gone
                low = middle + 1
            else:
                high = middle
        while low < high and (units := [*self._tuples(low, high - low)]):
            found = bisect_left(units, value, key=itemgetter(field))
            low += found
            if found < len(units):
                break
        return low

    def base_behind_file(self, index: int) -> int:
        """Where the messages go on behind a file that is lost, which would have this unit."""
        per_file = self.shape.files.file_bytes // UNIT_BYTES
        following = self.unit(index - index % per_file + per_file)
        return self.max_offset if following is None else following.base

    def drop_before(self, offset: int) -> None:
        """Begin with the record that holds the message at ``offset``."""
        self.units.min_offset = self.index_of(offset)
        self.follow()

    def follow(self) -> None:
        """Begin with the first unit that is left."""
        first = self.unit(self.units.min_offset)
        self.min_offset = self.max_offset if first is None else first.base

    def settle(self) -> None:
        """Take the messages' offsets from the units, which were loaded or cut."""
        end = self.units.max_offset
        last = self.shape.files.find(self.units, end - 1) if end else None
        self.max_offset = self.next_offset = 0 if last is None else Unit(*last).end
        self.follow()


def messages_in(record: bytes) -> int:
    """How many messages a whole record holds."""
    if not record[SYS_FLAG_AT + 3] & SYS_INNER_BATCH:
        return 1
    return max(1, inner_count(record_properties(record)))


def unit_of(record: Record, tags_code: int) -> Unit:
    """The unit of a record that stands in the log."""
    inner = record.sys_flag & SYS_INNER_BATCH
    return Unit(
        record.physical_offset,
        record.size,
        tags_code,
        record.store_timestamp,
        record.queue_offset,
        max(1, inner_count(record.properties)) if inner else 1,
    )
