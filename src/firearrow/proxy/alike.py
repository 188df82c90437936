"""Requests to send that are alike: a producer's messages differ in their id, their digest, their
time of birth and their body, and have every other byte in common.

    SendMessageRequest  1 messages: Message
    Message             1 topic, 2 user_properties, 3 system_properties, 4 body
    SystemProperties    3 message_id, 4 body_digest (2 checksum), 7 born_timestamp

What was found out about one such message is kept under these bytes, so that another one's values
are read where they stand, and nothing else of it. What is not written in the order of its fields'
numbers, or in another way than usual, is read as any protobuf message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from firearrow.protocol.grpc.protobuf import BYTES, NUMBER

FORMS_MAX: Final = 256
KINDS_MAX: Final = 64  # of one form
COMMON_BYTES_MAX: Final = 512
_MESSAGES, _SYSTEM, _BODY = 0x0A, 0x1A, 0x22  # keys, as they are written
_BEHIND_EACH_OTHER: Final = frozenset({0x0A, 0x12})  # topic, user properties
_ID, _DIGEST, _BORN, _CHECKSUM = 3, 4, 7, 2
_SECONDS_MAX: Final = 2**50  # as milliseconds it fits wherever it goes

T = TypeVar("T")


class _Form(Generic[T]):
    """System properties of one size and order, behind the same topic and user properties."""

    __slots__ = ("kinds", "unpack_from")

    def __init__(self, size: int, places: list[tuple[int, int, int]]) -> None:
        sizes, at = [], 0
        for _, start, stop in places:
            sizes += [start - at, stop - start]
            at = stop
        sizes.append(size - at)
        # The id is the first value, the time of birth the last.
        self.unpack_from = struct.Struct("".join(f"{size}s" for size in sizes)).unpack_from
        self.kinds: dict[tuple[bytes, ...], T] = {}  # by what stands around the values


class Alike(Generic[T]):
    """What is known of messages, by what they have in common."""

    def __init__(self) -> None:
        self._forms: dict[bytes, _Form[T]] = {}
        self._born, self._born_ms = b"", 0  # the last time of birth

    def recall(self, data: bytes) -> tuple[T, bytes, int, bytes] | None:
        """What is known of a request's one message, and its id, its time of birth (ms) and its
        body; ``None`` when it must be read."""
        try:
            begin, system, _, body = _parts(data)
        except IndexError:
            return None
        form = self._forms.get(data[begin:system])
        if form is None:
            return None
        pieces = form.unpack_from(data, system)
        known = form.kinds.get(pieces[::2])
        # An id or a digest that is no text makes the request unreadable.
        if known is None or not b"".join(pieces[1:-2:2]).isascii():
            return None
        born = pieces[-2]
        if born != self._born:
            born_ms = _milliseconds(born)
            if born_ms is None:
                return None
            self._born, self._born_ms = born, born_ms
        return known, pieces[1], self._born_ms, data[body:]

    def learn(self, data: bytes, known: T) -> None:
        """Remember a request's one message, if it is written as most are."""
        try:
            begin, system, stop, _ = _parts(data)
            places = _places(data[system:stop]) if 0 < stop - begin <= COMMON_BYTES_MAX else []
        except IndexError:
            return
        if not places:
            return
        if len(self._forms) >= FORMS_MAX:
            self._forms.clear()
        form = self._forms.setdefault(data[begin:system], _Form(stop - system, places))
        pieces = form.unpack_from(data, system)
        if len(form.kinds) >= KINDS_MAX:
            form.kinds.clear()
        form.kinds[pieces[::2]] = known


_NOTHING: Final = (0, 0, 0, 0)


def _parts(data: bytes) -> tuple[int, int, int, int]:
    """Where in a request its one message begins, where its system properties begin and end, and
    where its body begins; zeros when it is not as most are.

    Raises:
        IndexError: it is not as most are, too.
    """
    if data[0] != _MESSAGES:
        return _NOTHING
    size, begin = data[1], 2
    if size >= 0x80:
        size, begin = size & 0x7F | data[2] << 7, 3
        if size >= 0x4000:
            size, begin = size & 0x3FFF | data[3] << 14, 4
    if begin + size != len(data) or size >= 0x200000:
        return _NOTHING
    at = begin
    while data[at] in _BEHIND_EACH_OTHER:
        if data[at + 1] >= 0x80:
            return _NOTHING
        at += 2 + data[at + 1]
    if data[at] != _SYSTEM:
        return _NOTHING
    size, at = data[at + 1], at + 2
    if size >= 0x80:
        size, at = size & 0x7F | data[at] << 7, at + 1
    stop = at + size
    if size >= 0x4000 or data[stop] != _BODY:
        return _NOTHING
    size, body = data[stop + 1], stop + 2
    if size >= 0x80:
        size, body = size & 0x7F | data[body] << 7, body + 1
        if size >= 0x4000:
            size, body = size & 0x3FFF | data[body] << 14, body + 1
    whole = body + size == len(data) and size < 0x200000
    return (begin, at, stop, body) if whole else _NOTHING


def _places(system: bytes) -> list[tuple[int, int, int]]:
    """Where the values stand in system properties: field, begin, end; nothing when they do not
    stand there once each, in the order of their numbers."""
    places: list[tuple[int, int, int]] = []
    for field, start, stop in _texts(system):
        if field in (_ID, _BORN):
            places.append((field, start, stop))
        elif field == _DIGEST:
            for inner, begin, end in _texts(system[start:stop]):
                if inner == _CHECKSUM:
                    places.append((field, start + begin, start + end))
    fields = [field for field, _, _ in places]
    return places if fields in ([_ID, _BORN], [_ID, _DIGEST, _BORN]) else []


def _texts(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The fields of a message that have a length, with their values' begin and end.

    Raises:
        IndexError: it is cut off, or has fields of another kind than lengths and numbers.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        size, at = _varint(data, at)
        if tag & 7 == BYTES:
            yield tag >> 3, at, at + size
            at += size
        elif tag & 7 != NUMBER:
            raise IndexError
    if at > len(data):
        raise IndexError


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _milliseconds(born: bytes) -> int | None:
    try:
        moment = Timestamp.FromString(born)
    except DecodeError:
        return None
    seconds = moment.seconds
    if not 0 <= seconds <= _SECONDS_MAX:
        return None
    return int(seconds * 1000 + moment.nanos // 1_000_000)  # as ``checks.milliseconds``
