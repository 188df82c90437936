"""A stored message as bytes: the same on disk and in answers to clients (storage.md 2.2).

4   total size                        8|20 store host (sysFlag 0x20)
4   magic: V1, or V2 with a           4   reconsume times
    2-byte topic length               8   prepared transaction offset
4   body CRC                          4+n body
4   queue id                          1|2+n topic
4   flag                              2+n properties
8   queue offset
8   physical offset
4   system flag
8   born timestamp
8|20 born host (sysFlag 0x10)
8   store timestamp
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from firearrow.codec.hashes import body_crc
from firearrow.codec.sysflags import SYS_BORN_HOST_V6, SYS_STORE_HOST_V6

MAGIC_V1: Final = 0xDAA320A7
MAGIC_V2: Final = 0xDAA320AB
MAGIC_END_OF_FILE: Final = 0xCBD43194

QUEUE_OFFSET_AT: Final = 20
PHYSICAL_OFFSET_AT: Final = 28
SYS_FLAG_AT: Final = 36
RECORD_BYTES_MIN: Final = 91  # V1, IPv4, everything variable empty
TOPIC_BYTES_V1_MAX: Final = 127

_HEAD = struct.Struct(">iIiiiqqiq")  # total size .. born timestamp: 48 bytes
_MIDDLE = struct.Struct(">iq")  # reconsume times, prepared transaction offset
# All that stands before the body, by the bits that say how long the addresses are.
_HEADS: Final = {
    bits: struct.Struct(
        f">iIiiiqqiq{20 if bits & SYS_BORN_HOST_V6 else 8}s"
        f"q{20 if bits & SYS_STORE_HOST_V6 else 8}siqi"
    )
    for bits in (0, SYS_BORN_HOST_V6, SYS_STORE_HOST_V6, SYS_BORN_HOST_V6 | SYS_STORE_HOST_V6)
}
_HEAD_BYTES: Final = 72  # without the addresses
_ADDRESS_BITS: Final = SYS_BORN_HOST_V6 | SYS_STORE_HOST_V6
_ADDRESS_BITS_AT: Final = SYS_FLAG_AT + 3
_MAGICS: Final = frozenset({MAGIC_V1, MAGIC_V2})
_I8 = struct.Struct(">q")
_I4 = struct.Struct(">i")
_MAGIC_V1_BYTES: Final = MAGIC_V1.to_bytes(4)
_I2 = struct.Struct(">h")


class Record(msgspec.Struct, gc=False, kw_only=True):
    """A decoded record."""

    size: int
    version: int  # 1 or 2
    body_crc: int
    queue_id: int
    flag: int
    queue_offset: int
    physical_offset: int
    sys_flag: int
    born_timestamp: int
    born_host: bytes
    store_timestamp: int
    store_host: bytes
    reconsume_times: int
    prepared_offset: int
    body: bytes
    topic: str
    properties: bytes


class RecordError(ValueError):
    """The bytes are no record; the text says why."""


def decode_record(data: bytes, *, check_crc: bool = False) -> Record:
    """Read one whole record.

    Raises:
        RecordError: truncated, wrong magic, lengths that do not add up, or a wrong CRC.
    """
    try:
        return _decode(data, check_crc)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise RecordError(f"unreadable record: {error}") from None


def _decode(data: bytes, check_crc: bool) -> Record:
    (
        size,
        magic,
        crc,
        queue_id,
        flag,
        queue_offset,
        physical,
        sys_flag,
        born,
        born_host,
        stored,
        store_host,
        reconsume,
        prepared,
        body_size,
    ) = _HEADS[data[_ADDRESS_BITS_AT] & _ADDRESS_BITS].unpack_from(data)
    if magic not in _MAGICS:
        raise RecordError(f"no record: magic {magic:#010x}")
    if size != len(data):
        raise RecordError(f"a record of {size} bytes in {len(data)}")
    body_at = _HEAD_BYTES + len(born_host) + len(store_host)
    topic_at = body_at + body_size
    if body_size < 0 or topic_at >= size:
        raise RecordError(f"a body of {body_size} bytes in a record of {size}")
    if magic == MAGIC_V1:
        topic_size = data[topic_at]
        topic_at += 1
    else:
        (topic_size,) = _I2.unpack_from(data, topic_at)
        topic_at += 2
    properties_at = topic_at + topic_size + 2
    if topic_size < 0 or properties_at > size:
        raise RecordError(f"a topic of {topic_size} bytes in a record of {size}")
    (properties_size,) = _I2.unpack_from(data, properties_at - 2)
    if properties_at + properties_size != size:
        raise RecordError(f"the fields of a record of {size} bytes do not add up")
    body = data[body_at : body_at + body_size]
    if check_crc and body_size and body_crc(body) != crc:
        raise RecordError("the body does not match its CRC")
    return Record(
        size=size,
        version=1 if magic == MAGIC_V1 else 2,
        body_crc=crc,
        queue_id=queue_id,
        flag=flag,
        queue_offset=queue_offset,
        physical_offset=physical,
        sys_flag=sys_flag,
        born_timestamp=born,
        born_host=born_host,
        store_timestamp=stored,
        store_host=store_host,
        reconsume_times=reconsume,
        prepared_offset=prepared,
        body=body,
        topic=data[topic_at : properties_at - 2].decode(),
        properties=data[properties_at:],
    )


def encode_record(record: Record) -> bytes:
    """The record as bytes, its lengths and its address bits as its fields have them; ``size`` and
    ``version`` are not looked at."""
    topic = record.topic.encode()
    short = len(topic) <= TOPIC_BYTES_V1_MAX
    sys_flag = record.sys_flag & ~(SYS_BORN_HOST_V6 | SYS_STORE_HOST_V6)
    sys_flag |= SYS_BORN_HOST_V6 if len(record.born_host) == 20 else 0
    sys_flag |= SYS_STORE_HOST_V6 if len(record.store_host) == 20 else 0
    tail = b"".join(
        (
            record.born_host,
            _I8.pack(record.store_timestamp),
            record.store_host,
            _MIDDLE.pack(record.reconsume_times, record.prepared_offset),
            _I4.pack(len(record.body)),
            record.body,
            len(topic).to_bytes(1 if short else 2),
            topic,
            _I2.pack(len(record.properties)),
            record.properties,
        )
    )
    head = _HEAD.pack(
        _HEAD.size + len(tail),
        MAGIC_V1 if short else MAGIC_V2,
        record.body_crc,
        record.queue_id,
        record.flag,
        record.queue_offset,
        record.physical_offset,
        sys_flag,
        record.born_timestamp,
    )
    return head + tail


def record_store_time(data: bytes) -> int:
    """The store timestamp (ms) of a whole record, without reading the rest."""
    (sys_flag,) = _I4.unpack_from(data, SYS_FLAG_AT)
    stored: int = _I8.unpack_from(data, 68 if sys_flag & SYS_BORN_HOST_V6 else 56)[0]
    return stored


def record_queue_offset(data: bytes) -> int:
    """The queue offset of a whole record, without reading the rest."""
    offset: int = _I8.unpack_from(data, QUEUE_OFFSET_AT)[0]
    return offset


def record_has_body(data: bytes) -> bool:
    """Whether a record's body has a byte, without reading the rest."""
    at = _body_size_at(data)
    return data[at : at + 4] != b"\0\0\0\0"


def _body_size_at(data: bytes) -> int:
    (sys_flag,) = _I4.unpack_from(data, SYS_FLAG_AT)
    at = 84 + (12 if sys_flag & SYS_BORN_HOST_V6 else 0)
    return at + (12 if sys_flag & SYS_STORE_HOST_V6 else 0)


def record_properties(data: bytes) -> bytes:
    """The properties of a whole record that is known to be one, without reading the rest."""
    at = _body_size_at(data)
    at += 4 + int.from_bytes(data[at : at + 4])
    if data[4:8] == _MAGIC_V1_BYTES:
        at += 1 + data[at]
    else:
        at += 2 + int.from_bytes(data[at : at + 2])
    return data[at + 2 :]


def split_records(data: bytes) -> list[bytes]:
    """Records back to back, as a pull answers them.

    Raises:
        RecordError: a size that does not fit.
    """
    records = []
    position = 0
    while position < len(data):
        try:
            (size,) = _I4.unpack_from(data, position)
        except struct.error:
            raise RecordError("records end in the middle of one") from None
        if size < RECORD_BYTES_MIN or position + size > len(data):
            raise RecordError(f"a record of {size} bytes at byte {position} of {len(data)}")
        records.append(data[position : position + size])
        position += size
    return records
