"""The only module that opens store files: a real disk, and one in memory for tests.

A mapped file is written by slice assignment. On a full disk the kernel kills a process that
touches a hole of a mapped sparse file (SIGBUS), so blocks are reserved before they are touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final, Protocol

from firearrow.store.api import DiskUsage

# Above so many files one sync of everything is cheaper than one for each.
SYNC_EACH_MAX: Final = 64
OPEN_FILES_MAX: Final = 256
LOCK_TEXT: Final = b"lock"
_ZEROS: Final = bytes(1024 * 1024)
_locked_here: set[str] = set()


class Buffer(Protocol):
    """Bytes of a mapped file."""

    def __getitem__(self, index: slice) -> bytes: ...
    def __setitem__(self, index: slice, data: bytes) -> None: ...
    def __len__(self) -> int: ...


class Mapped(Protocol):
    """One mapped file."""

    buffer: Buffer

    def read(self, start: int, size: int) -> bytes:
        """Bytes where there may be no blocks: through the mapping, some file systems (tmpfs) would
        allocate them, and kill the process when they have none."""

    def reserve(self, start: int, end: int) -> None:
        """Give the range blocks on the disk. OSError (ENOSPC) when there are none."""

    def sync(self) -> None:
        """Bring everything written so far to the disk (blocks)."""

    def close(self) -> None: ...


class Disk(Protocol):
    """Files by path. All errors are OSError."""

    def lock(self, path: str) -> bool:
        """Take the exclusive lock on byte 0 of the file; False when somebody else has it."""

    def unlock(self) -> None: ...

    def names(self, directory: str) -> list[str]:
        """Sorted names in a directory; empty when there is none."""

    def size(self, path: str) -> int:
        """Bytes of the file, or -1 when there is none."""

    def modified_ms(self, path: str) -> int:
        """When the file was last written, ms since the epoch."""

    def make_directory(self, path: str) -> None:
        """Make it and those above it, and sync what was made; an existing one is no error."""

    def map(self, path: str, size: int) -> Mapped:
        """Map a file, created at its full size if missing."""

    def truncate(self, path: str, keep: int, size: int) -> None:
        """Make everything behind ``keep`` zeros; the file has ``size`` bytes afterwards."""

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes) -> None:
        """Create or replace, and sync."""

    def append(self, path: str, data: bytes) -> None:
        """Add to the end, for the kernel to keep (survives kill -9, not a power failure)."""

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        """Keeps the file open for the next read. On the loop only."""

    def read_once(self, path: str, offset: int, size: int) -> bytes:
        """The same without keeping it; for any thread."""

    def write_at(self, path: str, offset: int, data: bytes, file_size: int) -> None:
        """Write into a file, created at ``file_size`` if missing. Not synced."""

    def sync_files(self, paths: list[str]) -> None:
        """Bring what was written to these files to the disk (blocks)."""

    def sync_directory(self, path: str) -> None: ...

    def rename(self, source: str, target: str) -> None: ...

    def remove(self, path: str) -> None:
        """Remove a file; a missing one is no error."""

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory; a missing or full one is no error."""

    def usage(self, path: str) -> DiskUsage: ...

    def forget(self, path: str) -> None:
        """Drop cached handles of files at or below the path, before they are removed."""


class RealMapped:
    """A mapped file and its descriptor, which is what can be synced without holding the GIL."""

    def __init__(self, path: str, size: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(self._fd).st_size != size:
                os.ftruncate(self._fd, size)
            self._map = mmap.mmap(self._fd, size)
        except BaseException:
            os.close(self._fd)
            raise
        self.buffer: Any = self._map

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self._fd, size, start)

    def reserve(self, start: int, end: int) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._fd, start, end - start)
            return
        # Without the call (macOS): rewriting what is there makes the blocks real.
        while start < end:
            chunk = os.pread(self._fd, min(len(_ZEROS), end - start), start)
            start += os.pwrite(self._fd, chunk, start)

    def sync(self) -> None:
        _sync(self._fd)

    def close(self) -> None:
        self._map.close()
        fd, self._fd = self._fd, -1  # the number may soon be another file's
        os.close(fd)


def _sync(fd: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    elif hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


class RealDisk:
    """Files of the operating system."""

    def __init__(self) -> None:
        self._lock_file: IO[bytes] | None = None
        self._readers: OrderedDict[str, int] = OrderedDict()  # used by the loop's thread only

    def lock(self, path: str) -> bool:
        # A POSIX record lock, as Java takes it. It is the process's: it does not keep out another
        # store of this one, and closing any descriptor of the file would give it up.
        identity = os.path.realpath(path)
        if identity in _locked_here:
            return False
        file = Path(path).open("a+b")  # noqa: SIM115
        try:
            fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0, 0)
        except OSError as error:
            file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        if os.fstat(file.fileno()).st_size != len(LOCK_TEXT):
            with contextlib.suppress(OSError):  # on a full disk the lock counts, not the text
                file.truncate(0)
                os.write(file.fileno(), LOCK_TEXT)
        self._lock_file = file
        _locked_here.add(identity)
        return True

    def unlock(self) -> None:
        for fd in self._readers.values():
            os.close(fd)
        self._readers.clear()
        if self._lock_file is not None:
            _locked_here.discard(os.path.realpath(self._lock_file.name))
            self._lock_file.close()
            self._lock_file = None

    def names(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []

    def size(self, path: str) -> int:
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return -1

    def modified_ms(self, path: str) -> int:
        return os.stat(path).st_mtime_ns // 1_000_000

    def make_directory(self, path: str) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path)
        if parent:
            self.make_directory(parent)
        os.makedirs(path, exist_ok=True)
        self.sync_directory(parent or ".")

    def map(self, path: str, size: int) -> Mapped:
        return RealMapped(path, size)

    def truncate(self, path: str, keep: int, size: int) -> None:
        os.truncate(path, keep)
        os.truncate(path, size)

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            _write_all(fd, data, 0)
            _sync(fd)
        finally:
            os.close(fd)

    def append(self, path: str, data: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, "No space left on device", path)
        finally:
            os.close(fd)

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        fd = self._readers.get(path)
        if fd is None:
            fd = os.open(path, os.O_RDONLY)
            if len(self._readers) >= OPEN_FILES_MAX:
                os.close(self._readers.popitem(last=False)[1])
            self._readers[path] = fd
        else:
            self._readers.move_to_end(path)
        return os.pread(fd, size, offset)

    def read_once(self, path: str, offset: int, size: int) -> bytes:
        fd = os.open(path, os.O_RDONLY)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def write_at(self, path: str, offset: int, data: bytes, file_size: int) -> None:
        try:
            fd = os.open(path, os.O_WRONLY)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            if os.fstat(fd).st_size != file_size:
                os.ftruncate(fd, file_size)
            _write_all(fd, data, offset)
        finally:
            os.close(fd)

    def sync_files(self, paths: list[str]) -> None:
        if len(paths) > SYNC_EACH_MAX:
            os.sync()
            return
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # removed meanwhile, with its topic
            try:
                _sync(fd)
            finally:
                os.close(fd)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)

    def remove_directory(self, path: str) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(path)

    def usage(self, path: str) -> DiskUsage:
        stat = os.statvfs(path)
        used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        free = stat.f_bavail * stat.f_frsize
        return DiskUsage(stat.f_blocks * stat.f_frsize, free, usage_ratio(used, free))

    def forget(self, path: str) -> None:
        for known in [p for p in self._readers if p == path or p.startswith(path + "/")]:
            os.close(self._readers.pop(known))


def usage_ratio(used: int, free: int) -> float:
    """Share in use, rounded up to a percent as RocketMQ does (storage.md 5.8)."""
    total = used + free
    return -(-100 * used // total) / 100 if total else 1.0


def _write_all(fd: int, data: Iterable[Any] | bytes, offset: int) -> None:
    view = memoryview(data)  # type: ignore[arg-type]
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
