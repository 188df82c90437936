"""Messages between the two protocols (``SendMessageActivity.buildMessage``, ``GrpcConverter``)."""

from __future__ import annotations

import zlib
from functools import lru_cache
from hashlib import md5
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
    template, unique_key, keys = _template(topic, record.properties)
    message = v2.Message.FromString(template)
    system = message.system_properties
    body, system.body_encoding = _body(record)
    message.body = body
    if keys:
        system.keys.extend(filter(None, keys.decode("utf-8", "replace").split(" ")))
    if unique_key:
        system.message_id = unique_key.decode("utf-8", "replace")
    elif not system.message_id:
        system.message_id = offset_message_id(record.store_host, record.physical_offset)
    system.body_digest.checksum = md5(body, usedforsecurity=False).hexdigest().upper()
    set_time(system.born_timestamp, record.born_timestamp)
    set_time(system.store_timestamp, record.store_timestamp)
    if b"TIMER_DELAY_SEC\x01" in record.properties:
        _set_delay(system, record.properties, now_ms)
    if not system.born_host:
        system.born_host = _host(record.born_host)
    system.store_host = _address(record.store_host)
    if receipt_handle is not None:
        system.receipt_handle = receipt_handle
    system.queue_id = record.queue_id
    system.queue_offset = record.queue_offset
    system.delivery_attempt = min(record.reconsume_times, INT32_MAX - 1) + 1
    return message


# What messages are made from: most have all but a few of their properties in common with others.
# Reading a message from bytes is several times faster than setting its fields.

_UNIQUE_KEY: Final = b"UNIQ_KEY\x01"
_KEYS: Final = b"KEYS\x01"
_BORN: Final = b"BORN_TIMESTAMP\x01"  # is not delivered
TEMPLATES_MAX: Final = 1024
TEMPLATE_PROPERTY_BYTES_MAX: Final = 512


def _template(topic: str, properties: bytes) -> tuple[bytes, bytes, bytes]:
    """The message as far as it is the same for others, and its unique key and its keys as far as
    they are not in there."""
    head, _, tail = properties.partition(b"\x02")
    if (
        len(tail) > TEMPLATE_PROPERTY_BYTES_MAX
        or not head.startswith(_UNIQUE_KEY)
        or _UNIQUE_KEY in tail
    ):
        return _encoded(topic, properties), b"", b""
    keys = b""
    if _BORN in tail:
        _, tail = _taken(tail, _BORN)
    if _KEYS in tail:
        keys, tail = _taken(tail, _KEYS)
    return _remembered(topic, tail), head[len(_UNIQUE_KEY) :], keys


def _taken(properties: bytes, mark: bytes) -> tuple[bytes, bytes]:
    """One property's value, and the others; nothing when it stands there several times."""
    before, _, after = properties.partition(mark)
    if mark in after or (before and before[-1] != 2):
        return b"", properties
    value, _, after = after.partition(b"\x02")
    return value, before + after


def _encoded(topic: str, stored: bytes) -> bytes:
    """What a message's properties say, as a message."""
    properties = parse_properties(stored)
    message = v2.Message()
    message.topic.name = topic
    for key, value in properties.items():
        if key not in RESERVED:
            message.user_properties[key] = value
    system = message.system_properties
    if "TAGS" in properties:
        system.tag = properties["TAGS"]
    system.keys.extend(key for key in properties.get("KEYS", "").split(" ") if key)
    system.message_id = properties.get("UNIQ_KEY", "")
    system.body_digest.type = v2.MD5
    system.message_type = message_type(properties)
    system.born_host = properties.get("__BORNHOST", "")
    at_ms = whole_number(properties.get("TIMER_DELIVER_MS", ""))
    if at_ms is not None:
        set_time(system.delivery_timestamp, at_ms)
    if "__SHARDINGKEY" in properties:
        system.message_group = properties["__SHARDINGKEY"]
    _set_rare(system, properties)
    return message.SerializeToString()


_remembered = lru_cache(maxsize=TEMPLATES_MAX)(_encoded)


@lru_cache(maxsize=TEMPLATES_MAX)
def _host(packed: bytes) -> str:
    return unpack_address(packed)[0]


@lru_cache(maxsize=TEMPLATES_MAX)
def _address(packed: bytes) -> str:
    return "{}:{}".format(*unpack_address(packed))


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


def _set_delay(system: v2.SystemProperties, properties: bytes, now_ms: int) -> None:
    text = parse_properties(properties).get("TIMER_DELAY_SEC", "")
    seconds = whole_number(text, INT32_MAX)
    if seconds is not None:
        set_time(system.delivery_timestamp, now_ms + seconds * 1000)


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
