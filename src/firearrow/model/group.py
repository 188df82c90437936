"""A consumer group's configuration (``SubscriptionGroupConfig``; storage.md 6.3)."""

from __future__ import annotations

from typing import Any

import msgspec


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer group. Field names in JSON are RocketMQ's, in alphabetical order."""

    attributes: dict[str, str] = {}
    broker_id: int = msgspec.field(default=0, name="brokerId")
    consume_broadcast_enable: bool = msgspec.field(default=True, name="consumeBroadcastEnable")
    consume_enable: bool = msgspec.field(default=True, name="consumeEnable")
    consume_from_min_enable: bool = msgspec.field(default=True, name="consumeFromMinEnable")
    consume_message_orderly: bool = msgspec.field(default=False, name="consumeMessageOrderly")
    consume_timeout_minute: int = msgspec.field(default=15, name="consumeTimeoutMinute")
    name: str = msgspec.field(name="groupName")
    retry_policy: dict[str, Any] = msgspec.field(
        default_factory=lambda: {"type": "CUSTOMIZED"}, name="groupRetryPolicy"
    )
    sys_flag: int = msgspec.field(default=0, name="groupSysFlag")
    notify_consumer_ids_changed: bool = msgspec.field(
        default=True, name="notifyConsumerIdsChangedEnable"
    )
    retry_max_times: int = msgspec.field(default=16, name="retryMaxTimes")
    retry_queues: int = msgspec.field(default=1, name="retryQueueNums")
    subscription_data_set: list[dict[str, Any]] | None = msgspec.field(
        default=None, name="subscriptionDataSet"
    )
    which_broker_when_consume_slowly: int = msgspec.field(
        default=1, name="whichBrokerWhenConsumeSlowly"
    )
