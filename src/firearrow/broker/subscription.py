"""What a group wants of a topic: tag expressions, and the subscription of a heartbeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from firearrow.codec.hashes import java_hash
from firearrow.store.api import RecordMatch

TAG: Final = "TAG"
SQL92: Final = "SQL92"
ALL: Final = "*"


class Subscription(msgspec.Struct, frozen=True):
    """A group's subscription to one topic (``SubscriptionData``)."""

    topic: str
    expression: str = ALL
    version: int = 0
    expression_type: str = TAG
    tags: tuple[str, ...] = ()
    codes: frozenset[int] | None = None  # of the tags; None takes every message
    match: RecordMatch | None = None  # of an expression other than tags, once it is compiled

    def to_json(self) -> dict[str, object]:
        """As clients and tools read it."""
        return {
            "classFilterMode": False,
            "codeSet": sorted(self.codes or ()),
            "expressionType": self.expression_type,
            "subString": self.expression,
            "subVersion": self.version,
            "tagsSet": list(self.tags),
            "topic": self.topic,
        }


class ExpressionError(ValueError):
    """The expression cannot be read; the text goes to the client."""


# (expression type, expression) -> whether a record matches; raises ExpressionError.
Compile = Callable[[str, str], RecordMatch]


def tags_only(kind: str, expression: str) -> RecordMatch:
    """What a broker without a filter room compiles: nothing."""
    raise ExpressionError(f"this broker filters by tags, not by {kind}")


def parse(
    topic: str, expression: str | None, version: int = 0, expression_type: str | None = None
) -> Subscription:
    """Build a subscription from what a client sent (``FilterAPI.build``). An expression of another
    type than tags stays a text.

    Raises:
        ExpressionError: a tag expression without a tag.
    """
    if expression_type not in (None, "", TAG):
        return Subscription(topic, expression or "", version, expression_type or TAG)
    if expression is None or not expression.strip() or expression == ALL:
        return Subscription(topic, ALL, version)
    tags = tuple(dict.fromkeys(t for t in map(str.strip, expression.split("||")) if t))
    if not tags:
        raise ExpressionError(f"no tag in the expression {expression!r}; write '*' or 'A || B'")
    return Subscription(
        topic, expression, version, TAG, tags, frozenset(java_hash(tag) for tag in tags)
    )


class SubscriptionCache:
    """Parsed expressions of requests that carry their own, so that each is parsed once.

    Bounded: a client that sends ever new expressions only empties it.
    """

    ENTRIES_MAX: Final = 4096

    def __init__(self, compile_: Compile = tags_only) -> None:
        self._compile = compile_
        self._parsed: dict[tuple[str, str | None, str | None], Subscription] = {}

    def get(self, topic: str, expression: str | None, expression_type: str | None) -> Subscription:
        """The subscription, ready to be matched.

        Raises:
            ExpressionError: the expression cannot be read.
        """
        key = (topic, expression, expression_type)
        found = self._parsed.get(key)
        if found is None:
            if len(self._parsed) >= self.ENTRIES_MAX:
                self._parsed.clear()
            found = parse(topic, expression, 0, expression_type)
            if found.expression_type != TAG:
                match = self._compile(found.expression_type, found.expression)
                found = msgspec.structs.replace(found, match=match)
            self._parsed[key] = found
        return found
