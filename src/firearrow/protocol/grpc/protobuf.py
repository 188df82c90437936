"""Protobuf's wire format, written by hand where messages are made by the thousand: that is twice as
fast as to fill a message object, and larger parts are not copied into it."""

from __future__ import annotations

from typing import Final

NUMBER: Final = 0
BYTES: Final = 2
# Lengths and queue numbers, mostly: most values that are written.
_SMALL: Final = (
    *(bytes((value,)) for value in range(0x80)),
    *(bytes((value & 0x7F | 0x80, value >> 7)) for value in range(0x80, 0x800)),
)
_UINT64: Final = 2**64 - 1


def key(number: int, kind: int) -> bytes:
    """What stands before a field's value."""
    return varint(number << 3 | kind)


def varint(value: int) -> bytes:
    """A whole number; one below zero as its 64-bit complement."""
    if 0 <= value < 0x800:
        return _SMALL[value]
    if 0 <= value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if 0 <= value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    value &= _UINT64
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def part(number: int, data: bytes) -> bytes:
    """A field that is a text, bytes or a message."""
    return b"".join((_PARTS[number], varint(len(data)), data))


_PARTS: Final = tuple(key(number, BYTES) for number in range(64))
