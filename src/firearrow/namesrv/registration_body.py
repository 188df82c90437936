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
    except (ValueError, KeyError, AttributeError, struct.error, zlib.error) as error:
        raise BodyError(f"unreadable registration: {error}") from None


def _json(body: Any, request_version: int) -> Body:
    wrapper = body["topicConfigSerializeWrapper"] if request_version >= WRAPPED_SINCE else body
    topics = {}
    for name, config in (wrapper.get("topicConfigTable") or {}).items():
        topics[name] = msgspec.convert({"topicName": name, **config}, Topic)
    return Body(
        topics,
        msgspec.convert(wrapper.get("dataVersion") or {}, DataVersion),
        body.get("filterServerList") if request_version >= WRAPPED_SINCE else None,
        wrapper.get("topicQueueMappingInfoMap") or {},
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
    body.filter_servers = lenient_json.loads(reader.block())
    if request_version >= MAPPINGS_SINCE:
        for _ in range(reader.count()):
            info = lenient_json.loads(reader.block())
            body.mappings[info["topic"]] = info
    return body


def _topic_line(line: str) -> Topic:
    name, read, write, perm, kind, *rest = line.split(" ", 5)
    attributes = lenient_json.loads(rest[0].encode()) if rest and rest[0] else {}
    return Topic(
        name=name,
        read_queues=int(read),
        write_queues=int(write),
        perm=int(perm),
        filter_type=kind,
        attributes=attributes or {},
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
