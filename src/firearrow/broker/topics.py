"""The broker's topic table: look up, create, change, delete; kept in ``topics.json``."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import msgspec

from firearrow.broker.logical import Logical
from firearrow.codec import tables
from firearrow.codec.tables import Deleted
from firearrow.model import names
from firearrow.model.clock import Clock
from firearrow.model.topic import (
    PERM_INHERIT,
    PERM_READ,
    PERM_WRITE,
    SYS_FLAG_UNIT,
    SYS_FLAG_UNIT_SUB,
    DataVersion,
    Topic,
)
from firearrow.store.api import BatchRule, Place, Store

TOPICS_FILE: Final = "topics.json"
_encode = msgspec.json.Encoder().encode
DELAY_QUEUES: Final = 18
BENCHMARK_QUEUES: Final = 1024
CLUSTER_TOPIC_QUEUES: Final = 16
REVIVE_QUEUES: Final = 8


class TopicSettings(Protocol):
    """The settings this table reads, each time it needs them."""

    broker_name: str
    broker_cluster_name: str
    auto_create_topic_enable: bool
    cluster_topic_enable: bool
    broker_topic_enable: bool
    default_topic_queue_nums: int
    trace_topic_enable: bool
    msg_trace_topic_name: str
    timer_wheel_enable: bool
    enable_lmq: bool


class TopicsTable(msgspec.Struct, rename="camel"):
    """``topics.json`` (``TopicConfigSerializeWrapper``)."""

    data_version: DataVersion | None = None
    topic_config_table: dict[str, Topic] | None = None


def read_table(found: Any) -> TopicsTable:
    return tables.read(tables.filled(found, "topicConfigTable", "topicName"), TopicsTable)


def read_note(found: Any) -> Topic | Deleted:
    return tables.read_note(found, Topic)


def saved_batch_rule(saved: TopicsTable | None, notes: list[Topic | Deleted]) -> BatchRule:
    """What the content of ``TOPICS_FILE``, and what is noted of it, say of batch queues: for a
    store that is being opened."""
    if saved is None and not notes:
        return lambda name: None
    topics = dict((saved and saved.topic_config_table) or {})
    for note in notes:
        if isinstance(note, Deleted):
            topics.pop(note.deleted, None)
        else:
            topics[note.name] = note
    batched = {name for name, topic in topics.items() if topic.batched}
    return lambda name: name in batched


class Lane:
    """What a send to a topic needs of several tables, found by one look into one: with very many
    topics each look is a wait for memory."""

    __slots__ = ("counters", "name", "place", "write_queues")

    def __init__(self, name: str, write_queues: int) -> None:
        self.name = name
        self.write_queues = write_queues
        self.counters: array[int]  # these two are the sender's, from its first message on
        self.place: Place | None = None


class Topics:
    """All topics of this broker. ``changed`` hears every change, once a loop turn, with the topics
    that are new or different (empty after a deletion)."""

    def __init__(self, settings: TopicSettings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self.table: dict[str, Topic] = {}
        # Those that any client may send to without a further look: what nearly every send needs.
        self.plain: dict[str, Lane] = {}
        self.get = self.table.get
        self.version = DataVersion()
        self.changed: Callable[[list[Topic]], None] = lambda topics: None
        self._to_announce: dict[str, Topic] | None = None
        self._with_care: set[str] = set()
        # The few topics with attributes, and the rooms that hear of every change of them.
        self.attributed: dict[str, Topic] = {}
        self.attribute_listeners: list[Callable[[str], None]] = []
        # Static topics: what clients call their queues and offsets (``set_logical``).
        self.logical: dict[str, Logical] = {}
        self.logical_version = DataVersion()
        self.remapped: Callable[[str], None] = lambda name: None
        self.deletion_listeners: list[Callable[[str], None]] = []

    def load(self) -> None:
        """Read the file, then add what every broker has."""
        saved = self._store.load_config(TOPICS_FILE, read_table) or TopicsTable()
        self.version = saved.data_version or DataVersion()
        for topic in (saved.topic_config_table or {}).values():
            self._set(topic)
        notes = self._store.config_notes(TOPICS_FILE, read_note)
        for note in notes:  # changes that were not saved before a kill
            if isinstance(note, Deleted):
                self._forget(note.deleted)
            else:
                self._set(note)
        if notes:
            self._store.save_config(TOPICS_FILE, self.chunks())
        self._store.use_batch_queues(self._is_batched)
        missing = [topic for topic in self._built_in() if topic.name not in self.table]
        if missing:
            self._put(missing)

    def _set(self, topic: Topic) -> None:
        self.table[topic.name] = topic
        watched = topic.order or topic.name[:1] == "%" or topic.prioritized
        watched = watched or topic.compacted
        watched = watched or topic.name in self._with_care or topic.name in self.logical
        if watched or topic.name in names.CLIENTS_MAY_NOT_SEND_TO:
            self.plain.pop(topic.name, None)
        else:
            self.plain[topic.name] = Lane(topic.name, topic.write_queues)
        if topic.attributes or topic.name in self.attributed:
            self._note_attributes(topic.name, topic)

    def _is_batched(self, name: str) -> bool:
        topic = self.attributed.get(name)
        return topic is not None and topic.batched

    def _note_attributes(self, name: str, topic: Topic | None) -> None:
        if topic is not None and topic.attributes:
            self.attributed[name] = topic
        else:
            del self.attributed[name]
        for listener in self.attribute_listeners:
            listener(name)

    def treat_with_care(self, name: str, care: bool) -> None:
        """Say whether every send to the topic has to go through the writer."""
        (self._with_care.add if care else self._with_care.discard)(name)
        topic = self.table.get(name)
        if topic is not None:
            self._set(topic)

    def set_logical(self, name: str, logical: Logical | None) -> None:
        """From now on, or no more, the topic's queues are logical ones to clients; ``remapped``
        hears of it."""
        if logical is None:
            self.logical.pop(name, None)
        else:
            self.logical[name] = logical
        topic = self.table.get(name)
        if topic is not None:
            self._set(topic)
        self.remapped(name)

    def number(self, name: str, key: str) -> int:
        """A topic's attribute that is a number; 0 when it is not set."""
        topic = self.attributed.get(name)
        return 0 if topic is None else int(topic.attributes.get(key, 0))

    def _forget(self, name: str) -> bool:
        self.plain.pop(name, None)
        if name in self.attributed:
            self._note_attributes(name, None)
        return self.table.pop(name, None) is not None

    def _built_in(self) -> Iterator[Topic]:
        settings = self._settings
        rw = PERM_READ | PERM_WRITE
        cluster, broker = settings.broker_cluster_name, settings.broker_name

        def topic(name: str, queues: int, perm: int = rw) -> Topic:
            return Topic(name=name, read_queues=queues, write_queues=queues, perm=perm)

        yield topic(names.SELF_TEST_TOPIC, 1)
        if settings.auto_create_topic_enable:
            queues = settings.default_topic_queue_nums
            yield topic(names.AUTO_CREATE_TOPIC, queues, rw | PERM_INHERIT)
        yield topic(names.BENCHMARK_TOPIC, BENCHMARK_QUEUES)
        own = rw if settings.cluster_topic_enable else 0
        yield topic(cluster, CLUSTER_TOPIC_QUEUES, own | PERM_INHERIT)
        own = rw if settings.broker_topic_enable else 0
        yield topic(broker, 1, own | PERM_INHERIT)
        yield topic(names.OFFSET_MOVED_EVENT, 1)
        yield topic(names.SCHEDULE_TOPIC, DELAY_QUEUES)
        if settings.trace_topic_enable:
            yield topic(settings.msg_trace_topic_name, 1)
        yield topic(cluster + names.REPLY_TOPIC_SUFFIX, 1)
        yield topic(names.REVIVE_TOPIC_PREFIX + cluster, REVIVE_QUEUES)
        yield topic(names.MEMBER_SYNC_TOPIC_PREFIX + broker, 1, PERM_INHERIT)
        yield topic(names.TRANS_HALF_TOPIC, 1)
        yield topic(names.TRANS_OP_HALF_TOPIC, 1)
        yield topic(names.ROCKSDB_TRANS_HALF_TOPIC, 1)
        yield topic(names.ROCKSDB_TRANS_OP_HALF_TOPIC, 1)
        if settings.timer_wheel_enable:
            yield topic(names.TIMER_TOPIC, 1)

    def find(self, name: str) -> Topic | None:
        """A topic to read from. A light message queue is one, without being in the table."""
        topic = self.table.get(name)
        if topic is None and self._settings.enable_lmq and name.startswith(names.LMQ_PREFIX):
            return Topic(name=name, read_queues=1, write_queues=1)
        return topic

    def is_system(self, name: str) -> bool:
        """Topics that are the broker's own: listed as such, not to be changed by operators."""
        settings = self._settings
        return (
            name in names.SYSTEM_TOPICS
            or name.startswith(names.SYSTEM_TOPIC_PREFIX)
            or name
            in (
                settings.broker_cluster_name,
                settings.broker_name,
                settings.broker_cluster_name + names.REPLY_TOPIC_SUFFIX,
            )
        )

    def system_topics(self) -> list[str]:
        """Names for GET_SYSTEM_TOPIC_LIST_FROM_BROKER."""
        return sorted({*names.SYSTEM_TOPICS, *(n for n in self.table if self.is_system(n))})

    # -- creation by use

    def create_on_send(
        self, name: str, template_name: str, queues: int, *, unit: bool
    ) -> Topic | str:
        """Create ``name`` after its template, or say why not (behaviour.md 1.3)."""
        template = self.table.get(template_name)
        if template is not None and self._may_inherit(template):
            count = max(0, min(queues, template.write_queues))
            return self.create(
                Topic(
                    name=name,
                    read_queues=count,
                    write_queues=count,
                    perm=template.perm & ~PERM_INHERIT,
                    filter_type=template.filter_type,
                    sys_flag=SYS_FLAG_UNIT if unit else 0,
                )
            )
        if name.startswith(names.RETRY_PREFIX):
            return self.create_retry(name, 1, unit=unit)
        return (
            f"topic[{name}] not exist, apply first please! "
            "Create it with mqadmin updateTopic, or set autoCreateTopicEnable=true."
        )

    def _may_inherit(self, template: Topic) -> bool:
        if template.name == names.AUTO_CREATE_TOPIC and not self._settings.auto_create_topic_enable:
            return False
        return template.inherited

    def create_retry(self, name: str, queues: int, *, unit: bool = False) -> Topic:
        """The retry or dead letter topic of a group; the existing one if there is one."""
        existing = self.table.get(name)
        if existing is not None:
            return existing
        return self.create(
            Topic(
                name=name,
                read_queues=queues,
                write_queues=queues,
                sys_flag=SYS_FLAG_UNIT_SUB if unit else 0,
            )
        )

    # -- change

    def create(self, topic: Topic) -> Topic:
        """Add or replace. The same configuration again changes nothing."""
        if self.table.get(topic.name) != topic:
            self._put([topic])
        return topic

    def renew(self, topic: Topic) -> None:
        """The same with a new version in any case: something that goes with it has changed."""
        self._put([topic])

    def create_all(self, topics: Iterable[Topic]) -> None:
        changed = [topic for topic in topics if self.table.get(topic.name) != topic]
        if changed:
            self._put(changed)

    def delete(self, name: str) -> None:
        """Forget the topic and its queues; an unknown one is no error."""
        if self._forget(name):
            self.version = self.version.next(self._clock.now_ms())
            self._store.note_config(TOPICS_FILE, _encode({"deleted": name}))
            self._store.save_config(TOPICS_FILE, self.chunks())
            self._announce([])
        self._store.delete_topic(name)
        for listener in self.deletion_listeners:
            listener(name)

    def touch(self) -> None:
        """A new version of the same table, for whoever copies it: what it shows has changed."""
        self.version = self.version.next(self._clock.now_ms())
        self._store.save_config(TOPICS_FILE, self.chunks())

    def mark_ordered(self, ordered: Iterable[str]) -> None:
        """Set ``order`` on the topics that a name server lists in ORDER_TOPIC_CONFIG."""
        for name in ordered:
            topic = self.table.get(name)
            if topic is not None and not topic.order:
                self.create(msgspec.structs.replace(topic, order=True))

    def _put(self, topics: list[Topic]) -> None:
        for topic in topics:
            if topic.batched and topic.name not in self.table:
                self._store.delete_topic(topic.name)  # what an older one may have left
            self._set(topic)
        self.version = self.version.next(self._clock.now_ms())
        for topic in topics:
            self._store.note_config(TOPICS_FILE, _encode(topic))
        self._store.save_config(TOPICS_FILE, self.chunks())
        self._announce(topics)

    def _announce(self, topics: list[Topic]) -> None:
        if self._to_announce is None:
            self._to_announce = {}
            self._clock.call_soon(self._announce_now)
        for topic in topics:
            self._to_announce[topic.name] = topic

    def _announce_now(self) -> None:
        topics, self._to_announce = self._to_announce or {}, None
        self.changed([topic for topic in topics.values() if topic.name in self.table])

    # -- persistence

    def chunks(self) -> Iterator[bytes]:
        """The file's content, in pieces."""
        yield b'{"dataVersion":' + _encode(self.version) + b',"topicConfigTable":{'
        separator = b""
        for name in list(self.table):  # it may change meanwhile
            topic = self.table.get(name)
            if topic is None:
                continue
            yield separator + _encode(name) + b":" + _encode(topic)
            separator = b","
        yield b"}}"
