"""What is read and not settled of one queue of the revive topic: check points and what is open."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from firearrow.features.pop.checkpoints import Acknowledgement, CheckPoint, Key

SETTLE_MS: Final = 2000  # acknowledgements may come into the revive topic so much later
# An acknowledgement without a check point is kept so long, and so many of them.
EARLY_MS: Final = 10_000
EARLY_MAX: Final = 100_000
OVER_MAX: Final = 200_000  # remembered after a start


class Open:
    """A check point that is not settled."""

    __slots__ = ("bits", "key", "point", "revive_offset")

    def __init__(self, point: CheckPoint, key: Key, revive_offset: int) -> None:
        self.point = point
        self.key = key
        self.revive_offset = revive_offset
        self.bits = (1 << len(point.offsets)) - 1  # of the messages that are not acknowledged

    def acknowledge(self, offsets: list[int]) -> None:
        acked = set(offsets)
        for index, offset in enumerate(self.point.offsets):
            if offset in acked:
                self.bits &= ~(1 << index)


class Early(NamedTuple):
    """Acknowledgements whose check point did not come yet."""

    until_ms: int  # after this time of the queue they are forgotten
    offsets: list[int]


class ReviveQueue:
    """Reading state of one queue of the revive topic.

    Check points are settled in the order in which they stand in the queue: so everything before
    the committed place is over, and nothing behind it, whenever the broker is killed.
    """

    def __init__(self, queue_id: int, begin: int) -> None:
        self.queue_id = queue_id
        self.next_offset = begin
        self.watermark_ms = 0  # what fell due before this was read
        self.by_key: dict[Key, Open] = {}
        self.in_order: deque[Open] = deque()
        self.early: OrderedDict[Key, Early] = OrderedDict()
        # Settled lately: after a kill the timer may deliver them once more. With the number of its
        # tries, since a check point that is written again has the key of the first one.
        self._over: set[tuple[Key, int]] = set()
        self._remembers = True

    def __len__(self) -> int:
        return len(self.in_order)

    @property
    def settled(self) -> int:
        """The last offset before which everything is over, itself included."""
        return (self.in_order[0].revive_offset if self.in_order else self.next_offset) - 1

    @property
    def settled_next(self) -> int:
        """The same, once the check point at the head is over."""
        following = self.in_order[1].revive_offset if len(self.in_order) > 1 else self.next_offset
        return following - 1

    def add(self, point: CheckPoint, key: Key, revive_offset: int) -> None:
        known = self.by_key.get(key)
        if (key, point.re_put_times) in self._over:
            return  # delivered twice
        if known is not None and known.point.offsets == point.offsets:
            return
        opened = Open(point, key, revive_offset)
        early = self.early.get(key)
        if early is not None:
            opened.acknowledge(early.offsets)
        if opened.bits:
            self.by_key[key] = opened
            self.in_order.append(opened)
        else:
            self.remember(point, key)

    def acknowledge(self, ack: Acknowledgement, key: Key, stored_ms: int) -> None:
        opened = self.by_key.get(key)
        offsets = ack.all_offsets()
        if opened is None:
            # Mostly too late or a second time; after a kill, perhaps before its check point.
            early = self.early.get(key)
            if early is not None:
                early.offsets.extend(offsets[: EARLY_MAX - len(early.offsets)])
                return
            if len(self.early) == EARLY_MAX:
                self.early.popitem(last=False)
            until_ms = max(self.watermark_ms, stored_ms) + EARLY_MS
            self.early[key] = Early(until_ms, offsets)
            return
        opened.acknowledge(offsets)
        if not opened.bits:
            self.remember(opened.point, key)
            del self.by_key[key]
            self.drop_settled()

    def drop_settled(self) -> None:
        """Let go of check points at the head that have nothing open."""
        in_order = self.in_order
        while in_order and not in_order[0].bits:
            opened = in_order.popleft()
            self.remember(opened.point, opened.key)
            if self.by_key.get(opened.key) is opened:
                del self.by_key[opened.key]

    def remember(self, point: CheckPoint, key: Key) -> None:
        """The check point is over, should it come again."""
        if self._remembers and len(self._over) < OVER_MAX:
            self._over.add((key, point.re_put_times))

    def forget(self) -> None:
        """The timer delivers nothing again any more."""
        self._remembers = False
        self._over.clear()

    def move_watermark(self, time_ms: int) -> None:
        if time_ms > self.watermark_ms:
            self.watermark_ms = time_ms
            while self.early and next(iter(self.early.values())).until_ms < time_ms:
                self.early.popitem(last=False)

    def due(self) -> Open | None:
        """The next check point, where its time is over."""
        if self.in_order:
            opened = self.in_order[0]
            if self.watermark_ms - opened.point.revive_ms > SETTLE_MS:
                return opened
        return None

    def look_again_ms(self) -> int | None:
        """When the next one falls due."""
        return self.in_order[0].point.revive_ms + SETTLE_MS + 1 if self.in_order else None
