"""A disk in memory: the same store without files, for tests and for embedding.

A mapped file is anonymous memory, so a log file of a gigabyte costs what is written to it. What a
test says about the disk (how large, how full) is what the store sees.
"""

from __future__ import annotations

import errno
import mmap
from typing import Final

from firearrow.model.clock import Clock
from firearrow.store.api import DiskUsage
from firearrow.store.disk import Buffer, Mapped, usage_ratio

TOTAL_BYTES: Final = 1 << 40


class MemoryFile:
    """Bytes of one file. Behind ``len(data)`` and before ``size`` they are zeros."""

    __slots__ = ("data", "modified_ms", "size")

    def __init__(self, modified_ms: int) -> None:
        self.data: bytearray | mmap.mmap = bytearray()
        self.size = 0
        self.modified_ms = modified_ms

    def read(self, offset: int, size: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        return bytes(self.data[offset : offset + size]).ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if len(self.data) < end:
            self.data = bytearray(self.read(0, self.size)) + bytes(end - len(self.data))
        self.data[offset:end] = data
        self.size = max(self.size, end)

    def resize(self, keep: int, size: int) -> None:
        """Zeros behind ``keep``, then ``size`` bytes."""
        if isinstance(self.data, mmap.mmap):
            self.data = bytearray(self.data[:keep])
        del self.data[keep:]
        self.size = size

    def map(self, size: int) -> mmap.mmap:
        """The bytes as memory of their own, where slices may be assigned."""
        if not isinstance(self.data, mmap.mmap):
            memory = mmap.mmap(-1, size)
            memory[: len(self.data)] = bytes(self.data)
            self.data = memory
            self.size = size
        return self.data


class MemoryMapped:
    """See ``disk.Mapped``."""

    def __init__(self, disk: MemoryDisk, file: MemoryFile, size: int) -> None:
        self._disk = disk
        self._file = file
        self.buffer: Buffer = file.map(size)

    def read(self, start: int, size: int) -> bytes:
        return self._file.read(start, size)

    def reserve(self, start: int, end: int) -> None:
        self._disk.need_space()

    def sync(self) -> None:
        self._file.modified_ms = self._disk.now_ms()

    def close(self) -> None:
        """The bytes stay: they are the disk."""


class MemoryDisk:
    """See ``disk.Disk``. ``free_bytes`` is what the test says; 0 makes every write fail."""

    def __init__(self, clock: Clock, total_bytes: int = TOTAL_BYTES) -> None:
        self.now_ms = clock.now_ms
        self.total_bytes = total_bytes
        self.free_bytes = total_bytes
        self.locked = False
        self.files: dict[str, MemoryFile] = {}
        self.directories: dict[str, set[str]] = {"": set()}

    def need_space(self) -> None:
        """Raises: OSError (ENOSPC) when there is none."""
        if self.free_bytes <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def lock(self, path: str) -> bool:
        if self.locked:
            return False
        self._file(path)
        self.locked = True
        return True

    def unlock(self) -> None:
        self.locked = False

    def names(self, directory: str) -> list[str]:
        return sorted(self.directories.get(directory, ()))

    def size(self, path: str) -> int:
        file = self.files.get(path)
        return -1 if file is None else file.size

    def modified_ms(self, path: str) -> int:
        return self._existing(path).modified_ms

    def make_directory(self, path: str) -> None:
        if path not in self.directories:
            parent, _, name = path.rpartition("/")
            self.make_directory(parent)
            self.directories[parent].add(name)
            self.directories[path] = set()

    def map(self, path: str, size: int) -> Mapped:
        return MemoryMapped(self, self._file(path), size)

    def truncate(self, path: str, keep: int, size: int) -> None:
        self._existing(path).resize(keep, size)

    def read(self, path: str) -> bytes:
        file = self._existing(path)
        return file.read(0, file.size)

    def write(self, path: str, data: bytes) -> None:
        self.need_space()
        file = self._file(path)
        file.resize(0, 0)
        self._write(file, 0, data)

    def append(self, path: str, data: bytes) -> None:
        self.need_space()
        file = self._file(path)
        self._write(file, file.size, data)

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        return self._existing(path).read(offset, size)

    def read_once(self, path: str, offset: int, size: int) -> bytes:
        return self.read_at(path, offset, size)

    def write_at(self, path: str, offset: int, data: bytes, file_size: int) -> None:
        self.need_space()
        self.make_directory(path.rpartition("/")[0])
        file = self._file(path)
        file.size = file_size
        self._write(file, offset, data)

    def sync_files(self, paths: list[str]) -> None:
        """Nothing is lost but with the process."""

    def sync_directory(self, path: str) -> None:
        """Nothing is lost but with the process."""

    def rename(self, source: str, target: str) -> None:
        file = self._existing(source)
        self._drop(source)
        self._add(target, file)

    def remove(self, path: str) -> None:
        if path in self.files:
            self._drop(path)

    def remove_directory(self, path: str) -> None:
        if not self.directories.get(path, {""}):
            del self.directories[path]
            parent, _, name = path.rpartition("/")
            self.directories[parent].discard(name)

    def usage(self, path: str) -> DiskUsage:
        used = self.total_bytes - self.free_bytes
        return DiskUsage(self.total_bytes, self.free_bytes, usage_ratio(used, self.free_bytes))

    def forget(self, path: str) -> None:
        """There are no handles."""

    def _write(self, file: MemoryFile, offset: int, data: bytes) -> None:
        file.write(offset, data)
        file.modified_ms = self.now_ms()

    def _existing(self, path: str) -> MemoryFile:
        file = self.files.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return file

    def _file(self, path: str) -> MemoryFile:
        file = self.files.get(path)
        if file is None:
            file = MemoryFile(self.now_ms())
            self._add(path, file)
        return file

    def _drop(self, path: str) -> None:
        del self.files[path]
        parent, _, name = path.rpartition("/")
        self.directories[parent].discard(name)

    def _add(self, path: str, file: MemoryFile) -> None:
        parent, _, name = path.rpartition("/")
        if parent not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        self.directories[parent].add(name)
        self.files[path] = file
