"""Timed messages on disk: timer log, timer wheel and their checkpoint, as one thing that recovers.

``config/timercheck`` (``TimerCheckpoint``), 4096 bytes:
    8  read clock: all slots before it have been delivered, ms
    8  position up to which the timer log is flushed
    8  next offset of the timer topic to take in
    8  the same, of the master
    8  state version, 8 timestamp, 8 counter: the version of the above

Java leaves the rest alone; we keep a mark of a clean stop there, from byte 1024:
    8  magic
    8  end of the timer log
    8  copy of the read clock, 8 of the next offset: differ when another broker wrote meanwhile
"""

from __future__ import annotations

import logging
import struct
from typing import Final

from firearrow.model.background import Background
from firearrow.store.disk import Disk
from firearrow.store.timerapi import (
    EMPTY,
    MAGIC_DELETE,
    MAGIC_ROLL,
    NONE,
    QueueOffsetOf,
    Slot,
    Unit,
)
from firearrow.store.timerlog import TimerLog
from firearrow.store.timerwheel import SLOT_BYTES, TimerWheel

log = logging.getLogger(__name__)

CHECK_BYTES: Final = 4096
_MARK_AT: Final = 1024
_MARK_MAGIC: Final = 0x4649524554494D45
_FIELDS = struct.Struct(">qqqqqqq")
_MARK = struct.Struct(">qqqq")
_SCAN_BYTES: Final = 2048 * SLOT_BYTES


class TimerFiles:
    """See ``timerapi.PendingTimers``. Nothing is created before the first timed message."""

    def __init__(self, disk: Disk, root: str, background: Background, precision_ms: int) -> None:
        self._disk = disk
        self._background = background
        self.log = TimerLog(disk, f"{root}/timerlog")
        self.wheel = TimerWheel(disk, f"{root}/timerwheel", precision_ms)
        self._check_path = f"{root}/config/timercheck"
        self.read_ms = 0
        self.queue_offset = 0
        self._flushed = 0
        self._version = (0, 0, 0)
        self._saved: tuple[int, int, int] | None = None
        self._saving = False
        self._newest: tuple[int, Slot] = (NONE, EMPTY)  # the slot that the last unit went into

    @property
    def used(self) -> bool:
        """Whether there ever was a timed message."""
        return self.wheel.mapped is not None

    # -- open

    def recover(self, queue_offset_of: QueueOffsetOf) -> None:
        self.log.load()
        self.wheel.load()
        flushed, clean_end = self._load_check()
        if clean_end >= 0 and (self.used or not clean_end) and self._ends_at(clean_end):
            self._flushed = clean_end
            return
        # As far back as Java looks: its mark may be ahead of what is in the wheel's file.
        start = max(0, flushed - self.log.file_bytes) if self.used else 0
        last: Unit | None = None
        for unit in self.log.recover(start - start % self.log.file_bytes):
            self._link_again(unit)
            last = unit
        self._flushed = self.log.end
        if last is not None:
            found = queue_offset_of(last.physical_offset, last.size)
            if found is not None:
                self.queue_offset = found + 1
        self._mend_wheel()

    def _load_check(self) -> tuple[int, int]:
        """(flushed position, end of the log at a clean stop or -1)."""
        if self._disk.size(self._check_path) < _FIELDS.size:
            return 0, 0 if not self.used else -1
        data = self._disk.read(self._check_path)
        fields = _FIELDS.unpack_from(data)
        self.read_ms, flushed, self.queue_offset = fields[:3]
        self._version = fields[4], fields[5], fields[6]
        mark = data[_MARK_AT : _MARK_AT + _MARK.size]
        if len(mark) < _MARK.size:
            return flushed, -1
        magic, end, read_ms, queue_offset = _MARK.unpack(mark)
        ours = magic == _MARK_MAGIC and (read_ms, queue_offset) == (self.read_ms, self.queue_offset)
        return flushed, end if ours else -1

    def _ends_at(self, end: int) -> bool:
        for _ in self.log.recover(end):
            return False  # somebody wrote behind it
        return self.log.end == end

    def _link_again(self, unit: Unit) -> None:
        slot = self.wheel.slot(unit.slot_ms)
        if slot.last < unit.position:
            first = unit.position if slot is EMPTY else slot.first
            count = slot.units + (-1 if unit.deletes else 1)
            self.wheel.put(unit.slot_ms, Slot(first, unit.position, count))

    def _mend_wheel(self) -> None:
        """After a power failure slots may point behind the log's end: chain them again from their
        first unit that is still there."""
        end = self.log.end
        broken = {time_ms: slot for time_ms, slot in self._slots() if slot.last >= end}
        if not broken:
            return
        log.warning(
            "%d slots of the timer wheel are mended from the timer log: nothing to do", len(broken)
        )
        for time_ms in broken:
            self.wheel.put(time_ms, EMPTY)
        position = min(slot.first for slot in broken.values())
        while (unit := self.log.unit(position)) is not None:
            if unit.slot_ms in broken:
                self._link_again(unit)
            position = self.log.next_position(position)

    def _slots(self) -> list[tuple[int, Slot]]:
        """(time in ms, slot) of every slot not older than the read clock."""
        mapped = self.wheel.mapped
        if mapped is None:
            return []
        first = self.read_ms // self.wheel.precision_ms
        found = []
        for at in range(0, len(mapped.buffer), _SCAN_BYTES):
            chunk = mapped.buffer[at : at + _SCAN_BYTES]
            for number, head, last, count, _ in struct.iter_unpack(">qqqii", chunk):
                if number >= first and number > 0 and last != NONE:
                    found.append((number * self.wheel.precision_ms, Slot(head, last, count)))
        return found

    # -- work

    def add(
        self, magic: int, now_ms: int, slot_ms: int, phy: int, size: int, topic_hash: int
    ) -> None:
        slot = self._newest[1] if self._newest[0] == slot_ms else self.wheel.slot(slot_ms)
        position = self.log.append(slot.last, magic, now_ms, slot_ms, phy, size, topic_hash)
        deletes = magic & MAGIC_DELETE and not magic & MAGIC_ROLL
        slot = Slot(
            position if slot.first == NONE else slot.first,
            position,
            slot.units + (-1 if deletes else 1),
        )
        self.wheel.put(slot_ms, slot)
        self._newest = slot_ms, slot

    def slot(self, slot_ms: int) -> Slot:
        return self.wheel.slot(slot_ms)

    def unit(self, position: int) -> Unit | None:
        return self.log.unit(position)

    def delete_before(self, physical_offset: int) -> None:
        self.log.delete_before(physical_offset)

    # -- save

    def save(self, state_version: int, now_ms: int) -> None:
        state = (self.read_ms, self.log.end, self.queue_offset)
        if self._saving or state == self._saved or not self.used:
            return
        self._saving = True
        maps = self.log.to_sync(self._flushed)
        wheel = self.wheel.mapped
        check = self._check(state_version, now_ms, clean=False)

        def flush() -> None:
            for mapped in maps:
                mapped.sync()
            if wheel is not None:
                wheel.sync()
            self._disk.write_at(self._check_path, 0, check, CHECK_BYTES)

        self._background.submit(flush, lambda _, error: self._done(state, error))

    def _done(self, state: tuple[int, int, int], error: OSError | None) -> None:
        self._saving = False
        if error is not None:
            log.error(
                "cannot flush the timer log: %s; check the disk. Messages are in the commit log",
                error.strerror,
            )
            return
        self._saved = state
        self._flushed = state[1]

    def _check(self, state_version: int, now_ms: int, *, clean: bool) -> bytes:
        self._version = state_version, now_ms, self._version[2] + 1
        fields = _FIELDS.pack(
            self.read_ms, self.log.end, self.queue_offset, self.queue_offset, *self._version
        )
        end = self.log.end if clean else -1
        mark = _MARK.pack(_MARK_MAGIC, end, self.read_ms, self.queue_offset)
        return fields.ljust(_MARK_AT, b"\0") + mark

    def close(self, state_version: int, now_ms: int) -> None:
        maps = self.log.to_sync(self._flushed)
        wheel = self.wheel.mapped
        check = self._check(state_version, now_ms, clean=True) if self.used else b""

        def close() -> None:
            if check:
                for mapped in maps:
                    mapped.sync()
                if wheel is not None:
                    wheel.sync()
                self._disk.write_at(self._check_path, 0, check, CHECK_BYTES)
                self._disk.sync_files([self._check_path])
            self.log.close()
            self.wheel.close()

        # Behind a flush that may still be running.
        self._background.submit(close, lambda _, error: self._closed(error))

    def _closed(self, error: OSError | None) -> None:
        if error is not None:
            log.error("cannot write the timer's checkpoint: %s; check the disk", error.strerror)
