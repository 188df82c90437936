"""The checkpoint's mark says up to where all consume queues are in their files: entries that came
while a queue was being written are not, whatever became dirty after them."""

from __future__ import annotations

import struct
from pathlib import Path

from firearrow.model.background import InlineBackground
from firearrow.model.clock import VirtualClock
from firearrow.model.message import Message
from firearrow.store.disk import RealDisk
from firearrow.store.filestore import FileStore
from firearrow.store.recovery import open_store
from firearrow.store.settings import StoreSettings

DUE = 300  # entries of more than 4 KiB: written at the next tick


def _open(root: Path, clock: VirtualClock, background: InlineBackground) -> FileStore:
    settings = StoreSettings(
        mapped_file_size_commit_log=4 * 1024 * 1024, mapped_file_size_consume_queue=20_000
    )
    store = open_store(str(root), settings, RealDisk(), clock, background)
    store.start()
    return store


def _append(store: FileStore, topic: str) -> None:
    store.append(Message(topic, 0, b"body", b"", 1, bytes([127, 0, 0, 1, 0, 0, 0, 9])))


def test_entries_that_came_during_a_write_survive_a_kill(tmp_path: Path) -> None:
    clock, background = VirtualClock(), InlineBackground()
    store = _open(tmp_path, clock, background)
    for _ in range(DUE):
        _append(store, "busy")
    clock.advance(0.6)  # flushed
    background.eager = False
    clock.advance(1)  # the write of the busy queue begins
    _append(store, "busy")
    _append(store, "late")
    background.run()  # it ends
    background.eager = True
    clock.advance(5)  # flushed, and the mark moves on; neither queue is due
    store.disk.unlock()  # the process is gone

    store = _open(tmp_path, clock, background)
    assert store.max_offset("late", 0) == 1
    assert store.max_offset("busy", 0) == DUE + 1
    _append(store, "busy")
    store.disk.unlock()

    store = _open(tmp_path, clock, background)
    entries = store.entries("busy", 0, 0, DUE + 2)
    assert len(entries) == DUE + 2
    assert all(store.record(entry.physical_offset) for entry in entries)
    store.disk.unlock()


LOGICS_OFFSET_AT = 40  # StoreCheckpoint.logicsPhysicalOffset


def test_what_another_broker_noted_does_not_outlive_the_entries_it_was_about(
    tmp_path: Path,
) -> None:
    """A Java broker is killed, we open its store and are killed in turn: until our queues are
    written, the checkpoint may not say that they are."""
    clock, background = VirtualClock(), InlineBackground()
    store = _open(tmp_path, clock, background)
    for _ in range(DUE):
        _append(store, "busy")
    clock.advance(2)
    end = store.log.end
    store.disk.unlock()
    # As the other one leaves it: later times, and the offset behind which nothing is missing.
    checkpoint = tmp_path / "checkpoint"
    fields = struct.pack(">qqqqqq", *(clock.now_ms() + 9000,) * 2, 0, 0, 0, end)
    checkpoint.write_bytes(fields + checkpoint.read_bytes()[len(fields) :])

    store = _open(tmp_path, clock, background)
    assert store.max_offset("busy", 0) == DUE
    queue_file = tmp_path / "consumequeue" / "busy" / "0" / f"{0:020d}"
    written = queue_file.read_bytes().find(bytes(20)) // 20
    (noted,) = struct.unpack_from(">q", checkpoint.read_bytes(), LOGICS_OFFSET_AT)
    assert written < DUE
    assert noted <= store.entries("busy", 0, written, 1)[0].physical_offset
    (queues_time,) = struct.unpack_from(">q", checkpoint.read_bytes(), 8)
    assert queues_time < store.store_time("busy", 0, written)
    clock.advance(70)  # everything is written
    (noted,) = struct.unpack_from(">q", checkpoint.read_bytes(), LOGICS_OFFSET_AT)
    assert noted == end
    store.disk.unlock()
