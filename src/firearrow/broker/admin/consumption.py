"""How far groups are: consume statistics, time spans, who consumes what (behaviour.md 21.4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from firearrow.broker.groups import Groups
from firearrow.broker.members import Members
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.stats import BrokerStats
from firearrow.broker.topics import Topics
from firearrow.model import codes
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, NoFields, Reply, Request
from firearrow.protocol.remoting.requests import (
    BrokerConsumeStats,
    CloneGroupOffset,
    ConsumeStats,
    CorrectionOffset,
    GroupName,
    TopicName,
    TopicOfGroup,
)
from firearrow.store.api import Store


class ConsumptionSettings(Protocol):
    broker_name: str


class ConsumptionAdmin:
    """Handlers."""

    def __init__(
        self,
        settings: ConsumptionSettings,
        store: Store,
        topics: Topics,
        groups: Groups,
        members: Members,
        offsets: ConsumerOffsets,
        stats: BrokerStats,
        address: str,
    ) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics
        self._groups = groups
        self._members = members
        self._offsets = offsets
        self._stats = stats
        self._address = address

    def consume_stats(self, request: Request[ConsumeStats]) -> Answer:
        """GET_CONSUME_STATS (208)."""
        fields = request.fields
        named = (fields.topic_list or fields.topic or "").split(";")
        wanted = [topic for topic in named if topic]
        return Reply(body=self._stats_of(fields.consumer_group, wanted)[0])

    def _stats_of(self, group: str, wanted: list[str]) -> tuple[bytes, int, int]:
        """Encoded ``ConsumeStats``, messages behind, messages in flight."""
        online = self._members.consumers.get(group)
        entries: list[tuple[bytes, dict[str, int]]] = []
        behind = in_flight = 0
        for topic in wanted or sorted(self._offsets.topics_of(group)):
            if not wanted and online is not None and topic not in online.subscriptions:
                continue
            for queue_id, row in self._rows(topic, group):
                entries.append((bodies.queue_key(self._settings.broker_name, queue_id, topic), row))
                consumed = max(row["consumerOffset"], 0)
                behind += row["brokerOffset"] - consumed
                in_flight += max(row["pullOffset"], 0) - consumed
        rate = self._stats.consume_rate(group, set(wanted))
        body = b'{"consumeTps":%s,"offsetTable":' % bodies.encode(rate)
        return body + bodies.queue_map(entries) + b"}", behind, in_flight

    def _rows(self, name: str, group: str) -> Iterable[tuple[int, dict[str, int]]]:
        topic = self._topics.table.get(name)
        if topic is None:
            return
        committed = self._offsets.committed.get((name, group), {})
        pulled = self._offsets.pulled.get((name, group), {})
        # mqadmin looks for a static topic's offset in older queues where there is none.
        unknown = -1 if name in self._topics.logical else 0
        for queue_id in range(topic.read_queues):
            offset = max(committed.get(queue_id, unknown), unknown)
            last = self._store.store_time(name, queue_id, offset - 1) if offset > 0 else 0
            yield (
                queue_id,
                {
                    "brokerOffset": max(self._store.max_offset(name, queue_id), 0),
                    "consumerOffset": offset,
                    "lastTimestamp": max(last, 0),
                    "pullOffset": max(pulled.get(queue_id, 0), offset),
                },
            )

    def broker_consume_stats(self, request: Request[BrokerConsumeStats]) -> Answer:
        """GET_BROKER_CONSUME_STATS (317)."""
        rows = []
        total = total_in_flight = 0
        for name, group in self._groups.table.items():
            parts = []
            for topic in sorted(self._offsets.topics_of(name)):
                config = self._topics.table.get(topic)
                if config is None or (request.fields.is_order and not config.order):
                    continue
                body, behind, in_flight = self._stats_of(name, [topic])
                parts.append(body)
                total += behind
                total_in_flight += in_flight
            if parts:
                rows.append(b"{" + bodies.encode(group.name) + b":[" + b",".join(parts) + b"]}")
        body = (
            b'{"brokerAddr":%s,"consumeStatsList":[%s],"totalDiff":%d,"totalInflightDiff":%d}'
            % (
                bodies.encode(self._address),
                b",".join(rows),
                total,
                total_in_flight,
            )
        )
        return Reply(body=body)

    def time_span(self, request: Request[TopicOfGroup]) -> Answer:
        """QUERY_CONSUME_TIME_SPAN (303)."""
        fields = request.fields
        topic = self._topics.table.get(fields.topic or "")
        if topic is None:
            return Reply(codes.TOPIC_NOT_EXIST, f"topic[{fields.topic}] not exist")
        committed = self._offsets.committed.get((topic.name, fields.group), {})
        spans = [
            self._span(topic.name, queue_id, committed.get(queue_id, -1))
            for queue_id in range(topic.write_queues)
        ]
        return Reply(body=bodies.encode({"consumeTimeSpanSet": spans}))

    def _span(self, topic: str, queue_id: int, offset: int) -> dict[str, Any]:
        store = self._store
        low, high = store.min_offset(topic, queue_id), store.max_offset(topic, queue_id)
        newest = store.store_time(topic, queue_id, high - 1)
        consumed = store.store_time(topic, queue_id, offset - 1) if offset > 0 else -1
        if consumed < 0:
            consumed = store.store_time(topic, queue_id, low)
        delay = 0
        if offset < high:
            following = store.store_time(topic, queue_id, max(offset, 0))
            delay = self._stats.now_ms() - following if following > 0 else 0
        return {
            "consumeTimeStamp": consumed,
            "delayTime": delay,
            "maxTimeStamp": newest,
            "messageQueue": {
                "brokerName": self._settings.broker_name,
                "queueId": queue_id,
                "topic": topic,
            },
            "minTimeStamp": store.store_time(topic, queue_id, low),
        }

    # -- who

    def groups_of(self, request: Request[TopicName]) -> Answer:
        """QUERY_TOPIC_CONSUME_BY_WHO (300)."""
        topic = request.fields.topic
        online = {n for n, g in self._members.consumers.items() if topic in g.subscriptions}
        found = online | self._offsets.groups_of(topic)
        return Reply(body=bodies.encode({"groupList": sorted(found)}))

    def topics_of(self, request: Request[GroupName]) -> Answer:
        """QUERY_TOPICS_BY_CONSUMER (343)."""
        topics = sorted(self._offsets.topics_of(request.fields.group))
        return Reply(body=bodies.topic_list(topics, self._address))

    def subscription(self, request: Request[TopicOfGroup]) -> Answer:
        """QUERY_SUBSCRIPTION_BY_CONSUMER (345)."""
        fields = request.fields
        online = self._members.consumers.get(fields.group)
        found = online.subscriptions.get(fields.topic or "") if online else None
        body: dict[str, Any] = {"group": fields.group}
        if found is not None:
            body["subscriptionData"] = found.to_json()
        body["topic"] = fields.topic
        return Reply(body=bodies.encode(body))

    # -- offsets

    def all_offsets(self, request: Request[NoFields]) -> Answer:
        """GET_ALL_CONSUMER_OFFSET (43)."""
        return Reply(body=b"".join(self._offsets.chunks()))

    def correction(self, request: Request[CorrectionOffset]) -> Answer:
        """QUERY_CORRECTION_OFFSET (308): lowest offsets of others that a group is ahead of."""
        fields = request.fields
        left_out = {*(fields.filter_groups or "").split(","), fields.compare_group}
        lowest: dict[int, int] = {}
        for group in self._offsets.groups_of(fields.topic) - left_out:
            for queue_id, offset in self._offsets.committed[fields.topic, group].items():
                lowest[queue_id] = min(offset, lowest.get(queue_id, offset))
        compared = self._offsets.committed.get((fields.topic, fields.compare_group), {})
        result = {
            queue_id: min(offset, compared.get(queue_id, offset))
            for queue_id, offset in lowest.items()
        }
        return Reply(body=bodies.encode({"correctionOffsets": result}))

    def clone(self, request: Request[CloneGroupOffset]) -> Answer:
        """CLONE_GROUP_OFFSET (314)."""
        fields = request.fields
        if fields.topic:
            self._offsets.clone(fields.topic, fields.src_group, fields.dest_group)
        return Reply()
