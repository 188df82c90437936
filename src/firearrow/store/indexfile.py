"""One file of the key index (storage.md 4.1).

40            header: begin time, end time, begin offset, end offset (8 each),
              slots in use, number of the next entry (4 each; entry 0 is never used)
slots * 4     number of the newest entry of each slot, 0 for none
entries * 20  key hash (4), physical offset (8), seconds since begin time (4), previous entry
              of the slot (4)
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from firearrow.store.disk import Mapped

HEADER_BYTES: Final = 40
SLOT_BYTES: Final = 4
ENTRY_BYTES: Final = 20
# Entries get blocks on the disk in steps of this size.
RESERVE_BYTES: Final = 4 * 1024 * 1024
_HEADER = struct.Struct(">qqqqii")
_SLOT = struct.Struct(">i")
_ENTRY = struct.Struct(">iqii")
SECONDS_MAX: Final = 0x7FFFFFFF


class Shape(NamedTuple):
    """How large the files are."""

    slots: int
    entries: int

    @property
    def file_bytes(self) -> int:
        return HEADER_BYTES + self.slots * SLOT_BYTES + self.entries * ENTRY_BYTES


class IndexFile:
    """A mapped index file. Times in ms, offsets physical."""

    def __init__(self, name: str, mapped: Mapped, shape: Shape) -> None:
        self.name = name
        self.mapped = mapped
        self._buffer = mapped.buffer
        self._shape = shape
        self._entries_at = HEADER_BYTES + shape.slots * SLOT_BYTES
        header = _HEADER.unpack(mapped.read(0, HEADER_BYTES))
        self.begin_ms, self.end_ms, self.begin_offset, self.end_offset = header[:4]
        self._slots_used, count = header[4:]
        self.count = max(count, 1)
        self._reserved = 0

    @property
    def full(self) -> bool:
        return bool(self.count >= self._shape.entries)

    def prepare(self) -> None:
        """Reserve what the next entry touches. OSError when the disk is full."""
        needed = self._entries_at + (self.count + 1) * ENTRY_BYTES
        if needed > self._reserved:
            start = self._reserved
            end = min(needed + RESERVE_BYTES, self._shape.file_bytes)
            self.mapped.reserve(start, end)
            self._reserved = end

    def put(self, key_hash: int, physical_offset: int, stored_ms: int) -> None:
        """Add one key; the caller has seen that the file is not full, and prepared it."""
        buffer = self._buffer
        count = self.count
        slot_at = HEADER_BYTES + key_hash % self._shape.slots * SLOT_BYTES
        (previous,) = _SLOT.unpack(buffer[slot_at : slot_at + SLOT_BYTES])
        if not 0 < previous < count:
            previous = 0
        seconds = 0
        if self.begin_ms > 0:
            seconds = min(max((stored_ms - self.begin_ms) // 1000, 0), SECONDS_MAX)
        at = self._entries_at + count * ENTRY_BYTES
        buffer[at : at + ENTRY_BYTES] = _ENTRY.pack(key_hash, physical_offset, seconds, previous)
        buffer[slot_at : slot_at + SLOT_BYTES] = _SLOT.pack(count)
        if count <= 1:
            self.begin_offset = physical_offset
            self.begin_ms = stored_ms
        if not previous:
            self._slots_used += 1
        self.count = count + 1
        self.end_offset = physical_offset
        self.end_ms = stored_ms

    def write_header(self) -> None:
        """Put the counters into the file; they are kept in memory between batches. Nothing is
        written to a file that got no entry: its header may have no block on a full disk."""
        if not self._reserved:
            return
        self._buffer[0:HEADER_BYTES] = _HEADER.pack(
            self.begin_ms,
            self.end_ms,
            self.begin_offset,
            self.end_offset,
            self._slots_used,
            self.count,
        )

    def find(self, key_hash: int, maximum: int, begin_ms: int, end_ms: int) -> list[int]:
        """Physical offsets of a hash within a time range, newest first."""
        found: list[int] = []
        if self.count <= 1:
            return found  # and its slots may have no blocks: see Mapped.read
        buffer = self._buffer
        slot_at = HEADER_BYTES + key_hash % self._shape.slots * SLOT_BYTES
        (number,) = _SLOT.unpack(buffer[slot_at : slot_at + SLOT_BYTES])
        while 0 < number < self.count and len(found) < maximum:
            at = self._entries_at + number * ENTRY_BYTES
            stored_hash, offset, seconds, previous = _ENTRY.unpack(buffer[at : at + ENTRY_BYTES])
            if seconds < 0:
                break
            stored_ms = self.begin_ms + seconds * 1000
            # Entries know seconds only: a range inside one second must still find its messages.
            if stored_hash == key_hash and begin_ms - 1000 < stored_ms <= end_ms:
                found.append(offset)
            if stored_ms + 1000 < begin_ms or previous >= number:
                break
            number = previous
        return found
