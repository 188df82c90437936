"""One queue of a compaction topic: which files it has, and reading from them."""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import Final, NamedTuple

from firearrow.store.api import RecordMatch
from firearrow.store.compaction.pairs import (
    ENTRY_BYTES,
    Entry,
    Pair,
    PairFiles,
    entries_in,
    is_record_of,
)

_last = attrgetter("last")
_offset = attrgetter("offset")
_SEARCHED_ENTRIES: Final = 128  # are read at once at the end of a search


class Limits(NamedTuple):
    """Of one read."""

    messages_max: int
    bytes_max: int


class Found(NamedTuple):
    """Records of one read, and the offset behind the last one that was looked at."""

    records: bytes
    messages: int
    next_offset: int
    lost: bool = False  # there is a message, but it is unreadable


class CompactedQueue:
    """What is in the queue's compaction log. ``next_offset`` is the first offset of the queue that
    was not copied into it; from there on the commit log has the messages."""

    __slots__ = (
        "broken",
        "damaged",
        "dropped",
        "files",
        "next_offset",
        "pairs",
        "place",
        "queue_id",
        "topic",
        "waiting",
    )

    def __init__(self, files: PairFiles, topic: str, queue_id: int) -> None:
        self.topic = topic
        self.queue_id = queue_id
        self.files = files
        self.place = files.place(topic, queue_id)
        self.pairs: list[Pair] = []
        self.next_offset = 0
        self.waiting = False  # there are messages to copy
        self.broken = False  # a swap was interrupted by the disk; the files are as it left them
        self.dropped = False  # its topic is gone
        self.damaged = False  # an operator was told of unreadable records

    def load(self) -> None:
        """See ``PairFiles.load``."""
        self.take(self.files.load(self.place))

    def take(self, pairs: list[Pair]) -> None:
        """These are the files now."""
        for directory in self.place.directories:
            self.files.disk.forget(directory)
        self.pairs = pairs
        self.next_offset = max(self.next_offset, self.last + 1)
        self.broken = False

    @property
    def key(self) -> tuple[str, int]:
        return self.topic, self.queue_id

    @property
    def first(self) -> int:
        """Offset of the first message in the log, -1 when there is none."""
        return next((pair.first for pair in self.pairs if pair.count), -1)

    @property
    def last(self) -> int:
        """Offset of the last message in the log, -1 when there is none."""
        return self.pairs[-1].last if self.pairs else -1

    @property
    def end(self) -> int:
        return self.pairs[-1].end if self.pairs else 0

    # -- read

    def read(self, offset: int, limits: Limits, match: RecordMatch | None) -> Found | None:
        """Messages from the first one at or behind ``offset``, which must not be behind ``last``.
        ``None`` when they cannot be read now."""
        pair = self.pairs[bisect_left(self.pairs, offset, key=_last)]
        index = self._index(pair, offset)
        entries = self._look_at(pair, index, min(limits.messages_max, pair.count - index))
        chosen = _within(entries, limits.bytes_max)
        if not chosen or not all(map(_is_valid, chosen)) or chosen[0].offset < offset:
            return None
        at = chosen[0].position - pair.start
        size = chosen[-1].position + chosen[-1].size - chosen[0].position
        data = self.files.look(self.place.logs, pair, at, size)
        starts = [entry.position - chosen[0].position for entry in chosen]
        whole = 0
        while whole < len(chosen) and is_record_of(data, starts[whole], chosen[whole]):
            whole += 1
        if not whole:
            return self._skip_damaged(chosen[0])
        chosen = chosen[:whole]
        end = starts[whole - 1] + chosen[-1].size
        next_offset = chosen[-1].offset + 1
        if match is None:
            return Found(data[:end], whole, next_offset)
        records = [
            record
            for start, entry in zip(starts, chosen, strict=False)
            if match(record := data[start : start + entry.size])
        ]
        return Found(b"".join(records), len(records), next_offset)

    def _skip_damaged(self, entry: Entry) -> Found | None:
        if self.broken or any(pair.folder for pair in self.pairs):
            return None
        return Found(b"", 0, entry.offset + 1, lost=True)

    def _index(self, pair: Pair, offset: int) -> int:
        """Of the first entry at or behind the offset."""
        if offset <= pair.first:
            return 0
        if pair.last - pair.first + 1 == pair.count:
            return offset - pair.first
        low, high = 0, pair.count
        while high - low > _SEARCHED_ENTRIES:
            middle = (low + high) // 2
            entry = self._look_at(pair, middle, 1)
            if entry and entry[0].offset < offset:
                low = middle + 1
            else:
                high = middle
        return low + bisect_left(self._look_at(pair, low, high - low), offset, key=_offset)

    def entry_at(self, offset: int) -> Entry | None:
        """The newest entry at or before an offset."""
        pairs = [pair for pair in self.pairs if pair.count and pair.first <= offset]
        if not pairs:
            return None
        pair = pairs[-1]
        index = self._index(pair, offset) if offset < pair.last else pair.count - 1
        found = self._look_at(pair, index, 1)[0]
        if found.offset > offset:
            found = self._look_at(pair, index - 1, 1)[0]
        return found

    def cut(self, offset: int) -> None:
        """Forget what is at and behind an offset (blocks)."""
        place, disk = self.place, self.files.disk
        kept = []
        for pair in self.pairs:
            if pair.last < offset:
                kept.append(pair)
            elif pair.count and pair.first < offset:
                self.files.cut(place, pair, self._index(pair, offset))
                kept.append(pair)
            else:
                for directory in place.directories:
                    disk.remove(f"{directory}/{pair.name}")
        self.next_offset = 0
        self.take(kept)

    def _look_at(self, pair: Pair, index: int, count: int) -> list[Entry]:
        data = self.files.look(self.place.entries, pair, index * ENTRY_BYTES, count * ENTRY_BYTES)
        return entries_in(data)


def _is_valid(entry: Entry) -> bool:
    return entry.valid


def _within(entries: list[Entry], bytes_max: int) -> list[Entry]:
    """The first entries whose records are not too many bytes, but at least one."""
    total = 0
    for n, entry in enumerate(entries):
        total += entry.size
        if n and total > bytes_max:
            return entries[:n]
    return entries
