"""A store over each kind of disk, with a disk that fills up and a process that dies as told."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from firearrow.codec.record import Record, decode_record, split_records
from firearrow.model.background import InlineBackground
from firearrow.model.clock import VirtualClock
from firearrow.model.message import Message
from firearrow.store.api import DiskUsage, Put
from firearrow.store.disk import Mapped, RealDisk, RealMapped, usage_ratio
from firearrow.store.filestore import FileStore
from firearrow.store.memory import MemoryDisk
from firearrow.store.recovery import open_store
from firearrow.store.settings import StoreSettings

HOUR_S = 3600.0
CLEANING_IN_H = 17
LOG_FILE_BYTES = 16 * 1024
HOST = bytes([127, 0, 0, 1]) + (40000).to_bytes(4)
TOTAL_BYTES = 1 << 40


class FillableDisk(RealDisk):
    """Real files on a disk that is as full as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.free_bytes = TOTAL_BYTES

    def need_space(self) -> None:
        if self.free_bytes <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def map(self, path: str, size: int) -> Mapped:
        mapped = RealMapped(path, size)
        reserve = mapped.reserve

        def reserve_if_free(start: int, end: int) -> None:
            self.need_space()
            reserve(start, end)

        mapped.reserve = reserve_if_free  # type: ignore[method-assign]
        return mapped

    def write(self, path: str, data: bytes) -> None:
        self.need_space()
        super().write(path, data)

    def append(self, path: str, data: bytes) -> None:
        self.need_space()
        super().append(path, data)

    def write_at(self, path: str, offset: int, data: bytes, file_size: int) -> None:
        self.need_space()
        super().write_at(path, offset, data, file_size)

    def usage(self, path: str) -> DiskUsage:
        ratio = usage_ratio(TOTAL_BYTES - self.free_bytes, self.free_bytes)
        return DiskUsage(TOTAL_BYTES, self.free_bytes, ratio)


class Harness:
    """One store directory, opened as often as a test likes."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind = kind
        self.root = str(root)
        # Files on a real disk have real times. The hour of cleaning is 17 hours away.
        started_s = time.time()
        self.clock = VirtualClock(int(started_s * 1000))
        self.delete_when = str(time.localtime(started_s + CLEANING_IN_H * HOUR_S).tm_hour)
        self.background = InlineBackground()
        self.disk: FillableDisk | MemoryDisk
        self.disk = FillableDisk() if kind == "real" else MemoryDisk(self.clock, TOTAL_BYTES)
        self.settings: dict[str, Any] = {}
        self.store: FileStore

    def open(self, **settings: Any) -> FileStore:
        self.settings = {
            "mapped_file_size_commit_log": LOG_FILE_BYTES,
            "mapped_file_size_consume_queue": 200,
            "max_hash_slot_num": 50,
            "max_index_num": 200,
            "delete_when": self.delete_when,
            **self.settings,
            **settings,
        }
        self.store = open_store(
            self.root,
            StoreSettings(**self.settings),
            self.disk,
            self.clock,
            self.background,
            {"delayed": lambda properties, timestamp: timestamp + 1000},
        )
        self.store.start()
        return self.store

    def close(self) -> None:
        self.store.close()

    def kill(self) -> None:
        """The process is gone; the kernel keeps what was written."""
        self.store.disk.unlock()
        self.clock = VirtualClock(self.clock.now_ms())
        self.background = InlineBackground()
        if isinstance(self.disk, MemoryDisk):
            self.disk.now_ms = self.clock.now_ms

    def restart(self, *, clean: bool) -> FileStore:
        if clean:
            self.close()
        else:
            self.kill()
        return self.open()

    def used(self, percent: int) -> None:
        """So much of the disk is in use now."""
        self.disk.free_bytes = TOTAL_BYTES - TOTAL_BYTES * percent // 100

    # -- messages

    def put(self, text: str, topic: str = "T", queue_id: int = 0, **more: Any) -> Put:
        return self.store.append(message(text, topic, queue_id, **more))

    def fill_files(self, count: int, topic: str = "T", queue_id: int = 0) -> int:
        """Append until the log has so many more files; how many messages that took."""
        first = len(self.store.log.files)
        sent = 0
        while len(self.store.log.files) < first + count:
            text = f"{self.store.max_offset(topic, queue_id)}".ljust(1000, ".")
            assert self.put(text, topic, queue_id, keys=f"k{sent}").physical_offset >= 0
            sent += 1
        self.clock.advance(1)
        if self.kind == "real":  # as if its clock were ours
            for file in self.store.log.files[max(0, first - 1) :]:
                os.utime(file.path, (self.clock.now_ms() / 1000,) * 2)
        return sent

    def read(self, topic: str = "T", queue_id: int = 0, offset: int = 0, **more: Any) -> list[str]:
        """Bodies of one read."""
        read = self.store.read(topic, queue_id, offset, more.pop("count", 32), **more)
        return [r.body.decode() for r in records(read.records)]

    def read_all(self, topic: str = "T", queue_id: int = 0) -> list[str]:
        offset, found = self.store.min_offset(topic, queue_id), []
        while offset < self.store.max_offset(topic, queue_id):
            read = self.store.read(topic, queue_id, offset, 32)
            found += [r.body.decode() for r in records(read.records)]
            offset = read.next_offset
        return found

    def query(self, key: str, topic: str = "T", **more: Any) -> list[str]:
        """Bodies of the messages with a key."""
        answers: list[list[bytes]] = []
        begin, end = more.get("begin_ms", 0), more.get("end_ms", self.clock.now_ms() + 1000)
        self.store.query_keys(
            topic, key, more.get("count", 64), begin, end, lambda found, *_: answers.append(found)
        )
        self.clock.advance(0)
        return [decode_record(data).body.decode() for data in answers[0]]


def message(
    text: str,
    topic: str = "T",
    queue_id: int = 0,
    *,
    tag: str = "",
    keys: str = "",
    unique: str = "",
    **more: Any,
) -> Message:
    named = {"TAGS": tag, "KEYS": keys, "UNIQ_KEY": unique}
    properties = "".join(f"{name}\x01{value}\x02" for name, value in named.items() if value)
    born_host = more.pop("born_host", HOST)
    return Message(topic, queue_id, text.encode(), properties.encode(), 1, born_host, **more)


def records(data: bytes) -> list[Record]:
    return [decode_record(part, check_crc=True) for part in split_records(data)]
