"""What is checked of a send before it is stored, the same for every kind of send."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final, Protocol

from firearrow.broker.topics import Topics
from firearrow.codec.properties import find_property
from firearrow.model import codes, names
from firearrow.model.clock import Clock
from firearrow.model.topic import PERM_WRITE, Topic
from firearrow.protocol.remoting.command import Reply
from firearrow.protocol.remoting.requests import SendMessage, SendMessageV2

SendFields = SendMessage | SendMessageV2
PRIORITY: Final = b"_SYS_MSG_PRIORITY_"
ADDED_BYTES_MAX: Final = 1024  # to a message's properties and body, by the broker and the record


class SendCheckSettings(Protocol):
    broker_permission: int
    compaction_mapped_file_size: int
    region_id: str
    start_accept_send_request_time_stamp: int
    trace_on: bool


class SendChecks:
    """Finds or creates the topic, and chooses the queue (behaviour.md 1.1 to 1.3)."""

    def __init__(self, settings: SendCheckSettings, topics: Topics, clock: Clock) -> None:
        self._settings = settings
        self._topics = topics
        self._clock = clock
        # Every answer to a send carries these, which clients take their trace switch from.
        self.ext = {
            "MSG_REGION": settings.region_id,
            "TRACE_ON": "true" if settings.trace_on else "false",
        }

    def check(self, fields: SendFields) -> tuple[Topic, int] | Reply:
        """The topic and queue id to store to, or why not."""
        topic = self._topic(fields)
        if isinstance(topic, Reply):
            return topic
        accept_from = self._settings.start_accept_send_request_time_stamp
        if accept_from and accept_from > self._clock.now_ms():
            return self.refuse(codes.SYSTEM_ERROR, "the broker does not accept messages yet")
        queue_id = fields.queue_id
        if queue_id < 0:
            queue_id = random.randrange(topic.write_queues) if topic.write_queues else 0
        elif queue_id >= topic.write_queues and queue_id >= topic.read_queues:
            return self.refuse(
                codes.INVALID_PARAMETER,
                f"request queueId[{queue_id}] is illegal, {topic.name} has "
                f"{topic.read_queues} read and {topic.write_queues} write queues",
            )
        if topic.prioritized:
            queue_id = _queue_of_priority(fields.properties or "", topic, queue_id)
        return topic, queue_id

    def _topic(self, fields: SendFields) -> Topic | Reply:
        name = fields.topic
        topic = self._topics.table.get(name)
        if topic is not None and topic.order and not self._settings.broker_permission & PERM_WRITE:
            return self.refuse(codes.NO_PERMISSION, "the broker does not permit writing")
        error = names.topic_error(name)
        if error is not None:
            return self.refuse(codes.INVALID_PARAMETER, error)
        if name in names.CLIENTS_MAY_NOT_SEND_TO:
            return self.refuse(
                codes.NO_PERMISSION, f"Sending message to topic[{name}] is forbidden."
            )
        if topic is not None:
            return topic
        created = self._topics.create_on_send(
            name, fields.default_topic, fields.default_topic_queues, unit=bool(fields.unit_mode)
        )
        if isinstance(created, str):
            return self.refuse(codes.TOPIC_NOT_EXIST, created)
        return created

    def refuse_compacted(self, messages: Iterable[tuple[bytes, bytes]]) -> Reply | None:
        """Why these messages (properties, body) have no place in a compaction topic, if so."""
        size_max = self._settings.compaction_mapped_file_size * 9 // 10 - ADDED_BYTES_MAX
        for properties, body in messages:
            if not (find_property(properties, b"KEYS") or b"").strip():
                return self.refuse(codes.MESSAGE_ILLEGAL, "Required message key is missing")
            if len(properties) + len(body) > size_max:
                return self.refuse(
                    codes.MESSAGE_ILLEGAL,
                    f"the message has {len(properties) + len(body)} bytes; with "
                    f"compactionMappedFileSize as it is a compaction topic takes {size_max}",
                )
        return None

    def refuse(self, code: int, remark: str) -> Reply:
        return Reply(code, remark, self.ext)


def _queue_of_priority(properties: str, topic: Topic, otherwise: int) -> int:
    """The queue of a message's priority; a higher one than there are queues is the highest."""
    value = find_property(properties.encode(), PRIORITY)
    if value is None or not value.isdigit() or not topic.write_queues:
        return otherwise
    return min(int(value), topic.write_queues - 1)
