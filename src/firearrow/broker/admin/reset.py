"""Setting a group's offsets from outside: INVOKE_BROKER_TO_RESET_OFFSET (behaviour.md 11.1)."""

from __future__ import annotations

from typing import Final, Protocol

from firearrow.broker.groups import Groups
from firearrow.broker.members import Members
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.topics import Topics
from firearrow.model import codes
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import RESET_CONSUMER_CLIENT_OFFSET, ResetOffset
from firearrow.store.api import Store

PUSHED_SINCE: Final = 28  # V3_0_7_SNAPSHOT, the first client that knows the push


class ResetSettings(Protocol):
    broker_name: str
    broker_role: str
    use_server_side_reset_offset: bool


class OffsetReset:
    """The handler, in both modes."""

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

    def handle(self, request: Request[ResetOffset]) -> Answer:
        """INVOKE_BROKER_TO_RESET_OFFSET (222)."""
        if self._settings.use_server_side_reset_offset:
            return self._by_server(request.fields)
        return self._by_clients(request.fields)

    # -- the server remembers the new offsets until the next pull

    def _by_server(self, fields: ResetOffset) -> Reply:
        if self._settings.broker_role == "SLAVE":
            return Reply(codes.SYSTEM_ERROR, "Can not reset offset in slave broker")
        topic = self._topics.table.get(fields.topic)
        if topic is None:
            return Reply(codes.TOPIC_NOT_EXIST, f"Topic {fields.topic} does not exist")
        if fields.group not in self._groups.table:
            return Reply(codes.SUBSCRIPTION_GROUP_NOT_EXIST, f"Group {fields.group} does not exist")
        if fields.queue_id < 0:
            wanted = {q: self._by_time(fields, q) for q in range(topic.read_queues)}
        elif fields.offset is None or fields.offset == -1:
            wanted = {fields.queue_id: self._by_time(fields, fields.queue_id)}
        else:
            low = self._store.min_offset(fields.topic, fields.queue_id)
            high = self._store.max_offset(fields.topic, fields.queue_id)
            if not low <= fields.offset <= high + 1:
                return Reply(
                    codes.SYSTEM_ERROR,
                    f"Target offset {fields.offset} not in consume queue range [{low}-{high}]",
                )
            wanted = {fields.queue_id: fields.offset}
        if not wanted:
            return Reply(codes.SYSTEM_ERROR, "No queues to reset.")
        for queue_id, offset in wanted.items():
            self._offsets.reset(fields.topic, fields.group, queue_id, offset)
        return Reply(body=self._body(fields.topic, wanted))

    def _by_time(self, fields: ResetOffset, queue_id: int) -> int:
        if fields.timestamp < 0:
            return self._store.max_offset(fields.topic, queue_id)
        return self._store.search_offset(fields.topic, queue_id, fields.timestamp, upper=False)

    # -- every member resets itself

    def _by_clients(self, fields: ResetOffset) -> Reply:
        topic = self._topics.table.get(fields.topic)
        if topic is None:
            return Reply(
                codes.SYSTEM_ERROR, f"[reset-offset] reset offset failed, no topic {fields.topic}"
            )
        wanted: dict[int, int] = {}
        for queue_id in range(topic.write_queues):
            stored = self._offsets.find(fields.topic, fields.group, queue_id)
            if stored is None:
                return Reply(
                    codes.SYSTEM_ERROR,
                    f"THe consumer group <{fields.group}> not exist",
                )
            new = self._by_time(fields, queue_id)
            wanted[queue_id] = new if fields.is_force or new < stored else stored
        group = self._members.consumers.get(fields.group)
        clients = list(group.clients.values()) if group else []
        if not clients:
            return Reply(
                codes.CONSUMER_NOT_ONLINE,
                f"Consumer not online, so can not reset offset, Group: {fields.group} "
                f"Topic: {fields.topic} Timestamp: {fields.timestamp}",
            )
        old = next((client for client in clients if client.version < PUSHED_SINCE), None)
        if old is not None:
            return Reply(
                codes.SYSTEM_ERROR,
                f"the client does not support this feature. version={old.version}",
            )
        ext = {
            "topic": fields.topic,
            "group": fields.group,
            "timestamp": str(fields.timestamp),
            "isForce": "true" if fields.is_force else "false",
        }
        for client in clients:
            for_cpp = client.language == "CPP"
            body = self._array(fields.topic, wanted) if for_cpp else self._body(
                fields.topic, wanted
            )
            client.caller.notify(RESET_CONSUMER_CLIENT_OFFSET, ext, body)
        return Reply(body=self._body(fields.topic, wanted))

    # -- bodies

    def _body(self, topic: str, offsets: dict[int, int]) -> bytes:
        broker = self._settings.broker_name
        rows = [(bodies.queue_key(broker, q, topic), offset) for q, offset in offsets.items()]
        return b'{"offsetTable":' + bodies.queue_map(rows) + b"}"

    def _array(self, topic: str, offsets: dict[int, int]) -> bytes:
        """C++ reads only this form."""
        broker = self._settings.broker_name
        rows = [
            {"brokerName": broker, "offset": offset, "queueId": queue_id, "topic": topic}
            for queue_id, offset in offsets.items()
        ]
        return bodies.encode({"offsetTable": rows})
