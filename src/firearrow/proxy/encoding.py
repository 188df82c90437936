"""Stored messages as consumers get them (``GrpcConverter``), encoded.

Most messages have all but a few of their properties in common with others: what those few do not
change is encoded once, and kept.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from hashlib import md5
from typing import Final, NamedTuple

from firearrow.codec.addresses import unpack_address
from firearrow.codec.message_id import offset_message_id
from firearrow.codec.numbers import INT32_MAX, whole_number
from firearrow.codec.properties import parse_properties
from firearrow.codec.record import Record
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.protobuf import BYTES, NUMBER, key, part, varint
from firearrow.proxy.checks import RESERVED
from firearrow.proxy.convert import SYS_COMPRESSED, set_time

BODY_BYTES_MAX: Final = 128 * 1024 * 1024  # of a decompressed body
TEMPLATES_MAX: Final = 1024
TEMPLATE_PROPERTY_BYTES_MAX: Final = 512
_COMPRESSION: Final = 0x700  # 0 (old) and 3 are zlib
_ZLIB: Final = frozenset({0, 0x300})
_DELAYS: Final = frozenset({"DELAY", "TIMER_DELIVER_MS", "TIMER_DELAY_SEC", "TIMER_DELAY_MS"})

_UNIQUE_KEY: Final = b"UNIQ_KEY\x01"
_KEYS: Final = b"KEYS\x01"
_BORN: Final = b"BORN_TIMESTAMP\x01"  # is not delivered
_DELAY_SEC: Final = b"TIMER_DELAY_SEC\x01"

_Message, _System = v2.Message, v2.SystemProperties
_SYSTEM: Final = key(_Message.SYSTEM_PROPERTIES_FIELD_NUMBER, BYTES)
_BODY: Final = key(_Message.BODY_FIELD_NUMBER, BYTES)
_MESSAGE_ID: Final = key(_System.MESSAGE_ID_FIELD_NUMBER, BYTES)
_BORN_TIMESTAMP: Final = key(_System.BORN_TIMESTAMP_FIELD_NUMBER, BYTES)
_STORE_TIMESTAMP: Final = key(_System.STORE_TIMESTAMP_FIELD_NUMBER, BYTES)
_HANDLE: Final = key(_System.RECEIPT_HANDLE_FIELD_NUMBER, BYTES)
_QUEUE_ID: Final = key(_System.QUEUE_ID_FIELD_NUMBER, NUMBER)
_QUEUE_OFFSET: Final = key(_System.QUEUE_OFFSET_FIELD_NUMBER, NUMBER)
_ATTEMPT: Final = key(_System.DELIVERY_ATTEMPT_FIELD_NUMBER, NUMBER)
_ENCODINGS: Final = {
    encoding: key(_System.BODY_ENCODING_FIELD_NUMBER, NUMBER) + varint(encoding)
    for encoding in (v2.IDENTITY, v2.GZIP)
}
# The digest's own text follows: 32 hexadecimal digits.
_DIGEST: Final = part(
    _System.BODY_DIGEST_FIELD_NUMBER,
    v2.Digest(type=v2.MD5, checksum="0" * 32).SerializeToString(),
).removesuffix(b"0" * 32)


class Delivered(NamedTuple):
    """A message as a consumer gets it."""

    message_id: str
    data: bytes  # a v2.Message


def delivered(record: Record, topic: str, receipt_handle: str | None, now_ms: int) -> Delivered:
    """A stored message as consumers get it. Compressed bodies are delivered plain where that is
    possible: not every SDK knows every way."""
    template, unique_key, keys = _template(topic, record)
    body, encoding = record.body, v2.IDENTITY
    if record.sys_flag & SYS_COMPRESSED:
        body, encoding = _plain(record)
    message_id = unique_key.decode("utf-8", "replace") or template.message_id
    if not message_id:
        message_id = offset_message_id(record.store_host, record.physical_offset)
    identity = message_id.encode()
    rare = b""
    handle: tuple[bytes, ...] = ()
    if keys or _DELAY_SEC in record.properties:
        rare = _rare(record.properties, keys, now_ms)
    if receipt_handle is not None:
        text = receipt_handle.encode()
        handle = (_HANDLE, varint(len(text)), text)
    digest = md5(body, usedforsecurity=False).hexdigest().upper().encode()
    system = b"".join(
        (
            template.system,
            _MESSAGE_ID,
            varint(len(identity)),
            identity,
            _DIGEST,
            digest,
            _ENCODINGS[encoding],
            _BORN_TIMESTAMP,
            _time(record.born_timestamp),
            _STORE_TIMESTAMP,
            _time(record.store_timestamp),
            *handle,
            _QUEUE_ID,
            varint(record.queue_id),
            _QUEUE_OFFSET,
            varint(record.queue_offset),
            _ATTEMPT,
            varint(min(record.reconsume_times, INT32_MAX - 1) + 1),
            rare,
        )
    )
    size = varint(len(system))
    message = (template.message, _SYSTEM, size, system, _BODY, varint(len(body)), body)
    return Delivered(message_id, b"".join(message))


def _rare(properties: bytes, keys: bytes, now_ms: int) -> bytes:
    system = v2.SystemProperties(keys=_split_keys(keys.decode("utf-8", "replace")))
    if _DELAY_SEC in properties:
        text = parse_properties(properties).get("TIMER_DELAY_SEC", "")
        seconds = whole_number(text, INT32_MAX)
        if seconds is not None:
            set_time(system.delivery_timestamp, now_ms + seconds * 1000)
    return system.SerializeToString()


@lru_cache(maxsize=TEMPLATES_MAX)
def _time(time_ms: int) -> bytes:
    """A Timestamp behind its size."""
    timestamp = v2.SystemProperties().born_timestamp
    set_time(timestamp, time_ms)
    data = timestamp.SerializeToString()
    return varint(len(data)) + data


# -- what messages have in common


class _Template(NamedTuple):
    """What properties and hosts say, as two encoded parts: of the message, and of its system
    properties."""

    message: bytes
    system: bytes
    message_id: str


def _template(topic: str, record: Record) -> tuple[_Template, bytes, bytes]:
    """The template of a record, and its unique key and its keys as far as those are not in there,
    because they differ from message to message."""
    properties, hosts = record.properties, (record.born_host, record.store_host)
    head, _, tail = properties.partition(b"\x02")
    unique_key = head[len(_UNIQUE_KEY) :]
    found = _latest.get((topic, tail, hosts))
    if found is not None and head.startswith(_UNIQUE_KEY):
        return found, unique_key, b""
    if (
        len(tail) > TEMPLATE_PROPERTY_BYTES_MAX
        or not head.startswith(_UNIQUE_KEY)
        or _UNIQUE_KEY in tail
    ):
        return _made(topic, properties, hosts), b"", b""
    keys, rest = b"", tail
    if _BORN in rest:
        _, rest = _taken(rest, _BORN)
    if _KEYS in rest:
        keys, rest = _taken(rest, _KEYS)
    template = _remembered(topic, rest, hosts)
    if not keys:
        if len(_latest) >= TEMPLATES_MAX:
            _latest.clear()
        _latest[topic, tail, hosts] = template
    return template, unique_key, keys


def _taken(properties: bytes, mark: bytes) -> tuple[bytes, bytes]:
    """One property's value, and the others; nothing when it stands there several times."""
    before, _, after = properties.partition(mark)
    if mark in after or (before and before[-1] != 2):
        return b"", properties
    value, _, after = after.partition(b"\x02")
    return value, before + after


def _made(topic: str, stored: bytes, hosts: tuple[bytes, bytes]) -> _Template:
    properties = parse_properties(stored)
    born_host, store_host = map(unpack_address, hosts)
    message = v2.Message(
        topic=v2.Resource(name=topic),
        user_properties={k: v for k, v in properties.items() if k not in RESERVED},
    )
    system = v2.SystemProperties(
        keys=_split_keys(properties.get("KEYS", "")),
        message_type=_message_type(properties),
        born_host=properties.get("__BORNHOST") or born_host[0],
        store_host="{}:{}".format(*store_host),
    )
    if "TAGS" in properties:
        system.tag = properties["TAGS"]
    at_ms = whole_number(properties.get("TIMER_DELIVER_MS", ""))
    if at_ms is not None:
        set_time(system.delivery_timestamp, at_ms)
    if "__SHARDINGKEY" in properties:
        system.message_group = properties["__SHARDINGKEY"]
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
    return _Template(
        message.SerializeToString(),
        system.SerializeToString(),
        properties.get("UNIQ_KEY", ""),
    )


_remembered = lru_cache(maxsize=TEMPLATES_MAX)(_made)
# Those of messages that were born in the same millisecond, too, of which there are many or few.
_latest: dict[tuple[str, bytes, tuple[bytes, bytes]], _Template] = {}


def _split_keys(text: str) -> list[str]:
    return [each for each in text.split(" ") if each]


def _message_type(properties: dict[str, str]) -> v2.MessageType.ValueType:
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


def _plain(record: Record) -> tuple[bytes, v2.Encoding.ValueType]:
    if record.sys_flag & _COMPRESSION in _ZLIB:
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip
        try:
            body = decoder.decompress(record.body, BODY_BYTES_MAX)
        except zlib.error:
            return record.body, v2.GZIP
        if decoder.eof:
            return body, v2.IDENTITY
    return record.body, v2.GZIP
