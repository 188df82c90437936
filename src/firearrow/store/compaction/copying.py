"""Copying the messages of compaction topics from the commit log into their compaction logs.

It runs a little behind: a message is copied once it is flushed, in rounds that the loop does in
short steps and the background thread writes. Until then it is read from the commit log, so nothing
is kept in memory, and whatever a kill or a fault of the disk interrupts is simply copied again. The
commit log keeps what is not copied yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from firearrow.codec.properties import find_property
from firearrow.codec.record import record_properties, record_store_time
from firearrow.store.api import Entry
from firearrow.store.compaction.pairs import Pair, PairFiles
from firearrow.store.compaction.pairwriter import PairWriter, write, write_entries
from firearrow.store.compaction.queue import CompactedQueue
from firearrow.store.consumequeue import FILLER_SIZE

if TYPE_CHECKING:
    from firearrow.store.filestore import FileStore

log = logging.getLogger(__name__)

STEP_ENTRIES: Final = 256  # about half a millisecond
STEP_BYTES: Final = 256 * 1024
ROUND_BYTES: Final = 1024 * 1024
ROUND_QUEUES: Final = 256
RETRY_S: Final = 5.0

Key = tuple[str, int]


class _Share:
    """What one queue gets in a round."""

    __slots__ = ("complete", "next_offset", "queue", "writer")

    def __init__(self, queue: CompactedQueue, files: PairFiles, next_offset: int) -> None:
        self.queue = queue
        self.next_offset = next_offset  # afterwards
        self.complete = False  # no more can be copied now
        last = queue.pairs[-1] if queue.pairs else None
        self.writer = PairWriter(files.sizes, last, lambda pair: _following(pair, files))


def _following(pair: Pair | None, files: PairFiles) -> Pair:
    return Pair(0 if pair is None else pair.start + files.sizes.log)


class Copier:
    """The rounds of one store."""

    def __init__(self, store: FileStore, files: PairFiles) -> None:
        self._store = store
        self._files = files
        self._waiting: dict[Key, int] = {}  # queue -> position of its first uncopied message
        self._queues: dict[Key, CompactedQueue] = {}
        self._shares: dict[Key, _Share] = {}  # of the round that is being prepared
        self._running: list[_Share] = []
        self._scheduled = False
        self._failing = False

    @property
    def floor(self) -> int | None:
        """The first position of the commit log that is still needed; ``None`` when none is."""
        return min(self._waiting.values(), default=None)

    def want(self, queue: CompactedQueue, position: int) -> None:
        """The queue has messages to copy, the first one at this position of the commit log."""
        if queue.key not in self._waiting:
            self._waiting[queue.key] = position
            self._queues[queue.key] = queue
            queue.waiting = True
            self._schedule(self._interval_s)

    def forget(self, queue: CompactedQueue) -> None:
        """The queue is gone, or has nothing to copy."""
        queue.waiting = False
        self._waiting.pop(queue.key, None)
        self._queues.pop(queue.key, None)
        self._shares.pop(queue.key, None)

    @property
    def _interval_s(self) -> float:
        return self._store.settings.flush_interval_consume_queue / 1000

    def _schedule(self, delay_s: float) -> None:
        if not self._scheduled and not self._running:
            self._scheduled = True
            self._store.clock.call_later(delay_s, self._step)

    # -- a round

    def _step(self) -> None:
        """Prepare a part of the round, or have it written."""
        self._scheduled = False
        if self._store.closed or self._running:
            return
        share = self._next_share()
        if share is not None:
            self._prepare(share)
            self._schedule(0)
            return
        shares, self._shares = list(self._shares.values()), {}
        if not shares:  # those that wait cannot be written now
            if self._waiting:
                self._schedule(RETRY_S)
            return
        self._running = shares
        self._store.background.submit(
            _writing(self._files, shares), lambda _, error: self._written(error)
        )

    def _next_share(self) -> _Share | None:
        """Of a queue that has more for this round; ``None`` when there is none, or enough."""
        shares = self._shares
        size = 0
        for share in shares.values():
            if not share.complete:
                return share if share.writer.size < ROUND_BYTES else None
            size += share.writer.size
        if size >= ROUND_BYTES or len(shares) >= ROUND_QUEUES:
            return None
        for key, queue in self._queues.items():
            if key not in shares and not queue.broken:
                shares[key] = _Share(queue, self._files, queue.next_offset)
                return shares[key]
        return None

    def _prepare(self, share: _Share) -> None:
        """Take some more messages of one queue out of the commit log."""
        store, queue, writer = self._store, share.queue, share.writer
        bounds = store.reader.bounds(*queue.key)
        if bounds is None:
            share.complete = True
            return
        share.next_offset = max(share.next_offset, bounds.min_offset)
        entries = store.entries(*queue.key, share.next_offset, STEP_ENTRIES)
        until = writer.size + STEP_BYTES
        for entry in entries:
            if entry.size != FILLER_SIZE:
                if entry.physical_offset + entry.size > store.log.flushed:
                    share.complete = True
                    return
                self._copy(share, store.log.slice(entry.physical_offset, entry.size), entry)
            share.next_offset = entry.end
            if writer.size > until:
                return
        share.complete = share.next_offset >= bounds.max_offset or not entries

    def _copy(self, share: _Share, record: bytes, entry: Entry) -> None:
        """Without keys a message has no place here (``CompactionLog.asyncPutMessage``)."""
        if not record or not (find_property(record_properties(record), b"KEYS") or b"").strip():
            return
        if not share.writer.fits(len(record)):
            log.error(
                "a message of %d bytes of topic %s does not fit in a file of its compaction log "
                "and is left out of it; raise compactionMappedFileSize",
                len(record),
                share.queue.topic,
            )
            return
        share.writer.add(record, entry.offset, entry.tags_code, record_store_time(record))

    def _written(self, error: OSError | None) -> None:
        shares, self._running = self._running, []
        if error is not None:
            self._fail(error)
            return
        if self._failing:
            log.info("compaction logs are written again")
        self._failing = False
        for share in shares:
            self._apply(share)
        if self._waiting:
            more = any(not share.complete for share in shares)
            self._schedule(0 if more else self._interval_s)

    def _apply(self, share: _Share) -> None:
        """What was written is there now."""
        queue = share.queue
        if queue.dropped:
            return
        for piece in share.writer.take():
            if piece.is_new:
                queue.pairs.append(piece.pair)
            else:
                queue.pairs[-1] = piece.pair
        queue.next_offset = share.next_offset
        bounds = self._store.reader.bounds(*queue.key)
        if bounds is None or queue.next_offset >= bounds.max_offset:
            self.forget(queue)
            return
        self._queues[queue.key] = self._queues.pop(queue.key)  # the others first
        first = self._store.entries(*queue.key, queue.next_offset, 1)
        if first:
            self._waiting[queue.key] = first[0].physical_offset

    def _fail(self, error: OSError) -> None:
        if not self._failing:
            log.error(
                "cannot write compaction logs in %s: %s. It is tried again; the commit log keeps "
                "the messages meanwhile. Check the disk, and free space if it is full",
                self._files.root,
                error.strerror,
            )
        self._failing = True
        self._schedule(RETRY_S)

    def finish(self) -> None:
        """Copy everything in this call (blocks); for the end of the store.

        Raises:
            OSError: the disk refuses.
        """
        while self._waiting:
            before = dict(self._waiting)
            while (share := self._next_share()) is not None:
                self._prepare(share)
            shares, self._shares = list(self._shares.values()), {}
            _writing(self._files, shares)()
            for share in shares:
                self._apply(share)
            if self._waiting == before:
                return  # of queues that cannot be written now


def _writing(files: PairFiles, shares: list[_Share]) -> Callable[[], None]:
    """What writes a round: records first, so that no entry comes to the disk without its record."""
    jobs = [
        (share.queue.place, [piece for piece in share.writer.pieces if piece.records])
        for share in shares
    ]
    disk, sizes = files.disk, files.sizes

    def work() -> None:
        for step in (write, write_entries):
            paths = [path for place, pieces in jobs for path in step(disk, place, pieces, sizes)]
            if paths:
                disk.sync_files(paths)

    return work
