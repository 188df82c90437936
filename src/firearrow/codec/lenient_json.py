"""JSON as Java's fastjson writes it: map keys may be bare numbers or whole objects (remoting.md 5).

Standard JSON goes through the fast parser; only what that refuses is read by the tolerant one.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

DEPTH_MAX: Final = 64

_fast = msgspec.json.decode
_encode = msgspec.json.encode
_space = re.compile(r"[ \t\r\n]*").match
_string = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"').match
_scalar = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null").match


def loads(data: bytes) -> Any:
    """Parse; bare integer keys become strings, object keys their compact JSON text.

    Raises:
        ValueError: neither JSON nor fastjson's dialect of it.
    """
    try:
        return _fast(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = data.decode("utf-8")  # UnicodeDecodeError is a ValueError
        value, position = _value(text, _skip(text, 0), 0)
        position = _skip(text, position)
        if position != len(text):
            raise ValueError(f"unexpected text at character {position}") from None
        return value


def _skip(text: str, position: int) -> int:
    match = _space(text, position)
    assert match is not None
    return match.end()


def _value(text: str, position: int, depth: int) -> tuple[Any, int]:
    if depth > DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX} at character {position}")
    start = text[position : position + 1]
    if start == "{":
        return _object(text, position + 1, depth + 1)
    if start == "[":
        return _array(text, position + 1, depth + 1)
    if start == '"':
        return _text(text, position)
    match = _scalar(text, position)
    if match is None:
        raise ValueError(f"no value at character {position}")
    return _fast(match.group()), match.end()


def _text(text: str, position: int) -> tuple[str, int]:
    match = _string(text, position)
    if match is None:
        raise ValueError(f"unfinished string at character {position}")
    return msgspec.json.decode(match.group(), type=str), match.end()


def _array(text: str, position: int, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    position = _skip(text, position)
    while text[position : position + 1] != "]":
        if items:
            position = _comma(text, position)
        item, position = _value(text, position, depth)
        items.append(item)
        position = _skip(text, position)
    return items, position + 1


def _object(text: str, position: int, depth: int) -> tuple[dict[str, Any], int]:
    members: dict[str, Any] = {}
    first = True
    position = _skip(text, position)
    while text[position : position + 1] != "}":
        if not first:
            position = _comma(text, position)
        first = False
        key, position = _value(text, position, depth)
        position = _skip(text, position)
        if text[position : position + 1] != ":":
            raise ValueError(f"a colon is missing at character {position}")
        members[_key(key)], position = _value(text, _skip(text, position + 1), depth)
        position = _skip(text, position)
    return members, position + 1


def _comma(text: str, position: int) -> int:
    if text[position : position + 1] != ",":
        raise ValueError(f"a comma is missing at character {position}")
    return _skip(text, position + 1)


def _key(value: Any) -> str:
    return value if isinstance(value, str) else _encode(value).decode()
