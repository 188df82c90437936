"""A disk in memory that fails: the N-th call, half of it, everything after it, or the power.

What it keeps of a power failure is what a strict reading of POSIX promises: bytes of files that
were synced, names in directories that were synced; of everything else, any part. It also notices
what would kill the process: a store to a mapped page that has no block on the disk.
"""

from __future__ import annotations

import errno
import random
from typing import NamedTuple

from firearrow.model.clock import Clock
from firearrow.store.api import DiskUsage
from firearrow.store.disk import Buffer, Mapped
from firearrow.store.memory import MemoryDisk, MemoryFile

SECTOR = 512
PAGE = 4096
FULL_CALLS = 40


class Stopped(BaseException):
    """The process, or the machine, is gone. Nothing may catch this."""


class Sigbus(BaseException):
    """A mapped page without a block was used: on a full disk the kernel kills for a store, and on
    tmpfs for a load too."""


class Call(NamedTuple):
    """One call of the disk."""

    what: str
    path: str
    writes: bool  # needs space
    mapped: bool  # a store to mapped memory: the only fault there is the end


class FaultDisk(MemoryDisk):
    """``at`` is the number of the call that is hit, counted from 1; ``kind`` is how:

    EIO      it fails, nothing is done
    BROKEN   it and every later call fail
    FULL     what needs space fails, from this call on for some time
    TORN     half of it is done, and it fails
    STOP     half of it is done, and the process or the machine is gone
    """

    def __init__(self, clock: Clock, at: int = 0, kind: str = "", seed: int = 0) -> None:
        super().__init__(clock)
        self.at = at
        self.kind = kind
        self.seed = seed
        self.trace: list[Call] = []
        self.stopped = False
        self._blocks: dict[MemoryFile, set[int]] = {}
        self._synced: dict[MemoryFile, tuple[bytes, int]] = {}
        self._synced_names: dict[str, MemoryFile | None] = {}  # None: a directory
        self._changes: dict[str, list[dict[str, MemoryFile | str | None]]] = {}

    @property
    def hit(self) -> Call | None:
        """The call that was hit, once it came."""
        return self.trace[self.at - 1] if 0 < self.at <= len(self.trace) else None

    def heal(self, clock: Clock) -> None:
        """A healthy disk for another process: everything written is there, synced or not."""
        self.now_ms = clock.now_ms
        self.at, self.stopped, self.locked = 0, False, False

    # -- faults

    def _step(
        self,
        what: str,
        path: str,
        *,
        writes: bool = False,
        mapped: bool = False,
        whole: bool = True,
    ) -> bool:
        """Count a call; whether only half of it is to be done before ``_end`` is called."""
        if self.stopped:
            raise Stopped
        self.trace.append(Call(what, path, writes, mapped))
        number = len(self.trace)
        if self.at == 0 or number < self.at or (mapped and self.kind != "STOP"):
            return False  # memory does not fail
        if self.kind == "BROKEN" or (self.kind == "EIO" and number == self.at):
            raise OSError(errno.EIO, "Input/output error", path)
        if self.kind == "FULL" and writes and number < self.at + FULL_CALLS:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        if number == self.at and self.kind in ("TORN", "STOP"):
            if not whole:
                return True
            self._end(path)
        return False

    def _end(self, path: str) -> None:
        if self.kind == "STOP":
            self.stopped = True
            raise Stopped
        raise OSError(errno.EIO, "Input/output error", path)

    # -- calls

    def lock(self, path: str) -> bool:
        self._step("lock", path, writes=True)
        return super().lock(path)

    def names(self, directory: str) -> list[str]:
        self._step("names", directory)
        return super().names(directory)

    def size(self, path: str) -> int:
        self._step("size", path)
        return super().size(path)

    def modified_ms(self, path: str) -> int:
        self._step("modified_ms", path)
        return super().modified_ms(path)

    def make_directory(self, path: str) -> None:
        if path not in self.directories:
            self._step("make_directory", path, writes=True)
            super().make_directory(path)
            while path and path not in self._synced_names:
                self._synced_names[path] = None
                path = path.rpartition("/")[0]

    def map(self, path: str, size: int) -> Mapped:
        self._step("map", path, writes=path not in self.files)
        file = self._file(path)
        return FaultMapped(self, path, file, size)

    def truncate(self, path: str, keep: int, size: int) -> None:
        self._step("truncate", path)
        super().truncate(path, keep, size)
        blocks = self._blocks.setdefault(self.files[path], set())
        blocks.intersection_update(range(-(-keep // PAGE)))

    def read(self, path: str) -> bytes:
        self._step("read", path)
        return super().read(path)

    def write(self, path: str, data: bytes) -> None:
        half = self._step("write", path, writes=True, whole=False)
        file = self._file(path)
        file.resize(0, 0)
        self._put(path, file, 0, data, half)
        self._sync(file)

    def append(self, path: str, data: bytes) -> None:
        half = self._step("append", path, writes=True, whole=False)
        file = self._file(path)
        self._put(path, file, file.size, data, half)

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        self._step("read_at", path)
        return super().read_at(path, offset, size)

    def write_at(self, path: str, offset: int, data: bytes, file_size: int) -> None:
        half = self._step("write_at", path, writes=True, whole=False)
        MemoryDisk.make_directory(self, path.rpartition("/")[0])
        file = self._file(path)
        file.size = file_size
        self._put(path, file, offset, data, half)

    def sync_files(self, paths: list[str]) -> None:
        for path in paths:
            self._step("sync", path)
            if path in self.directories:
                self._sync_names(path)
            elif path in self.files:
                self._sync(self.files[path])

    def sync_directory(self, path: str) -> None:
        self._step("sync_directory", path)
        self._sync_names(path)

    def rename(self, source: str, target: str) -> None:
        self._step("rename", target, writes=True)
        file = self._existing(source)
        super().rename(source, target)
        changes = self._changes[target.rpartition("/")[0]]
        changes.pop()  # one change, of two names at once, even in two directories
        self._changes[source.rpartition("/")[0]].pop()
        changes.append({source: "gone", target: file})

    def remove(self, path: str) -> None:
        self._step("remove", path)
        super().remove(path)

    def remove_directory(self, path: str) -> None:
        self._step("remove_directory", path)
        existed = path in self.directories
        super().remove_directory(path)
        if existed and path not in self.directories:
            self._change(path, "gone")

    def usage(self, path: str) -> DiskUsage:
        self._step("usage", path)
        return super().usage(path)

    # -- what is on the disk for good

    def blocks(self, file: MemoryFile) -> set[int]:
        return self._blocks.setdefault(file, set())

    def _put(self, path: str, file: MemoryFile, offset: int, data: bytes, half: bool) -> None:
        whole, data = data, data[: len(data) // 2] if half else data
        self._write(file, offset, data)
        self.blocks(file).update(range(offset // PAGE, (offset + len(data) + PAGE - 1) // PAGE))
        if half:
            self._end(path)
        assert data is whole

    def _add(self, path: str, file: MemoryFile) -> None:
        super()._add(path, file)
        self._change(path, file)

    def _drop(self, path: str) -> None:
        super()._drop(path)
        self._change(path, "gone")

    def _change(self, path: str, file: MemoryFile | str | None) -> None:
        self._changes.setdefault(path.rpartition("/")[0], []).append({path: file})

    def _sync(self, file: MemoryFile) -> None:
        self._synced[file] = (file.read(0, file.size), file.size)
        file.modified_ms = self.now_ms()

    def _sync_names(self, directory: str) -> None:
        for name in self.directories.get(directory, ()):
            path = f"{directory}/{name}"
            if path in self.directories:
                self._synced_names[path] = None
        for change in self._changes.pop(directory, []):
            _apply(change, self._synced_names)

    def after_power_failure(self, clock: Clock) -> FaultDisk:
        """What is left: everything synced; of the rest, what the seed says. In a directory, the
        changes that survive are the first ones, as file systems with a journal keep them."""
        rng = random.Random(self.seed)
        names = dict(self._synced_names)
        for directory in self.directories:
            if directory and rng.random() < 0.5:
                names.setdefault(directory, None)
        for changes in self._changes.values():
            for change in changes[: rng.randint(0, len(changes))]:
                _apply(change, names)
        left = FaultDisk(clock)
        survives = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        for path, file in sorted(names.items()):
            if path.rpartition("/")[0] not in left.directories:
                continue  # a name in a directory that has none
            if file is None:
                left.make_directory(path)
            else:
                left._restore(path, self._mixed(file, rng, survives))
        left.trace.clear()
        return left

    def _mixed(self, file: MemoryFile, rng: random.Random, survives: float) -> tuple[bytes, int]:
        synced, size = self._synced.get(file, (b"", 0))
        if file.size != size and rng.random() < survives:
            size = file.size
        now, then = file.read(0, size), synced[:size].ljust(size, b"\0")
        sectors = []
        for start in range(0, size, SECTOR):
            new, old = now[start : start + SECTOR], then[start : start + SECTOR]
            sectors.append(new if new != old and rng.random() < survives else old)
        return b"".join(sectors).ljust(size, b"\0"), size

    def _restore(self, path: str, content: tuple[bytes, int]) -> None:
        file = self._file(path)
        data, size = content
        file.write(0, data)
        file.size = size
        self._synced[file] = content
        self._sync_names(path.rpartition("/")[0])
        used = {n for n in range(-(-size // PAGE)) if any(data[n * PAGE : (n + 1) * PAGE])}
        self._blocks[file] = used


def _apply(change: dict[str, MemoryFile | str | None], names: dict[str, MemoryFile | None]) -> None:
    for path, file in change.items():
        if isinstance(file, str):
            names.pop(path, None)
        else:
            names[path] = file


class FaultMapped:
    """A mapped file of a ``FaultDisk``."""

    def __init__(self, disk: FaultDisk, path: str, file: MemoryFile, size: int) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self.buffer: Buffer = FaultBuffer(disk, path, file, size)

    def read(self, start: int, size: int) -> bytes:
        self._disk._step("read_mapped", self._path)
        return self._file.read(start, size)

    def reserve(self, start: int, end: int) -> None:
        self._disk._step("reserve", self._path, writes=True)
        self._disk.blocks(self._file).update(range(start // PAGE, -(-end // PAGE)))

    def sync(self) -> None:
        self._disk._step("sync", self._path)
        self._disk._sync(self._file)

    def close(self) -> None:
        """The bytes stay: they are the disk."""


class FaultBuffer:
    """Mapped memory whose stores are calls of the disk."""

    def __init__(self, disk: FaultDisk, path: str, file: MemoryFile, size: int) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self._bytes = file.map(size)

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, index: slice) -> bytes:
        self._touch(index)
        return self._bytes[index]

    def _touch(self, index: slice) -> None:
        pages = range(index.start // PAGE, (index.stop - 1) // PAGE + 1)
        if not self._disk.blocks(self._file).issuperset(pages):
            raise Sigbus(f"{self._path} at {index.start}")

    def __setitem__(self, index: slice, data: bytes) -> None:
        half = self._disk._step("store", self._path, mapped=True, whole=False)
        self._touch(index)
        if half:
            middle = index.start + len(data) // 2
            self._bytes[index.start : middle] = data[: len(data) // 2]
            self._disk._end(self._path)
        self._bytes[index] = data
