"""What clients say about themselves: heartbeats, member lists, queue locks (remoting.md 3.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from firearrow.broker import heartbeat
from firearrow.broker.filters import Filters
from firearrow.broker.groups import Groups
from firearrow.broker.members import Members
from firearrow.broker.queue_locks import QueueLocks, QueueName
from firearrow.broker.subscription import TAG, ExpressionError
from firearrow.broker.topics import Topics
from firearrow.codec import lenient_json
from firearrow.model import codes, names
from firearrow.protocol.remoting.command import Answer, NoFields, Reply, Request
from firearrow.protocol.remoting.requests import ConsumerGroup, UnregisterClient

_encode = msgspec.json.Encoder().encode
_HEARTBEAT_V2: Final = "IS_SUPPORT_HEART_BEAT_V2"
_SUBSCRIPTION_CHANGED: Final = "IS_SUB_CHANGE"


class ClientSettings(Protocol):
    enable_register_producer: bool
    enable_property_filter: bool
    reject_pull_consumer_enable: bool


class ClientRequests:
    """Handlers for the requests of clients about themselves."""

    def __init__(
        self,
        settings: ClientSettings,
        topics: Topics,
        groups: Groups,
        members: Members,
        locks: QueueLocks,
        filters: Filters,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._groups = groups
        self._members = members
        self._locks = locks
        self._filters = filters

    def heart_beat(self, request: Request[NoFields]) -> Answer:
        """HEART_BEAT (34)."""
        try:
            beat = heartbeat.decode(request.body)
        except heartbeat.HeartbeatError as error:
            return Reply(codes.SYSTEM_ERROR, str(error))
        language = str(request.language)
        changed = True
        for data in beat.consumers:
            if self._skip_pull_consumer(data.consume_type):
                continue
            group = self._groups.find(data.group)
            if group is None:
                continue
            retry = names.retry_topic(data.group)
            if names.topic_error(retry) is None:
                self._topics.create_retry(retry, group.retry_queues, unit=data.unit_mode)
            changed = self._members.register_consumer(
                data, request.peer, beat, language, request.version
            )
        if self._settings.enable_register_producer:
            for producer in beat.producers:
                self._members.register_producer(
                    producer, request.peer, beat.client_id, language, request.version
                )
        return Reply(
            ext={_HEARTBEAT_V2: "true", _SUBSCRIPTION_CHANGED: "true" if changed else "false"}
        )

    def _skip_pull_consumer(self, consume_type: str) -> bool:
        return self._settings.reject_pull_consumer_enable and consume_type == "CONSUME_ACTIVELY"

    def unregister(self, request: Request[UnregisterClient]) -> Answer:
        """UNREGISTER_CLIENT (35)."""
        fields = request.fields
        self._members.unregister(request.peer, fields.producer_group, fields.consumer_group)
        return Reply()

    def consumer_list(self, request: Request[ConsumerGroup]) -> Answer:
        """GET_CONSUMER_LIST_BY_GROUP (38)."""
        group = self._members.consumers.get(request.fields.consumer_group)
        if group is None:
            return Reply(
                codes.SYSTEM_ERROR,
                f"no consumer for this group, {request.fields.consumer_group}",
            )
        return Reply(body=_encode({"consumerIdList": group.client_ids()}))

    def check_config(self, request: Request[NoFields]) -> Answer:
        """CHECK_CLIENT_CONFIG (46): clients ask before they use a filter other than tags."""
        body = _body(request.body)
        data = body.get("subscriptionData") if body else None
        if not isinstance(data, dict):
            return Reply()
        kind = data.get("expressionType")
        if kind in (None, "", TAG):
            return Reply()
        if not self._settings.enable_property_filter:
            return Reply(
                codes.SYSTEM_ERROR,
                f"The broker does not support consumer to filter message by {kind}",
            )
        try:
            self._filters.compile(str(kind), str(data.get("subString") or ""))
        except ExpressionError as error:
            return Reply(codes.SUBSCRIPTION_PARSE_FAILED, str(error))
        return Reply()

    def lock(self, request: Request[NoFields]) -> Answer:
        """LOCK_BATCH_MQ (41)."""
        body = _body(request.body)
        if body is None:
            return Reply(codes.SYSTEM_ERROR, "unreadable body")
        owned = self._locks.lock(
            str(body.get("consumerGroup")), str(body.get("clientId")), list(_queues(body))
        )
        queues = [
            {"brokerName": broker, "queueId": queue_id, "topic": topic}
            for topic, broker, queue_id in owned
        ]
        return Reply(body=_encode({"lockOKMQSet": queues}))

    def unlock(self, request: Request[NoFields]) -> Answer:
        """UNLOCK_BATCH_MQ (42)."""
        body = _body(request.body)
        if body is None:
            return Reply(codes.SYSTEM_ERROR, "unreadable body")
        self._locks.unlock(
            str(body.get("consumerGroup")), str(body.get("clientId")), list(_queues(body))
        )
        return Reply()


def _body(data: bytes) -> dict[str, Any] | None:
    try:
        body = lenient_json.loads(data)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _queues(body: dict[str, Any]) -> Iterator[QueueName]:
    items = body.get("mqSet")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and isinstance(item.get("topic"), str):
            queue_id = item.get("queueId")
            if isinstance(queue_id, int):
                yield item["topic"], str(item.get("brokerName")), queue_id
