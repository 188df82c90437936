"""The store over a disk: appends, reads, and the background work that makes them last."""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final
from zlib import crc32

import msgspec

from firearrow.codec.hashes import java_hash
from firearrow.codec.properties import find_property
from firearrow.codec.sysflags import (
    SYS_BORN_HOST_V6,
    SYS_STORE_HOST_V6,
    SYS_TRANSACTION_PREPARED,
)
from firearrow.model.background import Background
from firearrow.model.clock import Clock
from firearrow.model.message import Message
from firearrow.store import api, checkpoint, configfiles, lmq, retention
from firearrow.store.api import (
    UNKNOWN_USAGE,
    Arrival,
    DiskUsage,
    Entry,
    HidingRule,
    Put,
    PutStatus,
    Read,
    RecordMatch,
)
from firearrow.store.commitlog import CommitLog, LogFull
from firearrow.store.consumequeue import (
    ENTRY,
    ENTRY_BYTES,
    FILLER_SIZE,
    ConsumeQueue,
    QueueFiles,
    TagsRule,
    TopicShape,
)
from firearrow.store.disk import Disk
from firearrow.store.flush import Flusher
from firearrow.store.keyindex import KeyIndex
from firearrow.store.queueflush import QueueFlusher
from firearrow.store.settings import StoreSettings

log = logging.getLogger(__name__)

PROPERTIES_BYTES_MAX: Final = 32767
RETRY_TOPIC_BYTES_MAX: Final = 255
TAG_CACHE_ENTRIES_MAX: Final = 65536

# Record heads for every mix of IPv4 and IPv6 addresses: total size ... body length.
_HEADS: Final = {
    (born, store): struct.Struct(f">iIiiiqqiq{born}sq{store}siqi")
    for born in (8, 20)
    for store in (8, 20)
}
_HEAD_V4 = _HEADS[8, 8]
_PROPERTIES_SIZE = struct.Struct(">H")
_V6_BITS: Final = SYS_BORN_HOST_V6 | SYS_STORE_HOST_V6


class StoreLocked(Exception):  # noqa: N818
    """Somebody else has the store open; the text says what to do."""


class FileStore:
    """See ``api.Store``. Use ``recovery.open_store`` to get one."""

    def __init__(
        self,
        root: str,
        settings: StoreSettings,
        disk: Disk,
        clock: Clock,
        background: Background,
        tags_rules: Mapping[str, TagsRule],
    ) -> None:
        self.root = root
        self.settings = settings
        self.disk = disk
        self.clock = clock
        self._now_ms = clock.now_ms
        self.background = background
        self.log = CommitLog(
            disk, f"{root}/commitlog", settings.mapped_file_size_commit_log, clock, background
        )
        self.files = QueueFiles(
            disk, f"{root}/consumequeue", settings.mapped_file_size_consume_queue
        )
        self.table: dict[tuple[str, int], ConsumeQueue] = {}
        self._shapes: dict[str, TopicShape] = {}
        self._tags_rules = tags_rules
        self.checkpoint = checkpoint.Checkpoint()
        self.flusher = Flusher(self)
        self.queue_flusher = QueueFlusher(self)
        self.index = KeyIndex(self)
        self.retention = retention.Retention(self)
        self.configs = configfiles.ConfigFiles(
            disk, f"{root}/config", background, clock, self.flusher.after, self.refuse
        )
        self._listeners: list[tuple[str | None, Arrival]] = []
        self._unflushed: deque[tuple[ConsumeQueue, int, int, int]] = deque()
        self._tags: dict[bytes, int] = {}
        self._hidden: HidingRule | None = None
        self.dispatches = settings.enable_lmq and settings.enable_multi_dispatch
        self._dispatches = self.dispatches  # off while a message goes into its own queue
        self.last_timestamp = 0
        self._hot_bytes = _memory_bytes() * settings.access_message_in_memory_max_ratio // 100
        self.refusal = ""  # why nothing may be appended now
        self._refusals: dict[str, str] = {}
        self.flush_failed = False  # nothing may be appended until a restart
        self.closed = False

    # -- append

    def append(self, message: Message) -> Put:
        queue = self.table.get((message.topic, message.queue_id))
        body, properties = message.body, message.properties
        body_size, properties_size = len(body), len(properties)
        if (
            queue is None
            or properties_size > PROPERTIES_BYTES_MAX
            or body_size > self.settings.max_message_size
            or self.refusal
            or self._dispatches
        ):
            refusal = self._refusal(message)
            if refusal is not None:
                return refusal
            if self._dispatches:
                return self._append_dispatched(message)
            queue = self._queue(message.topic, message.queue_id)
        shape = queue.shape
        born_host = message.born_host
        store_host = message.store_host or self.settings.store_host
        head = _HEAD_V4
        sys_flag = message.sys_flag
        size = shape.overhead + body_size + properties_size
        if len(born_host) + len(store_host) != 16 or sys_flag & _V6_BITS:
            head = _HEADS[len(born_host), len(store_host)]
            size += len(born_host) + len(store_host) - 16
            sys_flag = _with_address_bits(sys_flag, born_host, store_host)
        commit_log = self.log
        phy = commit_log.end
        if phy + size > commit_log.easy_until:
            try:
                phy = commit_log.position(size)
            except LogFull as error:
                return Put(PutStatus.SERVICE_NOT_AVAILABLE, str(error))
        now = self._now_ms()
        if now < self.last_timestamp:
            now = self.last_timestamp
        else:
            self.last_timestamp = now
        counted = not sys_flag & SYS_TRANSACTION_PREPARED  # neither prepared nor rollback
        offset = queue.next_offset if counted else 0
        packed = head.pack(
            size,
            shape.magic,
            crc32(body) & 0x7FFFFFFF,
            queue.queue_id,
            message.flag,
            offset,
            phy,
            sys_flag,
            message.born_timestamp,
            born_host,
            now,
            store_host,
            message.reconsume_times,
            message.prepared_offset,
            body_size,
        )
        part = _PROPERTIES_SIZE.pack(properties_size)
        start = phy - commit_log.buffer_start
        commit_log.buffer[start : start + size] = b"".join(
            (packed, body, shape.part, part, properties)
        )
        commit_log.end = phy + size
        if counted:
            queue.next_offset = offset + 1
            tags_code = 0
            if shape.tags_rule is not None or b"TAGS\x01" in properties:
                tags_code = self.tags_code(shape, properties, now)
            if self.settings.flush_disk_type == "ASYNC_FLUSH" and not self._unflushed:
                self.add_entry(queue, phy, size, tags_code)
            else:
                self._dispatch(queue, phy, size, tags_code)
        if not self.flusher.scheduled:
            self.flusher.schedule()
        return Put(PutStatus.OK, "", phy, phy + size, offset, now)

    def _append_plain(self, message: Message) -> Put:
        """Into its own queue only."""
        if self.dispatches and lmq.OFFSETS_MARK in message.properties:
            properties = lmq.without_offsets(message.properties)
            message = msgspec.structs.replace(message, properties=properties)
        return self._append_own(message)

    def _append_own(self, message: Message) -> Put:
        dispatches, self._dispatches = self._dispatches, False
        try:
            return self.append(message)
        finally:
            self._dispatches = dispatches

    def _append_dispatched(self, message: Message) -> Put:
        """Into its own queue, and at the end of each LMQ that it names."""
        wanted = lmq.wanted(message)
        if not wanted:
            return self._append_plain(message)
        queues = {name: self._queue(name, lmq.QUEUE_ID) for name in wanted if lmq.is_queue(name)}
        offsets = ",".join(str(queues[n].next_offset) if n in queues else "" for n in wanted)
        properties = lmq.with_offsets(message.properties, offsets)
        put = self._append_own(msgspec.structs.replace(message, properties=properties))
        if put.physical_offset < 0:
            return put
        tags_code = self.tags_code(self.shape(message.topic), properties, put.store_timestamp)
        for queue in queues.values():
            queue.next_offset += 1
            self._dispatch(queue, put.physical_offset, put.end - put.physical_offset, tags_code)
        return put

    def _refusal(self, message: Message) -> Put | None:
        """Why the message cannot be stored, if so (storage.md 2.7)."""
        error = _topic_error(message.topic)
        if error:
            return Put(PutStatus.MESSAGE_ILLEGAL, error)
        if self.refusal:
            return Put(PutStatus.SERVICE_NOT_AVAILABLE, self.refusal)
        size = len(message.properties)
        if size > PROPERTIES_BYTES_MAX:
            return Put(
                PutStatus.PROPERTIES_SIZE_EXCEEDED,
                f"{size} bytes of properties; the limit is {PROPERTIES_BYTES_MAX}",
            )
        if len(message.body) > self.settings.max_message_size:
            return self._too_large(len(message.body))
        return None

    def refuse(self, cause: str, reason: str) -> None:
        """Refuse messages for ``reason`` until the same cause has none."""
        self._refusals.pop(cause, None)
        if reason:
            self._refusals[cause] = reason
        self.refusal = "; ".join(self._refusals.values())

    def append_batch(self, messages: list[Message]) -> Put:
        if not messages:
            return Put(PutStatus.MESSAGE_ILLEGAL, "the batch is empty")
        total = 0
        for message in messages:
            refusal = self._refusal(message)
            if refusal is not None:
                return refusal
            shape = self.shape(message.topic)
            total += shape.overhead + len(message.body) + len(message.properties)
            total += len(message.born_host) - 8 + len(self.settings.store_host) - 8
        try:
            self.log.position(total)  # all of it fits in this file, or the next one is opened
        except LogFull as full:
            return Put(PutStatus.SERVICE_NOT_AVAILABLE, str(full))
        puts = [self._append_plain(message) for message in messages]
        result = puts[0]
        assert puts[-1].physical_offset >= 0, "a batch that was checked is stored whole"
        result.end = puts[-1].end
        result.physical_offsets = tuple(put.physical_offset for put in puts)
        return result

    def _too_large(self, size: int) -> Put:
        return Put(
            PutStatus.MESSAGE_ILLEGAL,
            f"the message has {size} bytes, maxMessageSize is {self.settings.max_message_size}",
        )

    def _queue(self, topic: str, queue_id: int) -> ConsumeQueue:
        queue = self.table.get((topic, queue_id))
        if queue is None:
            queue = self.table[topic, queue_id] = ConsumeQueue(self.shape(topic), queue_id)
        return queue

    def shape(self, topic: str) -> TopicShape:
        shape = self._shapes.get(topic)
        if shape is None:
            rule = self._tags_rules.get(topic)
            shape = self._shapes[topic] = TopicShape(topic, rule, self._listeners_of(topic))
        return shape

    def tags_code(self, shape: TopicShape, properties: bytes, timestamp: int) -> int:
        """Java hash of the TAGS property, 0 without one; a topic may have a rule of its own."""
        if shape.tags_rule is not None:
            return shape.tags_rule(properties, timestamp)
        tag = find_property(properties, b"TAGS")
        if tag is None:
            return 0
        code = self._tags.get(tag)
        if code is None:
            if len(self._tags) >= TAG_CACHE_ENTRIES_MAX:
                self._tags.clear()
            code = self._tags[tag] = java_hash(tag.decode("utf-8", "replace"))
        return code

    # -- dispatch: the log's record becomes readable

    @property
    def _visible_at_once(self) -> bool:
        return self.settings.flush_disk_type != "SYNC_FLUSH"

    def _dispatch(self, queue: ConsumeQueue, phy: int, size: int, tags_code: int) -> None:
        if self._visible_at_once:
            self.show_flushed(phy)  # the setting changed meanwhile: keep the order
            self.add_entry(queue, phy, size, tags_code)
        else:
            self._unflushed.append((queue, phy, size, tags_code))

    def show_flushed(self, flushed: int) -> None:
        """Make what the flush covered readable (storage.md 5.6: only flushed with SYNC_FLUSH)."""
        unflushed = self._unflushed
        while unflushed and unflushed[0][1] + unflushed[0][2] <= flushed:
            self.add_entry(*unflushed.popleft())

    def add_entry(self, queue: ConsumeQueue, phy: int, size: int, tags_code: int) -> None:
        """Put one entry at the end of its queue and tell who listens."""
        pending = queue.pending
        if pending is None:
            queue.pending = bytearray(ENTRY.pack(phy, size, tags_code))
            queue.pending_start = queue.max_offset
            self.queue_flusher.dirty(queue, phy)
        else:
            pending += ENTRY.pack(phy, size, tags_code)
        queue.max_offset = offset = queue.max_offset + 1
        shape = queue.shape
        for listener in shape.listeners:
            listener(shape.name, queue.queue_id, offset, tags_code, phy, size)

    def restore_entry(
        self, topic: str, queue_id: int, offset: int, phy: int, size: int, tags: int
    ) -> None:
        """For recovery: an entry whose offset the record itself tells."""
        queue = self._queue(topic, queue_id)
        if offset < queue.max_offset:
            return
        if offset > queue.max_offset:
            if queue.max_offset == 0:
                queue.min_offset = queue.max_offset = queue.pending_start = offset
            else:
                log.error(
                    "queue %s/%d has no entries from %d to %d; their messages are not readable",
                    topic,
                    queue_id,
                    queue.max_offset,
                    offset,
                )
                while queue.max_offset < offset:  # with a position, so that positions only grow
                    self.add_entry(queue, phy, FILLER_SIZE, 0)
        self.add_entry(queue, phy, size, tags)
        queue.next_offset = queue.max_offset

    def when_durable(self, end: int, done: Callable[[bool], None]) -> None:
        if self.settings.flush_disk_type != "SYNC_FLUSH" or end <= self.log.flushed:
            done(True)
        else:
            self.flusher.wait(end, done)

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
        queue = self.table.get((topic, queue_id))
        if queue is None:
            return Read(api.NO_MATCHED_LOGIC_QUEUE, 0, 0, 0)
        low, high = queue.min_offset, queue.max_offset
        if high == 0:
            return Read(api.NO_MESSAGE_IN_QUEUE, 0, low, high)
        if offset < low:
            return Read(api.OFFSET_TOO_SMALL, low, low, high)
        if offset == high:
            return Read(api.OFFSET_OVERFLOW_ONE, offset, low, high)
        if offset > high:
            return Read(api.OFFSET_OVERFLOW_BADLY, high, low, high)
        settings = self.settings
        if self._hidden is not None:
            match = _visible(self._hidden(topic), match)
        if tags_codes is None and match is None:
            examined = min(max_messages, settings.max_transfer_count_on_message_in_memory)
        else:
            examined = max(settings.max_filter_message_size // ENTRY_BYTES, max_messages)
        entries = self.files.entries(queue, offset, max(examined, 1))
        if not entries:
            per_file = self.files.file_bytes // ENTRY_BYTES
            return Read(api.OFFSET_FOUND_NULL, offset - offset % per_file + per_file, low, high)
        return self._collect(offset, entries, low, high, max_messages, max_bytes, tags_codes, match)

    def _collect(
        self,
        offset: int,
        entries: bytes,
        low: int,
        high: int,
        max_messages: int,
        max_bytes: int,
        tags_codes: Collection[int] | None,
        match: RecordMatch | None,
    ) -> Read:
        commit_log = self.log
        hot_from = commit_log.end - self._hot_bytes
        hot, cold = _read_limits(self.settings)
        log_min = commit_log.min_offset
        parts: list[bytes] = []
        count = total = 0
        run_start = run_end = -1  # adjacent records leave as one slice
        status = api.NO_MATCHED_MESSAGE
        for phy, size, tags_code in ENTRY.iter_unpack(entries):
            if phy < log_min or size == FILLER_SIZE:
                status = api.MESSAGE_WAS_REMOVING
                offset += 1
                continue
            if count:
                byte_limit, count_limit = hot if phy >= hot_from else cold
                if (
                    count >= max_messages
                    or count >= count_limit
                    or total + size > byte_limit
                    or total + size > max_bytes
                ):
                    break
            offset += 1
            if tags_codes is not None and _int32(tags_code) not in tags_codes:
                continue
            if match is not None:
                record = commit_log.slice(phy, size)
                if not record or not match(record):
                    continue
            if phy == run_end and phy % commit_log.file_bytes:
                run_end += size
            elif commit_log.file_of(phy) is None:  # lost, with later ones still there
                status = api.MESSAGE_WAS_REMOVING
                continue
            else:
                if run_end > run_start:
                    parts.append(commit_log.slice(run_start, run_end - run_start))
                run_start, run_end = phy, phy + size
            count += 1
            total += size
        if run_end > run_start:
            parts.append(commit_log.slice(run_start, run_end - run_start))
        if count:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            return Read(api.FOUND, offset, low, high, body, count)
        return Read(status, offset, low, high)

    def entries(self, topic: str, queue_id: int, offset: int, count: int) -> list[Entry]:
        queue = self.table.get((topic, queue_id))
        if queue is None or not queue.min_offset <= offset < queue.max_offset:
            return []
        data = self.files.entries(queue, offset, count)
        return [Entry(offset + n, *entry) for n, entry in enumerate(ENTRY.iter_unpack(data))]

    def record(self, physical_offset: int, size: int | None = None) -> bytes | None:
        return self.log.record_at(physical_offset)

    def min_offset(self, topic: str, queue_id: int) -> int:
        queue = self.table.get((topic, queue_id))
        return queue.min_offset if queue else 0

    def max_offset(self, topic: str, queue_id: int) -> int:
        queue = self.table.get((topic, queue_id))
        return queue.max_offset if queue else 0

    def search_offset(self, topic: str, queue_id: int, timestamp: int, *, upper: bool) -> int:
        queue = self.table.get((topic, queue_id))
        if queue is None or queue.max_offset <= queue.min_offset:
            return 0 if queue is None else queue.max_offset
        low, high = queue.min_offset, queue.max_offset
        while low < high:  # first entry with a later time (upper), or not an earlier one
            middle = (low + high) // 2
            stored = self._store_time(queue, middle)
            if stored < timestamp or (upper and stored == timestamp):
                low = middle + 1
            else:
                high = middle
        return max(low - 1, queue.min_offset) if upper else low

    def _store_time(self, queue: ConsumeQueue, offset: int) -> int:
        entry = self.files.entry(queue, offset)
        return -1 if entry is None or entry[1] == FILLER_SIZE else self.log.store_time(entry[0])

    def store_time(self, topic: str, queue_id: int, offset: int) -> int:
        queue = self.table.get((topic, queue_id))
        if queue is None or not queue.min_offset <= offset < queue.max_offset:
            return -1
        return self._store_time(queue, offset)

    def query_keys(
        self,
        topic: str,
        key: str,
        max_count: int,
        begin_ms: int,
        end_ms: int,
        done: Callable[[list[bytes], int, int], None],
    ) -> None:
        self.index.query(topic, key, max_count, begin_ms, end_ms, done)

    def queues(self) -> Iterator[tuple[str, int]]:
        return iter(list(self.table))

    def correct_min_offset(self, queue: ConsumeQueue) -> None:
        """Move the queue's minimum past entries whose records are gone (storage.md 3.4)."""
        minimum = self.log.min_offset
        low, high = queue.min_offset, queue.max_offset
        middle = low  # mostly it stays
        while low < high:
            entry = self.files.entry(queue, middle)
            before_all = entry is not None and entry[1] == FILLER_SIZE and entry[0] == 0
            if entry is None or before_all or entry[0] < minimum:
                low = middle + 1
            else:
                high = middle
            middle = (low + high) // 2
        queue.min_offset = low

    # -- state

    def commit_log_range(self) -> tuple[int, int]:
        return self.log.min_offset, self.log.end

    def flushed_offset(self) -> int:
        return self.log.flushed

    def disk_usage(self) -> DiskUsage:
        try:
            return self.disk.usage(self.root)
        except OSError:
            return DiskUsage(0, 0, UNKNOWN_USAGE)

    def is_hot(self, physical_offset: int) -> bool:
        return self.log.end - physical_offset <= self._hot_bytes

    def runtime_info(self) -> Mapping[str, str]:
        usage = self.disk_usage()
        behind = self.log.end - self._unflushed[0][1] if self._unflushed else 0
        return {
            "commitLogMinOffset": str(self.log.min_offset),
            "commitLogMaxOffset": str(self.log.end),
            "commitLogDiskRatio": str(usage.ratio),
            f"commitLogDiskRatio_{self.root}/commitlog": str(usage.ratio),
            "consumeQueueDiskRatio": str(usage.ratio),
            "dispatchBehindBytes": str(behind),
            "earliestMessageTimeStamp": str(self.log.store_time(self.log.min_offset)),
        }

    # -- administration

    def delete_topic(self, topic: str) -> None:
        for name, queue_id in [key for key in self.table if key[0] == topic]:
            queue = self.table.pop((name, queue_id))
            self.queue_flusher.forget(queue)
            self.disk.forget(self.files.directory(topic, queue_id))
            self.background.submit(
                lambda queue_id=queue_id: self.files.delete(topic, queue_id),  # type: ignore[misc]
                lambda _, error: self._deleted(topic, error),
            )
        self._shapes.pop(topic, None)

    def _deleted(self, topic: str, error: OSError | None) -> None:
        if error is not None:
            log.error(
                "cannot remove the consume queues of the deleted topic %s: %s. Remove %s/%s by "
                "hand while the broker is down",
                topic,
                error.strerror,
                self.files.root,
                topic,
            )

    def raise_min_offset(self, topic: str, queue_id: int, offset: int) -> None:
        queue = self.table.get((topic, queue_id))
        if queue is not None and offset > queue.min_offset:
            queue.min_offset = min(offset, queue.max_offset)
            self.files.delete_before(topic, queue_id, queue.min_offset)

    def hide(self, rule: HidingRule | None) -> None:
        self._hidden = rule

    def delete_expired(self) -> None:
        self.retention.run_now()

    def on_arrival(self, listener: Arrival, topic: str | None = None) -> None:
        self._listeners.append((topic, listener))
        for name, shape in self._shapes.items():
            shape.listeners = self._listeners_of(name)

    def _listeners_of(self, name: str) -> tuple[Arrival, ...]:
        return tuple(listener for topic, listener in self._listeners if topic in (None, name))

    def load_config(self, name: str) -> Any:
        return self.configs.load(name)

    def save_config(self, name: str, chunks: Iterable[bytes]) -> None:
        self.configs.save(name, chunks)

    def note_config(self, name: str, data: bytes) -> None:
        self.configs.note(name, data)

    def config_notes(self, name: str) -> list[Any]:
        return self.configs.notes(name)

    # -- start and stop

    def start(self) -> None:
        """Mark the store as in use and begin the background work."""
        self._mark_in_use()
        self.queue_flusher.start()
        self.retention.start()
        self.index.note_growth()

    def _mark_in_use(self) -> None:
        path = f"{self.root}/abort"
        try:
            self.disk.write(path, str(os.getpid()).encode())
        except OSError as error:
            if error.errno != errno.ENOSPC or self.disk.size(path) < 0:
                raise
            # The name says it all; so a full disk can still be read from.
        self.disk.sync_directory(self.root)

    def checkpoint_writer(self) -> Callable[[], None]:
        """What writes the checkpoint as it is now; for the background."""
        data = self.checkpoint.pack()
        return lambda: checkpoint.write(self.disk, f"{self.root}/checkpoint", data)

    def close(self) -> None:
        """Flush everything (blocks), then mark the store as cleanly closed. When the disk fails,
        ``abort`` stays and the next start recovers."""
        if self.closed:
            return
        self.background.finish()
        self.closed = True
        try:
            if not self.flush_failed:
                self._finish()
        except OSError as error:
            log.error(
                "the store %s cannot be closed cleanly: %s. The next start recovers what is on "
                "the disk; check it, and free space if it is full",
                self.root,
                error.strerror,
            )
        finally:
            self.index.release()
            self.log.close()
            self.disk.unlock()

    def _finish(self) -> None:
        self.flusher.flush_now()
        self.configs.close()
        self.queue_flusher.flush_now()
        self.index.close()
        self.checkpoint.clean_end = self.checkpoint.dispatched = self.log.end
        self.checkpoint_writer()()
        self.disk.sync_files([f"{self.root}/checkpoint", self.root])
        self.disk.remove(f"{self.root}/abort")


def _read_limits(settings: StoreSettings) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bytes and messages of one read: from memory, and where the disk may have to be asked."""
    return (
        (
            settings.max_transfer_bytes_on_message_in_memory,
            settings.max_transfer_count_on_message_in_memory,
        ),
        (
            settings.max_transfer_bytes_on_message_in_disk,
            settings.max_transfer_count_on_message_in_disk,
        ),
    )


def _visible(hidden: RecordMatch | None, match: RecordMatch | None) -> RecordMatch | None:
    """``match``, for records that are not hidden."""
    if hidden is None:
        return match
    if match is None:
        return lambda record: not hidden(record)
    return lambda record: not hidden(record) and match(record)


def _with_address_bits(sys_flag: int, born_host: bytes, store_host: bytes) -> int:
    sys_flag &= ~_V6_BITS
    if len(born_host) == 20:
        sys_flag |= SYS_BORN_HOST_V6
    if len(store_host) == 20:
        sys_flag |= SYS_STORE_HOST_V6
    return sys_flag


def _int32(value: int) -> int:
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def _topic_error(topic: str) -> str:
    size = len(topic.encode())
    if size > RETRY_TOPIC_BYTES_MAX or (size > 127 and not topic.startswith("%RETRY%")):
        return f"the topic has {size} bytes"
    return ""


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
