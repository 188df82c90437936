"""Flushing the commit log: by interval, or for those who wait (group commit).

One flush runs at a time, in the background. Everyone who comes while it runs is served by the
next one, so the loop never waits and a disk that syncs slowly is used by many at once. The next one
begins when as much waits as the last one served, for those who were answered come again at once:
of 32 clients that wait for each answer, 29 share a flush where it would be 22.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from firearrow.store.filestore import FileStore

log = logging.getLogger(__name__)

WATCH_S: Final = 0.5
# Turns of the loop that a flush may wait for a group as large as the last one.
GATHER_TURNS_MAX: Final = 4


class Flusher:
    """The flushes of one store."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self.scheduled = False  # a flush will follow what is appended now
        self._running = False
        self._served = 0  # bytes, by the last flush
        self._waiting: deque[tuple[int, float, Callable[[bool], None]]] = deque()
        self._after: deque[tuple[int, Callable[[bool], None]]] = deque()
        self._watching = False

    def schedule(self) -> None:
        """Flush what is appended: soon with SYNC_FLUSH, else at the interval."""
        self._schedule(-1)

    def _schedule(self, seen: int) -> None:
        self.scheduled = True
        store = self._store
        if store.settings.flush_disk_type == "SYNC_FLUSH":
            store.clock.call_soon(self._gather, seen, GATHER_TURNS_MAX)
        else:
            store.clock.call_later(store.settings.flush_interval_commit_log / 1000, self._start)

    def _gather(self, seen: int, turns: int) -> None:
        """A turn of the loop is over; before it the log ended at ``seen``. Start when nothing came
        in it, or enough has come."""
        log = self._store.log
        if log.end == seen or not turns or log.end - log.flushed >= self._served:
            self._start()
        elif not self._running:
            self._store.clock.call_soon(self._gather, log.end, turns - 1)

    def wait(self, end: int, done: Callable[[bool], None]) -> None:
        """Call ``done`` when the log is flushed up to ``end``, or not in time."""
        store = self._store
        if store.flush_failed:
            done(False)
            return
        deadline = store.clock.monotonic() + store.settings.sync_flush_timeout / 1000
        self._waiting.append((end, deadline, done))
        if not self.scheduled:
            self.schedule()
        if not self._watching:
            self._watching = True
            store.clock.call_later(WATCH_S, self._watch)

    def after(self, done: Callable[[bool], None]) -> None:
        """Call ``done(True)`` once everything appended so far is on the disk, ``done(False)`` if
        that fails. For what must not say more than the log holds, such as consumer offsets."""
        store = self._store
        if store.flush_failed or store.log.flushed >= store.log.end:
            done(not store.flush_failed)
            return
        self._after.append((store.log.end, done))
        self._start()

    def _start(self) -> None:
        if self._running or self._store.closed or self._store.flush_failed:
            return
        self._running = True
        self.scheduled = True
        timestamp = self._store.appender.last_timestamp
        end, sync = self._work()
        self._store.background.submit(sync, lambda _, error: self._done(end, timestamp, error))

    def _work(self) -> tuple[int, Callable[[], None]]:
        """What is to be flushed now, and how. The topics that messages brought go first: who hears
        that a message is on the disk finds its topic there too."""
        end, files = self._store.log.sync_target()
        sync_notes = self._store.configs.sync_notes()

        def sync() -> None:
            sync_notes()
            for file in files:
                file.mapped.sync()

        return end, sync

    def _done(self, end: int, timestamp: int, error: OSError | None) -> None:
        self._running = False
        self.scheduled = False
        if error is not None:
            self._failing(error)
            return
        self._flushed(end, timestamp)
        if self._store.log.end > end:
            if self._after:
                self._start()
            else:
                self._schedule(self._store.log.end)

    def _flushed(self, end: int, timestamp: int) -> None:
        store = self._store
        self._served = end - store.log.flushed
        store.log.flushed = max(store.log.flushed, end)
        store.checkpoint.log_time = timestamp
        store.dispatcher.show_flushed(end)
        store.index.note_growth()
        while self._waiting and self._waiting[0][0] <= end:
            self._waiting.popleft()[2](True)
        while self._after and self._after[0][0] <= end:
            self._after.popleft()[1](True)

    def _failing(self, error: OSError) -> None:
        """A failed sync cannot be repeated: the kernel may have dropped the pages and marked them
        clean, so that the next sync succeeds without having written them. Nothing more is called
        durable, nothing more is accepted, and the next start recovers what the disk really has."""
        store = self._store
        log.error(
            "cannot flush the commit log in %s: %s. What was acknowledged since the last flush may "
            "not be on the disk; no more messages are accepted. Check the disk, then restart",
            store.log.root,
            error.strerror,
        )
        store.flush_failed = True
        store.refuse("flush", f"the disk failed: {error.strerror}")
        while self._waiting:
            self._waiting.popleft()[2](False)
        while self._after:
            self._after.popleft()[1](False)

    def _watch(self) -> None:
        """Answer those for whom the flush takes too long."""
        now = self._store.clock.monotonic()
        while self._waiting and self._waiting[0][1] <= now:
            self._waiting.popleft()[2](False)
        if self._waiting:
            self._store.clock.call_later(WATCH_S, self._watch)
        else:
            self._watching = False

    def flush_now(self) -> None:
        """Flush everything in this call (blocks); for the end of the store."""
        end, sync = self._work()
        try:
            sync()
        except OSError as error:
            self._failing(error)
            raise
        self._flushed(end, self._store.appender.last_timestamp)
