"""Property files as ``java.util.Properties`` reads them: escapes, continuations, comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_SPACE: Final = " \t\f"
_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_parts = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL).match
_escape = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


class Property(NamedTuple):
    """One setting and where it stands; lines count from 1, ``end`` is the last one."""

    line: int
    end: int
    key: str
    value: str


def decode(data: bytes) -> str:
    """A file's text: UTF-8, with or without a byte order mark, or else Latin 1 as Java."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse(text: str) -> Iterator[Property]:
    """Every setting in order; a key may come twice, and then the last one counts.

    Blanks at the end of a value are left out, unlike in Java, where they break numbers.
    """
    lines = _LINE_END.split(text)
    number = 0
    while number < len(lines):
        start = number
        line = lines[number].lstrip(_SPACE)
        number += 1
        if not line or line[0] in "#!":
            continue
        pieces = []
        while _continues(line):
            pieces.append(line[:-1])
            line = lines[number].lstrip(_SPACE) if number < len(lines) else ""
            number += 1
        pieces.append(line)
        match = _parts("".join(pieces))
        assert match is not None, "every part of the pattern may be empty"
        yield Property(start + 1, number, _unescaped(match[1]), _unescaped(match[2]).rstrip())


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text

    def plain(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        return _ESCAPES.get(match[2], match[2])

    text = _escape.sub(plain, text)
    # A character beyond the basic plane is written as two escapes; half of one is none.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _written(key: str, value: str) -> str:
    key = re.sub(r"[ \t\f:=#!]", lambda match: "\\" + match[0], _escaped(key))
    value = _escaped(value)
    return f"{key}=" + ("\\" + value if value[:1] in (" ", "\t", "\f") else value)


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return re.sub(r"[^\x00-\x7f]", lambda match: _utf16_escapes(match[0]), value)


def _utf16_escapes(character: str) -> str:
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[i] << 8 | data[i + 1]:04x}" for i in range(0, len(data), 2))


def replace(text: str, changed: Mapping[str, str]) -> str:
    """The file with some values changed, or added at its end; everything else stays."""
    lines = _LINE_END.split(text)
    remaining = dict(changed)
    for setting in reversed(list(parse(text))):  # of a key that comes twice the last one counts
        if setting.key in remaining:
            line = _written(setting.key, remaining.pop(setting.key))
            lines[setting.line - 1 : setting.end] = [line]
    while lines and not lines[-1]:
        lines.pop()
    lines += [_written(key, value) for key, value in remaining.items()]
    return "\n".join([*lines, ""])
