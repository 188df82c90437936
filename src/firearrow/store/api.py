"""The waist between the broker and its store: everything a room may ask of stored messages.

One implementation over a disk (``filestore.FileStore``); memory is the same store over a disk in
memory. All calls return at once on the loop; what must wait takes a callback.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec

from firearrow.codec.tables import Reader
from firearrow.model.message import Message

T = TypeVar("T")

Place: TypeAlias = Any  # a topic's place in the store, which only the store looks into


class PutStatus(enum.Enum):
    """Outcome of an append (``PutMessageStatus``); the value is RocketMQ's name of it."""

    OK = "PUT_OK"
    FLUSH_DISK_TIMEOUT = "FLUSH_DISK_TIMEOUT"  # stored, not known to be on disk in time
    SERVICE_NOT_AVAILABLE = "SERVICE_NOT_AVAILABLE"  # disk full, shut down
    CREATE_FILE_FAILED = "CREATE_MAPPED_FILE_FAILED"
    MESSAGE_ILLEGAL = "MESSAGE_ILLEGAL"
    PROPERTIES_SIZE_EXCEEDED = "PROPERTIES_SIZE_EXCEEDED"
    WHEEL_TIMER_MSG_ILLEGAL = "WHEEL_TIMER_MSG_ILLEGAL"
    WHEEL_TIMER_NOT_ENABLE = "WHEEL_TIMER_NOT_ENABLE"
    LMQ_CONSUME_QUEUE_NUM_EXCEEDED = "LMQ_CONSUME_QUEUE_NUM_EXCEEDED"
    NO_PERMISSION = "NO_PERMISSION"  # a room's refusal, no status of RocketMQ's


class Put(msgspec.Struct, gc=False):
    """Result of an append. ``offset`` and after are set only when something was stored."""

    status: PutStatus
    reason: str = ""
    physical_offset: int = -1  # of the (first) record in the commit log
    end: int = -1  # first byte behind the (last) record
    queue_offset: int = -1  # of the (first) message in its queue
    store_timestamp: int = 0
    physical_offsets: tuple[int, ...] = ()  # of every record of a batch
    recall_handle: str = ""  # of a timed message: what takes it back
    duplicate: bool = False  # nothing was stored: what is told was stored before
    queue_id: int = -1  # of a duplicate: where it was stored


# Outcomes of a read: RocketMQ's names, which clients see as the remark (storage.md 3.10).
FOUND: Final = "FOUND"
NO_MATCHED_MESSAGE: Final = "NO_MATCHED_MESSAGE"
MESSAGE_WAS_REMOVING: Final = "MESSAGE_WAS_REMOVING"
NO_MATCHED_LOGIC_QUEUE: Final = "NO_MATCHED_LOGIC_QUEUE"
NO_MESSAGE_IN_QUEUE: Final = "NO_MESSAGE_IN_QUEUE"
OFFSET_TOO_SMALL: Final = "OFFSET_TOO_SMALL"
OFFSET_OVERFLOW_ONE: Final = "OFFSET_OVERFLOW_ONE"
OFFSET_OVERFLOW_BADLY: Final = "OFFSET_OVERFLOW_BADLY"
OFFSET_FOUND_NULL: Final = "OFFSET_FOUND_NULL"


class Read(msgspec.Struct, gc=False):
    """Result of a read of one queue."""

    status: str
    next_offset: int
    min_offset: int
    max_offset: int
    records: bytes = b""  # whole records back to back, as stored
    count: int = 0  # messages in them
    batched: int = 0  # records of a batch queue, each of which may hold several messages


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One consume queue entry."""

    offset: int
    physical_offset: int
    size: int
    tags_code: int
    count: int = 1  # messages in the record, the first one at ``offset``

    @property
    def end(self) -> int:
        """The queue offset behind it."""
        return self.offset + self.count


UNKNOWN_USAGE: Final = -1.0


class DiskUsage(msgspec.Struct, frozen=True):
    """Of the partition that holds the store; ``ratio`` as RocketMQ computes it (storage.md 5.8),
    ``UNKNOWN_USAGE`` when the system does not say."""

    total_bytes: int
    free_bytes: int
    ratio: float


# (topic, queue id, offset behind the entry, tags code, physical offset, record size)
Arrival = Callable[[str, int, int, int, int, int], None]
RecordMatch = Callable[[bytes], bool]  # whole record -> deliver it?
# topic -> which of its records are hidden; None when none is
HidingRule = Callable[[str], RecordMatch | None]


# topic -> does it have batch queues? None for one that nobody knows: what is on the disk tells
BatchRule = Callable[[str], bool | None]


class Store(Protocol):
    """Appends, reads, flushes, recovers, deletes."""

    # -- write
    def append(self, message: Message) -> Put:
        """Append one message; it is readable at once, or once flushed with SYNC_FLUSH."""

    def place(self, topic: str) -> Place:
        """Where ``append_at`` finds the topic's queues. Good for ever, quick until its deletion."""

    def append_at(self, place: Place, message: Message) -> Put:
        """``append`` without the search for the message's topic: with very many topics it is what
        a message costs more than with one."""

    def append_batch(self, messages: list[Message]) -> Put:
        """Append all messages of one queue next to each other, or none."""

    def when_durable(self, end: int, done: Callable[[bool], None]) -> None:
        """Call ``done(True)`` once the log is on disk up to ``end``; ``done(False)`` after
        ``syncFlushTimeout``. With ASYNC_FLUSH it is called at once."""

    # -- read
    def read(
        self,
        topic: str,
        queue_id: int,
        offset: int,
        max_messages: int,
        *,
        max_bytes: int = 128 * 1024 * 1024,
        tags_codes: Collection[int] | None = None,
        match: RecordMatch | None = None,
    ) -> Read:
        """Read from ``offset`` within the limits of storage.md 3.10: whole records, so that one
        which holds several messages may begin before ``offset``. ``tags_codes`` are Java hashes
        (signed 32 bit); ``match`` is asked only for entries that pass them."""

    def entries(self, topic: str, queue_id: int, offset: int, count: int) -> list[Entry]:
        """Consume queue entries of ``count`` messages from ``offset``; fewer at the end of a file,
        fewer or none at the end of the queue or outside. One that stands for several messages may
        begin before ``offset``."""

    def record(self, physical_offset: int, size: int | None = None) -> bytes | None:
        """The whole valid record that starts there, or ``None``."""

    def min_offset(self, topic: str, queue_id: int) -> int:
        """First retained offset; 0 for an unknown queue."""

    def max_offset(self, topic: str, queue_id: int) -> int:
        """Next offset to become readable; 0 for an unknown queue."""

    def search_offset(self, topic: str, queue_id: int, timestamp: int, *, upper: bool) -> int:
        """Offset by store time (storage.md 3.5), clamped to the queue; 0 for an unknown queue."""

    def store_time(self, topic: str, queue_id: int, offset: int) -> int:
        """Store timestamp of the message at ``offset``, or -1."""

    def query_keys(
        self,
        topic: str,
        key: str,
        max_count: int,
        begin_ms: int,
        end_ms: int,
        done: Callable[[list[bytes], int, int], None],
    ) -> None:
        """Find records by key. ``done(records, index_last_update_ms, index_last_update_offset)``,
        once the key index has caught up with the log."""

    def queues(self) -> Iterator[tuple[str, int]]:
        """Every (topic, queue id) that holds or held a message."""

    # -- state
    def commit_log_range(self) -> tuple[int, int]:
        """First retained and next physical offset."""

    def flushed_offset(self) -> int: ...

    def disk_usage(self) -> DiskUsage: ...

    def is_hot(self, physical_offset: int) -> bool:
        """Whether the record is near the end of the log (storage.md 3.10, 40 % of memory)."""

    def runtime_info(self) -> Mapping[str, str]:
        """The store's share of GET_BROKER_RUNTIME_INFO (storage.md 9.1), without rates."""

    # -- administration
    def delete_topic(self, topic: str) -> None:
        """Drop the topic's consume queues; the log keeps its bytes until retention."""

    def raise_min_offset(self, topic: str, queue_id: int, offset: int) -> None:
        """Make the queue's messages before ``offset`` unreadable for good; the log keeps its bytes
        until retention."""

    def hide(self, rule: HidingRule | None) -> None:
        """From now on ``read`` passes over the records that ``rule(topic)`` says are hidden."""

    def use_batch_queues(self, rule: BatchRule) -> None:
        """From now on ``rule(topic)`` says whether the queues of a topic that the store meets for
        the first time are batch queues."""

    def delete_expired(self) -> None:
        """Run retention now (DELETE_EXPIRED_COMMITLOG)."""

    def on_arrival(self, listener: Arrival, topic: str | None = None, *, prefix: str = "") -> None:
        """Call ``listener`` for each entry (of one topic, of topics with this prefix) that becomes
        readable, in log order."""

    def load_config(self, name: str, read: Reader[T], *, needed: bool = True) -> T | None:
        """What ``read`` makes of ``config/<name>``, or of its ``.bak``; ``None`` when there is
        neither, or when what is not ``needed`` is unreadable.

        Raises:
            ConfigUnreadable: it is unreadable, and needed; the start has to stop.
        """

    def save_config(self, name: str, chunks: Iterable[bytes]) -> None:
        """Replace ``config/<name>`` safely, keeping the old one as ``.bak``. ``chunks`` are read
        later and in several steps, between which the table may change."""

    def note_config(self, name: str, data: bytes) -> None:
        """Add one JSON value to the file's journal: it survives a kill before the next save, which
        empties the journal."""

    def config_notes(self, name: str, read: Reader[T]) -> list[T]:
        """Values noted after the last save of ``config/<name>``, oldest first.

        Raises:
            ConfigUnreadable: as ``load_config``.
        """

    def close(self) -> None:
        """Flush everything, write the checkpoint, remove ``abort``, release the lock."""
