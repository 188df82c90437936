"""How many timed messages wait, by real topic: ``config/timermetrics`` (``TimerMetrics``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from firearrow.codec import tables
from firearrow.model.topic import DataVersion
from firearrow.store.api import Store

FILE: Final = "timermetrics"
_encode = msgspec.json.Encoder().encode


class _Count(msgspec.Struct):
    count: int = 0
    timestamp: int = msgspec.field(default=0, name="timeStamp")


class _Saved(msgspec.Struct):
    version: DataVersion | None = msgspec.field(default=None, name="dataVersion")
    counts: dict[str, _Count] | None = msgspec.field(default=None, name="timingCount")


class PendingCounts:
    """Counts by topic; saved when they changed."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}
        self._version = DataVersion()
        self._changed = False

    def load(self, store: Store) -> None:
        """Take over what ``config/timermetrics`` holds; if that is unreadable, nothing."""
        saved = store.load_config(FILE, tables.reader(_Saved), needed=False)
        if saved is not None:
            self._version, self._counts = saved.version or DataVersion(), saved.counts or {}

    def add(self, topic: str, change: int, now_ms: int) -> None:
        count = self._counts.get(topic)
        if count is None:
            count = self._counts[topic] = _Count()
        count.count += change
        count.timestamp = now_ms
        self._changed = True

    def of(self, topic: str) -> int:
        found = self._counts.get(topic)
        return found.count if found else 0

    @property
    def total(self) -> int:
        return sum(count.count for count in self._counts.values())

    def save(self, store: Store, now_ms: int) -> None:
        if self._changed:
            self._changed = False
            self._version = self._version.next(now_ms)
            store.save_config(FILE, self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        yield b'{"dataVersion":' + _encode(self._version)
        yield b',"timingCount":' + _encode(self._counts) + b"}"
