"""What operators ask about lite topics (``LiteManagerProcessor``; mqadmin's lite commands)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from firearrow.broker.groups import Groups
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.topics import Topics
from firearrow.features.lite import rules
from firearrow.features.lite.events import Events
from firearrow.features.lite.lifetime import Lifetime
from firearrow.features.lite.placing import Placing
from firearrow.features.lite.popping import Orders
from firearrow.features.lite.registry import Registry, Subscriber
from firearrow.model import codes, names
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, NoFields, Reply, Request
from firearrow.protocol.remoting.lite_requests import (
    LiteClient,
    LiteDispatch,
    LiteGroup,
    LiteTopic,
    ParentTopic,
)
from firearrow.protocol.remoting.session import answer
from firearrow.store.api import Store

QUEUES_SHOWN_MAX: Final = 10_000
ANY_CLIENT: Final = "*"


LAGS_PER_STEP: Final = 200  # whose age is looked up in one go: a millisecond or two


class AdminSettings(Protocol):
    lite_lag_latency_collect_enable: bool
    lite_lag_latency_top_k: int
    max_lmq_consume_queue_num: int


class Lag(NamedTuple):
    """What a group did not consume of a lite topic: so many messages from ``offset`` on."""

    messages: int
    queue: str
    offset: int


class LiteAdmin:
    """Handlers."""

    def __init__(
        self,
        settings: AdminSettings,
        store: Store,
        topics: Topics,
        groups: Groups,
        offsets: ConsumerOffsets,
        registry: Registry,
        events: Events,
        orders: Orders,
        lifetime: Lifetime,
        placing: Placing,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics
        self._groups = groups
        self._offsets = offsets
        self._registry = registry
        self._events = events
        self._orders = orders
        self._lifetime = lifetime
        self._placing = placing
        self._clock = clock

    def broker(self, request: Request[NoFields]) -> Answer:
        """GET_BROKER_LITE_INFO (200074)."""
        parents = [t for t in self._topics.attributed.values() if rules.is_parent(t)]
        body = {
            "cqTableSize": len({topic for topic, _ in self._store.queues()}),
            "currentLmqNum": self._lifetime.light_queues,
            "eventMapSize": len(self._events.clients),
            "groupMeta": self._groups_by_parent(),
            "liteSubscriptionCount": self._registry.count,
            "maxLmqNum": self._settings.max_lmq_consume_queue_num,
            "offsetTableSize": len(self._offsets.committed),
            "orderInfoCount": len(self._orders.table),
            "storeType": "default",
            "topicMeta": {topic.name: rules.expiration_minutes(topic) for topic in parents},
        }
        return Reply(body=bodies.encode(body))

    def _groups_by_parent(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for group in self._groups.table.values():
            parent = rules.parent_of(group)
            if parent is not None:
                found.setdefault(parent, []).append(group.name)
        return found

    def parent(self, request: Request[ParentTopic]) -> Answer:
        """GET_PARENT_TOPIC_INFO (200075)."""
        name = request.fields.topic
        refusal = self._check_parent(name)
        if refusal is not None:
            return refusal
        body: dict[str, Any] = {
            "liteTopicCount": self._lifetime.by_parent.get(name, 0),
            "lmqNum": self._lifetime.light_queues,
            "topic": name,
            "ttl": rules.expiration_minutes(self._topics.table[name]),
        }
        groups = self._groups_by_parent().get(name)
        if groups is not None:
            body["groups"] = groups
        return Reply(body=bodies.encode(body))

    def _check_parent(self, name: str) -> Reply | None:
        topic = self._topics.table.get(name)
        if topic is None:
            return Reply(codes.TOPIC_NOT_EXIST, f"Topic [{name}] not exist.")
        if not rules.is_parent(topic):
            return Reply(codes.INVALID_PARAMETER, f"Topic [{name}] type not match.")
        return None

    def lite_topic(self, request: Request[LiteTopic]) -> Answer:
        """GET_LITE_TOPIC_INFO (200076)."""
        parent, lite_topic = request.fields.parent_topic, request.fields.lite_topic
        refusal = self._check_parent(parent)
        if refusal is not None:
            return refusal
        queue = names.lite_queue(parent, lite_topic)
        high = self._store.max_offset(queue, 0)
        updated = self._store.store_time(queue, 0, high - 1) if high else 0

        def placed(own: Callable[[str], bool]) -> None:
            body = {
                "liteTopic": lite_topic,
                "parentTopic": parent,
                "shardingToBroker": own(lite_topic),
                "subscriber": list(self._shown_subscribers(queue)),
                "topicOffset": {
                    "lastUpdateTimestamp": updated,
                    "maxOffset": high,
                    "minOffset": self._store.min_offset(queue, 0),
                },
            }
            answer(request, Reply(body=bodies.encode(body)))

        self._placing.of_parent(parent, placed)
        return None

    def _shown_subscribers(self, queue: str) -> Iterator[dict[str, str]]:
        for group, subscribers in self._registry.subscribers(queue).items():
            if rules.is_wildcard(self._groups.table.get(group)):
                yield {"clientId": ANY_CLIENT, "group": group}
            else:
                yield from ({"clientId": s.client_id, "group": group} for s in subscribers)

    def client(self, request: Request[LiteClient]) -> Answer:
        """GET_LITE_CLIENT_INFO (200077)."""
        fields = request.fields
        refusal = self._check_parent(fields.parent_topic)
        if refusal is not None:
            return refusal
        group = self._groups.table.get(fields.group)
        if group is None:
            return _no_group(fields.group)
        if rules.parent_of(group) != fields.parent_topic:
            return Reply(
                codes.INVALID_PARAMETER,
                f"Subscription [{fields.group}]-[{fields.parent_topic}] not match.",
            )
        events = self._events.clients.get(fields.client_id)
        subscriber = self._registry.clients.get(fields.client_id)
        body: dict[str, Any] = {
            "clientId": fields.client_id,
            "group": fields.group,
            "lastAccessTime": -1 if events is None else events.accessed_ms,
            "lastConsumeTime": 0,
            "liteTopicCount": -1 if subscriber is None else len(subscriber.queues),
            "parentTopic": fields.parent_topic,
        }
        if subscriber is not None:
            body["liteTopicSet"] = _shown(subscriber, fields.max_count)
        return Reply(body=bodies.encode(body))

    # -- a group

    def group(self, request: Request[LiteGroup]) -> Answer:
        """GET_LITE_GROUP_INFO (200078)."""
        fields = request.fields
        group = self._check_group(fields.group)
        if isinstance(group, Reply):
            return group
        parent = rules.parent_of(group) or ""
        body: dict[str, Any] = {"group": fields.group, "parentTopic": parent}
        if fields.lite_topic:
            body["liteTopic"] = fields.lite_topic
            body |= self._lag(names.lite_queue(parent, fields.lite_topic), fields.group)
            return Reply(body=bodies.encode(body))
        count = max(0, fields.top_k)
        lags = list(self._lags(fields.group))
        body |= self._largest_lags(lags, count)
        if not self._settings.lite_lag_latency_collect_enable:
            return Reply(body=bodies.encode(body))

        def aged(ages: list[tuple[int, Lag]]) -> None:
            kept = min(count, self._settings.lite_lag_latency_top_k)
            answer(request, Reply(body=bodies.encode(body | _oldest_lags(ages, kept))))

        self._look_up_ages(iter(lags), [], aged)
        return None

    def _check_group(self, name: str) -> Group | Reply:
        group = self._groups.table.get(name)
        if group is None:
            return _no_group(name)
        if not rules.parent_of(group):
            return Reply(codes.INVALID_PARAMETER, f"Group [{name}] is not a LITE group.")
        return group

    def _lag(self, queue: str, group: str) -> dict[str, Any]:
        high = self._store.max_offset(queue, 0)
        if not high:
            return {"earliestUnconsumedTimestamp": -1, "totalLagCount": -1}
        committed = self._offsets.find(queue, group, 0)
        if committed is None:
            return {"earliestUnconsumedTimestamp": -1, "totalLagCount": 0}
        consumed = self._store.store_time(queue, 0, committed - 1) if committed else 0
        return {
            "earliestUnconsumedTimestamp": self._store.store_time(queue, 0, committed),
            "liteTopicOffsetWrapper": {
                "brokerOffset": high,
                "consumerOffset": committed,
                "lastTimestamp": consumed,
                "pullOffset": 0,
            },
            "totalLagCount": high - committed,
        }

    def _largest_lags(self, lags: list[Lag], count: int) -> dict[str, Any]:
        return {
            "earliestUnconsumedTimestamp": -1,
            "lagCountTopK": [
                _shown_lag(self._store.store_time(lag.queue, 0, lag.offset), lag)
                for lag in heapq.nlargest(count, lags, key=lambda lag: lag.messages)
            ],
            "lagTimestampTopK": [],
            "totalLagCount": sum(lag.messages for lag in lags),
        }

    def _lags(self, group: str) -> Iterator[Lag]:
        for (queue, owner), offsets in self._offsets.committed.items():
            if owner != group or not queue.startswith(names.LITE_PREFIX):
                continue
            offset = offsets.get(0, 0)
            messages = self._store.max_offset(queue, 0) - offset
            if messages > 0:
                yield Lag(messages, queue, offset)

    def _look_up_ages(
        self,
        lags: Iterator[Lag],
        ages: list[tuple[int, Lag]],
        done: Callable[[list[tuple[int, Lag]]], None],
    ) -> None:
        """Since when each lag is there: of some, and of the rest when others had their turn."""
        before = len(ages)
        for lag in islice(lags, LAGS_PER_STEP):
            since_ms = self._store.store_time(lag.queue, 0, lag.offset)
            ages.append((since_ms, lag))
        if len(ages) - before == LAGS_PER_STEP:
            self._clock.call_soon(self._look_up_ages, lags, ages, done)
        else:
            done([(since_ms, lag) for since_ms, lag in ages if since_ms > 0])

    def dispatch(self, request: Request[LiteDispatch]) -> Answer:
        """TRIGGER_LITE_DISPATCH (200079): look through a group, or one client of it, now."""
        fields = request.fields
        group = self._check_group(fields.group)
        if isinstance(group, Reply):
            return group
        if fields.client_id:
            self._events.look_through(fields.client_id)
        else:
            self._events.look_through_group(fields.group)
        return Reply()


def _no_group(name: str) -> Reply:
    return Reply(codes.SUBSCRIPTION_GROUP_NOT_EXIST, f"Group [{name}] not exist.")


def _oldest_lags(ages: list[tuple[int, Lag]], count: int) -> dict[str, Any]:
    oldest = heapq.nsmallest(count, ages)
    return {
        "earliestUnconsumedTimestamp": oldest[0][0] if oldest else -1,
        "lagTimestampTopK": [_shown_lag(since_ms, lag) for since_ms, lag in oldest],
    }


def _shown_lag(since_ms: int, lag: Lag) -> dict[str, Any]:
    return {
        "earliestUnconsumedTimestamp": since_ms,
        "lagCount": lag.messages,
        "liteTopic": (names.lite_parts(lag.queue) or ("", ""))[1],
    }


def _shown(subscriber: Subscriber, count: int) -> list[str]:
    return list(islice(subscriber.queues, max(0, min(count, QUEUES_SHOWN_MAX))))
