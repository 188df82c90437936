"""Forgetting items that are of no use any more (``TopicQueueMappingCleanService``).

Every five minutes of the hour ``deleteWhen``: the oldest item of a queue that this broker leads
goes when its messages are gone; of a queue that it does not lead, all items go when the leader is
another one than they say.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from firearrow.codec import lenient_json
from firearrow.features.static_topics import mapping
from firearrow.features.static_topics.elsewhere import Elsewhere, offset_in
from firearrow.features.static_topics.mapping import Item, Mapping
from firearrow.features.static_topics.table import Mappings
from firearrow.model.clock import Clock, is_cleaning_hour
from firearrow.protocol.remoting.command import Reply
from firearrow.protocol.remoting.requests import QueueOfTopic, TopicName
from firearrow.store.api import Store

log = logging.getLogger(__name__)

PERIOD_S: Final = 300.0
GET_MAX_OFFSET: Final = 30
GET_MIN_OFFSET: Final = 31
GET_TOPIC_CONFIG: Final = 351


class CleaningSettings(Protocol):
    broker_name: str
    delete_when: str


class Cleaning:
    """Looks through all mappings from time to time."""

    def __init__(
        self,
        settings: CleaningSettings,
        mappings: Mappings,
        store: Store,
        elsewhere: Elsewhere,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._mappings = mappings
        self._store = store
        self._elsewhere = elsewhere
        self._clock = clock
        self._running = False

    def start(self) -> None:
        self._running = True
        self._clock.call_later(PERIOD_S, self._tick)

    def stop(self) -> None:
        self._running = False

    def _tick(self) -> None:
        if not self._running:
            return
        if is_cleaning_hour(self._settings.delete_when, self._clock.now_ms()):
            for known in list(self._mappings.table.values()):
                self._look_at_oldest(known)
                self._look_for_leaders(known)
        self.start()

    # -- queues that this broker leads

    def _look_at_oldest(self, known: Mapping) -> None:
        for logical_id in known.led():
            items = known.items(logical_id)
            if len(items) > 1:
                self._look_at(known.topic, logical_id, items[0])

    def _look_at(self, topic: str, logical_id: int, item: Item) -> None:
        if self._elsewhere.is_here(item):
            low = self._store.min_offset(topic, item.queue_id)
            high = self._store.max_offset(topic, item.queue_id)
            self._bounds_known(topic, logical_id, item, low, high)
            return
        queue = QueueOfTopic(topic, item.queue_id)

        def low_told(code: int, ext: dict[str, Any], body: bytes) -> None:
            told = partial(high_told, offset_in(ext))
            self._elsewhere.ask(item.bname, GET_MAX_OFFSET, queue, told, _unknown)

        def high_told(low: int, code: int, ext: dict[str, Any], body: bytes) -> None:
            self._bounds_known(topic, logical_id, item, low, offset_in(ext))

        self._elsewhere.ask(item.bname, GET_MIN_OFFSET, queue, low_told, _unknown)

    def _bounds_known(self, topic: str, logical_id: int, item: Item, low: int, high: int) -> None:
        known = self._mappings.get(topic)
        items = known.items(logical_id) if known is not None else []
        if known is None or len(items) < 2 or items[0] != item:
            return
        if high < 0 or (high and low != high):
            return
        log.info("static topic %s: queue %d has nothing left in %s", topic, logical_id, item)
        hosted = {**known.hosted_queues, logical_id: items[1:]}
        self._mappings.put(msgspec.structs.replace(known, hosted_queues=hosted))

    # -- queues that it does not lead

    def _look_for_leaders(self, known: Mapping) -> None:
        led = known.led()
        if all(logical_id in led for logical_id, items in known.hosted_queues.items() if items):
            return
        self._elsewhere.masters_of(known.topic, partial(self._ask_leaders, known.topic))

    def _ask_leaders(self, topic: str, masters: dict[str, str] | None) -> None:
        for broker in masters or {}:
            if broker != self._settings.broker_name:
                told = partial(self._leader_told, topic, broker)
                self._elsewhere.ask(
                    broker, GET_TOPIC_CONFIG, TopicName(topic), told, _unknown, logical=True
                )

    def _leader_told(
        self, topic: str, broker: str, code: int, ext: dict[str, Any], body: bytes
    ) -> None:
        known = self._mappings.get(topic)
        try:
            theirs = mapping.decode(lenient_json.loads(body).get("mappingDetail"))
        except (ValueError, AttributeError):
            return
        if known is None or theirs.bname != broker:
            return
        if (theirs.epoch, theirs.total_queues) != (known.epoch, known.total_queues):
            return
        led = theirs.led()
        wrong = [
            logical_id
            for logical_id, items in known.hosted_queues.items()
            if items and logical_id in led and items[-1].bname not in (broker, known.bname)
        ]
        if wrong:
            log.info("static topic %s: queues %s are led by %s", topic, wrong, broker)
            hosted = {q: items for q, items in known.hosted_queues.items() if q not in wrong}
            self._mappings.put(msgspec.structs.replace(known, hosted_queues=hosted))


def _unknown(reply: Reply) -> None:
    """Another broker did not answer: the next look asks it again."""
