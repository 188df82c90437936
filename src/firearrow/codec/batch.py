"""The body of a batch send (storage.md 2.9).

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

# The smallest possible item has 22 bytes, so a frame bounds the count; this keeps answers small.
ITEMS_MAX: Final = 100_000
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
