"""What the attributes of topics and groups say about lite topics (``LiteMetadataUtil``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from firearrow.model.group import Group
from firearrow.model.topic import Topic

EXPIRATION: Final = "lite.topic.expiration"
EXPIRATION_MINUTES_MAX: Final = 30 * 24 * 60
NEVER: Final = -1


def is_parent(topic: Topic | None) -> bool:
    return topic is not None and topic.attributes.get("message.type") == "LITE"


def expiration_minutes(topic: Topic) -> int:
    """How long a lite topic lives after its last message; zero or less: for ever."""
    return _number(topic.attributes, EXPIRATION, NEVER)


def parent_of(group: Group | None) -> str | None:
    """The topic whose lite topics the group consumes; ``None`` for an ordinary group."""
    return None if group is None else group.attributes.get("lite.bind.topic")


def is_exclusive(group: Group | None) -> bool:
    return group is not None and group.attributes.get("lite.sub.model") == "Exclusive"


def is_wildcard(group: Group | None) -> bool:
    """Whether the group gets all lite topics of its parent; the value does not count."""
    return group is not None and "lite.sub.wildcard" in group.attributes


def resets_when_excluded(group: Group | None) -> bool:
    return _true(group, "lite.sub.reset.offset.exclusive")


def resets_when_unsubscribed(group: Group | None) -> bool:
    return _true(group, "lite.sub.reset.offset.unsubscribe")


def _true(group: Group | None, key: str) -> bool:
    return group is not None and group.attributes.get(key, "").lower() == "true"


def events_max(group: Group | None, default: int) -> int:
    """How many lite topics with messages may wait for one client."""
    if group is None:
        return default
    limit = _number(group.attributes, "lite.sub.client.max.event.cnt", 0)
    return limit if limit > 0 else default


def _number(attributes: Mapping[str, str], key: str, default: int) -> int:
    """An attribute as a number; tables of another broker's may have anything."""
    try:
        return int(attributes.get(key, default))
    except ValueError:
        return default
