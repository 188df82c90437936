"""The timer wheel: where the chain of timer log units of each tick begins (``TimerWheel``).

Slot, 32 bytes, at index (time / precision) modulo the number of slots:
    8  time / precision: a slot of another round counts as empty
    8  position of the first unit, -1 for none
    8  position of the last unit, the head of the chain
    4  units, tombstones counted as -1
    4  unused
"""

from __future__ import annotations

import struct
from typing import Final

from firearrow.store.disk import Disk, Mapped
from firearrow.store.timerapi import EMPTY, Slot

SLOTS: Final = 2 * 7 * 24 * 3600
SLOT_BYTES: Final = 32
_SLOT = struct.Struct(">qqqii")


class TimerWheel:
    """The wheel's file, mapped. It is created by the first ``put``."""

    def __init__(self, disk: Disk, path: str, precision_ms: int, slots: int = SLOTS) -> None:
        self._disk = disk
        self._path = path
        self.precision_ms = precision_ms
        self._slots = slots
        self.mapped: Mapped | None = None

    @property
    def span_ms(self) -> int:
        """How far ahead the wheel reaches: half of it, so that no two times meet in a slot."""
        return self._slots // 2 * self.precision_ms

    def load(self) -> None:
        """Map the file if there is one.

        Raises:
            OSError: it has another size than RocketMQ's.
        """
        size = self._disk.size(self._path)
        if size < 0:
            return
        if size != self._slots * SLOT_BYTES:
            raise OSError(
                0,
                f"has {size} bytes, a timer wheel has {self._slots * SLOT_BYTES}; move it "
                "away, and it is built again from the timer log",
                self._path,
            )
        self.mapped = self._disk.map(self._path, size)

    def _create(self) -> Mapped:
        size = self._slots * SLOT_BYTES
        mapped = self._disk.map(self._path, size)
        try:
            mapped.reserve(0, size)
        except OSError:
            mapped.close()
            self._disk.remove(self._path)
            raise
        self.mapped = mapped
        return mapped

    def slot(self, time_ms: int) -> Slot:
        mapped = self.mapped
        if mapped is None:
            return EMPTY
        number = time_ms // self.precision_ms
        at = number % self._slots * SLOT_BYTES
        stored, first, last, count, _ = _SLOT.unpack(mapped.buffer[at : at + SLOT_BYTES])
        return Slot(first, last, count) if stored == number else EMPTY

    def put(self, time_ms: int, slot: Slot) -> None:
        """Set one tick's chain.

        Raises:
            OSError: the wheel does not exist yet, and the disk is full.
        """
        mapped = self.mapped or self._create()
        number = time_ms // self.precision_ms
        at = number % self._slots * SLOT_BYTES
        mapped.buffer[at : at + SLOT_BYTES] = _SLOT.pack(number, *slot, 0)

    def close(self) -> None:
        if self.mapped is not None:
            self.mapped.close()
            self.mapped = None
