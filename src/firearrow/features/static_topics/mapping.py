"""A static topic's mapping: which queue of which broker has which part of each logical queue.

A logical queue is a list of items, oldest first (``LogicQueueMappingItem``). Each stands for a
queue of a broker's store, the physical one, from one logical offset on. The last item is the
leader: what is sent goes there. After a move its logical offset is not known for a moment (-1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from firearrow.protocol.remoting import bodies

GLOBAL_SCOPE: Final = "__global__"
UNDECIDED: Final = -1


class Item(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """One part of a logical queue; fields in the order in which Java writes them."""

    bname: str
    end_offset: int = UNDECIDED  # physical, behind the last message
    gen: int
    logic_offset: int
    queue_id: int
    start_offset: int = 0  # physical
    time_of_end: int = -1
    time_of_start: int = -1

    @property
    def decided(self) -> bool:
        """Whether its logical offset is known."""
        return self.logic_offset >= 0

    @property
    def ended(self) -> bool:
        """Whether its physical end is known; RocketMQ 5.5.0's tools never say it."""
        return self.end_offset > self.start_offset

    @property
    def delta(self) -> int:
        return self.logic_offset - self.start_offset

    def physical(self, logical: int) -> int:
        return logical - self.logic_offset + self.start_offset

    def logical(self, physical: int) -> int:
        return self.logic_offset + max(physical - self.start_offset, 0)

    def logical_within(self, physical: int) -> int:
        """The same, not beyond the item's end; -1 when it is not decided."""
        if not self.decided:
            return UNDECIDED
        if self.end_offset >= self.start_offset:
            physical = min(physical, self.end_offset)
        return self.logical(physical)

    @property
    def logical_end(self) -> int:
        """As far as it is known: else its beginning."""
        if self.end_offset >= self.start_offset:
            return self.logic_offset + self.end_offset - self.start_offset
        return self.logic_offset


class Mapping(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """What one broker knows of a static topic (``TopicQueueMappingDetail``)."""

    bname: str
    curr_id_map: dict[int, int] = {}
    dirty: bool = False
    epoch: int = 0
    hosted_queues: dict[int, list[Item]] = {}
    scope: str = GLOBAL_SCOPE
    topic: str
    total_queues: int = 0

    def items(self, logical_id: int) -> list[Item]:
        return self.hosted_queues.get(logical_id) or []

    def led(self) -> dict[int, int]:
        """Logical queue id -> physical one, of the queues that this broker leads."""
        return {
            logical_id: items[-1].queue_id
            for logical_id, items in self.hosted_queues.items()
            if items and items[-1].bname == self.bname
        }

    def encode(self) -> bytes:
        """JSON as Java writes it, whose number keys stand bare."""
        return self._encode(self.curr_id_map, bodies.int_map(self.hosted_queues))

    def encode_info(self) -> bytes:
        """``TopicQueueMappingInfo``: what name servers and clients are told."""
        return self._encode(self.led(), None)

    def _encode(self, ids: dict[int, int], hosted: bytes | None) -> bytes:
        members = {
            "bname": self.bname,
            "currIdMap": msgspec.Raw(bodies.int_map(ids)),
            "dirty": self.dirty,
            "epoch": self.epoch,
            "hostedQueues": None if hosted is None else msgspec.Raw(hosted),
            "scope": self.scope,
            "topic": self.topic,
            "totalQueues": self.total_queues,
        }
        return bodies.encode({key: value for key, value in members.items() if value is not None})


def decode(value: Any) -> Mapping:
    """From parsed JSON, whose number keys are texts.

    Raises:
        msgspec.ValidationError: it is none.
    """
    return msgspec.convert(value, Mapping, strict=False, str_keys=True)


def at(items: Sequence[Item], logical: int) -> Item | None:
    """The item with a logical offset: the first one for what is before all of them. ``None`` when
    no item is decided."""
    decided = [item for item in items if item.decided]
    for item in reversed(decided):
        if logical >= item.logic_offset:
            return item
    return decided[0] if decided else None


def last(items: Sequence[Item]) -> Item | None:
    """The newest item that is decided."""
    return next((item for item in reversed(items) if item.decided), None)


def after(items: Sequence[Item], item: Item) -> Item | None:
    """The item behind another; ``None`` when there is none, or it is not decided."""
    behind = [other for other in items if other.gen > item.gen]
    return behind[0] if behind and behind[0].decided else None
