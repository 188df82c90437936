"""The waist between the compaction room and its files: topics whose queues keep, of every key, the
newest message."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class CompactedTopics(Protocol):
    """From ``use`` on a topic's queues are read from their compaction logs."""

    def use(self, topics: Collection[str], *, made_now: bool) -> None:
        """Copy, compact and serve the messages of these topics. One that was ``made_now`` has none
        of an earlier topic with its name.

        Raises:
            OSError: what is left of an interrupted write cannot be removed.
        """

    def start(self) -> None:
        """Begin to compact every ``compactionScheduleInternal``."""

    def stop(self) -> None:
        """Give up a compaction that is under way; it has not taken effect."""
