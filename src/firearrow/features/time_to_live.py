"""Messages that are of no use after a time: property ``TTL_MS``, topic attribute ``ttl.ms``.

The time counts from when the message became readable; for a retry, from when the message that is
tried again did. A message whose time is over is passed over by every read, as if a filter did not
want it. Only topics with the attribute or with such a message, and retry topics, are looked at,
and nothing is looked at on a broker that has neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

import msgspec

from firearrow.broker.admin.attributes import Attribute, number
from firearrow.broker.rooms import BaseRoom
from firearrow.broker.topics import Topics
from firearrow.codec import tables
from firearrow.codec.message_id import parse_offset_message_id
from firearrow.codec.properties import find_property
from firearrow.codec.record import record_properties, record_store_time
from firearrow.model.clock import Clock
from firearrow.model.message import Message
from firearrow.model.names import LMQ_PREFIX, RETRY_PREFIX
from firearrow.store.api import Put, RecordMatch, Store

PROPERTY: Final = b"TTL_MS"
ATTRIBUTE: Final = "ttl.ms"
TOPICS_FILE: Final = "ttlTopics.json"
TTL_DIGITS_MAX: Final = 18

_encode = msgspec.json.Encoder().encode


class TopicsTable(msgspec.Struct):
    """``ttlTopics.json``, and a note of it."""

    topics: list[str] = []


class TimeToLiveRoom(BaseRoom):
    """Knows which topics have such messages, and tells the store which records are over."""

    marks = (PROPERTY + b"\x01",)
    in_batches = True
    topic_attributes: Mapping[str, Attribute] = {ATTRIBUTE: Attribute(number(1), changeable=True)}

    def __init__(self, store: Store, topics: Topics, clock: Clock) -> None:
        self._store = store
        self._topics = topics
        self._clock = clock
        self._noted: dict[str, None] = {}  # topics that got a message with the property
        read = tables.reader(TopicsTable)
        saved = store.load_config(TOPICS_FILE, read) or TopicsTable()
        for table in (saved, *store.config_notes(TOPICS_FILE, read)):
            self._noted.update(dict.fromkeys(table.topics))
        topics.attribute_listeners.append(self._attributes_changed)
        self._update()

    def start(self) -> None:
        self._save()

    # -- which topics

    def before_store(self, message: Message) -> Message | Put:
        """Note the topic; the message itself stays as it is. Before the rooms that take messages
        aside, so that the topic is the one that consumers read."""
        if message.topic not in self._noted and own_ttl_ms(message.properties):
            self._noted[message.topic] = None
            self._store.note_config(TOPICS_FILE, _encode({"topics": [message.topic]}))
            self._save()
            self._update()
        return message

    def _save(self) -> None:
        if self._noted:
            self._store.save_config(TOPICS_FILE, self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        self._noted = {name: None for name in self._noted if name in self._topics.table}
        yield _encode({"topics": list(self._noted)})

    def _attributes_changed(self, topic: str) -> None:
        self._update()

    def _update(self) -> None:
        attributed = self._topics.attributed.values()
        needed = self._noted or any(ATTRIBUTE in topic.attributes for topic in attributed)
        self._store.hide(self._rule if needed else None)

    # -- which records

    def _rule(self, topic: str) -> RecordMatch | None:
        if topic.startswith(RETRY_PREFIX):
            return self._retry_is_over
        default_ms = self._topics.number(topic, ATTRIBUTE)
        if topic.startswith(LMQ_PREFIX):
            return partial(self._is_over, 0)
        if default_ms or topic in self._noted:
            return partial(self._is_over, default_ms)
        return None

    def _is_over(self, default_ms: int, record: bytes) -> bool:
        ttl_ms = own_ttl_ms(record_properties(record)) or default_ms
        return 0 < ttl_ms <= self._clock.now_ms() - record_store_time(record)

    def _retry_is_over(self, record: bytes) -> bool:
        properties = record_properties(record)
        ttl_ms = own_ttl_ms(properties)
        if not ttl_ms:
            origin = find_property(properties, b"RETRY_TOPIC") or b""
            ttl_ms = self._topics.number(origin.decode("utf-8", "replace"), ATTRIBUTE)
        return 0 < ttl_ms <= self._clock.now_ms() - self._first_stored_ms(record, properties)

    def _first_stored_ms(self, record: bytes, properties: bytes) -> int:
        """When the message that is tried again was stored, as long as the log has it; for a pop,
        when it was handed out first."""
        first_pop = find_property(properties, b"1ST_POP_TIME") or b""
        if first_pop.isdigit() and len(first_pop) <= TTL_DIGITS_MAX:
            return int(first_pop)
        text = find_property(properties, b"ORIGIN_MESSAGE_ID") or b""
        origin = parse_offset_message_id(text.decode("ascii", "replace"))
        original = None if origin is None else self._store.record(origin[1])
        return record_store_time(record if original is None else original)


def own_ttl_ms(properties: bytes) -> int:
    """The message's own time; 0 when it has none that can be read."""
    value = find_property(properties, PROPERTY)
    return int(value) if value and value.isdigit() and len(value) <= TTL_DIGITS_MAX else 0
