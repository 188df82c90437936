"""A power failure may lose pages in the middle of the log and keep later ones."""

from __future__ import annotations

from pathlib import Path

from firearrow.model.background import InlineBackground
from firearrow.model.clock import VirtualClock
from firearrow.model.message import Message
from firearrow.store.disk import RealDisk
from firearrow.store.filestore import FileStore
from firearrow.store.recovery import open_store
from firearrow.store.settings import StoreSettings

MESSAGE_BYTES = 1000
LOST_FROM, LOST_TO = 10, 210  # more than 64 KiB of records


def _open(root: Path) -> FileStore:
    settings = StoreSettings(
        mapped_file_size_commit_log=4 * 1024 * 1024, mapped_file_size_consume_queue=20_000
    )
    return open_store(str(root), settings, RealDisk(), VirtualClock(), InlineBackground())


def _append(store: FileStore, text: bytes) -> int:
    body = text.ljust(MESSAGE_BYTES, b".")
    put = store.append(Message("T", 0, body, b"", 1, bytes([127, 0, 0, 1, 0, 0, 0, 9])))
    return put.physical_offset


def test_records_behind_a_lost_stretch_never_come_back(tmp_path: Path) -> None:
    store = _open(tmp_path)
    offsets = [_append(store, b"old %d" % n) for n in range(LOST_TO + 20)]
    size = offsets[1] - offsets[0]
    (tmp_path / "abort").write_bytes(b"1")
    store.disk.unlock()  # the process is gone
    with (tmp_path / "commitlog" / f"{0:020d}").open("r+b") as file:
        file.seek(LOST_FROM * size)
        file.write(bytes((LOST_TO - LOST_FROM) * size))

    store = _open(tmp_path)
    assert store.max_offset("T", 0) == LOST_FROM
    for n in range(LOST_FROM, LOST_TO):  # up to exactly where the stale records stand
        _append(store, b"new %d" % n)
    store.disk.unlock()

    store = _open(tmp_path)
    assert store.max_offset("T", 0) == LOST_TO
    store.disk.unlock()
