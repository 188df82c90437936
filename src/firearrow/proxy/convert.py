"""Messages between the two protocols (``SendMessageActivity.buildMessage``, ``GrpcConverter``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from firearrow.codec.properties import NAME_END, VALUE_END
from firearrow.model import names
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.proxy.checks import milliseconds

BORN_TIMESTAMP: Final = "BORN_TIMESTAMP"
SYS_COMPRESSED: Final = 0x1
SYS_PREPARED: Final = 0x4


def properties_of(message: v2.Message, system: v2.SystemProperties, remote: str) -> dict[str, str]:
    """The properties that a message with these system properties is stored with, but for its
    unique key, and without the value of BORN_TIMESTAMP: these differ from message to message."""
    properties: dict[str, str] = {}
    user_properties = message.user_properties
    if user_properties:
        properties.update(user_properties)
    tag, keys = system.tag, system.keys
    if tag:
        properties["TAGS"] = tag
    if keys and (text := " ".join(keys)):
        properties["KEYS"] = text
    properties[BORN_TIMESTAMP] = ""
    born_host = system.born_host
    properties["__BORNHOST"] = born_host if born_host.strip() else remote
    properties["RECONSUME_TIME"] = str(system.delivery_attempt)
    properties["PGROUP"] = message.topic.name
    if system.message_type == v2.TRANSACTION:
        properties["TRAN_MSG"] = "true"
        if system.HasField("orphaned_transaction_recovery_duration"):
            seconds = system.orphaned_transaction_recovery_duration.seconds
            properties["CHECK_IMMUNITY_TIME_IN_SECONDS"] = str(seconds)
    if system.HasField("delivery_timestamp"):
        properties["TIMER_DELIVER_MS"] = str(milliseconds(system.delivery_timestamp))
    for name, value in (
        ("__SHARDINGKEY", system.message_group),
        ("TRACE_CONTEXT", system.trace_context),
        ("__LITE_TOPIC", system.lite_topic),
    ):
        if value:
            properties[name] = value
    if system.HasField("priority"):
        properties["_SYS_MSG_PRIORITY_"] = str(max(0, system.priority))
    return properties


def property_text(properties: Iterable[tuple[str, str]]) -> str:
    """As in ``format_properties``."""
    pieces = [f"{name}{NAME_END}{value}{VALUE_END}" for name, value in properties]
    return "".join(pieces)


def set_time(target: Any, time_ms: int) -> None:
    """Set a Timestamp or a Duration."""
    if time_ms > 0:
        target.seconds = time_ms // 1000
        target.nanos = time_ms % 1000 * 1_000_000
    else:
        target.seconds = target.nanos = 0


def shown_topic(topic: str) -> str:
    """Without the prefix of a retry or dead letter topic."""
    return topic.removeprefix(names.RETRY_PREFIX).removeprefix(names.DLQ_PREFIX)
