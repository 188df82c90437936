"""A topic's configuration, as RocketMQ keeps it (``TopicConfig``; storage.md 6.2)."""

from __future__ import annotations

from typing import Final

import msgspec

PERM_INHERIT: Final = 1  # may be the template of an automatically created topic
PERM_WRITE: Final = 2
PERM_READ: Final = 4
PERM_PRIORITY: Final = 8

# A queue is cheap, but every client makes a list of all queues of a topic.
QUEUES_MAX: Final = 65_535

SYS_FLAG_UNIT: Final = 1
SYS_FLAG_UNIT_SUB: Final = 2


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic. Field names in JSON are RocketMQ's; they are written in alphabetical order."""

    attributes: dict[str, str] = {}
    order: bool = False
    perm: int = PERM_READ | PERM_WRITE
    read_queues: int = msgspec.field(default=16, name="readQueueNums")
    filter_type: str = msgspec.field(default="SINGLE_TAG", name="topicFilterType")
    name: str = msgspec.field(name="topicName")
    sys_flag: int = msgspec.field(default=0, name="topicSysFlag")
    write_queues: int = msgspec.field(default=16, name="writeQueueNums")

    @property
    def readable(self) -> bool:
        return bool(self.perm & PERM_READ)

    @property
    def writable(self) -> bool:
        return bool(self.perm & PERM_WRITE)

    @property
    def inherited(self) -> bool:
        return bool(self.perm & PERM_INHERIT)

    @property
    def compacted(self) -> bool:
        """Whether it is to keep only the newest message of every key (RocketMQ 5.1)."""
        return self.attributes.get("cleanup.policy") == "COMPACTION"

    @property
    def prioritized(self) -> bool:
        """Whether its queues are priorities, the last one the highest (RocketMQ 5.4)."""
        return self.attributes.get("message.type") == "PRIORITY"

    @property
    def batched(self) -> bool:
        """Whether its queues are batch queues, where a record may hold several messages."""
        return self.attributes.get("queue.type") == "BatchCQ"


class DataVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Version of a table that others copy (cluster.md 0.3)."""

    counter: int = 0
    state_version: int = msgspec.field(default=0, name="stateVersion")
    timestamp: int = 0

    def next(self, now_ms: int) -> DataVersion:
        return DataVersion(
            counter=self.counter + 1, state_version=self.state_version, timestamp=now_ms
        )
