"""The body of HEART_BEAT as clients of every language write it (remoting.md 3.5)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from firearrow.broker.subscription import ExpressionError, Subscription, parse
from firearrow.codec import lenient_json

# Enum ordinals, which C++ sends instead of names.
CONSUME_TYPES: Final = ("CONSUME_ACTIVELY", "CONSUME_PASSIVELY", "CONSUME_POP")
MESSAGE_MODELS: Final = ("BROADCASTING", "CLUSTERING")
CONSUME_FROM: Final = (
    "CONSUME_FROM_LAST_OFFSET",
    "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
    "CONSUME_FROM_MIN_OFFSET",
    "CONSUME_FROM_MAX_OFFSET",
    "CONSUME_FROM_FIRST_OFFSET",
    "CONSUME_FROM_TIMESTAMP",
)


class ConsumerData(msgspec.Struct):
    """One consumer group of a client."""

    group: str
    consume_type: str
    message_model: str
    consume_from: str
    subscriptions: list[Subscription]
    unit_mode: bool


class Heartbeat(msgspec.Struct):
    """Everything one client instance runs."""

    client_id: str
    producers: list[str]
    consumers: list[ConsumerData]
    fingerprint: int
    without_subscription: bool


class HeartbeatError(ValueError):
    """The body is no heartbeat; the text says what is wrong with it."""


def decode(body: bytes) -> Heartbeat:
    """Read a heartbeat.

    Raises:
        HeartbeatError: not JSON, or without a client id.
    """
    try:
        data = lenient_json.loads(body)
    except ValueError as error:
        raise HeartbeatError(f"unreadable heartbeat: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("clientID"), str):
        raise HeartbeatError("the heartbeat names no clientID")
    return Heartbeat(
        data["clientID"],
        [item["groupName"] for item in _objects(data, "producerDataSet") if _named(item)],
        [_consumer(item) for item in _objects(data, "consumerDataSet") if _named(item)],
        _integer(data.get("heartbeatFingerprint")),
        data.get("withoutSub") is True,
    )


def _objects(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = data.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _named(item: dict[str, Any]) -> bool:
    return isinstance(item.get("groupName"), str)


def _consumer(item: dict[str, Any]) -> ConsumerData:
    return ConsumerData(
        item["groupName"],
        _enum(item.get("consumeType"), CONSUME_TYPES, "CONSUME_PASSIVELY"),
        _enum(item.get("messageModel"), MESSAGE_MODELS, "CLUSTERING"),
        _enum(item.get("consumeFromWhere"), CONSUME_FROM, "CONSUME_FROM_LAST_OFFSET"),
        [s for s in map(subscription, _objects(item, "subscriptionDataSet")) if s is not None],
        item.get("unitMode") is True,
    )


def subscription(item: dict[str, Any]) -> Subscription | None:
    """One ``SubscriptionData``; the tag codes are computed here rather than believed."""
    topic = item.get("topic")
    if not isinstance(topic, str):
        return None
    expression = item.get("subString")
    kind = item.get("expressionType")
    try:
        return parse(
            topic,
            expression if isinstance(expression, str) else None,
            _integer(item.get("subVersion")),
            kind if isinstance(kind, str) else None,
        )
    except ExpressionError:
        return None


def _enum(value: object, ordinals: tuple[str, ...], default: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and 0 <= value < len(ordinals):
        return ordinals[value]
    return default


def _integer(value: object) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(value) if isinstance(value, str) else 0
    except ValueError:
        return 0
