"""All static topics of a broker (``TopicQueueMappingManager``); ``topicQueueMapping.json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from firearrow.broker.topics import Topics
from firearrow.codec import tables
from firearrow.codec.tables import Deleted
from firearrow.features.static_topics.mapping import Mapping
from firearrow.features.static_topics.pulling import Pulling
from firearrow.features.static_topics.topic import StaticTopic
from firearrow.model.clock import Clock
from firearrow.model.topic import DataVersion
from firearrow.protocol.remoting import bodies
from firearrow.store.api import Store

MAPPINGS_FILE: Final = "topicQueueMapping.json"


class MappingsTable(msgspec.Struct, rename="camel"):
    """``topicQueueMapping.json`` (``TopicQueueMappingSerializeWrapper``)."""

    data_version: DataVersion | None = None
    topic_queue_mapping_info_map: dict[str, Mapping] | None = None


def _read_note(found: Any) -> Mapping | Deleted:
    return tables.read_note(found, Mapping)


class Mappings:
    """Mappings by topic. Each change survives a kill once it is made."""

    def __init__(self, store: Store, topics: Topics, clock: Clock, pulling: Pulling) -> None:
        self._store = store
        self._topics = topics
        self._clock = clock
        self._pulling = pulling
        self.table: dict[str, Mapping] = {}
        self.get = self.table.get

    def load(self) -> None:
        read = tables.reader(MappingsTable)
        saved = self._store.load_config(MAPPINGS_FILE, read) or MappingsTable()
        self._topics.logical_version = saved.data_version or DataVersion()
        for name, value in (saved.topic_queue_mapping_info_map or {}).items():
            self._set(name, value)
        notes = self._store.config_notes(MAPPINGS_FILE, _read_note)
        for note in notes:
            if isinstance(note, Deleted):
                self._set(note.deleted, None)
            else:
                self._set(note.topic, note)
        if notes:
            self._save()

    def put(self, new: Mapping) -> None:
        self._set(new.topic, new)
        self._store.note_config(MAPPINGS_FILE, new.encode())
        self._save()

    def delete(self, name: str) -> None:
        """An unknown one is no error."""
        if name in self.table:
            self._set(name, None)
            self._store.note_config(MAPPINGS_FILE, bodies.encode({"deleted": name}))
            self._save()

    def _set(self, name: str, value: Mapping | None) -> None:
        if value is None:
            self.table.pop(name, None)
            self._topics.set_logical(name, None)
        else:
            self.table[name] = value
            self._topics.set_logical(name, StaticTopic(value, self._pulling))

    def _save(self) -> None:
        self._topics.logical_version = self._topics.logical_version.next(self._clock.now_ms())
        self._store.save_config(MAPPINGS_FILE, self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The file's content, in pieces."""
        version = bodies.encode(self._topics.logical_version)
        yield b'{"dataVersion":' + version + b',"topicQueueMappingInfoMap":{'
        separator = b""
        for name in list(self.table):  # it may change meanwhile
            value = self.table.get(name)
            if value is not None:
                yield separator + bodies.encode(name) + b":" + value.encode()
                separator = b","
        yield b"}}"
