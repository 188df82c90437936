"""On which broker a lite topic belongs: producers choose by its name (``LiteSharding``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from firearrow.broker.cluster_queues import ClusterQueues
from firearrow.codec.hashes import consistent_hash, java_hash


class PlacingSettings(Protocol):
    broker_name: str


class Placing:
    """Knows which lite topics of a parent belong here."""

    def __init__(self, settings: PlacingSettings, queues: ClusterQueues) -> None:
        self._settings = settings
        self._queues = queues

    def of_parent(self, parent: str, done: Callable[[Callable[[str], bool]], None]) -> None:
        """Call ``done``, perhaps at once, with what tells whether a lite topic belongs here."""
        own = self._settings.broker_name

        def found(queues: list[tuple[str, int]]) -> None:
            if all(broker == own for broker, _ in queues):
                done(lambda lite_topic: True)
            else:
                done(
                    lambda lite_topic: (
                        queues[consistent_hash(java_hash(lite_topic), len(queues))][0] == own
                    )
                )

        self._queues.find_writable(parent, found)
