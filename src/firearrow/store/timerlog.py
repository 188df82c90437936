"""The timer log: one unit for each timed message, chained backwards by slot (``TimerLog``).

Unit, 52 bytes:
    4  52
    8  position of the previous unit of the same slot, -1 for none
    4  magic: 1, plus 2 to roll, plus 4 for a tombstone
    8  write clock when it was written, ms
    4  slot time minus write clock, ms
    8  physical offset of the message in the commit log
    4  size of that record
    4  Java hash of the real topic
    8  0

A unit never crosses a file's end: the rest is marked by (4 remaining bytes, 8 zero, 4 0xCBD43194).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from firearrow.store.disk import Disk, Mapped
from firearrow.store.timerapi import Unit

FILE_BYTES: Final = 100 * 1024 * 1024
UNIT_BYTES: Final = 52

_UNIT = struct.Struct(">iqiqiqiiq")
_BLANK = struct.Struct(">iqI")
_BLANK_MAGIC: Final = 0xCBD43194
_MAGIC_BITS: Final = 0xF
_RESERVE_BYTES: Final = 1024 * 1024


class TimerLog:
    """All files of the log. Nothing is created before the first unit is written."""

    def __init__(self, disk: Disk, root: str, file_bytes: int = FILE_BYTES) -> None:
        self._disk = disk
        self._root = root
        self.file_bytes = file_bytes
        self._files: dict[int, Mapped] = {}  # by start position, in order
        self.end = 0
        self._reserved = 0

    def load(self) -> None:
        """Map the files. ``end`` is not known until ``recover`` has been read to its end.

        Raises:
            OSError: a file has another size than RocketMQ's.
        """
        names = [n for n in self._disk.names(self._root) if len(n) == 20 and n.isdigit()]
        for name in names:
            path = f"{self._root}/{name}"
            size = self._disk.size(path)
            if size == 0 and name == names[-1]:
                self._disk.remove(path)
                continue
            if size != self.file_bytes:
                raise OSError(
                    0,
                    f"has {size} bytes, a timer log file has {self.file_bytes}; move it away",
                    path,
                )
            self._files[int(name)] = self._disk.map(path, size)

    def recover(self, position: int) -> Iterator[Unit]:
        """Every unit from ``position`` on; then the log ends behind the last one, and what stands
        behind that is gone. From the next file when the one with ``position`` is deleted."""
        start = position - position % self.file_bytes
        starts = [s for s in self._files if s >= start]
        self.end = position if start in self._files else (starts[0] if starts else 0)
        for file_start in starts:
            if file_start > self.end:
                break
            stop = file_start + self.file_bytes
            while self.end + UNIT_BYTES <= stop:
                unit = self._unit(file_start, self.end)
                if unit is None:
                    break
                self.end += UNIT_BYTES
                yield unit
            if not self._blank_at(file_start, self.end):
                break
            self.end = stop
        self._cut()

    def _blank_at(self, file_start: int, at: int) -> bool:
        data = self._files[file_start].buffer[at - file_start : at - file_start + _BLANK.size]
        return len(data) == _BLANK.size and _BLANK.unpack(data)[2] == _BLANK_MAGIC

    def _cut(self) -> None:
        for start in [s for s in self._files if s >= self.end and s > 0]:
            self._files.pop(start).close()
            self._disk.remove(self._path(start))
        for start, mapped in self._files.items():
            if start + self.file_bytes > self.end:
                self._zero_behind(start, mapped)
        self._reserved = self.end

    def _zero_behind(self, start: int, mapped: Mapped) -> None:
        """Stale units behind the end would count again once new ones reach them."""
        keep = self.end - start
        if any(mapped.buffer[keep : keep + _RESERVE_BYTES]):
            mapped.close()
            self._disk.truncate(self._path(start), keep, self.file_bytes)
            self._files[start] = self._disk.map(self._path(start), self.file_bytes)

    def _path(self, start: int) -> str:
        return f"{self._root}/{start:020d}"

    def append(
        self,
        previous: int,
        magic: int,
        written_ms: int,
        slot_ms: int,
        physical_offset: int,
        size: int,
        topic_hash: int,
    ) -> int:
        """Write a unit; its position.

        Raises:
            OSError: the disk is full.
        """
        start = self.end - self.end % self.file_bytes
        if self.end + UNIT_BYTES + _BLANK.size > start + self.file_bytes:
            self._close_file(start)
            start = self.end
        position = self.end
        mapped = self._files.get(start)
        if mapped is None:
            mapped = self._create(start)
        if position + UNIT_BYTES + _BLANK.size > self._reserved:
            target = min(position + _RESERVE_BYTES, start + self.file_bytes)
            mapped.reserve(position - start, target - start)
            self._reserved = target
        at = position - start
        mapped.buffer[at : at + UNIT_BYTES] = _UNIT.pack(
            UNIT_BYTES,
            previous,
            magic,
            written_ms,
            slot_ms - written_ms,
            physical_offset,
            size,
            topic_hash,
            0,
        )
        self.end = position + UNIT_BYTES
        return position

    def _close_file(self, start: int) -> None:
        remaining = start + self.file_bytes - self.end
        at = self.end - start
        if remaining >= _BLANK.size:
            blank = _BLANK.pack(remaining, 0, _BLANK_MAGIC)
            self._files[start].buffer[at : at + _BLANK.size] = blank
        self.end = self._reserved = start + self.file_bytes

    def _create(self, start: int) -> Mapped:
        self._disk.make_directory(self._root)
        mapped = self._files[start] = self._disk.map(self._path(start), self.file_bytes)
        self._reserved = start
        return mapped

    def unit(self, position: int) -> Unit | None:
        """The unit at a position; ``None`` outside the log, or where none stands."""
        if not 0 <= position < self.end:
            return None
        return self._unit(position - position % self.file_bytes, position)

    def next_position(self, position: int) -> int:
        """Where the unit behind the one at ``position`` stands."""
        at = position % self.file_bytes
        return position + (self.file_bytes - at if at == self._last_unit_at() else UNIT_BYTES)

    def _unit(self, start: int, position: int) -> Unit | None:
        mapped = self._files.get(start)
        if mapped is None:
            return None
        at = position - start
        data = mapped.buffer[at : at + UNIT_BYTES]
        if len(data) < UNIT_BYTES:
            return None
        unit_bytes, previous, magic, written, delta, phy, size, _, _ = _UNIT.unpack(data)
        if unit_bytes != UNIT_BYTES or magic <= 0 or magic | _MAGIC_BITS != _MAGIC_BITS:
            return None
        return Unit(position, previous, magic, written, written + delta, phy, size)

    def delete_before(self, physical_offset: int) -> None:
        """Remove files whose last unit points before the commit log's start; never the last."""
        for start in list(self._files)[:-1]:
            last = self._unit(start, start + self._last_unit_at())
            if last is None or last.physical_offset >= physical_offset:
                return
            self._files.pop(start).close()
            self._disk.remove(self._path(start))

    def _last_unit_at(self) -> int:
        return (self.file_bytes - _BLANK.size) // UNIT_BYTES * UNIT_BYTES - UNIT_BYTES

    @property
    def min_position(self) -> int:
        return next(iter(self._files), 0)

    def to_sync(self, flushed: int) -> list[Mapped]:
        """The files with something behind ``flushed``."""
        return [m for start, m in self._files.items() if start + self.file_bytes > flushed]

    def close(self) -> None:
        for mapped in self._files.values():
            mapped.close()
        self._files = {}
