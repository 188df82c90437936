"""The clockwork: takes timed messages from the timer topic into the wheel, and gives them back.

Everything runs in short turns on the loop, so a million messages that are due at once delay
nobody else. Time is cut into ticks; a message with slot *t* is delivered when tick *t* is over, so
never early.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator
from typing import Final, Protocol

from firearrow.codec.properties import find_property, parse_properties
from firearrow.codec.record import Record, RecordError, decode_record, record_properties
from firearrow.features.timer.due import TimerSettings, precision_ms
from firearrow.features.timer.pending import PendingCounts
from firearrow.features.timer.recall import DELETE_KEY, delete_key
from firearrow.features.timer.records import message_again, readable, timing
from firearrow.model import names
from firearrow.model.clock import Clock, Timer
from firearrow.store.api import PutStatus, Store
from firearrow.store.timerapi import (
    MAGIC_DEFAULT,
    MAGIC_DELETE,
    MAGIC_ROLL,
    NONE,
    PendingTimers,
    Slot,
    Unit,
)

log = logging.getLogger(__name__)

TURN_S: Final = 0.005  # work of one turn on the loop
RETRY_S: Final = 0.5
SAVE_S: Final = 1.0
CLEAN_S: Final = 30.0
BATCH: Final = 64
# The wheel covers a week; what was not read for longer is skipped up to a minute after that.
WHEEL_SLOTS: Final = 7 * 24 * 3600
BLANK_SLOTS: Final = 60
NEVER_IN_WHEEL: Final = str(2**63 - 1)
_DELETE_NAME: Final = DELETE_KEY.encode()
_GIVE_UP: Final = frozenset({PutStatus.MESSAGE_ILLEGAL, PutStatus.PROPERTIES_SIZE_EXCEEDED})


class WheelSettings(TimerSettings, Protocol):
    timer_roll_window_slot: int


class Clockwork:
    """Two cursors: the next entry of the timer topic to take in, and the read clock."""

    def __init__(
        self, settings: WheelSettings, store: Store, files: PendingTimers, clock: Clock
    ) -> None:
        self._settings = settings
        self._store = store
        self._files = files
        self._clock = clock
        self._precision = precision_ms(settings)
        self.pending = PendingCounts()
        self._running = False
        self._write_ms = 0  # the current tick; never goes back
        self._busy_until_ms = 0  # no slot behind this one is in use
        self._firing: Iterator[bool] | None = None
        self._turn: Timer | None = None
        self._turn_at_s = 0.0
        self._called = False  # the next turn is at once

    # -- life

    def start(self) -> None:
        """Recover from the files, then catch up.

        Raises:
            OSError: the timer's files cannot be read.
        """
        self.pending.load(self._store)
        files, store = self._files, self._store
        files.recover(self._queue_offset_of)
        low = store.min_offset(names.TIMER_TOPIC, 0)
        high = store.max_offset(names.TIMER_TOPIC, 0)
        files.queue_offset = min(max(files.queue_offset, low), max(low, high))
        now = self._move_write_clock()
        if files.used:
            files.read_ms = min(max(self._floor(files.read_ms), self._oldest_ms()), now)
            self._busy_until_ms = now + WHEEL_SLOTS * self._precision
        else:
            files.read_ms = now
        self._running = True
        store.on_arrival(self._arrived, names.TIMER_TOPIC)
        self._wake_in(0.0)
        self._clock.call_later(SAVE_S, self._save_tick)
        self._clock.call_later(CLEAN_S, self._clean_tick)

    def stop(self) -> None:
        self._running = False
        if self._turn is not None:
            self._turn.cancel()
        now = self._clock.now_ms()
        self.pending.save(self._store, now)
        self._files.close(0, now)

    def _queue_offset_of(self, phy: int, size: int) -> int | None:
        data = self._store.record(phy, size)
        try:
            record = decode_record(data) if data else None
        except RecordError:
            record = None
        return record.queue_offset if record and record.topic == names.TIMER_TOPIC else None

    def _save_tick(self) -> None:
        if self._running:
            now = self._clock.now_ms()
            self._files.save(0, now)
            self.pending.save(self._store, now)
            self._clock.call_later(SAVE_S, self._save_tick)

    def _clean_tick(self) -> None:
        if self._running:
            self._files.delete_before(self._store.commit_log_range()[0])
            self._clock.call_later(CLEAN_S, self._clean_tick)

    def _floor(self, time_ms: int) -> int:
        return time_ms // self._precision * self._precision

    def _move_write_clock(self) -> int:
        self._write_ms = max(self._write_ms, self._floor(self._clock.now_ms()))
        return self._write_ms

    def delivered_until(self) -> int:
        """Every message that was timed for this (ms) or earlier is in its queue."""
        files = self._files
        if files.queue_offset < self._store.max_offset(names.TIMER_TOPIC, 0):
            return 0  # not all of them are taken in
        now = self._clock.now_ms()
        return now if files.read_ms > self._busy_until_ms else min(now, files.read_ms)

    # -- turns

    def _arrived(
        self, topic: str, queue_id: int, offset: int, tags_code: int, phy: int, size: int
    ) -> None:
        if not self._called:
            self._called = self._running
            self._wake_in(0.0)

    def _wake_in(self, delay_s: float) -> None:
        if not self._running:
            return
        at = self._clock.monotonic() + delay_s
        if self._turn is not None:
            if self._turn_at_s <= at:
                return
            self._turn.cancel()
        self._turn_at_s = at
        self._turn = self._clock.call_later(delay_s, self._work)

    def _work(self) -> None:
        """One turn: take in what came, deliver what is due, then sleep until the next tick."""
        self._turn = None
        self._called = False
        if not self._running:
            return
        stop_s = self._clock.monotonic() + TURN_S
        try:
            done = self._take_in(stop_s) and self._deliver(stop_s)
        except OSError as error:
            log.error(
                "timed messages wait, since the timer's files cannot grow: %s; free disk space",
                error.strerror,
            )
            self._wake_in(RETRY_S)
            return
        if not done:
            self._wake_in(0.0)
        elif self._firing is not None:
            self._wake_in(RETRY_S)
        elif self._files.read_ms <= self._busy_until_ms:
            self._wake_in((self._write_ms + self._precision - self._clock.now_ms()) / 1000)

    # -- taking in

    def _take_in(self, stop_s: float) -> bool:
        """Read the timer topic; whether its end is reached."""
        files, store = self._files, self._store
        while files.queue_offset < store.max_offset(names.TIMER_TOPIC, 0):
            self._move_write_clock()
            entries = store.entries(names.TIMER_TOPIC, 0, files.queue_offset, BATCH)
            if not entries:
                files.queue_offset = max(
                    files.queue_offset + 1, store.min_offset(names.TIMER_TOPIC, 0)
                )
            for entry in entries:
                data = store.record(entry.physical_offset, entry.size)
                if data is not None and not self._take(data, entry.physical_offset):
                    return True  # it cannot be delivered now: try again later
                files.queue_offset = entry.offset + 1
            if self._clock.monotonic() >= stop_s:
                return False
        return True

    def _take(self, data: bytes, phy: int) -> bool:
        """Of the message at ``phy`` only what says when it is due is looked at: most are
        acknowledgements, of which there are as many as messages."""
        try:
            properties = record_properties(data)
        except IndexError:
            readable(data, phy)
            return True
        out_ms, topic, topic_hash = timing(properties)
        if out_ms is None:
            log.error(
                "the record at %d of the commit log has no TIMER_OUT_MS and is not delivered: see "
                "who sends to topic %s",
                phy,
                names.TIMER_TOPIC,
            )
            return True
        slot_ms = self._floor(out_ms)
        files = self._files
        if not files.used:
            files.read_ms = min(max(slot_ms, self._oldest_ms()), self._write_ms)
        if slot_ms < self._next_slot_ms():
            return self._give_back_late(data, phy)
        magic = MAGIC_DEFAULT
        window = self._roll_window_ms
        if slot_ms - self._write_ms >= window:
            magic |= MAGIC_ROLL
            short = slot_ms - self._write_ms - window < window // 3
            slot_ms = self._write_ms + (self._floor(window // 2) if short else window)
        if find_property(properties, _DELETE_NAME) is not None:
            magic |= MAGIC_DELETE
        files.add(magic, self._write_ms, slot_ms, phy, len(data), topic_hash)
        if slot_ms > self._busy_until_ms:
            self._busy_until_ms = slot_ms
        self.pending.add(topic, -1 if magic & MAGIC_DELETE else 1, self._clock.now_ms())
        return True

    def _give_back_late(self, data: bytes, phy: int) -> bool:
        """It came after its slot was delivered."""
        record = readable(data, phy)
        if record is None:
            return True
        properties = parse_properties(record.properties)
        return self._give_back(record, properties, NEVER_IN_WHEEL, rolls=False)

    def _oldest_ms(self) -> int:
        """The slot before which the read clock does not go."""
        return self._write_ms - (WHEEL_SLOTS - BLANK_SLOTS) * self._precision

    def _next_slot_ms(self) -> int:
        """The first slot that is still to be delivered. What is overdue goes into its own slot as
        long as that is one of them, so that a tombstone behind it, which is overdue too, meets it
        there: a slot is delivered only when everything that was sent is taken in."""
        if self._firing is None:
            return self._files.read_ms
        return self._files.read_ms + self._precision

    @property
    def _roll_window_ms(self) -> int:
        slots = self._settings.timer_roll_window_slot
        if not 2 <= slots <= WHEEL_SLOTS - BLANK_SLOTS:
            slots = WHEEL_SLOTS - BLANK_SLOTS
        return slots * self._precision

    # -- giving back

    def _deliver(self, stop_s: float) -> bool:
        """Deliver every slot whose tick is over; ``False`` when the turn was too short.

        With ``_firing`` still set the store refused a message, which is tried again later.
        """
        files = self._files
        now = self._move_write_clock()
        looked = 0
        while files.read_ms < now:
            if self._firing is None:
                slot = files.slot(files.read_ms)
                if slot.last == NONE:
                    files.read_ms += self._precision
                    looked += 1
                    if looked % 1024 == 0 and self._clock.monotonic() >= stop_s:
                        return False
                    continue
                self._firing = self._fire(slot)
            for step, accepted in enumerate(self._firing):
                if not accepted:
                    return True
                if step % BATCH == 0 and self._clock.monotonic() >= stop_s:
                    return False
            self._firing = None
            files.read_ms += self._precision
        return True

    def _fire(self, slot: Slot) -> Iterator[bool]:
        """Deliver one slot, oldest first; yields after each unit whether the store took it."""
        waiting = array("q")
        recalled: set[str] = set()
        position = slot.last
        while (unit := self._files.unit(position)) is not None:
            if unit.deletes:
                self._note_tombstone(unit, recalled)
            else:
                waiting.append(position)
            position = unit.previous
            yield True
        for position in reversed(waiting):
            due = self._files.unit(position)
            if due is None:
                continue
            while not self._fire_unit(due, recalled):
                yield False
            yield True

    def _note_tombstone(self, unit: Unit, recalled: set[str]) -> None:
        record = self._record(unit)
        if record is None:
            return
        properties = parse_properties(record.properties)
        self.pending.add(properties.get("REAL_TOPIC", ""), 1, self._clock.now_ms())
        key = properties.get(DELETE_KEY)
        if key is not None:
            recalled.add(key)

    def _fire_unit(self, unit: Unit, recalled: set[str]) -> bool:
        record = self._record(unit)
        if record is None:
            return True  # removed by retention
        properties = parse_properties(record.properties)
        topic = properties.get("REAL_TOPIC", "")
        if recalled and delete_key(topic, properties.get("UNIQ_KEY", "")) in recalled:
            self.pending.add(topic, -1, self._clock.now_ms())
            return True
        if not self._give_back(record, properties, str(unit.written_ms), rolls=unit.rolls):
            return False
        self.pending.add(topic, -1, self._clock.now_ms())
        return True

    def _record(self, unit: Unit) -> Record | None:
        data = self._store.record(unit.physical_offset, unit.size)
        return readable(data, unit.physical_offset)

    def _give_back(
        self, record: Record, properties: dict[str, str], enqueue_ms: str, *, rolls: bool
    ) -> bool:
        """Store the message again, for its real topic or for another round; whether it is done."""
        if DELETE_KEY in properties and not rolls:
            return True  # a tombstone that came too late
        message = message_again(record, properties, enqueue_ms, self._clock.now_ms(), rolls)
        if message is None:
            log.error(
                "the timed message at %d of the commit log names no topic to go to and is not "
                "delivered: see who sends to topic %s",
                record.physical_offset,
                names.TIMER_TOPIC,
            )
            return True
        # Past the rooms: its timer property must not take it aside again.
        put = self._store.append(message)
        if put.status in _GIVE_UP:
            log.error(
                "the timed message at %d of the commit log, for topic %s, cannot be stored when it "
                "is due (%s) and is not delivered; let its producer send less in it",
                record.physical_offset,
                message.topic,
                put.reason or put.status.value,
            )
            return True
        return put.physical_offset >= 0
