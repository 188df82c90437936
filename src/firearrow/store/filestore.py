"""The store over a disk: its parts put together, its state, its start and its end."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from firearrow.model.background import Background
from firearrow.model.clock import Clock
from firearrow.store import checkpoint, configfiles, retention
from firearrow.store.api import UNKNOWN_USAGE, BatchRule, DiskUsage
from firearrow.store.append import Appender
from firearrow.store.batchqueue import UnitFiles
from firearrow.store.commitlog import CommitLog
from firearrow.store.consumequeue import QueueFiles, TagsRule
from firearrow.store.disk import Disk
from firearrow.store.dispatch import Dispatcher
from firearrow.store.flush import Flusher
from firearrow.store.keyindex import KeyIndex
from firearrow.store.queueflush import QueueFlusher
from firearrow.store.reading import Reader
from firearrow.store.settings import StoreSettings

if TYPE_CHECKING:
    from firearrow.store.compaction.store import CompactionStore

log = logging.getLogger(__name__)


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
        self.background = background
        self.log = CommitLog(
            disk, f"{root}/commitlog", settings.mapped_file_size_commit_log, clock, background
        )
        self.files = QueueFiles(
            disk, f"{root}/consumequeue", settings.mapped_file_size_consume_queue
        )
        self.unit_files = UnitFiles(
            disk, f"{root}/batchconsumequeue", settings.mapper_file_size_batch_consume_queue
        )
        self.checkpoint = checkpoint.Checkpoint()
        self.flusher = Flusher(self)
        self.queue_flusher = QueueFlusher(self)
        self.dispatcher = Dispatcher(
            settings, self.log, self.files, self.unit_files, self.queue_flusher, tags_rules
        )
        self.table = self.dispatcher.table
        self.appender = Appender(settings, clock, self.log, self.dispatcher, self.flusher)
        self.reader = Reader(settings, self.log, self.dispatcher, self.files)
        self.index = KeyIndex(self)
        self.retention = retention.Retention(self)
        self.configs = configfiles.ConfigFiles(
            disk, f"{root}/config", background, clock, self.flusher.after, self.appender.refuse
        )
        self.compaction: CompactionStore | None = None
        self.flush_failed = False  # nothing may be appended until a restart
        self.closed = False
        # What a part does is called on the part: no hop, for a message may pay for it.
        self.append = self.appender.append
        self.append_at = self.appender.append_at
        self.place = self.dispatcher.shape
        self.append_batch = self.appender.append_batch
        self.refuse = self.appender.refuse
        self.read = self.reader.read
        self.entries = self.reader.entries
        self.min_offset = self.reader.min_offset
        self.max_offset = self.reader.max_offset
        self.search_offset = self.reader.search_offset
        self.store_time = self.reader.store_time
        self.is_hot = self.reader.is_hot
        self.hide = self.reader.hide
        self.query_keys = self.index.query
        self.on_arrival = self.dispatcher.on_arrival
        self.load_config = self.configs.load
        self.save_config = self.configs.save
        self.note_config = self.configs.note
        self.config_notes = self.configs.notes

    def when_durable(self, end: int, done: Callable[[bool], None]) -> None:
        if self.settings.flush_disk_type != "SYNC_FLUSH" or end <= self.log.flushed:
            done(True)
        else:
            self.flusher.wait(end, done)

    def record(self, physical_offset: int, size: int | None = None) -> bytes | None:
        return self.log.record_at(physical_offset, size)

    def queues(self) -> Iterator[tuple[str, int]]:
        return iter([*self.table, *self.dispatcher.batches])

    # -- state

    def commit_log_range(self) -> tuple[int, int]:
        return self.log.min_offset, self.log.end

    def flushed_offset(self) -> int:
        return self.log.flushed

    @property
    def needed_from(self) -> int:
        """Position from which messages still have to be copied elsewhere; the log's end when none
        have to."""
        floor = None if self.compaction is None else self.compaction.floor
        return self.log.end if floor is None else floor

    def disk_usage(self) -> DiskUsage:
        try:
            return self.disk.usage(self.root)
        except OSError:
            return DiskUsage(0, 0, UNKNOWN_USAGE)

    def runtime_info(self) -> Mapping[str, str]:
        usage = self.disk_usage()
        unflushed = self.dispatcher.unflushed
        behind = self.log.end - unflushed[0][1] if unflushed else 0
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
        for queue in self.dispatcher.forget(topic):
            files, queue_id = queue.shape.files, queue.queue_id
            self.disk.forget(files.directory(topic, queue_id))
            self.background.submit(
                partial(files.delete, topic, queue_id), partial(self._deleted, files.root, topic)
            )
        if self.compaction is not None:
            self.compaction.delete(topic)

    def _deleted(self, root: str, topic: str, _: None, error: OSError | None) -> None:
        if error is not None:
            log.error(
                "cannot remove the consume queues of the deleted topic %s: %s. Remove %s/%s by "
                "hand while the broker is down",
                topic,
                error.strerror,
                root,
                topic,
            )

    def raise_min_offset(self, topic: str, queue_id: int, offset: int) -> None:
        queue = self.table.get((topic, queue_id))
        batches = self.dispatcher.batches.get((topic, queue_id))
        if queue is not None and offset > queue.min_offset:
            queue.min_offset = min(offset, queue.max_offset)
            self.files.delete_before(topic, queue_id, queue.min_offset)
        elif batches is not None and offset > batches.min_offset:
            batches.drop_before(offset)
            self.unit_files.delete_before(topic, queue_id, batches.units.min_offset)

    def use_batch_queues(self, rule: BatchRule) -> None:
        self.dispatcher.batch_rule = rule

    def delete_expired(self) -> None:
        self.retention.run_now()

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
        if self.compaction is not None:
            self.compaction.finish()
        self.configs.close()
        self.queue_flusher.flush_now()
        self.index.close()
        self.checkpoint.clean_end = self.checkpoint.dispatched = self.log.end
        self.checkpoint_writer()()
        self.disk.sync_files([f"{self.root}/checkpoint", self.root])
        self.disk.remove(f"{self.root}/abort")
