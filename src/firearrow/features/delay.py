"""Delay levels: messages that become visible after one of 18 fixed times (behaviour.md 6.1).

A message with property DELAY = n waits in queue n - 1 of the schedule topic. Its consume queue
entry holds the due time instead of a tag hash, and within a queue due times only grow, so looking
at the head of each queue is enough. One timer serves all levels: it is set for the earliest head.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from firearrow.broker.rooms import BaseRoom
from firearrow.codec import tables
from firearrow.codec.numbers import INT32_MAX, whole_number
from firearrow.codec.properties import find_property, format_properties, parse_properties
from firearrow.codec.record import Record, RecordError, decode_record
from firearrow.codec.sysflags import SYS_TRANSACTION_MASK, SYS_TRANSACTION_PREPARED
from firearrow.model import names
from firearrow.model.clock import Clock, Timer
from firearrow.model.message import Message, stored_again
from firearrow.model.topic import DataVersion
from firearrow.store.api import Put, PutStatus, Store

log = logging.getLogger(__name__)

PROGRESS_FILE: Final = "delayOffset.json"
DEFAULT_LEVELS: Final = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"
_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
UNKNOWN_LEVEL_MS: Final = 1000  # ``computeDeliverTimestamp`` for a level without a time
BATCH: Final = 256  # messages of one level delivered before the loop gets its turn
RETRY_S: Final = 0.1
_encode = msgspec.json.Encoder().encode


class ProgressTable(msgspec.Struct, rename="camel"):
    """``delayOffset.json`` (``DelayOffsetSerializeWrapper``): level -> next offset."""

    data_version: DataVersion | None = None
    offset_table: dict[int, int] | None = None


class LevelError(ValueError):
    """``messageDelayLevel`` cannot be read; the text says which part."""


def parse_levels(text: str) -> tuple[int, ...]:
    """Milliseconds of each level, first level first.

    Raises:
        LevelError: a part that is no number with a unit of s, m, h or d.
    """
    levels = []
    for part in text.split():
        number, unit = part[:-1], part[-1]
        if unit not in _UNITS_MS or not number.isdigit():
            raise LevelError(f"messageDelayLevel: {part!r} is no time such as 10s, 5m, 2h or 1d")
        levels.append(int(number) * _UNITS_MS[unit])
    return tuple(levels)


class DueTimes:
    """The schedule topic's rule for tags codes: store time plus the level's delay."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        self.levels = levels

    def __call__(self, properties: bytes, store_timestamp: int) -> int:
        level = level_of(properties)
        if level <= 0 or not self.levels:
            return store_timestamp + UNKNOWN_LEVEL_MS
        return store_timestamp + self.levels[min(level, len(self.levels)) - 1]


def level_of(properties: bytes) -> int:
    """The DELAY property as a number; 0 when absent or unreadable."""
    value = find_property(properties, b"DELAY") or b""
    return whole_number(value.decode("utf-8", "replace"), INT32_MAX) or 0


class DelaySettings(Protocol):
    flush_delay_offset_interval: int


class DelayRoom(BaseRoom):
    """Takes delayed messages aside, and gives them back when they are due."""

    marks = (b"DELAY\x01",)

    def __init__(
        self,
        settings: DelaySettings,
        due_times: DueTimes,
        store: Store,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._due_times = due_times
        self._store = store
        self._clock = clock
        self.progress: dict[int, int] = {}  # level -> next offset of its queue
        self._version = DataVersion()
        self._timer: Timer | None = None
        self._timer_at_ms = 0
        self._unsaved = False
        self._running = False

    # -- taking aside

    def before_store(self, message: Message) -> Message | Put:
        level = level_of(message.properties)
        if level <= 0 or message.topic == names.SCHEDULE_TOPIC:
            return message
        if message.sys_flag & SYS_TRANSACTION_MASK in (SYS_TRANSACTION_PREPARED, 0xC):
            return message
        level = min(level, len(self._due_times.levels))
        properties = parse_properties(message.properties)
        properties["DELAY"] = str(level)
        properties["REAL_TOPIC"] = message.topic
        properties["REAL_QID"] = str(message.queue_id)
        return msgspec.structs.replace(
            message,
            topic=names.SCHEDULE_TOPIC,
            queue_id=level - 1,
            properties=format_properties(properties),
        )

    # -- giving back

    def start(self) -> None:
        read = tables.reader(ProgressTable)
        saved = self._store.load_config(PROGRESS_FILE, read) or ProgressTable()
        self._version = saved.data_version or DataVersion()
        for level, offset in (saved.offset_table or {}).items():
            low = self._store.min_offset(names.SCHEDULE_TOPIC, level - 1)
            high = self._store.max_offset(names.SCHEDULE_TOPIC, level - 1)
            self.progress[level] = min(max(offset, low), max(low, high))
        self._store.on_arrival(self._arrived, names.SCHEDULE_TOPIC)
        self._running = True
        self._look()
        self._clock.call_later(self._settings.flush_delay_offset_interval / 1000, self._save_tick)

    def stop(self) -> None:
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        self._save()

    def _arrived(
        self, topic: str, queue_id: int, offset: int, due_ms: int, phy: int, size: int
    ) -> None:
        if self._timer is None or due_ms < self._timer_at_ms:
            self._wake_at(due_ms)

    def _wake_at(self, due_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_ms = due_ms
        delay_s = max(0.0, (due_ms - self._clock.now_ms()) / 1000)
        self._timer = self._clock.call_later(delay_s, self._look)

    def _look(self) -> None:
        """Deliver what is due on every level, then sleep until the next head."""
        self._timer = None
        if not self._running:
            return
        heads = [self._deliver(level) for level in range(1, len(self._due_times.levels) + 1)]
        waiting = [head for head in heads if head is not None]
        if waiting:
            self._wake_at(min(waiting))

    def _deliver(self, level: int) -> int | None:
        """Deliver one level; when to look at it again, ``None`` when it is empty."""
        now = self._clock.now_ms()
        queue_id = level - 1
        offset = max(
            self.progress.get(level, 0), self._store.min_offset(names.SCHEDULE_TOPIC, queue_id)
        )
        entries = self._store.entries(names.SCHEDULE_TOPIC, queue_id, offset, BATCH)
        for entry in entries:
            due = entry.tags_code
            if due > now + self._due_times.levels[level - 1]:
                due = now  # the clock moved back, or the table of levels changed
            if due > now:
                return due
            if not self._give_back(entry.physical_offset):
                return now + round(RETRY_S * 1000)
            offset = entry.offset + 1
            self.progress[level] = offset
            self._unsaved = True
        more = offset < self._store.max_offset(names.SCHEDULE_TOPIC, queue_id)
        if not more:
            return None
        return now if entries else now + round(RETRY_S * 1000)

    def _give_back(self, physical_offset: int) -> bool:
        data = self._store.record(physical_offset)
        if data is None:
            return True  # removed by retention
        try:
            message = _real_message(decode_record(data))
        except RecordError as error:
            log.error(
                "the delayed message at %d of the commit log is unreadable (%s) and not delivered; "
                "check the disk",
                physical_offset,
                error,
            )
            return True
        if message is None or message.topic == names.TRANS_HALF_TOPIC:
            log.error(
                "the delayed message at %d of the commit log names no topic to go to and is not "
                "delivered: see who sends to topic %s",
                physical_offset,
                names.SCHEDULE_TOPIC,
            )
            return True
        # Past the rooms: its DELAY property must not take it aside again.
        return self._store.append(message).status in (PutStatus.OK, PutStatus.MESSAGE_ILLEGAL)

    # -- progress

    def progress_by_level(self) -> dict[int, tuple[int, int]]:
        """Next and last offset of every level that was used."""
        return {
            level: (offset, self._store.max_offset(names.SCHEDULE_TOPIC, level - 1))
            for level, offset in sorted(self.progress.items())
        }

    def _save_tick(self) -> None:
        if self._running:
            self._save()
            self._clock.call_later(
                self._settings.flush_delay_offset_interval / 1000, self._save_tick
            )

    def _save(self) -> None:
        if self._unsaved:
            self._unsaved = False
            self._version = self._version.next(self._clock.now_ms())
            self._store.save_config(PROGRESS_FILE, self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The file's content."""
        yield b'{"dataVersion":' + _encode(self._version)
        yield b',"offsetTable":' + _encode(self.progress) + b"}"


def _real_message(record: Record) -> Message | None:
    """The message as it was before it was delayed."""
    properties = parse_properties(record.properties)
    topic = properties.get("REAL_TOPIC")
    queue_id = properties.get("REAL_QID", "")
    # Java keeps DELAY and REAL_* in what it stores, and consumers may look at them.
    properties.pop("TIMER_DELIVER_MS", None)
    properties.pop("TIMER_DELAY_SEC", None)
    number = whole_number(queue_id, INT32_MAX)
    if topic is None or number is None or number < 0:
        return None
    properties["WAIT"] = "false"
    return stored_again(record, topic, number, format_properties(properties))
