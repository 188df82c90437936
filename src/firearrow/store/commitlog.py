"""The commit log: every message of every topic, one after the other, in files of a fixed size.

A record never crosses a file's end: the rest of a file is marked by
    4  bytes that remain
    4  0xCBD43194
and at least these 8 bytes always remain (storage.md 2.6).
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Callable
from typing import Any, Final

from firearrow.codec.record import (
    MAGIC_END_OF_FILE,
    MAGIC_V1,
    MAGIC_V2,
    PHYSICAL_OFFSET_AT,
    RECORD_BYTES_MIN,
    Record,
    RecordError,
    decode_record,
)
from firearrow.model.background import Background
from firearrow.model.clock import Clock
from firearrow.store.disk import Disk, Mapped

log = logging.getLogger(__name__)

FILLER_BYTES: Final = 8
# Blocks are reserved in windows of this size, the next one while this one is written.
RESERVE_BYTES: Final = 16 * 1024 * 1024
RETRY_AFTER_FULL_S: Final = 1.0
READ_AHEAD_BYTES: Final = 1024 * 1024
_FILLER = struct.Struct(">iI")
_SIZE_MAGIC = struct.Struct(">iI")
_I8 = struct.Struct(">q")


class LogFull(Exception):  # noqa: N818 - a state that callers answer, not a defect
    """The disk has no room for the record; the text says what to do."""


class WrongFileSize(Exception):  # noqa: N818
    """A file of the log has another size than configured; the text says what to set."""


class LogFile:
    """One mapped file of the log."""

    __slots__ = ("buffer", "mapped", "path", "start")

    def __init__(self, start: int, path: str, mapped: Mapped) -> None:
        self.start = start
        self.path = path
        self.mapped = mapped
        self.buffer = mapped.buffer


class ReadAhead:
    """Reads the log in large pieces, past its end too; for while nothing is appended."""

    def __init__(self) -> None:
        self._file: LogFile | None = None
        self._start = 0
        self._data = b""

    def read(self, file: LogFile, start: int, size: int) -> bytes:
        """Bytes from ``start`` of the file; fewer at its end."""
        at = start - self._start
        if file is not self._file or at < 0 or at + size > len(self._data):
            self._file, self._start, at = file, start, 0
            self._data = file.mapped.read(start, max(size, READ_AHEAD_BYTES))
        return self._data[at : at + size]


class CommitLog:
    """All files of the log. ``end`` is where the next record goes."""

    def __init__(
        self, disk: Disk, root: str, file_bytes: int, clock: Clock, background: Background
    ) -> None:
        self._disk = disk
        self.root = root
        self.file_bytes = file_bytes
        self._clock = clock
        self._background = background
        self.files: list[LogFile] = []
        self._by_start: dict[int, LogFile] = {}
        self.end = 0
        self.flushed = 0
        self._current: LogFile | None = None
        self._next: LogFile | None = None  # made ahead, while the current one fills up
        self._preparing = False
        self._reserved = 0  # physical offset up to which blocks are reserved
        # A record that ends before this needs no look at anything: it fits in the file and in the
        # reserved blocks, and it is not yet time to reserve more.
        self.easy_until = 0
        self.buffer: Any = b""  # of the current file, which starts at buffer_start
        self.buffer_start = 0
        self._reserving = False
        self._full_until_s = -1.0
        self.rolled: Callable[[], None] = lambda: None

    # -- open

    def load(self) -> None:
        """Map all files.

        Raises:
            WrongFileSize: a file has another size than configured.
        """
        self._disk.make_directory(self.root)
        names = [n for n in self._disk.names(self.root) if len(n) == 20 and n.isdigit()]
        sizes = {name: self._disk.size(f"{self.root}/{name}") for name in names}
        while names and sizes[names[-1]] == 0:  # made, but not yet given its size
            self._disk.remove(f"{self.root}/{names.pop()}")
        for name in names:
            path = f"{self.root}/{name}"
            if sizes[name] != self.file_bytes:
                raise WrongFileSize(
                    f"{path} has {sizes[name]} bytes, but mappedFileSizeCommitLog is "
                    f"{self.file_bytes}; set mappedFileSizeCommitLog={sizes[name]} "
                    "in the configuration"
                )
            self._add(LogFile(int(name), path, self._disk.map(path, self.file_bytes)))
        if self.files:
            self.end = self.flushed = self.files[0].start

    def _add(self, file: LogFile) -> None:
        self.files.append(file)
        self._by_start[file.start] = file

    def file_of(self, phy: int) -> LogFile | None:
        """The file that holds the position; ``None`` outside the log, or where one is missing."""
        return self._by_start.get(phy - phy % self.file_bytes)

    def start_after(self, phy: int) -> int:
        """Where the file behind the one of this position starts; -1 when that is the last one. A
        file that is missing in between is passed over."""
        return next((file.start for file in self.files if file.start > phy), -1)

    def set_end(self, end: int) -> None:
        """Cut the log: what lies behind ``end`` becomes zeros, later files go."""
        files, self.files, self._by_start = self.files, [], {}
        for file in files:
            if file.start > end or (file.start == end and files[0] is not file):
                file.mapped.close()
                self._disk.remove(file.path)
                continue
            if file.start + self.file_bytes > end:
                self._zero_behind(file, end - file.start)
            self._add(file)
        self.end = self.flushed = end
        self._current = self.file_of(end)
        self._reserved = end
        self.easy_until = 0

    def _zero_behind(self, file: LogFile, keep: int) -> None:
        """Stale bytes would be records again once new ones end where they begin. After a power
        failure they may stand behind any stretch of zeros, so looking a little ahead says nothing.
        """
        file.mapped.close()
        self._disk.truncate(file.path, keep, self.file_bytes)
        file.mapped = self._disk.map(file.path, self.file_bytes)
        file.buffer = file.mapped.buffer

    # -- append

    def position(self, size: int) -> int:
        """Physical offset where a record (or batch) of ``size`` bytes will lie; rolls and reserves
        as needed. Not needed for a record that ends before ``easy_until``.

        Raises:
            LogFull: no room on the disk.
        """
        file = self._current
        end = self.end
        if file is None or end + size + FILLER_BYTES > file.start + self.file_bytes:
            self._roll(file, size)
            end = self.end
        if end + size + FILLER_BYTES > self._reserved:
            self._reserve_now(end + size + FILLER_BYTES)
        elif self._reserved - end < RESERVE_BYTES // 2 and not self._reserving:
            self._reserve_ahead()
        self._see_far()
        return end

    def write(self, record: bytes) -> None:
        """Put at the end what ``position`` was asked for."""
        start = self.end - self.buffer_start
        self.buffer[start : start + len(record)] = record
        self.end += len(record)

    def _see_far(self) -> None:
        file = self._current
        if file is None:
            self.easy_until = 0
            return
        self.buffer = file.buffer
        self.buffer_start = file.start
        ahead = self._reserved
        if not self._reserving and (self._next is None or ahead < file.start + self.file_bytes):
            ahead -= RESERVE_BYTES // 2
        self.easy_until = min(ahead, file.start + self.file_bytes) - FILLER_BYTES

    def _roll(self, file: LogFile | None, size: int) -> None:
        if size + FILLER_BYTES > self.file_bytes:
            raise LogFull(
                f"a record of {size} bytes does not fit in a file of {self.file_bytes}; "
                "raise mappedFileSizeCommitLog"
            )
        start = file.start + self.file_bytes if file else self.end - self.end % self.file_bytes
        if file is not None and self.end + FILLER_BYTES > self._reserved:
            self._reserve_now(self.end + FILLER_BYTES)
        new = self._next
        if new is None or new.start != start:
            self._wait_after_full()
            try:
                new = self._create(start)
            except OSError as error:
                raise self._full(error) from None
        if file is not None:
            self.easy_until = 0
            remaining = file.start + self.file_bytes - self.end
            at = self.end - file.start
            file.buffer[at : at + FILLER_BYTES] = _FILLER.pack(remaining, MAGIC_END_OF_FILE)
        self._next = None
        self._add(new)
        self._current = new
        self.end = start
        self._reserved = start
        self.rolled()

    def _create(self, start: int) -> LogFile:
        path = f"{self.root}/{start:020d}"
        mapped = self._disk.map(path, self.file_bytes)
        try:
            mapped.sync()  # a name without its size would be a file of a wrong size
            self._disk.sync_directory(self.root)
        except BaseException:
            mapped.close()
            raise
        return LogFile(start, path, mapped)

    def _reserve_now(self, needed: int) -> None:
        self._wait_after_full()
        file = self._current
        assert file is not None
        stop = file.start + self.file_bytes
        for target in (min(needed + RESERVE_BYTES // 2, stop), min(needed, stop)):
            try:
                file.mapped.reserve(self.end - file.start, target - file.start)
            except OSError as error:
                if target == min(needed, stop):
                    raise self._full(error) from None
            else:
                self._reserved = max(self._reserved, target)
                self._note_space()
                return

    def _reserve_ahead(self) -> None:
        file = self._current
        assert file is not None
        stop = file.start + self.file_bytes
        start = self._reserved
        target = min(self.end + RESERVE_BYTES, stop)
        if target > start:
            self._reserving = True
            self._background.submit(
                lambda: file.mapped.reserve(start - file.start, target - file.start),
                lambda _, error: self._reserved_ahead(file, target, error),
            )
        elif self._next is None and not self._preparing:
            self._preparing = True
            self._background.submit(lambda: self._create(stop), self._prepared)

    def _reserved_ahead(self, file: LogFile, target: int, error: OSError | None) -> None:
        self._reserving = False
        if error is None and file is self._current:
            self._reserved = max(self._reserved, target)

    def _prepared(self, file: LogFile | None, error: OSError | None) -> None:
        self._preparing = False
        if file is None:
            return
        current = self._current
        if current is not None and file.start == current.start + self.file_bytes:
            self._next = file
        else:
            file.mapped.close()

    def _wait_after_full(self) -> None:
        if self._clock.monotonic() < self._full_until_s:
            raise LogFull("the disk is full")

    def _full(self, error: OSError) -> LogFull:
        first = self._full_until_s < 0
        self._full_until_s = self._clock.monotonic() + RETRY_AFTER_FULL_S
        if first:
            log.error(
                "cannot extend the commit log in %s: %s. Messages are refused, reads go on; "
                "free disk space or lower fileReservedTime",
                self.root,
                error.strerror,
            )
        return LogFull(f"the commit log cannot grow: {error.strerror}")

    def _note_space(self) -> None:
        if self._full_until_s >= 0:
            self._full_until_s = -1.0
            log.info("the commit log grows again")

    # -- read

    @property
    def min_offset(self) -> int:
        return self.files[0].start if self.files else 0

    def slice(self, phy: int, size: int) -> bytes:
        """Bytes of one file; empty when outside the log."""
        file = self._by_start.get(phy - phy % self.file_bytes)
        if file is None or phy + size > self.end:
            return b""
        start = phy - file.start
        return file.buffer[start : start + size]

    def record_at(self, phy: int, size: int | None = None) -> bytes | None:
        """The whole record that starts at ``phy``, if one does; ``size``: what it should have."""
        expected = size or 36
        head = self.slice(phy, expected) or self.slice(phy, 36)
        if len(head) < 36:
            return None
        size, magic = _SIZE_MAGIC.unpack_from(head)
        if magic not in (MAGIC_V1, MAGIC_V2) or size < RECORD_BYTES_MIN:
            return None
        if _I8.unpack_from(head, PHYSICAL_OFFSET_AT)[0] != phy:
            return None
        data = head if size == expected else self.slice(phy, size)
        return data if len(data) == size else None

    def store_time(self, phy: int) -> int:
        """Store timestamp of the record at ``phy``, or -1."""
        data = self.record_at(phy)
        if data is None:
            return -1
        born_v6 = data[39] & 0x10
        return int(_I8.unpack_from(data, 68 if born_v6 else 56)[0])

    def scan(
        self, phy: int, *, check_crc: bool = True, ahead: ReadAhead | None = None
    ) -> tuple[Record | None, int]:
        """(record, next position), (``None``, next file's start) at a filler, or
        (``None``, -1) where no valid record stands, or no file is behind a filler. Ignores
        ``end``; checks everything. Behind ``end`` it must not read through the mapping."""
        file = self.file_of(phy)
        if file is None:
            return None, -1
        start = phy - file.start
        head = ahead.read(file, start, 36) if ahead else file.buffer[start : start + 36]
        if len(head) < FILLER_BYTES:
            return None, -1
        size, magic = _SIZE_MAGIC.unpack_from(head)
        if magic == MAGIC_END_OF_FILE:
            return None, self.start_after(phy)
        if magic not in (MAGIC_V1, MAGIC_V2) or size < RECORD_BYTES_MIN or len(head) < 36:
            return None, -1
        if _I8.unpack_from(head, PHYSICAL_OFFSET_AT)[0] != phy:
            return None, -1
        if start + size > self.file_bytes:
            return None, -1
        data = ahead.read(file, start, size) if ahead else file.buffer[start : start + size]
        try:
            return decode_record(data, check_crc=check_crc), phy + size
        except RecordError:
            return None, -1

    # -- delete

    def delete_first(self) -> None:
        """Drop the oldest file; never one that is written or not flushed."""
        file = self.files[0]
        if file is self._current or file.start + self.file_bytes > self.flushed:
            return
        del self.files[0], self._by_start[file.start]
        file.mapped.close()
        self._background.submit(
            lambda: self._disk.remove(file.path), lambda _, error: self._removed(file, error)
        )

    def _removed(self, file: LogFile, error: OSError | None) -> None:
        if error is not None:
            log.error(
                "cannot remove %s: %s. Nothing reads it any more; remove it by hand, or it is "
                "removed after the next start",
                file.path,
                error.strerror,
            )

    def sync_target(self) -> tuple[int, list[LogFile]]:
        """What a flush that starts now must bring to the disk."""
        return self.end, [f for f in self.files if f.start + self.file_bytes > self.flushed]

    def close(self) -> None:
        for file in self.files:
            file.mapped.close()
        self.files, self._by_start = [], {}
        spare, self._next = self._next, None
        if spare is not None:
            spare.mapped.close()
            with contextlib.suppress(OSError):  # an empty file behind the end is no harm
                self._disk.remove(spare.path)
