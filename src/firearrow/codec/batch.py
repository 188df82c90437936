"""The body of a batch send (storage.md 2.9), and what marks a record that holds one.

Each item:
    4  size of the item, this field included
    4  magic, 0
    4  CRC, 0
    4  flag
    4  body length, then the body
    2  properties length, then the properties
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from firearrow.codec.properties import find_property

# The smallest possible item has 22 bytes, so a frame bounds the count; this keeps answers small.
ITEMS_MAX: Final = 100_000
# An inner batch is one record whose body is a batch: its properties tell how many messages there
# are, and the queue offset of the first (``MessageConst.PROPERTY_INNER_NUM``, ``_BASE``).
INNER_COUNT: Final = b"INNER_NUM"
INNER_BASE: Final = b"INNER_BASE"
INNER_COUNT_MAX: Final = 32767  # a signed 16-bit number on disk
_HEAD = struct.Struct(">iiiii")
_I2 = struct.Struct(">h")


class BatchError(ValueError):
    """The bytes are no batch; the text says where they go wrong."""


class BatchItem(NamedTuple):
    """One message of a batch, as its producer wrote it."""

    body: bytes
    properties: bytes
    flag: int


def decode_batch(data: bytes) -> list[BatchItem]:
    """Split a batch.

    Raises:
        BatchError: a length that does not fit.
    """
    items: list[BatchItem] = []
    position, end = 0, len(data)
    while position < end:
        if len(items) >= ITEMS_MAX:
            raise BatchError(f"a batch of more than {ITEMS_MAX} messages")
        try:
            size, _, _, flag, body_size = _HEAD.unpack_from(data, position)
            body_end = position + _HEAD.size + body_size
            (properties_size,) = _I2.unpack_from(data, body_end) if body_size >= 0 else (-1,)
        except struct.error:
            raise BatchError(f"a batch item is cut off at byte {position}") from None
        properties_end = body_end + 2 + properties_size
        if body_size < 0 or properties_size < 0 or properties_end > end:
            raise BatchError(f"a batch item has impossible lengths at byte {position}")
        if properties_end != position + size:
            raise BatchError(f"a batch item of {size} bytes does not add up at byte {position}")
        items.append(
            BatchItem(
                data[position + _HEAD.size : body_end], data[body_end + 2 : properties_end], flag
            )
        )
        position = properties_end
    if not items:
        raise BatchError("an empty batch")
    return items


def inner_count(properties: bytes) -> int:
    """How many messages an inner batch says it has: 1 if it does not say, 0 for what cannot be."""
    text = find_property(properties, INNER_COUNT)
    if text is None:
        return 1
    count = int(text) if text.isdigit() and len(text) < 6 else 0
    return count if count <= INNER_COUNT_MAX else 0


def with_inner_number(properties: bytes, name: bytes, value: int) -> bytes:
    """The property string with this count or base, instead of one that it may have."""
    mark, text = name + b"\x01", str(value).encode()
    if properties.count(mark) == 1 and find_property(properties, name) == text:
        return properties
    if mark in properties:
        pieces = [p for p in properties.split(b"\x02") if p and not p.startswith(mark)]
        properties = b"\x02".join([*pieces, b""])
    elif properties and properties[-1] != 2:
        properties += b"\x02"
    return properties + mark + text + b"\x02"


def without_inner_numbers(properties: bytes) -> bytes:
    """The property string of the same bytes as an ordinary message."""
    marks = (INNER_COUNT + b"\x01", INNER_BASE + b"\x01")
    pieces = [p for p in properties.split(b"\x02") if p and not p.startswith(marks)]
    return b"\x02".join([*pieces, b""])
