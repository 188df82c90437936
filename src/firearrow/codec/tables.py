"""Parsed JSON of a file as typed values; what does not fit is said with the names down to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")
Reader = Callable[[Any], T]

# ``Expected `int`, got `str` - at `key` in `$.table[...].perm[0]``
_PLACE: Final = re.compile(r" - at `(key` in `)?\$(.*)`$")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def reader(kind: type[T]) -> Reader[T]:
    """What makes a ``kind`` of a parsed file, as lenient as fastjson is: numbers may be texts."""
    return lambda value: read(value, kind)


def read(value: Any, kind: type[T]) -> T:
    """A ``kind`` of parsed JSON.

    Raises:
        ValueError: a member is of another kind; the text names it, and what it should be.
    """
    try:
        return _convert(value, kind)
    except msgspec.ValidationError as error:
        found = _PLACE.search(str(error))
        if found is None:
            raise ValueError(str(error)) from None
        path = _named(value, kind, found[2] + ("[...]" if found[1] else ""))
        raise ValueError(f"{path}: {str(error)[: found.start()]}") from None


def _convert(value: Any, kind: type[T]) -> T:
    return msgspec.convert(value, kind, strict=False, str_keys=True)


def _named(whole: Any, kind: Any, place: str) -> str:
    """The place with the keys of tables in it, for which msgspec says ``[...]``."""

    put: Callable[[Any], Any] = _itself
    part, names = whole, ""
    for member, index in _STEP.findall(place):
        if index == "..." and isinstance(part, dict):
            key = _wrong_key(part, kind, put)
            put, part = _inside({}, key, put), part[key]
            names += f'["{key}"]'
        else:
            step = member or int(index)
            put, part = _inside(part, step, put), part[step]
            names += f".{member}" if member else f"[{index}]"
    return names.lstrip(".")


def _itself(value: Any) -> Any:
    return value


def _inside(around: Any, step: Any, put: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The whole with something else at this step of a part of it."""

    def put_inside(value: Any) -> Any:
        changed = around.copy()
        changed[step] = value
        return put(changed)

    return put_inside


def _wrong_key(part: dict[str, Any], kind: Any, put: Callable[[Any], Any]) -> str:
    """Which member of a table is wrong, found by halves."""
    keys = list(part)
    while len(keys) > 1:
        half = keys[: len(keys) // 2]
        try:
            _convert(put({key: part[key] for key in half}), kind)
        except msgspec.ValidationError:
            keys = half
        else:
            keys = keys[len(half) :]
    return keys[0]


class Deleted(msgspec.Struct):
    """A note of a table: there is no entry of this name any more."""

    deleted: str


def read_note(found: Any, kind: type[T]) -> T | Deleted:
    """A note of a table: an entry that is new or different, or ``{"deleted":"name"}``.

    Raises:
        ValueError: it is neither.
    """
    gone = isinstance(found, dict) and "deleted" in found
    return read(found, Deleted) if gone else read(found, kind)


def filled(table: Any, member: str, name: str) -> Any:
    """A parsed file, in whose table ``member`` every entry that does not say its own name under
    ``name`` says it."""
    entries = table.get(member) if isinstance(table, dict) else None
    for key, entry in entries.items() if isinstance(entries, dict) else ():
        if isinstance(entry, dict):
            entry.setdefault(name, key)
    return table
