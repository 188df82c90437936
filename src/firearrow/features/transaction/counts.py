"""How many half messages of each topic wait for their end (``TransactionMetrics``).

Kept for whichever broker has the store next: Java's shows the table as a metric and reads it from
``config/transactionMetrics``. After a kill it is as old as its last save, as with Java.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from firearrow.codec import tables
from firearrow.model.clock import Clock
from firearrow.model.topic import DataVersion
from firearrow.store.api import Store

COUNTS_FILE: Final = "transactionMetrics"
_encode = msgspec.json.Encoder().encode


class CountSettings(Protocol):
    transaction_metric_flush_interval: int


class Count(msgspec.Struct):
    """Of one topic."""

    count: int = 0
    changed_ms: int = msgspec.field(default=0, name="timeStamp")


class _Saved(msgspec.Struct):
    version: DataVersion = msgspec.field(default_factory=DataVersion, name="dataVersion")
    table: dict[str, Count] = msgspec.field(default_factory=dict, name="transactionCount")


class HalfCounts:
    """The table. It is saved some time after a change, and at a stop."""

    def __init__(self, settings: CountSettings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._table: dict[str, Count] = {}
        self._version = DataVersion()
        self._unsaved = False

    def load(self) -> None:
        saved = self._store.load_config(COUNTS_FILE, tables.reader(_Saved), needed=False)
        if saved is not None:
            self._version, self._table = saved.version, saved.table

    def add(self, topic: str, change: int) -> None:
        now_ms = self._clock.now_ms()
        known = self._table.get(topic)
        if known is None:
            known = self._table[topic] = Count()
        known.count = max(0, known.count + change)
        known.changed_ms = now_ms
        self._version = self._version.next(now_ms)
        if not self._unsaved:
            self._unsaved = True
            self._clock.call_later(
                self._settings.transaction_metric_flush_interval / 1000, self.save
            )

    def save(self) -> None:
        if self._unsaved:
            self._unsaved = False
            self._store.save_config(COUNTS_FILE, self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        yield _encode(_Saved(self._version, self._table))
