"""Requests about topics (behaviour.md 21.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from firearrow.broker.admin.attributes import (
    TOPIC_ATTRIBUTES,
    Attribute,
    AttributeChangeError,
    apply,
    parse,
)
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.topics import Topics
from firearrow.codec import lenient_json
from firearrow.model import codes, names
from firearrow.model.topic import PERM_PRIORITY, QUEUES_MAX, Topic
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, NoFields, Reply, Request
from firearrow.protocol.remoting.requests import CreateTopic, TablePage, TopicName
from firearrow.store.api import Store

FILTER_TYPES: Final = ("SINGLE_TAG", "MULTI_TAG")
_FIELDS: Final = msgspec.structs.fields(Topic)


class TopicAdminSettings(Protocol):
    broker_name: str
    clear_retry_topic_when_delete_topic: bool
    enable_mixed_message_type: bool
    validate_system_topic_when_update_topic: bool


class TopicAdmin:
    """Handlers."""

    def __init__(
        self,
        settings: TopicAdminSettings,
        topics: Topics,
        offsets: ConsumerOffsets,
        store: Store,
        address: str,
        attributes: Mapping[str, Attribute],
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._offsets = offsets
        self._store = store
        self._address = address
        self._attributes = {**TOPIC_ATTRIBUTES, **attributes}

    def create(self, request: Request[CreateTopic]) -> Answer:
        """UPDATE_AND_CREATE_TOPIC (17)."""
        fields = request.fields
        try:
            changes = parse(fields.attributes)
        except AttributeChangeError as error:
            return Reply(codes.SYSTEM_ERROR, str(error))
        wanted = Topic(
            name=fields.topic,
            read_queues=fields.read_queues,
            write_queues=fields.write_queues,
            perm=fields.perm,
            filter_type=fields.filter_type,
            sys_flag=fields.sys_flag or 0,
            order=fields.order,
            attributes=changes,
        )
        return self._create([wanted])

    def create_list(self, request: Request[NoFields]) -> Answer:
        """UPDATE_AND_CREATE_TOPIC_LIST (18)."""
        try:
            body = lenient_json.loads(request.body)
            topics = msgspec.convert(body["topicConfigList"], list[Topic])
        except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
            return Reply(codes.SYSTEM_ERROR, f"unreadable list of topics: {error}")
        return self._create(topics)

    def _create(self, wanted: list[Topic]) -> Answer:
        """Create or change all, or none; their attributes are changes to what there is."""
        topics = []
        for topic in wanted:
            refusal = self._refusal(topic)
            if refusal is not None:
                return refusal
            existing = self._topics.table.get(topic.name)
            try:
                attributes = apply(
                    existing.attributes if existing else {},
                    topic.attributes,
                    self._attributes,
                    creating=existing is None,
                )
            except AttributeChangeError as error:
                return Reply(codes.SYSTEM_ERROR, str(error))
            topics.append(msgspec.structs.replace(topic, attributes=attributes))
        self._topics.create_all(topics)
        return Reply()

    def _refusal(self, topic: Topic) -> Reply | None:
        error = names.topic_error(topic.name)
        if error is None and self._is_protected(topic.name):
            error = f"The topic[{topic.name}] is conflict with system topic."
        if error is None and self._is_mixed(topic):
            error = "MIXED message type is not supported."
        if error is None:
            error = shape_error(topic)
        return None if error is None else Reply(codes.INVALID_PARAMETER, error)

    def _is_mixed(self, topic: Topic) -> bool:
        kinds = {topic.attributes.get(key) for key in ("+message.type", "message.type")}
        return "MIXED" in kinds and not self._settings.enable_mixed_message_type

    def _is_protected(self, name: str) -> bool:
        return self._settings.validate_system_topic_when_update_topic and self._topics.is_system(
            name
        )

    def delete(self, request: Request[TopicName]) -> Answer:
        """DELETE_TOPIC_IN_BROKER (215)."""
        name = request.fields.topic
        if not name.strip():
            return Reply(codes.INVALID_PARAMETER, "The specified topic is blank.")
        if self._is_protected(name):
            return Reply(
                codes.INVALID_PARAMETER, f"The topic[{name}] is conflict with system topic."
            )
        if self._settings.clear_retry_topic_when_delete_topic:
            for group in self._offsets.groups_of(name):
                for separator in ("_", "+"):
                    retry = f"{names.RETRY_PREFIX}{group}{separator}{name}"
                    if retry in self._topics.table:
                        self._drop(retry)
        self._drop(name)
        return Reply()

    def _drop(self, name: str) -> None:
        self._topics.delete(name)
        self._offsets.delete_topic(name)

    def get(self, request: Request[TopicName]) -> Answer:
        """GET_TOPIC_CONFIG (351)."""
        topic = self._topics.table.get(request.fields.topic)
        if topic is None:
            return Reply(
                codes.TOPIC_NOT_EXIST, f"No topic in this broker. topic: {request.fields.topic}"
            )
        logical = self._topics.logical.get(topic.name)
        if logical is None or not request.fields.lo:
            return Reply(body=bodies.encode(topic))
        config = msgspec.structs.asdict(topic)
        config = {field.encode_name: config[field.name] for field in _FIELDS}
        return Reply(body=bodies.encode({**config, "mappingDetail": logical.detail}))

    def get_all(self, request: Request[TablePage]) -> Answer:
        """GET_ALL_TOPIC_CONFIG (21)."""
        fields = request.fields
        table = self._topics.table
        ext = {"totalTopicNum": str(len(table))}
        if fields.topic_seq is not None and fields.max_topics:
            chosen = list(table)[fields.topic_seq : fields.topic_seq + fields.max_topics]
            table = {name: table[name] for name in chosen}
        details = {n: logical.detail for n, logical in self._topics.logical.items() if n in table}
        body: dict[str, Any] = {
            "dataVersion": self._topics.version,
            "mappingDataVersion": self._topics.logical_version,
            "topicConfigTable": table,
            "topicQueueMappingDetailMap": details,
            "topicQueueMappingInfoMap": {},
        }
        return Reply(ext=ext, body=bodies.encode(body))

    def stats(self, request: Request[TopicName]) -> Answer:
        """GET_TOPIC_STATS_INFO (202): bounds of every queue."""
        topic = self._topics.table.get(request.fields.topic)
        if topic is None:
            return Reply(codes.TOPIC_NOT_EXIST, f"topic[{request.fields.topic}] not exist")
        entries = []
        for queue_id in range(max(topic.read_queues, topic.write_queues)):
            low = self._store.min_offset(topic.name, queue_id)
            high = self._store.max_offset(topic.name, queue_id)
            updated = self._store.store_time(topic.name, queue_id, high - 1) if high > 0 else 0
            entries.append(
                (
                    bodies.queue_key(self._settings.broker_name, queue_id, topic.name),
                    {
                        "lastUpdateTimestamp": max(updated, 0),
                        "maxOffset": high,
                        "minOffset": low,
                    },
                )
            )
        body = b'{"offsetTable":' + bodies.queue_map(entries) + b',"topicPutTps":0.0}'
        return Reply(body=body)

    def system_topics(self, request: Request[NoFields]) -> Answer:
        """GET_SYSTEM_TOPIC_LIST_FROM_BROKER (305)."""
        return Reply(body=bodies.topic_list(self._topics.system_topics(), self._address))

    def clean_unused(self, request: Request[NoFields]) -> Answer:
        """CLEAN_UNUSED_TOPIC (316): queue files of topics that are no more."""
        for topic in {topic for topic, _ in self._store.queues()}:
            light = topic.startswith(names.LMQ_PREFIX)  # never in the table
            if topic not in self._topics.table and not light and not self._topics.is_system(topic):
                self._store.delete_topic(topic)
        return Reply()

    def nothing(self, request: Request[NoFields]) -> Answer:
        """CLEAN_EXPIRED_CONSUMEQUEUE (306): consume queues follow the log by themselves."""
        return Reply()

    def delete_expired(self, request: Request[NoFields]) -> Answer:
        """DELETE_EXPIRED_COMMITLOG (329)."""
        self._store.delete_expired()
        return Reply()


def shape_error(topic: Topic) -> str | None:
    for kind, count in (("read", topic.read_queues), ("write", topic.write_queues)):
        if not 0 <= count <= QUEUES_MAX:
            return f"{count} {kind} queues; the limit is {QUEUES_MAX}"
    if not 0 <= topic.perm < PERM_PRIORITY:
        return f"perm {topic.perm} is none; it is a sum of 4 (read), 2 (write), 1 (inherit)"
    if topic.filter_type not in FILTER_TYPES:
        return f"topicFilterType = [{topic.filter_type}] value invalid"
    return None
