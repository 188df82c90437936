"""Ordered pops: one batch of a queue at a time (``ConsumerOrderInfoManager``).

A queue whose batch is not acknowledged gives nothing until the batch is, or becomes visible again;
then it is read again from where the batch began. The table is kept in consumerOrderInfo.json.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from firearrow.broker.groups import Groups
from firearrow.broker.topics import Topics
from firearrow.codec import tables
from firearrow.features.pop.offsets import Queue
from firearrow.model.clock import Clock, Timer
from firearrow.store.api import Store

log = logging.getLogger(__name__)

ORDER_FILE: Final = "consumerOrderInfo.json"
SAVE_S: Final = 10.0
FORGET_MS: Final = 24 * 3600 * 1000
_encode = msgspec.json.Encoder().encode


class Batch(msgspec.Struct, omit_defaults=True):
    """The messages of a queue that a group has now. Keys in JSON as Java's, alphabetical."""

    attempt_id: str | None = msgspec.field(default=None, name="a")
    acked: int = msgspec.field(default=0, name="cm")  # bit n: message n is acknowledged
    invisible_ms: int | None = msgspec.field(default=None, name="i")
    handed_out_ms: int = msgspec.field(default=0, name="l")
    packed: list[int] = msgspec.field(default_factory=list, name="o")  # first, then distances
    consumed: dict[int, int] = msgspec.field(default_factory=dict, name="oc")  # offset -> times
    visible_ms: dict[int, int] = msgspec.field(default_factory=dict, name="ot")  # where changed
    pop_ms: int = msgspec.field(default=0, name="popTime")

    @property
    def offsets(self) -> list[int]:
        first = self.packed[0] if self.packed else 0
        return [first, *(first + distance for distance in self.packed[1:])] if self.packed else []

    def open_until(self, now_ms: int, invisible_ms: int) -> int | None:
        """When its first message that is still invisible becomes visible; ``None`` when none
        is: the queue is free."""
        usual = self.pop_ms + (self.invisible_ms or invisible_ms)
        for index, offset in enumerate(self.offsets):
            if not self.acked >> index & 1:
                visible = self.visible_ms.get(offset, usual)
                if now_ms < visible:
                    return visible
        return None

    def next_offset(self) -> int:
        """The first offset that is not acknowledged, or the one behind the last."""
        offsets = self.offsets
        for index, offset in enumerate(offsets):
            if not self.acked >> index & 1:
                return offset
        return offsets[-1] + 1


class OrderTable(msgspec.Struct):
    """``consumerOrderInfo.json``: ``topic@group`` -> queue -> batch."""

    table: dict[str, dict[int, Batch | None] | None] | None = None


class Note(msgspec.Struct, array_like=True):
    """A change: the queue has this batch now, or none."""

    topic: str
    group: str
    queue_id: int
    batch: Batch | None


class Acked(msgspec.Struct, frozen=True):
    """Outcome of an ordered acknowledgement: the offset to commit, or why there is none."""

    next_offset: int | None = None
    unknown_offset: bool = False


class Orders:
    """All batches. ``released(queue)`` is called when time has made a queue free; who makes the
    object sets it."""

    def __init__(
        self,
        store: Store,
        topics: Topics,
        groups: Groups,
        clock: Clock,
        *,
        kept: bool = True,
    ) -> None:
        """``kept``: on the disk. What is not kept is also forgotten as soon as a batch is
        acknowledged whole (``MemoryConsumerOrderInfoManager``)."""
        self._store = store
        self._topics = topics
        self._groups = groups
        self._clock = clock
        self._kept = kept
        self.released: Callable[[Queue], None] = lambda queue: None
        self.table: dict[Queue, Batch] = {}
        self._locked: list[tuple[int, Queue]] = []  # a heap: when to look at a queue again
        self._look_at: dict[Queue, int] = {}  # the earliest entry of each queue in it
        self._timer: Timer | None = None
        self._timer_at_ms = 0
        self._dirty = False
        self._running = False

    # -- use

    def blocked(self, queue: Queue, attempt_id: str | None, invisible_ms: int, now_ms: int) -> bool:
        """Whether the queue must not be popped at ``now_ms``. The same attempt again may: it lost
        its answer."""
        batch = self.table.get(queue)
        if batch is None or (batch.attempt_id is not None and batch.attempt_id == attempt_id):
            return False
        return batch.open_until(now_ms, invisible_ms) is not None

    def hand_out(
        self,
        queue: Queue,
        offsets: list[int],
        pop_ms: int,
        invisible_ms: int,
        attempt_id: str | None,
    ) -> dict[int, int]:
        """Note a batch; how often each of its messages was handed out before, where it was."""
        first = offsets[0]
        batch = Batch(
            attempt_id=attempt_id,
            invisible_ms=invisible_ms,
            handed_out_ms=self._clock.now_ms(),
            packed=[first, *(offset - first for offset in offsets[1:])],
            pop_ms=pop_ms,
        )
        before = self.table.get(queue)
        if before is not None:
            batch.consumed = _consumed(before, batch)
        self.table[queue] = batch
        self._changed(queue, batch)
        return batch.consumed

    def acknowledge(self, queue: Queue, offset: int, pop_ms: int) -> Acked:
        """Take one message as consumed."""
        batch = self.table.get(queue)
        if batch is None:
            return Acked(offset + 1)
        if not batch.packed:
            return Acked(unknown_offset=True)
        if batch.pop_ms != pop_ms:
            log.debug("%s: an acknowledgement of an earlier batch is ignored", queue)
            return Acked()
        offsets = batch.offsets
        if offset not in offsets:
            return Acked(unknown_offset=True)
        batch.acked |= 1 << offsets.index(offset)
        following = batch.next_offset()
        if not self._kept and following > offsets[-1]:
            del self.table[queue]
        else:
            self._changed(queue, batch)
        return Acked(following)

    def change_visible(self, queue: Queue, offset: int, pop_ms: int, visible_ms: int) -> None:
        """Make one message visible again at ``visible_ms``."""
        batch = self.table.get(queue)
        if batch is not None and batch.pop_ms == pop_ms:
            batch.visible_ms[offset] = visible_ms
            self._changed(queue, batch)

    def suspend(self, queue: Queue, pop_ms: int, visible_ms: int) -> None:
        """Make the whole batch visible again at ``visible_ms``, as if it had not been handed out
        this time."""
        batch = self.table.get(queue)
        if batch is not None and batch.pop_ms == pop_ms:
            batch.consumed = {offset: max(0, n - 1) for offset, n in batch.consumed.items()}
            batch.visible_ms = {}
            batch.invisible_ms = visible_ms - batch.pop_ms
            self._changed(queue, batch)

    def clear(self, queue: Queue) -> None:
        """Forget the batch, as after a reset of the offset."""
        if self.table.pop(queue, None) is not None:
            self._note(queue, None)

    def _changed(self, queue: Queue, batch: Batch) -> None:
        self._note(queue, batch)
        self._watch(queue, batch)

    def _note(self, queue: Queue, batch: Batch | None) -> None:
        if self._kept:
            self._dirty = True
            self._store.note_config(ORDER_FILE, _encode((*queue, batch)))

    # -- queues that become free by time

    def _watch(self, queue: Queue, batch: Batch) -> None:
        until = batch.open_until(self._clock.now_ms(), 0)
        if until is None or until >= self._look_at.get(queue, until + 1):
            return  # free already, or looked at before that
        self._look_at[queue] = until
        heapq.heappush(self._locked, (until, queue))
        if self._timer is None or until < self._timer_at_ms:
            self._wait()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_ms = self._locked[0][0]
        delay_s = max(0.0, (self._timer_at_ms - self._clock.now_ms()) / 1000)
        self._timer = self._clock.call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_ms = self._clock.now_ms()
        while self._locked and self._locked[0][0] <= now_ms:
            at_ms, queue = heapq.heappop(self._locked)
            if self._look_at.get(queue) == at_ms:
                del self._look_at[queue]
            batch = self.table.get(queue)
            if batch is None:
                continue
            if batch.open_until(now_ms, 0) is None:
                self.released(queue)
            else:
                self._watch(queue, batch)
        if self._locked and self._running:
            self._wait()

    # -- on disk

    def start(self) -> None:
        self._running = True
        if not self._kept:
            return
        saved = self._store.load_config(ORDER_FILE, tables.reader(OrderTable)) or OrderTable()
        for key, queues in (saved.table or {}).items():
            topic, at, group = key.partition("@")
            for queue_id, batch in (queues or {}).items() if at else ():
                self._load((topic, group, queue_id), batch)
        for note in self._store.config_notes(ORDER_FILE, tables.reader(Note)):
            queue = (note.topic, note.group, note.queue_id)
            self.table.pop(queue, None)
            self._load(queue, note.batch)
        for queue, loaded in self.table.items():
            self._watch(queue, loaded)
        self._clock.call_later(SAVE_S, self._save_tick)

    def _load(self, queue: Queue, batch: Batch | None) -> None:
        if batch is not None:
            self.table[queue] = batch

    def stop(self) -> None:
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        self.save()

    def _save_tick(self) -> None:
        if self._running:
            self.save()
            self._clock.call_later(SAVE_S, self._save_tick)

    def save(self) -> None:
        """Write the file if anything changed, without what nobody will come back for."""
        if self._dirty:
            self._dirty = False
            self.forget_old()
            self._store.save_config(ORDER_FILE, self.chunks())

    def forget_old(self) -> None:
        """Let go what nobody will come back for."""
        oldest_ms = self._clock.now_ms() - FORGET_MS
        for queue, batch in list(self.table.items()):
            name, group, queue_id = queue
            topic = self._topics.find(name)
            if (
                topic is None
                or queue_id >= topic.read_queues
                or not self._groups.exists(group)
                or batch.handed_out_ms < oldest_ms
            ):
                del self.table[queue]

    def chunks(self) -> Iterator[bytes]:
        """The file's content."""
        by_owner: dict[tuple[str, str], dict[int, Batch]] = {}
        for (topic, group, queue_id), batch in self.table.items():
            by_owner.setdefault((topic, group), {})[queue_id] = batch
        yield b'{"table":{'
        separator = b""
        for (topic, group), queues in by_owner.items():
            yield separator + _encode(f"{topic}@{group}") + b":" + _encode(queues)
            separator = b","
        yield b"}}"


def _consumed(before: Batch, now: Batch) -> dict[int, int]:
    """How often the messages of a new batch were handed out before it."""
    if before.attempt_id is not None and before.attempt_id == now.attempt_id:
        return before.consumed
    again = set(before.offsets)
    return {offset: before.consumed.get(offset, 0) + 1 for offset in now.offsets if offset in again}
