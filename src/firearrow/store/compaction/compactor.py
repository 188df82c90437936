"""The compaction itself: of every key only the newest message stays (``CompactionLog.compaction``).

All pairs of a queue but the last one are rewritten once there is a new one among them. A first pass
over the new ones notes the newest offset of each key; a second pass over all of them copies what is
the newest of its key and no tombstone (an empty body). The background thread reads and writes
blocks of a few hundred records, the loop looks at one block at a time and rests after each, so that
a large topic stalls nobody. One queue is compacted at a time.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from firearrow.codec.properties import find_property
from firearrow.codec.record import record_has_body, record_properties
from firearrow.store.compaction.pairs import Entry, Pair, PairFiles, is_record_of
from firearrow.store.compaction.pairwriter import PairWriter, Piece, write, write_entries
from firearrow.store.compaction.queue import CompactedQueue
from firearrow.store.compaction.swap import REWRITING, discard, mend, swap

if TYPE_CHECKING:
    from firearrow.store.compaction.positions import Positions
    from firearrow.store.filestore import FileStore

log = logging.getLogger(__name__)

BLOCK_ENTRIES: Final = 256  # less than a millisecond
BLOCK_BYTES: Final = 1024 * 1024
REST_S: Final = 0.002
WRITE_BYTES: Final = 1024 * 1024
SYNC_BYTES: Final = 8 * 1024 * 1024  # small, so that a flush of the commit log waits for little
KEY_BYTES_MAX: Final = 32  # longer ones are kept as a digest
BYTES_PER_KEY: Final = 200  # of ``maxOffsetMapSize``

Block = tuple[list[Entry], bytes]
Steps = Generator[Callable[[], Any] | None, Any, None]


class Compactor:
    """Compacts one queue after the other."""

    def __init__(self, store: FileStore, files: PairFiles, positions: Positions) -> None:
        self._store = store
        self._files = files
        self._positions = positions
        self._todo: deque[CompactedQueue] = deque()
        self._run: Run | None = None
        self._stopped = False
        self.failing: set[tuple[str, int]] = set()  # told of, and tried again

    def compact(self, queues: Iterable[CompactedQueue]) -> None:
        """Compact those of the queues that need it."""
        if self._run is None and not self._todo:
            self._todo.extend(queues)
            self._next()

    def stop(self) -> None:
        """Give up what is running; nothing of it has taken effect."""
        self._stopped = True
        self._todo.clear()

    @property
    def stopped(self) -> bool:
        return self._stopped or self._store.closed

    def _next(self) -> None:
        self._run = None
        while self._todo and not self.stopped:
            queue = self._todo.popleft()
            position = self._positions.get(queue.key)
            if queue.dropped or not (queue.broken or new_pairs(queue, position)):
                continue
            self._run = Run(self, self._store, self._files, queue, position)
            self._run.go()
            return

    def done(self, queue: CompactedQueue, position: int, error: OSError | None) -> None:
        """A run has ended; ``position`` is the last offset that it looked at, -1 for none."""
        if error is not None and not queue.dropped and not self._stopped:
            if queue.key not in self.failing:
                log.error(
                    "cannot compact queue %d of topic %s: %s. Its messages are as before; it is "
                    "tried again. Check the disk, and free space if it is full",
                    queue.queue_id,
                    queue.topic,
                    error.strerror or error,
                )
            self.failing.add(queue.key)
        elif queue.key in self.failing:
            self.failing.discard(queue.key)
            log.info("queue %d of topic %s can be compacted again", queue.queue_id, queue.topic)
        if error is None and position >= 0 and not queue.dropped:
            self._positions.set(queue.key, position)
        self._next()


def new_pairs(queue: CompactedQueue, position: int) -> list[Pair]:
    """Pairs with messages that no compaction has looked at, without the one that is written to."""
    return [pair for pair in queue.pairs[:-1] if pair.last > position and pair.count]


class Run:
    """One compaction of one queue. ``_steps`` is the whole of it; what it yields is work for the
    background, or ``None`` for a rest."""

    def __init__(
        self,
        owner: Compactor,
        store: FileStore,
        files: PairFiles,
        queue: CompactedQueue,
        position: int,
    ) -> None:
        self._owner = owner
        self._store = store
        self._files = files
        self._queue = queue
        self._position = position
        self._newest: dict[bytes, int] = {}  # key -> its newest offset
        self._keys_max = max(1, store.settings.max_offset_map_size // BYTES_PER_KEY)
        self._last = -1  # the newest offset that was looked at
        self._names: Iterator[int] = iter(())
        self._new: list[Pair] = []
        self._writer = PairWriter(files.sizes, None, self._following)
        self._unsynced: list[str] = []
        self._unsynced_bytes = 0
        self._chain = self._steps()

    def go(self, result: Any = None, error: OSError | None = None) -> None:
        """Take the next step, with what the last one gave."""
        if self._owner.stopped or self._queue.dropped:
            self._chain.close()
            self._owner.done(self._queue, -1, None)
            return
        try:
            work = self._chain.send(result) if error is None else self._chain.throw(error)
        except StopIteration:
            self._owner.done(self._queue, self._last, None)
        except OSError as failure:
            self._owner.done(self._queue, -1, failure)
        else:
            if work is None:
                self._store.clock.call_later(REST_S, self.go)
            else:
                self._store.background.submit(work, self.go)

    def _steps(self) -> Steps:
        queue, disk = self._queue, self._files.disk
        if queue.broken:
            queue.take((yield self._mend))
        yield partial(discard, disk, queue.place)
        old = queue.pairs[:-1]
        new = new_pairs(queue, self._position)
        if not new:
            return
        self._names = iter([pair.start for pair in old])
        yield from self._each_block(new, self._note)
        yield from self._each_block(old, self._keep)
        if self._new:
            self._writer.finish()
        yield from self._write_out(0)
        yield self._sync
        yield from self._swap(old)
        log.info(
            "compacted queue %d of topic %s: %d of %d messages stay",
            queue.queue_id,
            queue.topic,
            sum(pair.count for pair in self._new),
            sum(pair.count for pair in old),
        )

    def _each_block(self, pairs: list[Pair], look: Callable[[Block], bool]) -> Steps:
        """Give every block of the pairs to ``look``, until it has enough."""
        for pair in pairs:
            index = 0
            while index < pair.count:
                block: Block = yield partial(self._read, pair, index)
                if not look(block):
                    return
                index += len(block[0])
                yield from self._write_out(WRITE_BYTES)
                yield None

    def _swap(self, old: list[Pair]) -> Steps:
        """Take the new pairs instead of the old ones. They are read from now on, wherever on their
        way up they are."""
        queue, disk = self._queue, self._files.disk
        queue.take([*self._new, *queue.pairs[len(old) :]])
        try:
            yield partial(swap, disk, queue.place, old, self._new)
        except OSError:
            queue.broken = True
            queue.take((yield self._mend))
            raise
        moved = [pair.copy() for pair in self._new]
        for pair in moved:
            pair.folder = ""
        queue.take([*moved, *queue.pairs[len(moved) :]])

    # -- what is looked at

    def _read(self, pair: Pair, index: int) -> Block:
        """Entries and their records, which lie side by side. In the background."""
        place = self._queue.place
        count = min(BLOCK_ENTRIES, pair.count - index)
        entries = self._files.entries(place, pair, index, count)
        until = entries[0].position + BLOCK_BYTES
        entries = [e for n, e in enumerate(entries) if n == 0 or e.position + e.size <= until]
        return entries, self._files.records(place, pair, entries)

    def _note(self, block: Block) -> bool:
        """First pass: the newest offset of each key. When there are too many keys, what comes
        later is left to the next run."""
        newest = self._newest
        for entry, record in _records(block):
            if entry.offset <= self._position:
                continue
            key = _key(record)
            if len(newest) >= self._keys_max and key not in newest:
                return False
            newest[key] = self._last = entry.offset
        return True

    def _keep(self, block: Block) -> bool:
        """Second pass."""
        for entry, record in _records(block):
            if entry.offset > self._last or (
                entry.offset >= self._newest.get(_key(record), -1) and record_has_body(record)
            ):
                self._writer.add(record, entry.offset, entry.tags_code, entry.stored_ms)
        return True

    # -- what is written

    def _following(self, _: Pair | None) -> Pair:
        """New pairs take the names of old ones, in order: there are never more of them."""
        start = next(self._names, None)
        if start is None:
            raise OSError(errno.EIO, "the files of its compaction log have changed")
        self._new.append(Pair(start, REWRITING))
        return self._new[-1]

    def _write_out(self, least: int) -> Steps:
        if self._writer.size >= least:
            pieces = self._writer.take()
            if pieces:
                yield partial(self._write, pieces)

    def _write(self, pieces: list[Piece]) -> None:
        """In the background."""
        for step in (write, write_entries):
            self._unsynced += step(self._files.disk, self._queue.place, pieces, self._files.sizes)
        self._unsynced_bytes += sum(len(piece.records) for piece in pieces)
        if self._unsynced_bytes >= SYNC_BYTES:
            self._sync()

    def _sync(self) -> None:
        """In the background."""
        self._files.disk.sync_files(list(dict.fromkeys(self._unsynced)))
        self._unsynced, self._unsynced_bytes = [], 0

    def _mend(self) -> list[Pair]:
        """In the background."""
        mend(self._files, self._queue.place)
        return self._files.load(self._queue.place)


def _records(block: Block) -> Iterator[tuple[Entry, bytes]]:
    entries, data = block
    start = entries[0].position
    for entry in entries:
        at = entry.position - start
        if not is_record_of(data, at, entry):
            raise OSError(
                errno.EIO, f"no record at position {entry.position} of its compaction log"
            )
        yield entry, data[at : at + entry.size]


def _key(record: bytes) -> bytes:
    """What tells a message's key from all others.

    Raises:
        OSError: the record's fields do not add up.
    """
    try:
        key = find_property(record_properties(record), b"KEYS") or b""
    except IndexError:
        raise OSError(errno.EIO, "a record of its compaction log is damaged") from None
    return key if len(key) <= KEY_BYTES_MAX else hashlib.sha256(key).digest() + b"+"
