"""The body of REGISTER_BROKER in all its forms (cluster.md 1.2)."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

import msgspec

from firearrow.codec import lenient_json
from firearrow.codec.hashes import body_crc
from firearrow.model.topic import DataVersion, Topic

# From this version on (3.0.11) the body has filter servers, and (5.0.0) queue mappings.
WRAPPED_SINCE: Final = 37
MAPPINGS_SINCE: Final = 413
# A registration of 100,000 topics has about 20 MB; more than this is no registration.
PLAIN_BYTES_MAX: Final = 128 * 1024 * 1024
_I4 = struct.Struct(">i")


class BodyError(ValueError):
    """The body cannot be read; the text goes to the broker."""


class Body(msgspec.Struct):
    """What was registered. ``filter_servers`` is ``None`` when nothing was said of them."""

    topics: dict[str, Topic] = {}
    version: DataVersion = DataVersion()
    filter_servers: list[str] | None = None
    mappings: dict[str, Any] = {}


def decode(data: bytes, request_version: int, crc: int) -> Body:
    """Read a body.

    Raises:
        BodyError: wrong CRC, or unreadable.
    """
    if crc and body_crc(data) != crc:
        raise BodyError("crc32 not match")
    if not data:
        return Body()
    try:
        # Java 5 says "compressed=false" even when it compresses, so the first byte decides.
        if data[:1] == b"\x78":
            return _compressed(data, request_version)
        return _json(lenient_json.loads(data), request_version)
    except (ValueError, KeyError, struct.error, zlib.error) as error:
        raise BodyError(f"unreadable registration: {error}") from None


class _Wrapper(msgspec.Struct, rename="camel"):
    """``TopicConfigAndMappingSerializeWrapper``, as far as it is used."""

    topic_config_table: dict[str, dict[str, Any]] | None = None
    data_version: DataVersion | None = None
    topic_queue_mapping_info_map: dict[str, dict[str, Any]] | None = None


class _Wrapped(msgspec.Struct, rename="camel"):
    """``RegisterBrokerBody``."""

    topic_config_serialize_wrapper: _Wrapper
    filter_server_list: list[str] | None = None


def _json(body: Any, request_version: int) -> Body:
    filter_servers = None
    if request_version >= WRAPPED_SINCE:
        wrapped = msgspec.convert(body, _Wrapped)
        wrapper, filter_servers = wrapped.topic_config_serialize_wrapper, wrapped.filter_server_list
    else:
        wrapper = msgspec.convert(body, _Wrapper)
    topics = {}
    for name, config in (wrapper.topic_config_table or {}).items():
        topics[name] = msgspec.convert({"topicName": name, **config}, Topic)
    return Body(
        topics,
        wrapper.data_version or DataVersion(),
        filter_servers,
        wrapper.topic_queue_mapping_info_map or {},
    )


def _compressed(data: bytes, request_version: int) -> Body:
    inflater = zlib.decompressobj()
    plain = inflater.decompress(data, PLAIN_BYTES_MAX)
    if inflater.unconsumed_tail:
        raise BodyError(f"a registration of more than {PLAIN_BYTES_MAX} bytes")
    reader = _Reader(plain)
    body = Body(version=msgspec.convert(lenient_json.loads(reader.block()), DataVersion))
    for _ in range(reader.count()):
        topic = _topic_line(reader.block().decode())
        body.topics[topic.name] = topic
    body.filter_servers = msgspec.convert(lenient_json.loads(reader.block()), list[str] | None)
    if request_version >= MAPPINGS_SINCE:
        for _ in range(reader.count()):
            info = msgspec.convert(lenient_json.loads(reader.block()), dict[str, Any])
            body.mappings[str(info["topic"])] = info
    return body


def _topic_line(line: str) -> Topic:
    name, read, write, perm, kind, *rest = line.split(" ", 5)
    attributes = lenient_json.loads(rest[0].encode()) if rest and rest[0] else None
    return Topic(
        name=name,
        read_queues=int(read),
        write_queues=int(write),
        perm=int(perm),
        filter_type=kind,
        attributes=msgspec.convert(attributes, dict[str, str] | None) or {},
    )


class _Reader:
    """Length-prefixed blocks, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def count(self) -> int:
        (value,) = _I4.unpack_from(self._data, self._position)
        self._position += 4
        if value < 0:
            raise BodyError(f"a count of {value}")
        return int(value)

    def block(self) -> bytes:
        size = self.count()
        start, self._position = self._position, self._position + size
        if self._position > len(self._data):
            raise BodyError("the registration is cut off")
        return self._data[start : self._position]
