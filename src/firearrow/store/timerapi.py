"""The waist between the timer room and its files: pending timed messages, chained by slot.

Time is cut into ticks; a slot is the start of a tick in ms. Positions are those of the timer log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

MAGIC_DEFAULT: Final = 1
MAGIC_ROLL: Final = 2
MAGIC_DELETE: Final = 4
NONE: Final = -1  # no position


class Unit(NamedTuple):
    """One timed message. ``position`` is where the unit lies."""

    position: int
    previous: int  # the unit before it in the same slot
    magic: int
    written_ms: int
    slot_ms: int
    physical_offset: int
    size: int

    @property
    def rolls(self) -> bool:
        """It is only on its way: its own time lies behind the wheel's window."""
        return bool(self.magic & MAGIC_ROLL)

    @property
    def deletes(self) -> bool:
        """A tombstone whose own slot this is."""
        return bool(self.magic & MAGIC_DELETE) and not self.rolls


class Slot(NamedTuple):
    """One tick's chain."""

    first: int
    last: int
    units: int  # tombstones counted as -1


EMPTY: Final = Slot(NONE, NONE, 0)

# (physical offset, size) of a timed message -> its offset in the timer topic, or None
QueueOffsetOf = Callable[[int, int], int | None]


class PendingTimers(Protocol):
    """``read_ms`` is the read clock: every slot before it is delivered. ``queue_offset`` is the
    next entry of the timer topic to take in."""

    read_ms: int
    queue_offset: int

    @property
    def used(self) -> bool:
        """Whether there ever was a timed message."""

    def recover(self, queue_offset_of: QueueOffsetOf) -> None:
        """Load everything and bring the wheel up to the log.

        Raises:
            OSError: a file cannot be read, or has a size that RocketMQ does not give it.
        """

    def slot(self, slot_ms: int) -> Slot: ...

    def unit(self, position: int) -> Unit | None:
        """The unit at a position; ``None`` outside the log, or where none stands."""

    def add(
        self, magic: int, now_ms: int, slot_ms: int, phy: int, size: int, topic_hash: int
    ) -> None:
        """Chain one message to a slot.

        Raises:
            OSError: the disk is full; nothing is changed.
        """

    def save(self, state_version: int, now_ms: int) -> None:
        """Flush what is new, in the background; the checkpoint follows the data."""

    def delete_before(self, physical_offset: int) -> None:
        """Let go of units whose messages the commit log does not hold any more."""

    def close(self, state_version: int, now_ms: int) -> None:
        """Flush everything (blocks) and let go of the files."""
