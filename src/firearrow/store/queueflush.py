"""Writing consume queues to their files, lazily and in the background.

Dirty queues stand in a dictionary in the order in which they became dirty. Its first one tells the
position in the log up to which all queues are in their files: where recovery starts after a crash.
"""

from __future__ import annotations

import logging
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from firearrow.store.consumequeue import ConsumeQueue, QueueFiles

if TYPE_CHECKING:
    from firearrow.store.filestore import FileStore

log = logging.getLogger(__name__)

FULL_BYTES: Final = 4096  # a queue with so many entry bytes is written at the next tick
LOG_BYTES_BEHIND_MAX: Final = 1024 * 1024 * 1024  # bounds what recovery must walk
QUEUES_PER_FLUSH: Final = 2000  # so that one background job stays short


class _Job(NamedTuple):
    queue: ConsumeQueue
    files: QueueFiles
    topic: str
    queue_id: int
    start: int
    data: bytes


class QueueFlusher:
    """The lazy writes of one store."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._dirty: dict[ConsumeQueue, int] = {}  # queue -> position of its oldest unwritten entry
        self._running: list[_Job] = []
        self._saved_mark = -1
        self._ticking = False
        self._failing = False

    def dirty(self, queue: ConsumeQueue, phy: int) -> None:
        """The queue has its first unwritten entry, at ``phy``."""
        self._dirty[queue] = phy
        queue.dirty_since_s = self._store.clock.monotonic()
        self.start()

    def forget(self, queue: ConsumeQueue) -> None:
        """The queue is deleted."""
        self._dirty.pop(queue, None)
        queue.pending = None

    def start(self) -> None:
        if self._ticking:
            return
        self._ticking = True
        store = self._store
        store.clock.call_later(store.settings.flush_interval_consume_queue / 1000, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if self._store.closed:
            return
        if not self._running:
            self._write(self._due())
        if self._dirty or self._running or self._saved_mark != self._store.log.end:
            self.start()

    def _due(self) -> list[ConsumeQueue]:
        store = self._store
        oldest_s = (
            store.clock.monotonic() - store.settings.flush_consume_queue_thorough_interval / 1000
        )
        behind = store.log.end - LOG_BYTES_BEHIND_MAX
        due = []
        for queue, phy in self._dirty.items():
            pending = queue.pending
            assert pending is not None
            if len(pending) >= FULL_BYTES or queue.dirty_since_s <= oldest_s or phy < behind:
                due.append(queue)
                if len(due) >= QUEUES_PER_FLUSH:
                    break
        return due

    def _write(self, queues: list[ConsumeQueue]) -> None:
        store = self._store
        self._running = [
            _Job(q, q.shape.files, q.shape.name, q.queue_id, q.pending_start, bytes(q.pending))
            for q in queues
            if q.pending
        ]
        mark, timestamp = self._mark_after(), store.checkpoint.log_time
        if not self._running and mark == self._saved_mark:
            return
        jobs = self._running

        def write() -> None:
            paths: list[str] = []
            for job in jobs:
                paths += job.files.write(job.topic, job.queue_id, job.start, job.data)
            store.disk.sync_files(paths)

        store.background.submit(write, lambda _, error: self._written(mark, timestamp, error))

    def _mark_after(self) -> int:
        """Position up to which all queues will be in their files when the running jobs are done.

        A position is only as good as the log behind it: never beyond what is flushed.
        """
        store = self._store
        running = {job.queue for job in self._running}
        mark = next(
            (phy for queue, phy in self._dirty.items() if queue not in running), store.log.end
        )
        return min(mark, store.log.flushed, store.needed_from)

    def _written(self, mark: int, timestamp: int, error: OSError | None) -> None:
        jobs, self._running = self._running, []
        store = self._store
        if store.closed:
            return
        if error is not None:
            self._fail(error)
            return
        self._dirty_again([queue for job in jobs if (queue := self._drop_written(job))])
        mark = min(mark, self._mark_after())
        if mark <= self._saved_mark:
            self._failing = False
            return
        self._saved_mark = mark
        checkpoint = store.checkpoint
        checkpoint.dispatched = mark
        checkpoint.clean_end = -1
        checkpoint.queues_time = timestamp if mark >= store.log.flushed else self._time_at(mark)
        store.background.submit(store.checkpoint_writer(), self._checkpoint_saved)

    def _checkpoint_saved(self, _: None, error: OSError | None) -> None:
        if error is None:
            self._failing = False
        else:
            self._saved_mark = -1  # again at the next tick
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self._failing:
            log.error(
                "cannot write consume queues and checkpoint in %s: %s. They stay in memory and are "
                "rebuilt from the log after a crash; check the disk, and free space if it is full",
                self._store.root,
                error.strerror,
            )
        self._failing = True

    def _time_at(self, mark: int) -> int:
        """A store time that is not later than what lies before ``mark``."""
        stored = self._store.log.store_time(mark)
        return stored - 1 if stored > 0 else self._store.checkpoint.queues_time

    def _drop_written(self, job: _Job) -> ConsumeQueue | None:
        """Let go what is in the file now; the queue, if entries came while it was written."""
        queue = job.queue
        pending = queue.pending
        if pending is None or queue.pending_start != job.start:
            return None  # deleted meanwhile
        written = len(job.data)
        self._dirty.pop(queue, None)
        if len(pending) == written:
            queue.pending = None
            return None
        del pending[:written]
        queue.pending_start += written // job.files.entry_bytes
        return queue

    def _dirty_again(self, queues: list[ConsumeQueue]) -> None:
        """Put queues back in the order of the log, among those that became dirty meanwhile."""
        if not queues:
            return
        again = [(int.from_bytes(q.pending[:8]), q) for q in queues if q.pending]
        oldest = min(phy for phy, _ in again)
        while self._dirty:
            queue, phy = self._dirty.popitem()
            if phy < oldest:
                self._dirty[queue] = phy
                break
            again.append((phy, queue))
        now_s = self._store.clock.monotonic()
        for queue in queues:
            queue.dirty_since_s = now_s
        self._dirty.update((queue, phy) for phy, queue in sorted(again, key=itemgetter(0)))

    def flush_now(self) -> None:
        """Write everything in this call (blocks); for the end of the store."""
        paths: list[str] = []
        for queue in list(self._dirty):
            if queue.pending:
                paths += queue.shape.files.write(
                    queue.shape.name, queue.queue_id, queue.pending_start, bytes(queue.pending)
                )
                queue.pending = None
        self._dirty.clear()
        self._store.disk.sync_files(paths)
        self._store.checkpoint.queues_time = self._store.checkpoint.log_time
