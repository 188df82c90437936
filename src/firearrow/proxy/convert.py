"""Messages between the two protocols (``SendMessageActivity.buildMessage``, ``GrpcConverter``)."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, Final

from firearrow.codec.addresses import unpack_address
from firearrow.codec.message_id import offset_message_id
from firearrow.codec.numbers import INT32_MAX, whole_number
from firearrow.codec.properties import NAME_END, VALUE_END, parse_properties
from firearrow.codec.record import Record
from firearrow.model import names
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.proxy.checks import RESERVED, milliseconds

SYS_COMPRESSED: Final = 0x1
SYS_PREPARED: Final = 0x4
_COMPRESSION: Final = 0x700  # 0 (old) and 3 are zlib
_ZLIB: Final = frozenset({0, 0x300})
BODY_BYTES_MAX: Final = 128 * 1024 * 1024  # of a decompressed body
_DELAYS: Final = frozenset({"DELAY", "TIMER_DELIVER_MS", "TIMER_DELAY_SEC", "TIMER_DELAY_MS"})


def properties_of(message: v2.Message, remote: str) -> dict[str, str]:
    """The properties that a message is stored with."""
    system = message.system_properties
    # The broker finds the unique key fastest where it stands first.
    properties = {"UNIQ_KEY": system.message_id}
    if message.user_properties:
        properties.update(message.user_properties)
    tag, keys = system.tag, system.keys
    if tag:
        properties["TAGS"] = tag
    if keys and (text := " ".join(keys)):
        properties["KEYS"] = text
    properties["BORN_TIMESTAMP"] = str(milliseconds(system.born_timestamp))
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


def property_text(properties: dict[str, str]) -> str:
    """As in ``format_properties``."""
    pieces = [f"{name}{NAME_END}{value}{VALUE_END}" for name, value in properties.items()]
    return "".join(pieces)


def sys_flag_of(message: v2.Message) -> int:
    system = message.system_properties
    flag = SYS_COMPRESSED if system.body_encoding == v2.GZIP else 0
    return flag | (SYS_PREPARED if system.message_type == v2.TRANSACTION else 0)


def message_type(properties: dict[str, str]) -> v2.MessageType.ValueType:
    """``TopicMessageType.parseFromMessageProperty``."""
    if properties.get("TRAN_MSG") == "true":
        return v2.TRANSACTION
    if not _DELAYS.isdisjoint(properties):
        return v2.DELAY
    if "__SHARDINGKEY" in properties:
        return v2.FIFO
    if "_SYS_MSG_PRIORITY_" in properties:
        return v2.PRIORITY
    if "__LITE_TOPIC" in properties:
        return v2.LITE
    return v2.NORMAL


def delivered(record: Record, topic: str, receipt_handle: str | None, now_ms: int) -> v2.Message:
    """A stored message as consumers get it. Compressed bodies are delivered plain where that is
    possible: not every SDK knows every way."""
    properties = parse_properties(record.properties)
    body, encoding = _body(record)
    message = v2.Message(body=body)
    message.topic.name = topic
    for key, value in properties.items():
        if key not in RESERVED:
            message.user_properties[key] = value
    system = message.system_properties
    if "TAGS" in properties:
        system.tag = properties["TAGS"]
    system.keys.extend(key for key in properties.get("KEYS", "").split(" ") if key)
    system.message_id = properties.get("UNIQ_KEY") or offset_message_id(
        record.store_host, record.physical_offset
    )
    system.body_digest.type = v2.MD5
    system.body_digest.checksum = hashlib.md5(body, usedforsecurity=False).hexdigest().upper()
    system.body_encoding = encoding
    system.message_type = message_type(properties)
    _set_times(system, record, properties, now_ms)
    system.born_host = properties.get("__BORNHOST") or unpack_address(record.born_host)[0]
    system.store_host = "{}:{}".format(*unpack_address(record.store_host))
    if "__SHARDINGKEY" in properties:
        system.message_group = properties["__SHARDINGKEY"]
    if receipt_handle is not None:
        system.receipt_handle = receipt_handle
    system.queue_id = record.queue_id
    system.queue_offset = record.queue_offset
    system.delivery_attempt = min(record.reconsume_times, INT32_MAX - 1) + 1
    _set_rare(system, properties)
    return message


def _set_rare(system: v2.SystemProperties, properties: dict[str, str]) -> None:
    if "TRACE_CONTEXT" in properties:
        system.trace_context = properties["TRACE_CONTEXT"]
    if "DLQ_ORIGIN_TOPIC" in properties and "DLQ_ORIGIN_MESSAGE_ID" in properties:
        system.dead_letter_queue.topic = properties["DLQ_ORIGIN_TOPIC"]
        system.dead_letter_queue.message_id = properties["DLQ_ORIGIN_MESSAGE_ID"]
    if "__LITE_TOPIC" in properties:
        system.lite_topic = properties["__LITE_TOPIC"]
    priority = whole_number(properties.get("_SYS_MSG_PRIORITY_", ""), INT32_MAX)
    if priority is not None:
        system.priority = priority


def _body(record: Record) -> tuple[bytes, v2.Encoding.ValueType]:
    if not record.sys_flag & SYS_COMPRESSED:
        return record.body, v2.IDENTITY
    if record.sys_flag & _COMPRESSION in _ZLIB:
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip
        try:
            body = decoder.decompress(record.body, BODY_BYTES_MAX)
        except zlib.error:
            return record.body, v2.GZIP
        if decoder.eof:
            return body, v2.IDENTITY
    return record.body, v2.GZIP


def _set_times(
    system: v2.SystemProperties, record: Record, properties: dict[str, str], now_ms: int
) -> None:
    set_time(system.born_timestamp, record.born_timestamp)
    set_time(system.store_timestamp, record.store_timestamp)
    seconds = whole_number(properties.get("TIMER_DELAY_SEC", ""), INT32_MAX)
    at_ms = whole_number(properties.get("TIMER_DELIVER_MS", ""))
    if seconds is not None:
        set_time(system.delivery_timestamp, now_ms + seconds * 1000)
    elif at_ms is not None:
        set_time(system.delivery_timestamp, at_ms)


def set_time(target: Any, time_ms: int) -> None:
    """Set a Timestamp or a Duration."""
    target.seconds, rest = divmod(max(0, time_ms), 1000)
    target.nanos = rest * 1_000_000


def shown_topic(topic: str) -> str:
    """Without the prefix of a retry or dead letter topic."""
    return topic.removeprefix(names.RETRY_PREFIX).removeprefix(names.DLQ_PREFIX)
