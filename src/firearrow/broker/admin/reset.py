"""Setting a group's offsets from outside (behaviour.md 11.1)."""

from __future__ import annotations

from typing import Protocol

from firearrow.broker.groups import Groups
from firearrow.broker.members import Members
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.topics import Topics
from firearrow.model import codes
from firearrow.model.topic import Topic
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import RESET_CONSUMER_CLIENT_OFFSET, ResetOffset
from firearrow.store.api import Store


class ResetSettings(Protocol):
    broker_name: str
    use_server_side_reset_offset: bool


class ResetAdmin:
    """Handler of INVOKE_BROKER_TO_RESET_OFFSET."""

    def __init__(
        self,
        settings: ResetSettings,
        store: Store,
        topics: Topics,
        groups: Groups,
        members: Members,
        offsets: ConsumerOffsets,
    ) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics
        self._groups = groups
        self._members = members
        self._offsets = offsets

    def reset(self, request: Request[ResetOffset]) -> Answer:
        """INVOKE_BROKER_TO_RESET_OFFSET (222)."""
        fields = request.fields
        topic = self._topics.table.get(fields.topic)
        if topic is None:
            return Reply(codes.TOPIC_NOT_EXIST, f"Topic {fields.topic} does not exist")
        if fields.group not in self._groups.table:
            return Reply(codes.SUBSCRIPTION_GROUP_NOT_EXIST, f"Group {fields.group} does not exist")
        if topic.read_queues <= 0:
            return Reply(codes.SYSTEM_ERROR, f"Topic {topic.name} has no queue to read")
        if not self._settings.use_server_side_reset_offset:
            return self._push_to_clients(fields, topic)
        found = self._targets(fields, topic)
        if isinstance(found, Reply):
            return found
        for queue_id, offset in found.items():
            self._offsets.reset(topic.name, fields.group, queue_id, offset)
        return Reply(body=self._body(topic.name, found))

    def _targets(self, fields: ResetOffset, topic: Topic) -> dict[int, int] | Reply:
        if fields.queue_id < 0:
            return {
                queue_id: self._by_time(topic.name, queue_id, fields.timestamp)
                for queue_id in range(topic.read_queues)
            }
        offset = -1 if fields.offset is None else fields.offset
        if offset == -1:
            offset = self._by_time(topic.name, fields.queue_id, fields.timestamp)
        else:
            low = self._store.min_offset(topic.name, fields.queue_id)
            high = self._store.max_offset(topic.name, fields.queue_id)
            if not low <= offset <= high + 1:
                return Reply(
                    codes.SYSTEM_ERROR,
                    f"Target offset {offset} not in consume queue range [{low}-{high}]",
                )
        return {fields.queue_id: offset}

    def _by_time(self, topic: str, queue_id: int, timestamp: int) -> int:
        if timestamp < 0:
            return self._store.max_offset(topic, queue_id)
        return self._store.search_offset(topic, queue_id, timestamp, upper=False)

    def _body(self, topic: str, offsets: dict[int, int]) -> bytes:
        name = self._settings.broker_name
        entries = [(bodies.queue_key(name, q, topic), offset) for q, offset in offsets.items()]
        return b'{"offsetTable":' + bodies.queue_map(entries) + b"}"

    def _push_to_clients(self, fields: ResetOffset, topic: Topic) -> Reply:
        """The way before 5.0: every member is told, and commits the new offsets itself."""
        group = self._members.consumers.get(fields.group)
        if group is None:
            return Reply(
                codes.CONSUMER_NOT_ONLINE,
                f"Consumer not online, so can not reset offset, Group: {fields.group} "
                f"Topic: {topic.name}",
            )
        offsets = {}
        for queue_id in range(topic.write_queues):
            current = self._offsets.find(topic.name, fields.group, queue_id)
            if current is None:
                return Reply(codes.SYSTEM_ERROR, f"THe consumer group <{fields.group}> not exist")
            target = self._by_time(topic.name, queue_id, fields.timestamp)
            offsets[queue_id] = target if fields.is_force or target < current else current
        ext = {
            "group": fields.group,
            "timestamp": str(fields.timestamp),
            "topic": topic.name,
        }
        body = self._body(topic.name, offsets)
        for client in group.clients.values():
            for_client = self._array(topic.name, offsets) if client.language == "CPP" else body
            client.caller.notify(RESET_CONSUMER_CLIENT_OFFSET, ext, for_client)
        return Reply(body=body)

    def _array(self, topic: str, offsets: dict[int, int]) -> bytes:
        """C++ reads no map with objects as keys."""
        name = self._settings.broker_name
        rows = [
            {"brokerName": name, "offset": offset, "queueId": queue_id, "topic": topic}
            for queue_id, offset in offsets.items()
        ]
        return bodies.encode({"offsetTable": rows})
