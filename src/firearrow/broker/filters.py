"""What the broker asks of the room that filters by more than tags (``ConsumerFilterManager``)."""

from __future__ import annotations

from typing import Protocol

from firearrow.broker.subscription import Subscription, tags_only
from firearrow.store.api import RecordMatch


class Filters(Protocol):
    """Compiles expressions, and keeps those of the groups that subscribe with one."""

    def compile(self, kind: str, expression: str) -> RecordMatch:
        """Raises:
        ExpressionError: the type is unknown or the expression cannot be read.
        """

    def registered(self, group: str, subscriptions: list[Subscription]) -> None:
        """A member's heartbeat said that the group wants this, and nothing else."""

    def left(self, group: str) -> None:
        """The group's last member is gone."""

    def find(self, topic: str, group: str) -> Subscription | None:
        """The group's subscription by expression, with its ``match``; ``None`` when it has none
        or when it could not be read."""


class NoFilters:
    """A broker that filters by tags only."""

    def compile(self, kind: str, expression: str) -> RecordMatch:
        return tags_only(kind, expression)

    def registered(self, group: str, subscriptions: list[Subscription]) -> None: ...

    def left(self, group: str) -> None: ...

    def find(self, topic: str, group: str) -> Subscription | None:
        return None
