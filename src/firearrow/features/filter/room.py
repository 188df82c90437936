"""The filter room: expressions of other types than tags, for pulls, long polls and pops."""

from __future__ import annotations

from typing import Final, Protocol

from firearrow.broker.rooms import BaseRoom
from firearrow.broker.subscription import ExpressionError, Subscription
from firearrow.codec import tables
from firearrow.codec.properties import parse_properties
from firearrow.codec.record import record_properties
from firearrow.features.filter.lexer import ExpressionSyntaxError
from firearrow.features.filter.registered import FiltersTable, RegisteredFilters
from firearrow.features.filter.sql92 import compile_sql92, holds
from firearrow.model.clock import Clock
from firearrow.store.api import RecordMatch, Store

SQL92: Final = "SQL92"
FILTERS_FILE: Final = "consumerFilter.json"
SAVE_S: Final = 10.0


class FilterSettings(Protocol):
    filter_data_clean_time_span: int


class FilterRoom(BaseRoom):
    """Answers the broker's questions (``broker.filters.Filters``) and keeps the groups' file."""

    def __init__(self, settings: FilterSettings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._registered = RegisteredFilters(self.compile)
        saved = store.load_config(FILTERS_FILE, tables.reader(FiltersTable))
        self._registered.load(saved or FiltersTable(), clock.now_ms())
        self._running = False

    def compile(self, kind: str, expression: str) -> RecordMatch:
        if kind != SQL92:
            raise ExpressionError(f"there is no filter of type {kind}: use TAG or {SQL92}")
        try:
            condition = compile_sql92(expression)
        except ExpressionSyntaxError as error:
            raise ExpressionError(str(error)) from None

        def match(record: bytes) -> bool:
            return holds(condition, parse_properties(record_properties(record)).get)

        return match

    def registered(self, group: str, subscriptions: list[Subscription]) -> None:
        self._registered.register(group, subscriptions, self._clock.now_ms())

    def left(self, group: str) -> None:
        self._registered.left(group, self._clock.now_ms())

    def find(self, topic: str, group: str) -> Subscription | None:
        return self._registered.find(topic, group)

    # -- consumerFilter.json

    def start(self) -> None:
        self._running = True
        self._clock.call_later(SAVE_S, self._tick)

    def stop(self) -> None:
        self._running = False
        self._save()

    def _tick(self) -> None:
        if self._running:
            self._save()
            self._clock.call_later(SAVE_S, self._tick)

    def _save(self) -> None:
        span_ms = self._settings.filter_data_clean_time_span
        self._registered.clean(self._clock.now_ms() - span_ms)
        if self._registered.changed:
            self._registered.changed = False
            self._store.save_config(FILTERS_FILE, self._registered.chunks())
