"""The files of a compaction log (``CompactionLog``, ``SparseConsumeQueue``): pairs of one name.

``compaction/compactionLog/<topic>/<queue>/<20 digits>``: records back to back as in the commit log,
but their physical offset is their position here, and a filler (8 bytes) where the file ends early.

``compaction/compactionCq/<topic>/<queue>/<the same digits>``: an entry for each of these records:
    8  position
    4  record size
    8  tags code
    8  store timestamp
    8  queue offset
    2  messages in the record (1)
    4  -1
    4  0
An entry with position -1 says that the file ends before it is full.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from firearrow.codec.record import (
    MAGIC_END_OF_FILE,
    MAGIC_V1,
    MAGIC_V2,
    RECORD_BYTES_MIN,
    RecordError,
    decode_record,
)
from firearrow.store.disk import Disk

ENTRY: Final = struct.Struct(">qiqqqhii")
ENTRY_BYTES: Final = ENTRY.size
END_ENTRY: Final = ENTRY.pack(-1, 0, 0, 0, 0, 0, -1, 0)
FILLER_BYTES: Final = 8
_FILLER: Final = struct.Struct(">iI")
_HEAD: Final = struct.Struct(">iI12xqq")  # size, magic, queue offset, position
HEAD_BYTES: Final = _HEAD.size

LOGS: Final = "compactionLog"
ENTRIES: Final = "compactionCq"
BLOCK_ENTRIES: Final = 128


class CompactionDamaged(Exception):  # noqa: N818
    """The files of a compaction log do not fit together; the text says what to do."""


class Sizes(NamedTuple):
    """Bytes of the two files of a pair."""

    log: int
    entries: int


def sizes_of(log_bytes: int, entries_bytes: int) -> Sizes:
    """What ``compactionMappedFileSize`` and ``compactionCqMappedFileSize`` become: the positions
    in a pair's name must suit both files, so the log's size is a multiple of the other's."""
    entries = entries_bytes // ENTRY_BYTES * ENTRY_BYTES
    times, rest = divmod(log_bytes, entries)
    if times < 5:
        return Sizes(entries * 5, entries)
    if 0 < rest < entries // 2:
        return Sizes(entries * times, entries)
    return Sizes(entries * (times + 1), entries)


def filler(remaining: int) -> bytes:
    """What stands behind the last record of a log file."""
    return _FILLER.pack(remaining, MAGIC_END_OF_FILE)


class Entry(NamedTuple):
    """One record of the log."""

    position: int
    size: int
    tags_code: int
    stored_ms: int
    offset: int  # in the queue
    messages: int
    compacted: int
    reserved: int

    @property
    def valid(self) -> bool:
        return self.position >= 0 and self.size > 0 and self.offset >= 0 and self.messages > 0


class Pair:
    """Two files of the same name: from ``start`` to ``end`` they hold ``count`` records, whose
    queue offsets are ``first`` to ``last`` with gaps. ``folder`` is where they wait to be moved up.
    """

    __slots__ = ("count", "end", "first", "folder", "last", "start")

    def __init__(self, start: int, folder: str = "") -> None:
        self.start = start
        self.count = 0
        self.first = self.last = -1
        self.end = start
        self.folder = folder

    @property
    def name(self) -> str:
        return f"{self.start:020d}"

    def copy(self) -> Pair:
        other = Pair(self.start, self.folder)
        other.count, other.end = self.count, self.end
        other.first, other.last = self.first, self.last
        return other

    def add(self, offset: int, size: int) -> None:
        if not self.count:
            self.first = offset
        self.count += 1
        self.last = offset
        self.end += size


class Place:
    """Where one queue's files are."""

    def __init__(self, root: str, topic: str, queue_id: int) -> None:
        self.logs = f"{root}/{LOGS}/{topic}/{queue_id}"
        self.entries = f"{root}/{ENTRIES}/{topic}/{queue_id}"

    @property
    def directories(self) -> tuple[str, str]:
        return self.logs, self.entries


def path(directory: str, pair: Pair) -> str:
    return f"{directory}/{pair.folder}/{pair.name}" if pair.folder else f"{directory}/{pair.name}"


class PairFiles:
    """Reads pairs. What may run in the background says so."""

    def __init__(self, disk: Disk, root: str, sizes: Sizes) -> None:
        self.disk = disk
        self.root = root
        self.sizes = sizes

    def queues(self) -> Iterator[tuple[str, int]]:
        """Every (topic, queue) with files."""
        for topic in self.disk.names(f"{self.root}/{LOGS}"):
            for name in self.disk.names(f"{self.root}/{LOGS}/{topic}"):
                if name.isdigit():
                    yield topic, int(name)

    def place(self, topic: str, queue_id: int) -> Place:
        return Place(self.root, topic, queue_id)

    # -- open

    def load(self, place: Place) -> list[Pair]:
        """All pairs in order. May run in the background.

        Raises:
            CompactionDamaged: a file has no other half, or another size than configured.
            OSError: the disk refuses.
        """
        logs = self._starts(place.logs, self.sizes.log, "compactionMappedFileSize")
        entries = self._starts(place.entries, self.sizes.entries, "compactionCqMappedFileSize")
        pairs = [Pair(start) for start in sorted(logs & entries)]
        for pair in pairs:
            self.measure(place, pair)
        halves = sorted(logs ^ entries)
        if halves:
            pairs = self._without_halves(place, pairs, halves, logs)
        if pairs:
            self._drop_torn(place, pairs[-1])
        for before, pair in itertools.pairwise(pairs):
            if not pair.count:  # so that offsets can be searched
                pair.first, pair.last = before.last + 1, before.last
        return pairs

    def _without_halves(
        self, place: Place, pairs: list[Pair], halves: list[int], logs: set[int]
    ) -> list[Pair]:
        """A file without its other half was just being made, if nothing comes behind it."""
        kept = [pair for pair in pairs if pair.start < halves[0]]
        empty = pairs[len(kept) :]
        for pair in empty:
            if pair.count:
                has, lacks = place.directories
                if halves[0] not in logs:
                    has, lacks = lacks, has
                raise CompactionDamaged(
                    f"{has}/{halves[0]:020d} belongs to a file of the same name in {lacks}, which "
                    "is missing. Put it back, or move the first one away: its messages are then "
                    "no longer readable"
                )
        for start in [*halves, *(pair.start for pair in empty)]:
            for directory in place.directories:
                self.disk.remove(f"{directory}/{start:020d}")
        return kept

    def _starts(self, directory: str, size: int, setting: str) -> set[int]:
        found = set()
        for name in self.disk.names(directory):
            if len(name) != 20 or not name.isdigit():
                continue
            has = self.disk.size(f"{directory}/{name}")
            if has == 0:  # made, but not yet given its size
                self.disk.remove(f"{directory}/{name}")
                continue
            if has != size:
                raise CompactionDamaged(
                    f"{directory}/{name} has {has} bytes, but with {setting} as it is it must have "
                    f"{size}; set compactionMappedFileSize and compactionCqMappedFileSize to what "
                    "they were when the store was written"
                )
            found.add(int(name))
        return found

    def measure(self, place: Place, pair: Pair) -> None:
        """Find the pair's end: its valid entries come first. May run in the background."""
        low, high = 0, self.sizes.entries // ENTRY_BYTES
        while high - low > BLOCK_ENTRIES:
            middle = (low + high) // 2
            found = self.entries(place, pair, middle, 1)
            if found and found[0].valid:
                low = middle + 1
            else:
                high = middle
        block = self.entries(place, pair, low, high - low)
        pair.count = low + next((n for n, e in enumerate(block) if not e.valid), len(block))
        self._set_bounds(place, pair)

    def _set_bounds(self, place: Place, pair: Pair) -> None:
        pair.first = pair.last = -1
        pair.end = pair.start
        if pair.count:
            last = self.entries(place, pair, pair.count - 1, 1)[0]
            pair.first = self.entries(place, pair, 0, 1)[0].offset
            pair.last, pair.end = last.offset, last.position + last.size

    def _drop_torn(self, place: Place, pair: Pair) -> None:
        """After a power failure entries may be there without their records."""
        count = pair.count
        while pair.count and not self._is_whole(place, pair, pair.count - 1):
            pair.count -= 1
        if pair.count < count:
            self.cut(place, pair, pair.count)

    def _is_whole(self, place: Place, pair: Pair, index: int) -> bool:
        entry = self.entries(place, pair, index, 1)[0]
        if entry.position + entry.size > pair.start + self.sizes.log:
            return False
        data = self.disk.read_once(path(place.logs, pair), entry.position - pair.start, entry.size)
        try:
            record = decode_record(data, check_crc=True)
        except RecordError:
            return False
        return (record.queue_offset, record.physical_offset) == (entry.offset, entry.position)

    def cut(self, place: Place, pair: Pair, count: int) -> None:
        """Keep only the first ``count`` records of the pair."""
        entries = path(place.entries, pair)
        self.disk.truncate(entries, count * ENTRY_BYTES, self.sizes.entries)
        pair.count = count
        self._set_bounds(place, pair)

    # -- read

    def entries(self, place: Place, pair: Pair, index: int, count: int) -> list[Entry]:
        """Entries from the ``index``-th one, valid or not. May run in the background."""
        at, size = index * ENTRY_BYTES, count * ENTRY_BYTES
        return entries_in(self.disk.read_once(path(place.entries, pair), at, size))

    def records(self, place: Place, pair: Pair, entries: list[Entry]) -> bytes:
        """The records of adjacent entries. May run in the background."""
        at = entries[0].position - pair.start
        size = entries[-1].position + entries[-1].size - entries[0].position
        return self.disk.read_once(path(place.logs, pair), at, size)

    def look(self, directory: str, pair: Pair, at: int, size: int) -> bytes:
        """Bytes of a file that may just be on its way up. On the loop only."""
        if pair.folder:
            try:
                return self.disk.read_at(path(directory, pair), at, size)
            except FileNotFoundError:
                pass  # it has arrived
        return self.disk.read_at(f"{directory}/{pair.name}", at, size)

    # -- delete

    def delete(self, place: Place, topic: str) -> None:
        """Remove a queue's files. May run in the background."""
        disk = self.disk
        for directory, kind in ((place.entries, ENTRIES), (place.logs, LOGS)):
            for name in disk.names(directory):
                inner = f"{directory}/{name}"
                if name[:20].isdigit():
                    disk.remove(inner)
                    continue
                for file in disk.names(inner):
                    disk.remove(f"{inner}/{file}")
                disk.remove_directory(inner)
            disk.remove_directory(directory)
            disk.remove_directory(f"{self.root}/{kind}/{topic}")


def entries_in(data: bytes) -> list[Entry]:
    """Whole entries of some bytes."""
    whole = data[: len(data) // ENTRY_BYTES * ENTRY_BYTES]
    return [Entry._make(fields) for fields in ENTRY.iter_unpack(whole)]


def is_record_of(data: bytes, at: int, entry: Entry) -> bool:
    """Whether the entry's record begins at byte ``at`` of the data."""
    if len(data) - at < max(entry.size, RECORD_BYTES_MIN):
        return False
    size, magic, offset, position = _HEAD.unpack_from(data, at)
    return (
        magic in (MAGIC_V1, MAGIC_V2)
        and size == entry.size
        and offset == entry.offset
        and position == entry.position
    )
