"""Opening a store: lock, load, find the end of the log, bring the consume queues up to it.

What is on the disk tells everything (storage.md 5.2 - 5.5). Where the walk over the log starts:

- our own mark in the checkpoint, when no other broker has written since: the position up to which
  all consume queues are in their files; after a clean stop that is the end of the log itself;
- else, after a clean stop of a Java broker, the last record that any consume queue knows;
- else the newest file whose first record is not later than the checkpoint says;
- else the first file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from firearrow.codec.sysflags import SYS_TRANSACTION_PREPARED
from firearrow.model.background import Background
from firearrow.model.clock import Clock
from firearrow.store import checkpoint, lmq
from firearrow.store.api import BatchRule
from firearrow.store.batchqueue import unit_of
from firearrow.store.commitlog import ReadAhead
from firearrow.store.consumequeue import FILLER_SIZE, ConsumeQueue, QueueFiles, TagsRule
from firearrow.store.disk import Disk
from firearrow.store.filestore import FileStore, StoreLocked
from firearrow.store.settings import StoreSettings

log = logging.getLogger(__name__)

# Java waits so long before it believes a checkpoint's times (``StoreCheckpoint.getMinTimestamp``).
CHECKPOINT_SLACK_MS = 3000
# Entries of a light message queue that may be missing; a larger gap is no gap of ours.
GAP_MAX = 1 << 20


def open_store(
    root: str,
    settings: StoreSettings,
    disk: Disk,
    clock: Clock,
    background: Background,
    tags_rules: Mapping[str, TagsRule] | None = None,
    batch_rule: Callable[[FileStore], BatchRule] | None = None,
) -> FileStore:
    """Open or create the store in ``root``, recovered and ready to append.

    ``tags_rules`` give the tags code of a topic's entries where it is not the hash of the tag:
    a delay queue stores the due time there. ``batch_rule`` gives the rule that recovery needs; it
    may look at the configuration files.

    Raises:
        StoreLocked: another process has it open.
        WrongFileSize: its files have another size than configured.
        OSError: the disk refuses.
    """
    disk.make_directory(root)
    if not disk.lock(f"{root}/lock"):
        raise StoreLocked(
            f"the store {root} is in use by another broker; stop that one, "
            "or give this one a directory of its own with --store"
        )
    try:
        store = FileStore(root, settings, disk, clock, background, tags_rules or {})
        if batch_rule is not None:
            store.use_batch_queues(batch_rule(store))
        _recover(store)
    except BaseException:
        disk.unlock()
        raise
    return store


def _recover(store: FileStore) -> None:
    disk, root = store.disk, store.root
    crashed = disk.size(f"{root}/abort") >= 0
    store.checkpoint = checkpoint.load(disk, f"{root}/checkpoint")
    store.appender.last_timestamp = store.checkpoint.log_time
    store.log.load()
    last = _load_queues(store)
    started_s = store.clock.monotonic()
    start = _start_of_walk(store, last, crashed=crashed)
    _note_start(store, start)
    _trim_queues(store, last, start, crashed=crashed)
    _settle_batches(store)
    end = _walk(store, start)
    store.log.set_end(end)
    _drop_entries_behind(store, last, end)
    for key, queue in store.dispatcher.lists():
        queue.next_offset = queue.max_offset
        if queue.pending is not None or key not in last:
            store.dispatcher.correct_min_offset(queue)
    _settle_batches(store)
    store.index.load(crashed=crashed)
    if crashed:
        log.warning(
            "the store was not closed cleanly: recovered %d bytes of the log in %.2f s",
            end - start,
            store.clock.monotonic() - started_s,
        )


def _load_queues(store: FileStore) -> dict[tuple[str, int], int]:
    """Make all queues that have files, as long as those say; the position of each one's last entry.
    Everything is asked of a queue's file while it is open: there may be very many."""
    store.disk.make_directory(store.files.root)
    last = {}
    for files in (store.files, store.unit_files):
        for topic in files.topics():
            if not _belongs(store, files, topic):
                continue
            for queue_id in files.queue_ids(topic):
                queue = _load_queue(store, files, topic, queue_id)
                if queue is not None:
                    last[topic, queue_id] = _last_phy(queue)
                    store.dispatcher.correct_min_offset(queue)
    return last


def _belongs(store: FileStore, files: QueueFiles, topic: str) -> bool:
    """Whether the topic has its queues in these files, and not in those of the other kind."""
    dispatcher = store.dispatcher
    if not dispatcher.knows(topic) and dispatcher.batch_rule(topic) is None:
        dispatcher.add_shape(topic, files)
    if dispatcher.shape(topic).files is files:
        return True
    log.error(
        "%s/%s is left alone: by its attribute queue.type, or since it is deleted, the topic has "
        "its queues elsewhere. Remove it: a Java broker would not start with it",
        files.root,
        topic,
    )
    return False


def _load_queue(
    store: FileStore, files: QueueFiles, topic: str, queue_id: int
) -> ConsumeQueue | None:
    starts = files.starts(topic, queue_id)
    if not starts:
        return None
    end = starts[-1] // files.entry_bytes + files.find_end(topic, queue_id, starts[-1])
    queue = store.dispatcher.add_list(topic, queue_id, end)
    queue.min_offset = starts[0] // files.entry_bytes
    return queue


def _settle_batches(store: FileStore) -> None:
    for queue in store.dispatcher.batches.values():
        queue.settle()


def _start_of_walk(store: FileStore, last: dict[tuple[str, int], int], *, crashed: bool) -> int:
    log_ = store.log
    if not log_.files:
        return 0
    first, end = log_.files[0].start, log_.files[-1].start + log_.file_bytes
    saved = store.checkpoint
    mark = saved.dispatched if crashed else saved.clean_end
    if first <= mark <= end and (mark == first or crashed or _ends_at(store, mark)):
        return mark
    if not crashed:
        known = max(last.values(), default=-1)
        if known >= first and log_.scan(known, ahead=ReadAhead())[0] is not None:
            return known
        return first
    limit = max(0, min(saved.log_time, saved.queues_time) - CHECKPOINT_SLACK_MS)
    for file in reversed(log_.files):
        record, _ = log_.scan(file.start, ahead=ReadAhead())
        if record is not None and 0 < record.store_timestamp <= limit:
            return file.start
    return first


def _note_start(store: FileStore, start: int) -> None:
    """The queues are about to lose what lies behind the start, until they are written again; a
    broker that opens the store after a kill in between must not rely on it."""
    saved = store.checkpoint
    if saved.dispatched == start:
        return
    record, _ = store.log.scan(start, ahead=ReadAhead())
    if record is not None:
        saved.queues_time = min(saved.queues_time, record.store_timestamp - 1)
    saved.dispatched, saved.clean_end = start, -1
    store.checkpoint_writer()()
    store.disk.sync_files([f"{store.root}/checkpoint"])


def _ends_at(store: FileStore, mark: int) -> bool:
    """Whether no record stands at the end that a clean stop left."""
    return store.log.scan(mark, ahead=ReadAhead())[0] is None


def _last_phy(queue: ConsumeQueue) -> int:
    entry = queue.shape.files.find(queue, queue.max_offset - 1) if queue.max_offset else None
    return -1 if entry is None or entry[1] == FILLER_SIZE else entry[0]


def _trim_queues(
    store: FileStore, last: dict[tuple[str, int], int], start: int, *, crashed: bool
) -> None:
    """Forget entries at and behind the start of the walk: the walk brings them again. After a crash
    each queue is cut: pages that were lost may stand before pages that were not."""
    for key, queue in store.dispatcher.lists():
        if crashed or last[key] >= start:
            _cut(key, queue, start)
            del last[key]


def _drop_entries_behind(store: FileStore, last: dict[tuple[str, int], int], end: int) -> None:
    for key, queue in store.dispatcher.lists():
        if queue.pending is None and last.get(key, -1) >= end:
            _cut(key, queue, end)
            del last[key]


def _cut(key: tuple[str, int], queue: ConsumeQueue, position: int) -> None:
    """Drop the entries of a queue that point to ``position`` or behind it."""
    files = queue.shape.files
    topic, queue_id = key
    for start in reversed(files.starts(topic, queue_id)):
        count = files.find_end(topic, queue_id, start, position)
        if count or start == 0:
            break
    queue.max_offset = queue.pending_start = start // files.entry_bytes + count
    queue.min_offset = min(queue.min_offset, queue.max_offset)
    files.truncate(topic, queue_id, queue.max_offset)


def _walk(store: FileStore, position: int) -> int:
    """Read records until one is not whole; give their entries to the queues; where it ended."""
    log_ = store.log
    last_phy: dict[tuple[str, int], int] = {}
    ahead = ReadAhead()
    while True:
        record, following = log_.scan(position, ahead=ahead)
        if record is None:
            if following < 0:
                return position
            position = following  # behind a filler, even if nothing is there yet
            continue
        store.appender.last_timestamp = max(store.appender.last_timestamp, record.store_timestamp)
        if not record.sys_flag & SYS_TRANSACTION_PREPARED:
            key = (record.topic, record.queue_id)
            queue = store.table.get(key)
            shape = queue.shape if queue is not None else store.dispatcher.shape(record.topic)
            code = store.dispatcher.tags_code(shape, record.properties, record.store_timestamp)
            if shape.files is store.unit_files:
                _restart_if_recreated(store, key, record.queue_offset, last_phy)
                store.dispatcher.restore_unit(*key, unit_of(record, code))
            elif queue is not None and queue.max_offset == record.queue_offset:
                store.dispatcher.add_entry(queue, position, record.size, code)
            else:
                _restart_if_recreated(store, key, record.queue_offset, last_phy)
                store.dispatcher.restore_entry(
                    *key, record.queue_offset, position, record.size, code
                )
            last_phy[key] = position
            for name, offset in lmq.places(record.topic, record.properties):
                if (
                    store.appender.dispatches
                    and offset <= store.max_offset(name, lmq.QUEUE_ID) + GAP_MAX
                ):
                    light = (name, lmq.QUEUE_ID)
                    _restart_if_recreated(store, light, offset, last_phy)
                    store.dispatcher.restore_entry(*light, offset, position, record.size, code)
                    last_phy[light] = position
        position = following


def _restart_if_recreated(
    store: FileStore, key: tuple[str, int], offset: int, last_phy: dict[tuple[str, int], int]
) -> None:
    """A lower offset in a later record: the topic was deleted and made again."""
    if offset >= store.max_offset(*key):
        return
    known = key in last_phy or offset == 0
    if known:
        store.dispatcher.drop(*key)
        store.dispatcher.shape(key[0]).files.delete(*key)
