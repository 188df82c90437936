"""How far each group has popped each queue.

The consumer offset moves on when the check point is safe: at once, or with SYNC_FLUSH when the
flush has covered it. Until then the next pop goes on from an offset kept here, so that no message
is handed out twice. After a kill in between the check point is in the log, and counts; after a
power failure it may be lost, and what nobody could count on is handed out again.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from firearrow.broker.offsets import ConsumerOffsets
from firearrow.model import names
from firearrow.store.api import Store

Queue = tuple[str, str, int]  # topic, group, queue id


class OffsetSettings(Protocol):
    flush_disk_type: str
    init_pop_offset_by_check_msg_in_mem: bool


class PopOffsets:
    """Where the next pop of a queue begins."""

    def __init__(self, settings: OffsetSettings, store: Store, offsets: ConsumerOffsets) -> None:
        self._settings = settings
        self._store = store
        self._offsets = offsets
        # Popped, and not known to be on disk: up to where, and the end of the check point.
        self._ahead: dict[Queue, tuple[int, int]] = {}

    def begin(self, queue: Queue, *, from_min: bool) -> int:
        """The offset to pop from; a group that is new to the queue gets its first offset."""
        offset = self._known(queue)
        if offset is None:
            topic, group, queue_id = queue
            offset = self._first(topic, queue_id, from_min=from_min)
            self._offsets.commit_noted(topic, group, queue_id, offset)
        return offset

    def look(self, queue: Queue, *, from_min: bool = True) -> int:
        """The same, without starting the group."""
        offset = self._known(queue)
        return self._first(queue[0], queue[2], from_min=from_min) if offset is None else offset

    def _known(self, queue: Queue) -> int | None:
        topic, group, queue_id = queue
        offset = self._offsets.find(topic, group, queue_id)
        if offset is None or offset < 0:
            return None
        if self._ahead:
            return max(offset, self._ahead.get(queue, (-1, 0))[0])
        return offset

    def _first(self, topic: str, queue_id: int, *, from_min: bool) -> int:
        """For a group without an offset (``getInitOffset``): "from max" is the last message."""
        low = self._store.min_offset(topic, queue_id)
        if from_min or topic.startswith(names.RETRY_PREFIX):
            return low
        if self._settings.init_pop_offset_by_check_msg_in_mem and low <= 0:
            first = self._store.entries(topic, queue_id, 0, 1)
            if not first or self._store.is_hot(first[0].physical_offset):
                return 0
        return max(self._store.max_offset(topic, queue_id) - 1, 0)

    def take_reset(self, queue: Queue) -> int | None:
        """An operator's reset of the queue, which this call makes the offset."""
        topic, group, queue_id = queue
        offset = self._offsets.take_reset(topic, group, queue_id)
        if offset is not None:
            self._ahead.pop(queue, None)
            self._offsets.commit_noted(topic, group, queue_id, offset)
        return offset

    def set(self, queue: Queue, offset: int) -> None:
        """Move to ``offset`` now: nothing was handed out that could be lost."""
        self._ahead.pop(queue, None)
        self._offsets.commit_noted(*queue, offset)

    def set_unless_reset(self, queue: Queue, offset: int) -> None:
        """Move to ``offset``, unless an operator wants the group elsewhere."""
        if self._offsets.pending_reset(*queue) is None:
            self.set(queue, offset)

    def pass_by(self, queue: Queue, offset: int) -> None:
        """Nobody wants the messages before ``offset``."""
        end = self._store.commit_log_range()[1]
        self._offsets.note_ahead(*queue, offset, end)
        self.advance(queue, offset, end)

    def announce(self, queue: Queue, offset: int) -> None:
        """The next record of the log is a check point for messages up to ``offset``. Noted before
        it is written, so that a kill leaves both or neither: without it the note does not count."""
        self._offsets.note_ahead(*queue, offset, self._store.commit_log_range()[1] + 1)

    def withdraw(self, queue: Queue) -> None:
        """The check point was not stored."""
        offset = self._known(queue)
        if offset is not None:
            self._offsets.note_ahead(*queue, offset, self._store.commit_log_range()[1])

    def advance(self, queue: Queue, offset: int, end: int) -> None:
        """Messages up to ``offset`` were handed out, as announced; their check point ends at
        ``end`` in the log."""
        if self._settings.flush_disk_type == "ASYNC_FLUSH":
            self._offsets.commit(*queue, offset)
            return
        self._ahead[queue] = offset, end
        self._store.when_durable(end, partial(self._safe, queue, offset))

    def _safe(self, queue: Queue, offset: int, durable: bool) -> None:
        ahead, end = self._ahead.get(queue, (-1, 0))
        if offset > ahead:
            return  # reset meanwhile
        self._offsets.commit_noted(*queue, offset)
        if offset == ahead:
            del self._ahead[queue]
        else:  # somebody popped on meanwhile: the newest note counts
            self._offsets.note_ahead(*queue, ahead, end)
