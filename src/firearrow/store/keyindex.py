"""The key index: where messages with a key lie (storage.md 4).

It is built behind the log, in slices that leave the loop to others; a query waits until it has
caught up. A busy broker gives it a small share of its time, and more when it falls too far behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from firearrow.codec.hashes import unsigned_java_hash
from firearrow.codec.properties import find_property
from firearrow.codec.record import Record
from firearrow.codec.sysflags import SYS_TRANSACTION_MASK, SYS_TRANSACTION_ROLLBACK
from firearrow.store.indexfile import IndexFile, Shape

if TYPE_CHECKING:
    from firearrow.store.filestore import FileStore

log = logging.getLogger(__name__)

SLICE_RECORDS: Final = 32  # a tenth of a millisecond: nobody notices the wait
# While the log grows, a slice comes once in so many seconds, which costs next to nothing;
# the farther the index falls behind, the more often, and at the limit it keeps up with the log.
BUSY_S: Final = 0.02
LAG_BYTES_MAX: Final = 1024 * 1024 * 1024
RETRY_S: Final = 5.0
SAME_HASH_MAX: Final = 16  # keys of one record with one hash
SYNC_S: Final = 60.0
# Before a tag, which is a key since 5.5.0 (``MessageConst.INDEX_TAG_TYPE``).
TAG_MARK: Final = b"T#"

Found = Callable[[list[bytes], int, int], None]


class KeyIndex:
    """All index files of one store."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._root = f"{store.root}/index"
        settings = store.settings
        self._shape = Shape(settings.max_hash_slot_num, settings.max_index_num)
        self._files: list[IndexFile] = []
        self._position = 0  # of the next record to index
        self._half_indexed = -1  # the record whose first keys were the last of a file
        self._log_end_seen = 0
        self._scheduled = False
        self._waiting: list[Callable[[], None]] = []
        self._failed = False
        self._synced_s = 0.0

    @property
    def enabled(self) -> bool:
        return self._store.settings.message_index_enable

    # -- open

    def load(self, *, crashed: bool) -> None:
        """Map the files; after a crash those that may be half written are built anew."""
        store, disk = self._store, self._store.disk
        for name in disk.names(self._root):
            path = f"{self._root}/{name}"
            if len(name) != 17 or not name.isdigit():
                continue
            if disk.size(path) != self._shape.file_bytes:
                log.warning(
                    "%s has another size than maxHashSlotNum and maxIndexNum make, and is left "
                    "out: its messages are not found by key. Set these as they were, or remove "
                    "the file",
                    path,
                )
                continue
            file = IndexFile(name, disk.map(path, self._shape.file_bytes), self._shape)
            # What is newer than the last sync may be there in parts, and a file that was still
            # filled may have slots that are newer than its header.
            if crashed and (file.end_ms > store.checkpoint.index_time or not file.full):
                file.mapped.close()
                disk.remove(path)
                continue
            self._files.append(file)
        self._position = store.log.min_offset
        if self._files and self._files[-1].count > 1:
            last = self._files[-1].end_offset
            if last >= self._position and store.log.record_at(last):
                self._position = self._half_indexed = last
        self._log_end_seen = store.log.end

    # -- building

    def note_growth(self) -> None:
        """The log has grown: go on building, some time."""
        if not self._scheduled and self.enabled and self._position < self._store.log.end:
            self._scheduled = True
            self._store.clock.call_later(BUSY_S, self._slice, True)

    def _slice(self, timed: bool = False) -> None:
        """One step. The timer's call goes on as long as there is work; a query's calls, which come
        between, go on as long as somebody waits."""
        if self._store.closed:
            return
        try:
            caught_up = self._build(SLICE_RECORDS)
        except OSError as error:
            self._fail(error, timed)
            return
        self._failed = False
        if caught_up:
            self._caught_up()
            self._scheduled = self._scheduled and not timed
        elif timed:
            self._store.clock.call_later(self._pause_s(), self._slice, True)
        elif self._waiting:
            self._store.clock.call_soon(self._slice)

    def _pause_s(self) -> float:
        end = self._store.log.end
        busy = end != self._log_end_seen
        self._log_end_seen = end
        if not busy:
            return 0.0
        return BUSY_S * max(0.0, 1.0 - (end - self._position) / LAG_BYTES_MAX)

    def _build(self, records: int) -> bool:
        """Index at most so many records; whether the end of the log is reached."""
        commit_log = self._store.log
        self._position = max(self._position, commit_log.min_offset)
        touched: IndexFile | None = None
        while records > 0 and self._position < commit_log.end:
            record, following = commit_log.scan(self._position, check_crc=False)
            if record is None:  # a filler; or damage, behind which only the next file helps
                following = commit_log.start_after(self._position)
                self._position = following if following >= 0 else commit_log.end
                continue
            touched = self._add(record) or touched
            self._position = following
            records -= 1
        if touched is not None:
            touched.write_header()
        return self._position >= commit_log.end

    def _add(self, record: Record) -> IndexFile | None:
        if record.sys_flag & SYS_TRANSACTION_MASK == SYS_TRANSACTION_ROLLBACK:
            return None
        keys = []
        unique_key = find_property(record.properties, b"UNIQ_KEY")
        if unique_key:
            keys.append(unique_key)
        more = find_property(record.properties, b"KEYS")
        if more:
            keys += [key for key in more.split(b" ") if key]
        tags = find_property(record.properties, b"TAGS")
        if tags:
            keys.append(TAG_MARK + tags)
        file = None
        for key in keys:
            hashed = key_hash(record.topic, key.decode("utf-8", "replace"))
            if record.physical_offset == self._half_indexed and self._knows(hashed):
                continue
            file = self._writable()
            file.put(hashed, record.physical_offset, record.store_timestamp)
        return file

    def _knows(self, hashed: int) -> bool:
        """Whether the record at which the files ended when they were opened has this key there."""
        forever = 1 << 62
        return any(
            self._half_indexed in file.find(hashed, SAME_HASH_MAX, 0, forever)
            for file in self._files[-2:]
        )

    def _writable(self) -> IndexFile:
        file = self._files[-1] if self._files else None
        if file is None or file.full:
            if file is not None:
                file.write_header()
                self._sync(file)
            file = self._create(file)
        file.prepare()
        return file

    def _create(self, previous: IndexFile | None) -> IndexFile:
        now = datetime.fromtimestamp(self._store.clock.now_ms() / 1000)  # noqa: DTZ006 - Java's name
        name = now.strftime("%Y%m%d%H%M%S%f")[:17]
        if previous is not None:
            name = max(name, str(int(previous.name) + 1))
        disk = self._store.disk
        disk.make_directory(self._root)
        mapped = disk.map(f"{self._root}/{name}", self._shape.file_bytes)
        file = IndexFile(name, mapped, self._shape)
        self._files.append(file)
        return file

    def _fail(self, error: OSError, timed: bool) -> None:
        if not self._failed:
            log.error(
                "cannot extend the key index in %s: %s. Newer messages are not found by key until "
                "there is space; nothing else is affected",
                self._root,
                error.strerror,
            )
        self._failed = True
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer()
        if timed:
            self._store.clock.call_later(RETRY_S, self._slice, True)

    def _caught_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer()
        now = self._store.clock.monotonic()
        if self._files and now - self._synced_s > SYNC_S:
            self._synced_s = now
            self._sync(self._files[-1])

    def _sync(self, file: IndexFile) -> None:
        """Bring the file to the disk, then let the checkpoint say so."""
        end_ms = file.end_ms

        def done(_: None, error: OSError | None) -> None:
            if error is None and not self._store.closed:
                self._store.checkpoint.index_time = max(self._store.checkpoint.index_time, end_ms)

        self._store.background.submit(file.mapped.sync, done)

    # -- asking

    def query(
        self, topic: str, key: str, max_count: int, begin_ms: int, end_ms: int, done: Found
    ) -> None:
        """See ``api.Store.query_keys``."""

        def answer() -> None:
            done(*self._find(topic, key, max_count, begin_ms, end_ms))

        if not self.enabled or self._position >= self._store.log.end or self._failed:
            answer()
            return
        self._waiting.append(answer)
        if len(self._waiting) == 1:  # now, rather than when it would be its turn
            self._store.clock.call_soon(self._slice)

    def _find(
        self, topic: str, key: str, maximum: int, begin_ms: int, end_ms: int
    ) -> tuple[list[bytes], int, int]:
        hashed = key_hash(topic, key)
        offsets: list[int] = []
        for file in reversed(self._files):
            if file.count > 1 and begin_ms <= file.end_ms and end_ms >= file.begin_ms:
                offsets += file.find(hashed, maximum - len(offsets), begin_ms, end_ms)
            if file.begin_ms < begin_ms or len(offsets) >= maximum:
                break
        records = [
            record
            for offset in sorted(set(offsets))  # a key twice, or added twice after an error
            if (record := self._store.log.record_at(offset)) is not None
        ]
        last = self._files[-1] if self._files else None
        return records, last.end_ms if last else 0, last.end_offset if last else 0

    # -- end

    def delete_before(self, log_min: int) -> None:
        """Drop files that know only removed records, never the newest one."""
        while len(self._files) > 1 and self._files[0].end_offset < log_min:
            file = self._files.pop(0)
            file.mapped.close()
            self._store.disk.remove(f"{self._root}/{file.name}")

    def close(self) -> None:
        """Catch up, then bring everything to the disk (blocks)."""
        try:
            while self.enabled and not self._build(SLICE_RECORDS):
                pass
            for file in self._files:
                file.write_header()
                file.mapped.sync()
                checkpoint = self._store.checkpoint
                checkpoint.index_time = max(checkpoint.index_time, file.end_ms)
        except OSError as error:
            log.warning(
                "the key index in %s cannot be finished: %s. The next start builds the rest; check "
                "the disk, and free space if it is full",
                self._root,
                error.strerror,
            )
        self.release()

    def release(self) -> None:
        """Let go of the files as they are."""
        for file in self._files:
            file.mapped.close()
        self._files.clear()


def key_hash(topic: str, key: str) -> int:
    """Java's ``Math.abs`` of the hash of ``topic#key``; 0 for the one number without it."""
    value = unsigned_java_hash(f"{topic}#{key}")
    if value & 0x80000000:
        value = (1 << 32) - value
    return value & 0x7FFFFFFF
