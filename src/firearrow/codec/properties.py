"""The property string: ``name 0x01 value 0x02`` repeated, UTF-8 (storage.md 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NAME_END: Final = "\x01"
VALUE_END: Final = "\x02"


def parse_properties(data: bytes) -> dict[str, str]:
    """Read as Java does: short, nameless and valueless pieces are ignored, a later duplicate wins.

    Bytes that are no UTF-8 become U+FFFD, as in Java.
    """
    properties: dict[str, str] = {}
    for piece in data.decode("utf-8", "replace").split(VALUE_END):
        name, separator, value = piece.partition(NAME_END)
        if separator and name and value:
            properties[name] = value
    return properties


def format_properties(properties: Mapping[str, str]) -> bytes:
    """Write with the final separator, as RocketMQ 5.2 and newer."""
    return "".join(
        f"{name}{NAME_END}{value}{VALUE_END}" for name, value in properties.items()
    ).encode()


def find_property(data: bytes, name: bytes) -> bytes | None:
    """One value, without reading the others; ``None`` when absent or empty."""
    mark = name + b"\x01"
    start = data.find(mark)
    while start > 0 and data[start - 1] != 2:
        start = data.find(mark, start + 1)
    if start < 0:
        return None
    start += len(mark)
    end = data.find(b"\x02", start)
    return (data[start:] if end < 0 else data[start:end]) or None
