"""Messages in their second life: the copy in a retry topic, and what a consumer sees of it."""

from __future__ import annotations

import struct
from typing import Final

from firearrow.codec.batch import without_inner_numbers
from firearrow.codec.properties import find_property
from firearrow.codec.record import MAGIC_V1, MAGIC_V2, Record, decode_record, split_records
from firearrow.codec.sysflags import SYS_INNER_BATCH, SYS_NEED_UNWRAP
from firearrow.features.pop.popping import Part, Popped
from firearrow.model.message import Message
from firearrow.model.names import TOPIC_CHARS_MAX

PROPERTIES_BYTES_MAX: Final = 32767  # they carry a signed two-byte length
_SIZE_MAGIC = struct.Struct(">iI")
_I2 = struct.Struct(">h")


def revived(record: Record, retry_topic: str, queue_id: int, pop_ms: int, host: bytes) -> Message:
    """The copy of a message that nobody acknowledged: one try more, everything else the same. An
    inner batch is an ordinary message there, with the body that its consumer saw before."""
    properties, sys_flag = record.properties, record.sys_flag
    if sys_flag & SYS_INNER_BATCH:
        properties = without_inner_numbers(properties)
        sys_flag &= ~(SYS_INNER_BATCH | SYS_NEED_UNWRAP)
    if properties and properties[-1:] != b"\x02":
        properties += b"\x02"
    if find_property(properties, b"1ST_POP_TIME") is None:
        first = f"1ST_POP_TIME\x01{pop_ms}\x02".encode()
        if len(properties) + len(first) <= PROPERTIES_BYTES_MAX:
            properties += first
    return Message(
        topic=retry_topic,
        queue_id=queue_id,
        body=record.body,
        properties=properties,
        born_timestamp=record.born_timestamp,
        born_host=host,
        store_host=host,
        flag=record.flag,
        sys_flag=sys_flag,
        reconsume_times=record.reconsume_times + 1,
    )


def as_original(popped: Popped, part: Part, topic: str, broker_name: str) -> bytes:
    """The records of a retry topic as consumers know them: under the topic that they subscribe to,
    each with its receipt handle."""
    return b"".join(
        _renamed(data, topic, popped.handle(part, offset, broker_name).text())
        for data, offset in zip(split_records(part.records), part.offsets, strict=True)
    )


def _renamed(data: bytes, topic: str, handle: str) -> bytes:
    record = decode_record(data)
    properties = record.properties
    if properties and properties[-1:] != b"\x02":
        properties += b"\x02"
    if find_property(properties, b"POP_CK") is None:
        properties += f"POP_CK\x01{handle}\x02".encode()
    if len(properties) > PROPERTIES_BYTES_MAX:
        return data  # the client then makes the handle, and shows the retry topic's name
    name = topic.encode()
    stored_name = len(record.topic.encode()) + (1 if record.version == 1 else 2)
    # Head and body stay as they are; size and magic change with the names' lengths.
    tail_size = stored_name + 2 + len(record.properties)
    kept = data[8 : len(data) - tail_size]
    short = len(name) <= TOPIC_CHARS_MAX
    part = bytes((len(name),)) + name if short else _I2.pack(len(name)) + name
    tail = part + _I2.pack(len(properties)) + properties
    size = 8 + len(kept) + len(tail)
    return _SIZE_MAGIC.pack(size, MAGIC_V1 if short else MAGIC_V2) + kept + tail
