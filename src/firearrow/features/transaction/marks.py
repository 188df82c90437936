"""Which half messages are finished: marks in the op topic, written in batches and read forward.

A mark is the half message's queue offset. An op message has the tag ``d`` and the marks as text,
each followed by a comma (``TransactionalMessageServiceImpl``; 4.9 writes one offset, no comma).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from firearrow.codec.properties import find_property, format_properties
from firearrow.codec.record import RecordError, decode_record
from firearrow.features.transaction.half import HALF_QUEUE
from firearrow.model import names
from firearrow.model.clock import Clock, Timer
from firearrow.model.message import Message
from firearrow.store.api import PutStatus, Store

log = logging.getLogger(__name__)

REMOVE_TAG: Final = "d"
# Marks that wait because the store takes nothing, as many as Java's queue holds. A mark beyond
# them is dropped: its producer is asked again.
WAITING_MARKS_MAX: Final = 20_000
READ_MESSAGES: Final = 8  # op messages read at once: about 4000 marks


class MarkSettings(Protocol):
    transaction_op_msg_max_size: int
    transaction_op_batch_interval: int


class Marks:
    """The marks that this process makes."""

    def __init__(
        self, settings: MarkSettings, store: Store, clock: Clock, store_host: bytes
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._store_host = store_host
        self._waiting: dict[int, None] = {}  # in order, each once
        self._bytes = 0
        # Written, but not readable before a flush (SYNC_FLUSH): offset behind the op message.
        self._unreadable: deque[tuple[int, frozenset[int]]] = deque()
        self._timer: Timer | None = None

    def add(self, offset: int) -> None:
        """Note that a half message is finished; it is written within the batch interval."""
        if offset in self._waiting:
            return
        if len(self._waiting) >= WAITING_MARKS_MAX:
            log.error(
                "the store takes no op messages: half message %d was ended, but its producer will "
                "be asked about it again; check the disk, and free space if it is full",
                offset,
            )
            return
        self._waiting[offset] = None
        self._bytes += len(f"{offset},")
        if self._bytes >= self._settings.transaction_op_msg_max_size:
            self.flush()
        elif self._timer is None:
            self._wake_later()

    def _wake_later(self) -> None:
        delay_s = self._settings.transaction_op_batch_interval / 1000
        self._timer = self._clock.call_later(delay_s, self.flush)

    def flush(self) -> None:
        """Write every waiting mark now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            marks = self._next_batch()
            put = self._store.append(self._op_message(marks))
            if put.status is not PutStatus.OK:
                self._wake_later()
                return
            for mark in marks:
                del self._waiting[mark]
            self._unreadable.append((put.queue_offset + 1, frozenset(marks)))
        self._bytes = 0
        self._forget_readable()

    def _next_batch(self) -> list[int]:
        marks: list[int] = []
        size = 0
        for mark in self._waiting:
            marks.append(mark)
            size += len(f"{mark},")
            if size >= self._settings.transaction_op_msg_max_size:
                break
        return marks

    def _op_message(self, marks: list[int]) -> Message:
        return Message(
            topic=names.TRANS_OP_HALF_TOPIC,
            queue_id=HALF_QUEUE,
            body="".join(f"{mark}," for mark in marks).encode(),
            properties=format_properties({"TAGS": REMOVE_TAG}),
            born_timestamp=self._clock.now_ms(),
            born_host=self._store_host,
        )

    def _forget_readable(self) -> None:
        readable = self._store.max_offset(names.TRANS_OP_HALF_TOPIC, HALF_QUEUE)
        while self._unreadable and self._unreadable[0][0] <= readable:
            self._unreadable.popleft()

    def knows(self, offset: int) -> bool:
        """Whether the mark was made and cannot be read from the op queue yet."""
        if offset in self._waiting:
            return True
        self._forget_readable()
        return any(offset in marks for _, marks in self._unreadable)


class FinishedReader:
    """The op queue, read forward from where the last round of checks stopped needing it."""

    def __init__(self, store: Store, start: int) -> None:
        self._store = store
        low = store.min_offset(names.TRANS_OP_HALF_TOPIC, HALF_QUEUE)
        high = store.max_offset(names.TRANS_OP_HALF_TOPIC, HALF_QUEUE)
        self._next = min(max(start, low), high)
        self.finished: set[int] = set()
        self._needed: deque[tuple[int, int]] = deque()  # op offset, its largest mark

    def read_more(self) -> bool:
        """Read the next few op messages; ``False`` at the end of the queue."""
        entries = self._store.entries(
            names.TRANS_OP_HALF_TOPIC, HALF_QUEUE, self._next, READ_MESSAGES
        )
        for entry in entries:
            marks = list(self._marks(entry.physical_offset))
            self.finished.update(marks)
            self._needed.append((entry.offset, max(marks, default=-1)))
            self._next = entry.offset + 1
        return bool(entries)

    def _marks(self, physical_offset: int) -> Iterator[int]:
        data = self._store.record(physical_offset)
        if data is None:
            return  # removed by retention
        try:
            record = decode_record(data)
        except RecordError as error:
            log.error(
                "the op message at %d of the commit log is unreadable (%s): producers are asked "
                "again about the half messages that it ended; check the disk",
                physical_offset,
                error,
            )
            return
        if find_property(record.properties, b"TAGS") != REMOVE_TAG.encode():
            log.error(
                "the record at %d of the commit log has not the tag %s of an op message and is "
                "left out: see who sends to topic %s",
                physical_offset,
                REMOVE_TAG,
                names.TRANS_OP_HALF_TOPIC,
            )
            return
        for piece in record.body.split(b","):
            if piece.isdigit():
                yield int(piece)

    def done_until(self, half_offset: int) -> int:
        """The next op message that is needed once all half messages before this are dealt with."""
        while self._needed and self._needed[0][1] < half_offset:
            self._needed.popleft()
        return self._needed[0][0] if self._needed else self._next
