"""One queue of a compaction topic: which files it has, and reading from them."""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import Final, NamedTuple

from firearrow.store.api import RecordMatch
from firearrow.store.batchqueue import messages_in
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
    batched: int = 0  # records, when each may hold several messages
    lost: bool = False  # there is a message, but it is unreadable


class CompactedQueue:
    """What is in the queue's compaction log. ``next_offset`` is the first offset of the queue that
    was not copied into it; from there on the commit log has the messages.

    When the topic has batch queues, a record may hold several messages. Its entry tells the offset
    of the first one, and says 1 (``CompactionAppendMessageCallback``): the record has the number.
    """

    __slots__ = (
        "_following",
        "batched",
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
        self.batched = False
        self._following = -1  # the offset behind the last read: where the next one begins, mostly

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
        self._following = -1

    def use_batches(self, batched: bool) -> None:
        """Whether the topic has batch queues; to be told before anything else is asked."""
        self.batched = batched
        if batched and self.pairs and self.next_offset == self.last + 1:
            newest = self.entry_at(self.last)
            if newest is not None:
                self.next_offset = self._end_of(newest)

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

    def start_of(self, offset: int) -> int:
        """Where the record begins that holds the message at ``offset``; the offset itself when it
        is not in the middle of one."""
        if not self.batched or offset == self._following:
            return offset
        before = self.entry_at(offset)
        if before is None or self._end_of(before) <= offset:
            return offset
        return before.offset

    def _end_of(self, entry: Entry) -> int:
        """The offset behind the messages of a record; behind the first one if it is unreadable."""
        pair = self.pairs[bisect_left(self.pairs, entry.offset, key=_last)]
        data = self.files.look(self.place.logs, pair, entry.position - pair.start, entry.size)
        return entry.offset + (messages_in(data) if is_record_of(data, 0, entry) else 1)

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
        if match is None and not self.batched:
            return Found(data[:end], whole, next_offset)
        records = [
            data[start : start + entry.size] for start, entry in zip(starts, chosen, strict=False)
        ]
        if self.batched:
            return self._whole_batches(chosen, records, limits.messages_max, match)
        records = [record for record in records if match is None or match(record)]
        return Found(b"".join(records), len(records), next_offset)

    def _whole_batches(
        self,
        entries: list[Entry],
        records: list[bytes],
        messages_max: int,
        match: RecordMatch | None,
    ) -> Found:
        """As many of the records as a read may have messages, but at least one."""
        kept: list[bytes] = []
        count = 0
        for entry, record in zip(entries, records, strict=True):
            messages = messages_in(record)
            if count and count + messages > messages_max:
                break
            self._following = entry.offset + messages
            if match is None or match(record):
                kept.append(record)
                count += messages
        return Found(b"".join(kept), count, self._following, len(kept))

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
        self.use_batches(self.batched)

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
