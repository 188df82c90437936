"""Attributes of topics and groups: ``+key=value`` sets, ``-key`` removes (behaviour.md 21.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple


class AttributeChangeError(ValueError):
    """A change that is not allowed; the text says which and why."""


class Attribute(NamedTuple):
    """One known key."""

    valid: Callable[[str], bool]
    changeable: bool


def one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


_whole = re.compile(r"-?[0-9]{1,19}").fullmatch


def number(low: int, high: int = (1 << 63) - 1) -> Callable[[str], bool]:
    return lambda value: _whole(value) is not None and low <= int(value) <= high


def any_text(value: str) -> bool:
    return True


def boolean(value: str) -> bool:
    return value.lower() in ("true", "false")


TOPIC_ATTRIBUTES: Final = {
    "queue.type": Attribute(one_of("SimpleCQ", "BatchCQ"), changeable=False),
    "cleanup.policy": Attribute(one_of("DELETE", "COMPACTION"), changeable=False),
    "message.type": Attribute(
        one_of(
            "NORMAL", "UNSPECIFIED", "FIFO", "DELAY", "TRANSACTION", "MIXED", "PRIORITY", "LITE"
        ),
        changeable=True,
    ),
    "reserve.time": Attribute(number(-1), changeable=True),
}


GROUP_ATTRIBUTES: Final[dict[str, Attribute]] = {
    # In how many of 100 pops the priorities of a topic count.
    "priority.factor": Attribute(number(0, 100), changeable=True),
    # Of groups that consume lite topics: the parent topic, who gets a lite topic, limits.
    "lite.bind.topic": Attribute(any_text, changeable=True),
    "lite.sub.model": Attribute(one_of("Shared", "Exclusive"), changeable=True),
    "lite.sub.wildcard": Attribute(any_text, changeable=True),
    "lite.sub.reset.offset.exclusive": Attribute(boolean, changeable=True),
    "lite.sub.reset.offset.unsubscribe": Attribute(boolean, changeable=True),
    "lite.sub.client.quota": Attribute(number(-1), changeable=True),
    "lite.sub.client.max.event.cnt": Attribute(number(10), changeable=True),
}


def parse(text: str | None) -> dict[str, str]:
    """``+a=b,-c`` as a table whose keys keep their sign.

    Raises:
        AttributeChangeError: a piece without a sign, or a key that comes twice.
    """
    changes: dict[str, str] = {}
    for piece in (text or "").split(","):
        if not piece.strip():
            continue
        key, _, value = piece.strip().partition("=")
        if not key.startswith(("+", "-")) or len(key) < 2:
            raise AttributeChangeError(
                f"{piece.strip()}: write +key=value to set an attribute, -key to remove one"
            )
        if key.lstrip("+-") in {k.lstrip("+-") for k in changes}:
            raise AttributeChangeError(f"{piece.strip()}: key duplication")
        changes[key] = value
    return changes


def apply(
    current: Mapping[str, str],
    changes: Mapping[str, str],
    known: Mapping[str, Attribute],
    *,
    creating: bool,
) -> dict[str, str]:
    """The attributes after the changes.

    Raises:
        AttributeChangeError: unknown key, bad value, or not allowed now.
    """
    result = dict(current)
    for signed, value in changes.items():
        # Bodies with whole configurations may have the keys as another broker shows them.
        sign, key = (signed[0], signed[1:]) if signed[:1] in ("+", "-") else ("+", signed)
        attribute = known.get(key)
        if attribute is None:
            raise AttributeChangeError(f"unsupported key: {key}")
        if sign == "-":
            if creating:
                raise AttributeChangeError(f"only add attribute is supported while creating: {key}")
            if key not in result:
                raise AttributeChangeError(f"attempt to delete a nonexistent key: {key}")
            if not attribute.changeable:
                raise AttributeChangeError(f"attempt to update an unchangeable attribute: {key}")
            del result[key]
            continue
        if not attribute.valid(value):
            raise AttributeChangeError(f"{value} is no value for {key}")
        if not creating and not attribute.changeable and result.get(key) != value:
            raise AttributeChangeError(f"attempt to update an unchangeable attribute: {key}")
        result[key] = value
    return result
