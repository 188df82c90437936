"""Retry and dead letters: messages that a consumer gives back (behaviour.md 5).

A copy of the message goes to the group's retry topic at a delay level that grows with the number
of tries; when the tries are used up, or the consumer says so, to the group's dead letter topic.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final, Protocol

from firearrow.broker.groups import Groups
from firearrow.broker.queue_locks import QueueLocks
from firearrow.broker.rooms import BaseRoom
from firearrow.broker.send import PUT_CODES
from firearrow.broker.send_checks import SendFields
from firearrow.broker.stats import BrokerStats
from firearrow.broker.topics import Topics
from firearrow.broker.writer import Writer
from firearrow.codec.message_id import offset_message_id
from firearrow.codec.properties import find_property, format_properties, parse_properties
from firearrow.codec.record import Record, decode_record
from firearrow.model import codes, names
from firearrow.model.message import Message
from firearrow.model.topic import PERM_WRITE
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import ConsumerSendMessageBack
from firearrow.protocol.remoting.session import Route
from firearrow.store.api import PutStatus, Store

FIRST_RETRY_LEVEL: Final = 3  # 10 s
DLQ_QUEUES: Final = 1
# From this client version on (3.4.9) the client's own maximum counts.
CLIENT_MAXIMUM_SINCE: Final = 121


class RetrySettings(Protocol):
    broker_permission: int


class RetryRoom(BaseRoom):
    """Answers CONSUMER_SEND_MSG_BACK and judges sends to retry topics."""

    def __init__(
        self,
        settings: RetrySettings,
        store: Store,
        writer: Writer,
        topics: Topics,
        groups: Groups,
        locks: QueueLocks,
        stats: BrokerStats,
    ) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._topics = topics
        self._groups = groups
        self._locks = locks
        self._stats = stats

    def routes(self) -> Mapping[int, Route]:
        return {36: Route("CONSUMER_SEND_MSG_BACK", ConsumerSendMessageBack, self.send_back)}

    # -- a send to %RETRY%group

    def divert(self, fields: SendFields, message: Message, version: int) -> Message | Reply:
        """A client's own send to a retry topic: unchanged, or moved to the dead letters."""
        name = fields.topic.removeprefix(names.RETRY_PREFIX)
        group = self._groups.find(name)
        if group is None:
            return Reply(
                codes.SUBSCRIPTION_GROUP_NOT_EXIST, f"subscription group not exist, {name}"
            )
        maximum = group.retry_max_times
        if fields.max_reconsume_times is not None and version >= CLIENT_MAXIMUM_SINCE:
            maximum = fields.max_reconsume_times
        ordered = self._locks.any_locked(name)
        if message.reconsume_times <= maximum and not ordered:
            return message
        dead_letters = self._topics.create_retry(names.dead_letter_topic(name), DLQ_QUEUES)
        properties = parse_properties(message.properties)
        properties["DELAY"] = "-1"
        message.topic = dead_letters.name
        message.queue_id = random.randrange(max(1, dead_letters.write_queues))
        message.properties = format_properties(properties)
        return message

    # -- a message that comes back

    def send_back(self, request: Request[ConsumerSendMessageBack]) -> Answer:
        """CONSUMER_SEND_MSG_BACK (36)."""
        fields = request.fields
        group = self._groups.find(fields.group)
        if group is None:
            return Reply(
                codes.SUBSCRIPTION_GROUP_NOT_EXIST, f"subscription group not exist, {fields.group}"
            )
        if not self._settings.broker_permission & PERM_WRITE:
            return Reply(codes.NO_PERMISSION, "the broker does not permit writing")
        if group.retry_queues <= 0:
            return Reply()
        topic = self._topics.create_retry(
            names.retry_topic(group.name), group.retry_queues, unit=bool(fields.unit_mode)
        )
        if not topic.writable:
            return Reply(codes.NO_PERMISSION, f"the topic[{topic.name}] sending is forbidden")
        data = self._store.record(fields.offset)
        if data is None:
            return Reply(codes.SYSTEM_ERROR, f"look message by offset failed, {fields.offset}")
        record = decode_record(data)
        if self._is_another(record, fields):
            return Reply(codes.SYSTEM_ERROR, f"look message by offset failed, {fields.offset}")
        maximum = group.retry_max_times
        if fields.max_reconsume_times is not None and request.version >= CLIENT_MAXIMUM_SINCE:
            maximum = fields.max_reconsume_times
        level = fields.delay_level
        if record.reconsume_times >= maximum or level < 0:
            topic = self._topics.create_retry(names.dead_letter_topic(group.name), DLQ_QUEUES)
            level = 0
        elif level == 0:
            level = FIRST_RETRY_LEVEL + record.reconsume_times
        put = self._writer.put(_copy(record, topic.name, max(1, topic.write_queues), level))
        if put.status is not PutStatus.OK:
            return Reply(PUT_CODES[put.status] and codes.SYSTEM_ERROR, put.status.value)
        key = (record.topic, group.name)
        self._stats.sent_back[key] = self._stats.sent_back.get(key, 0) + 1
        return Reply()

    def _is_another(self, record: Record, fields: ConsumerSendMessageBack) -> bool:
        """A message that was read from a compaction log tells its position there, where the commit
        log has another one. The client then sends a copy of it to the retry topic itself."""
        topic = self._topics.table.get(fields.origin_topic or "")
        if topic is None or not topic.compacted or not fields.origin_msg_id:
            return False
        unique_key = find_property(record.properties, b"UNIQ_KEY") or b""
        return unique_key != fields.origin_msg_id.encode()


def _copy(record: Record, topic: str, queues: int, level: int) -> Message:
    properties = parse_properties(record.properties)
    properties.setdefault("RETRY_TOPIC", record.topic)
    properties.setdefault(
        "ORIGIN_MESSAGE_ID", offset_message_id(record.store_host, record.physical_offset)
    )
    properties["WAIT"] = "false"
    properties["DELAY"] = str(level)
    return Message(
        topic=topic,
        queue_id=random.randrange(queues),
        body=record.body,
        properties=format_properties(properties),
        born_timestamp=record.born_timestamp,
        born_host=record.born_host,
        flag=record.flag,
        sys_flag=record.sys_flag,
        reconsume_times=record.reconsume_times + 1,
    )
