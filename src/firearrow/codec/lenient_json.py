"""JSON as Java's fastjson writes it: map keys may be bare numbers or whole objects (remoting.md 5).

Standard JSON goes through the fast parser. What that refuses is tried again with its bare numbers
as keys in quotes, and then read by the tolerant parser, which takes half a second a megabyte.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

DEPTH_MAX: Final = 64
# Of what comes over the network, this much may be no standard JSON: it holds everybody up.
TOLERANT_BYTES_MAX: Final = 1024 * 1024

_fast = msgspec.json.decode
_encode = msgspec.json.encode
_space = re.compile(r"[ \t\r\n]*").match
_string = re.compile(r'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"').match
_bare_key = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|([{,][ \t\r\n]*+)(-?\d++)(?=[ \t\r\n]*+:)', re.DOTALL
)
_scalar = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null").match


def loads(data: bytes, tolerant_bytes_max: int | None = TOLERANT_BYTES_MAX) -> Any:
    """Parse; bare integer keys become strings, object keys their compact JSON text.

    ``tolerant_bytes_max`` bounds what is no standard JSON; ``None`` for files of our own.

    Raises:
        ValueError: neither JSON nor fastjson's dialect of it, or too much of that.
    """
    try:
        return _fast(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if tolerant_bytes_max is not None and len(data) > tolerant_bytes_max:
            raise ValueError(f"{len(data)} bytes that are no standard JSON: {error}") from None
    try:
        return _fast(_bare_key.sub(_quoted, data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _tolerant(data.decode("utf-8"))  # UnicodeDecodeError is a ValueError


def _quoted(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        return match[0]
    return b'%s"%s"' % (match[1], match[2])


def _tolerant(text: str) -> Any:
    value, position = _value(text, _skip(text, 0), 0)
    position = _skip(text, position)
    if position != len(text):
        raise ValueError(f"unexpected text at character {position}")
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
