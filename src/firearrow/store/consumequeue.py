"""Consume queues: where the messages of one queue lie in the commit log (storage.md 3).

Entry *n* stands at byte n * 20 of the queue:
    8  physical offset
    4  record size
    8  tags code (Java hash of the tag; a due time for delayed messages)

A queue is a small object. Entries that are not in its file yet are kept in memory; older ones are
read from the file. The file can be rebuilt from the log, so it is written lazily.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from firearrow.codec.record import MAGIC_V1, MAGIC_V2, RECORD_BYTES_MIN
from firearrow.store.api import Arrival
from firearrow.store.disk import Disk

ENTRY_BYTES: Final = 20
ENTRY: Final = struct.Struct(">qiq")
# Stands where no message ever was, so that entry n stays at byte n * 20 (storage.md 3.2).
BLOCK_ENTRIES: Final = 200
FILLER_SIZE: Final = 0x7FFFFFFF
FILLER: Final = ENTRY.pack(0, FILLER_SIZE, 0)
TOPIC_BYTES_V1_MAX: Final = 127


# (properties, store timestamp) -> tags code
TagsRule = Callable[[bytes, int], int]


class TopicShape:
    """What every record of a topic shares; one object for all its queues."""

    __slots__ = ("files", "listeners", "magic", "name", "overhead", "part", "queues", "tags_rule")

    def __init__(
        self,
        name: str,
        files: QueueFiles,
        tags_rule: TagsRule | None,
        listeners: tuple[Arrival, ...],
    ) -> None:
        encoded = name.encode()
        self.name = name
        self.files = files  # of its queues
        # Those with the lowest ids, for a quick way to them; all others are in the table only.
        self.queues: tuple[ConsumeQueue | None, ...] = ()
        self.listeners = listeners
        self.tags_rule = tags_rule  # where the tags code is not the hash of the tag
        if len(encoded) <= TOPIC_BYTES_V1_MAX:
            self.magic = MAGIC_V1
            self.part = bytes([len(encoded)]) + encoded
        else:
            self.magic = MAGIC_V2
            self.part = len(encoded).to_bytes(2) + encoded
        # Bytes of a record with IPv4 addresses beyond body and properties.
        self.overhead = RECORD_BYTES_MIN - 1 + len(self.part)


class ConsumeQueue:
    """One queue of one topic.

    ``pending`` holds the entries from ``pending_start`` to ``max_offset``; before that they are in
    the file. ``next_offset`` is what the next message gets; it runs ahead of ``max_offset`` while
    messages wait for a synchronous flush.
    """

    __slots__ = (
        "dirty_since_s",
        "max_offset",
        "min_offset",
        "next_offset",
        "pending",
        "pending_start",
        "queue_id",
        "shape",
    )

    def __init__(self, shape: TopicShape, queue_id: int, max_offset: int = 0) -> None:
        self.shape = shape
        self.queue_id = queue_id
        self.min_offset = 0
        self.max_offset = max_offset
        self.next_offset = max_offset
        self.pending: bytearray | None = None
        self.pending_start = max_offset
        self.dirty_since_s = 0.0


class QueueFiles:
    """Reads and writes the files of all queues of one kind. Entry *n* of a queue stands at byte
    n * the size of an entry, which begins with physical offset and record size."""

    layout = ENTRY
    filler = FILLER

    def __init__(self, disk: Disk, root: str, file_bytes: int) -> None:
        self._disk = disk
        self.root = root
        self.entry_bytes = self.layout.size
        self.file_bytes = -(-file_bytes // self.entry_bytes) * self.entry_bytes

    def directory(self, topic: str, queue_id: int) -> str:
        return f"{self.root}/{topic}/{queue_id}"

    def _path(self, topic: str, queue_id: int, position: int) -> tuple[str, int]:
        start = position - position % self.file_bytes
        return f"{self.root}/{topic}/{queue_id}/{start:020d}", start

    def entries(self, queue: ConsumeQueue, offset: int, count: int) -> bytes:
        """Entry bytes from ``offset``: at most ``count``, at most to the end of one file."""
        count = min(count, queue.max_offset - offset)
        if count <= 0:
            return b""
        pending = queue.pending
        if pending is not None and offset >= queue.pending_start:
            start = (offset - queue.pending_start) * self.entry_bytes
            return bytes(pending[start : start + count * self.entry_bytes])
        if pending is None or offset + count <= queue.pending_start:
            return self.read(queue.shape.name, queue.queue_id, offset, count)
        written = queue.pending_start - offset
        data = self.read(queue.shape.name, queue.queue_id, offset, written)
        if len(data) < written * self.entry_bytes:
            return data  # the end of a file comes first
        return data + pending[: (count - written) * self.entry_bytes]

    def read(self, topic: str, queue_id: int, offset: int, count: int) -> bytes:
        """Entry bytes from the files; empty when the file is gone."""
        position = offset * self.entry_bytes
        path, start = self._path(topic, queue_id, position)
        size = min(count * self.entry_bytes, start + self.file_bytes - position)
        try:
            return self._disk.read_at(path, position - start, size)
        except FileNotFoundError:
            return b""

    def write(self, topic: str, queue_id: int, offset: int, data: bytes) -> list[str]:
        """Write entries from ``offset`` on; what must be synced. Runs in the background."""
        position = offset * self.entry_bytes
        paths = []
        while data:
            path, start = self._path(topic, queue_id, position)
            room = start + self.file_bytes - position
            if self._disk.size(path) < 0:
                directory = self.directory(topic, queue_id)
                paths += [directory, f"{self.root}/{topic}", self.root]
                # The first file of a queue that does not start at a file's start.
                fillers = self.filler * ((position - start) // self.entry_bytes)
                self._disk.write_at(path, 0, fillers, self.file_bytes)
            self._disk.write_at(path, position - start, data[:room], self.file_bytes)
            paths.append(path)
            data, position = data[room:], position + len(data[:room])
        return paths

    # -- at open

    def topics(self) -> list[str]:
        return self._disk.names(self.root)

    def queue_ids(self, topic: str) -> list[int]:
        return [int(n) for n in self._disk.names(f"{self.root}/{topic}") if n.isdigit()]

    def starts(self, topic: str, queue_id: int) -> list[int]:
        """Start positions of the queue's files."""
        names = self._disk.names(self.directory(topic, queue_id))
        return [int(name) for name in names if len(name) == 20 and name.isdigit()]

    def find_end(self, topic: str, queue_id: int, start: int, log_end: int | None = None) -> int:
        """Entries in the file that starts at ``start`` up to the first unused one, or the first
        that points behind ``log_end``. Offsets grow, so this is a binary search; it begins near the
        start of the file, where most queues end, and its last steps are one read."""
        first, low, high = start // self.entry_bytes, 0, self.file_bytes // self.entry_bytes

        def behind(entry: tuple[int, ...]) -> bool:
            if not self.is_used(entry):
                return True
            phy, size = entry[:2]
            return log_end is not None and phy >= log_end and (size != FILLER_SIZE or phy > 0)

        middle = BLOCK_ENTRIES
        while high - low > BLOCK_ENTRIES:
            if behind(self._read_one(topic, queue_id, first + middle)):
                high = middle
            else:
                low = middle + 1
            middle = (low + high) // 2
        data = self.read(topic, queue_id, first + low, high - low)
        entries = list(
            self.layout.iter_unpack(data[: len(data) // self.entry_bytes * self.entry_bytes])
        )
        return low + bisect_left(entries, True, key=behind)

    def is_used(self, entry: tuple[int, ...]) -> bool:
        """Whether these bytes of a file were written."""
        return entry[0] >= 0 and entry[1] > 0

    def _read_one(self, topic: str, queue_id: int, offset: int) -> tuple[int, ...]:
        data = self.read(topic, queue_id, offset, 1)
        return self.layout.unpack(data.ljust(self.entry_bytes, b"\0"))

    def find(self, queue: ConsumeQueue, offset: int) -> tuple[int, ...] | None:
        """One entry, (physical offset, size, tags code ...), or ``None``."""
        data = self.entries(queue, offset, 1)
        return self.layout.unpack(data) if len(data) == self.entry_bytes else None

    def truncate(self, topic: str, queue_id: int, offset: int) -> None:
        """Make everything from ``offset`` on unused, and remove the files behind it. The first
        file stays in any case: its name tells the queue's offsets."""
        position = offset * self.entry_bytes
        starts = self.starts(topic, queue_id)
        for start in starts:
            path = f"{self.directory(topic, queue_id)}/{start:020d}"
            if start >= position and start != starts[0]:
                self._disk.forget(path)
                self._disk.remove(path)
            elif start + self.file_bytes > position:
                self._disk.truncate(path, max(0, position - start), self.file_bytes)

    def delete_before(self, topic: str, queue_id: int, offset: int) -> None:
        """Remove the files that hold only entries before ``offset``, never the last one."""
        starts = self.starts(topic, queue_id)
        for start in starts[:-1]:
            if start + self.file_bytes > offset * self.entry_bytes:
                return
            path = f"{self.directory(topic, queue_id)}/{start:020d}"
            self._disk.forget(path)
            self._disk.remove(path)

    def delete(self, topic: str, queue_id: int) -> None:
        """Remove the queue's directory."""
        directory = self.directory(topic, queue_id)
        self._disk.forget(directory)
        for name in self._disk.names(directory):
            self._disk.remove(f"{directory}/{name}")
        self._disk.remove_directory(directory)
        self._disk.remove_directory(f"{self.root}/{topic}")


def int32(value: int) -> int:
    """A tags code as the signed number that it is the hash of."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
