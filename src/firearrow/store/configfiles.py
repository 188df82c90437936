"""The JSON tables in ``config/``, as Java reads and writes them (storage.md 6.1).

A save replaces the whole file and keeps the old one as ``.bak``. It runs in the background, after
a flush of the log (a consumer offset must not be ahead of the messages), and saves of one file that
come close together become one. What must not wait that long (a topic made by a first message) is
noted in a journal beside the file first: one ``write``, which survives a kill; it is synced with
the next flush of the log. The next save makes the journal superfluous. A Java broker does not read
journals, and finds none after a clean stop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from firearrow.codec import lenient_json
from firearrow.codec.tables import Reader
from firearrow.model.background import Background
from firearrow.model.clock import Clock
from firearrow.store.disk import Disk

log = logging.getLogger(__name__)

T = TypeVar("T")

# After a save the next one of the same file waits so many times as long as the loop was busy with
# it, and as the disk was: saving a large table takes a twentieth of the loop's time and a quarter
# of the background's. Not longer, as a Java broker that opens the store after a kill knows only
# what was saved.
REST_FACTOR_LOOP: Final = 20
REST_FACTOR_DISK: Final = 3
CHUNKS_PER_STEP: Final = 4096  # of a table, encoded in one go: some milliseconds
REST_S_MIN: Final = 0.05
RETRY_S: Final = 5.0


class ConfigUnreadable(Exception):  # noqa: N818
    """A table is there but cannot be read; the text says what to do."""


class ConfigFiles:
    """All tables of one store."""

    def __init__(
        self,
        disk: Disk,
        root: str,
        background: Background,
        clock: Clock,
        after_flush: Callable[[Callable[[bool], None]], None],
        refuse: Callable[[str, str], None],
    ) -> None:
        self._disk = disk
        self._root = root
        self._background = background
        self._clock = clock
        self._after_flush = after_flush
        self._refuse = refuse
        self._wanted: dict[str, Iterable[bytes]] = {}
        self._busy: set[str] = set()  # being saved, or resting after it
        self._noted: set[str] = set()  # with notes that are not synced
        self._known: set[str] = set()  # whose notes are read, or in the file
        self._unsaved: set[str] = set()  # with notes that the file may not have
        self._unnoted: set[str] = set()  # with changes that are nowhere on the disk
        self._failing: set[str] = set()  # could not be saved the last time
        self._peeked: dict[str, Any] = {}
        self._broken: set[str] = set()  # unreadable, but not to be lost
        disk.make_directory(root)

    # -- read

    def load(self, name: str, read: Reader[T], *, needed: bool = True) -> T | None:
        """What ``read`` makes of the parsed file, or of its ``.bak``; ``None`` when there is
        neither. A wrong member makes a file unreadable as a whole, as it does for RocketMQ's
        ``ConfigManager``; it is set aside before the table is saved.

        Raises:
            ConfigUnreadable: what is there cannot be read, and is ``needed``.
        """
        if name in self._peeked:
            found: T = self._peeked.pop(name)
            return found
        path = f"{self._root}/{name}"
        wrong = ""
        for candidate in (path, path + ".bak"):
            if self._disk.size(candidate) <= 0:
                continue
            try:
                table = self._read(candidate, read)
            except ValueError as error:
                wrong = wrong or str(error)
                self._broken.add(candidate)
                continue
            if wrong:
                log.error(
                    "%s is unreadable (%s): %s.bak, which is older, takes its place. See what is "
                    "missing; what is unreadable is kept as %s.unreadable",
                    *(path, wrong, name, name),
                )
            return table
        if wrong and needed:
            raise ConfigUnreadable(
                f"{path} is unreadable, and no {name}.bak can take its place ({wrong}); "
                "repair it, or remove it to start without what it says"
            )
        if wrong:
            log.error(
                "%s is unreadable (%s): it is begun anew, and kept as %s.unreadable",
                *(path, wrong, name),
            )
        return None

    def _read(self, path: str, read: Reader[T]) -> T:
        found = lenient_json.loads(self._disk.read(path), None)
        if not isinstance(found, dict):
            raise ValueError("it is no object")
        return read(found)

    def peek(self, name: str, read: Reader[T]) -> T | None:
        """The same, before its owner loads it: a large table is read once."""
        self._peeked[name] = found = self.load(name, read)
        return found

    # -- write

    def save(self, name: str, chunks: Iterable[bytes]) -> None:
        """Replace the file soon; ``chunks`` are read when it happens, of a large table in several
        steps: between two of them it may change, which the next save, or the journal, knows."""
        self._wanted[name] = chunks
        if name not in self._busy:
            self._busy.add(name)
            self._clock.call_soon(self._start, name)

    def _start(self, name: str) -> None:
        chunks = self._wanted.pop(name, None)
        if chunks is None:
            self._busy.discard(name)
            return
        try:
            self._turn_journal(name)
        except OSError as error:
            self._saved(name, RETRY_S, chunks, error)
            return
        self._collect(name, iter(chunks), [], 0.0)

    def _collect(
        self, name: str, chunks: Iterator[bytes], data: list[bytes], busy_s: float
    ) -> None:
        """Encode some of a table; the rest when others have had their turn."""
        begun_s = self._clock.monotonic()
        before = len(data)
        data += islice(chunks, CHUNKS_PER_STEP)
        busy_s += self._clock.monotonic() - begun_s
        if len(data) - before == CHUNKS_PER_STEP:
            self._clock.call_soon(self._collect, name, chunks, data, busy_s)
            return
        rest_s = max(REST_S_MIN, REST_FACTOR_LOOP * busy_s)
        whole = b"".join(data)
        self._after_flush(lambda flushed: self._save_now(name, rest_s, whole, flushed))

    def _save_now(self, name: str, rest_s: float, data: bytes, flushed: bool) -> None:
        if not flushed:
            return  # nothing is saved until the next start, which knows what the log has
        begun_s = self._clock.monotonic()

        def done(_: None, error: OSError | None) -> None:
            disk_s = self._clock.monotonic() - begun_s
            self._saved(name, max(rest_s, REST_FACTOR_DISK * disk_s), (data,), error)

        self._background.submit(lambda: self._replace(name, data), done)

    def _saved(
        self, name: str, rest_s: float, data: Iterable[bytes], error: OSError | None
    ) -> None:
        if error is not None:
            if name not in self._failing:
                log.error(
                    "cannot save %s/%s: %s. It is kept in memory and tried again; check the disk, "
                    "and free space if it is full",
                    self._root,
                    name,
                    error.strerror,
                )
            self._failing.add(name)
            self._wanted.setdefault(name, data)
            rest_s = RETRY_S
        else:
            if name not in self._wanted:
                self._known.add(name)
                self._unsaved.discard(name)
                self._unnoted.discard(name)
                self._refuse(name, "")
            if name in self._failing:
                self._failing.remove(name)
                log.info("%s/%s is saved again", self._root, name)
        self._clock.call_later(rest_s, self._start, name)

    def _replace(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        self._disk.write(path + ".tmp", data)
        for broken in self._broken & {path, path + ".bak"}:
            self._disk.rename(broken, broken + ".unreadable")
            self._broken.discard(broken)
        if self._disk.size(path) >= 0:
            self._disk.rename(path, path + ".bak")
        self._disk.rename(path + ".tmp", path)
        self._disk.sync_directory(self._root)
        self._disk.remove(path + ".journal.old")

    # -- journal

    def note(self, name: str, data: bytes) -> None:
        """Add one line to the journal of a file. When that fails, no more messages are accepted
        until the file is saved: they might be of the topic that nobody would know after a kill."""
        try:
            # The line before may be torn.
            self._disk.append(f"{self._root}/{name}.journal", b"\n" + data + b"\n")
        except OSError as error:
            if name not in self._unnoted:
                log.error(
                    "cannot note a change of %s/%s: %s. Messages are refused until the file is "
                    "saved; check the disk, and free space if it is full",
                    self._root,
                    name,
                    error.strerror,
                )
            self._unnoted.add(name)
            self._refuse(name, f"{name} cannot be saved: {error.strerror}")
            return
        self._noted.add(name)
        self._unsaved.add(name)

    def sync_notes(self) -> Callable[[], None]:
        """What brings the notes so far to the disk (blocks)."""
        noted, self._noted = self._noted, set()

        def sync() -> None:
            if noted:
                # In this order: what is turned meanwhile is found under its second name.
                paths = [f"{self._root}/{name}.journal" for name in sorted(noted)]
                self._disk.sync_files([*paths, *(path + ".old" for path in paths)])
                self._disk.sync_directory(self._root)

        return sync

    def notes(self, name: str, read: Reader[T]) -> list[T]:
        """Everything noted since the last save, which is to be saved then; a torn line is left
        out.

        Raises:
            ConfigUnreadable: a whole line says something else than ``read`` takes.
        """
        values = []
        for path in (f"{self._root}/{name}.journal.old", f"{self._root}/{name}.journal"):
            if self._disk.size(path) <= 0:
                continue
            for number, line in enumerate(self._disk.read(path).split(b"\n"), 1):
                try:
                    found = lenient_json.loads(line)
                except ValueError:
                    continue
                try:
                    values.append(read(found))
                except ValueError as error:
                    raise ConfigUnreadable(
                        f"{path}, line {number}, is unreadable ({error}); repair it, or remove it "
                        "to start without what it says"
                    ) from None
        self._known.add(name)
        if values:
            self._unsaved.add(name)
        return values

    def _turn_journal(self, name: str) -> None:
        """What was noted until now is in the data of this save; later notes go to a new file, and
        may be in the data too: a note says what is, and does no harm when it is read again."""
        path = f"{self._root}/{name}.journal"
        if self._disk.size(path) > 0 and self._disk.size(path + ".old") < 0:
            self._disk.rename(path, path + ".old")

    def close(self) -> None:
        """Save what waits in this call (blocks), and drop the journals. What is not saved keeps its
        journal, and so does what was not read: the start was stopped."""
        for name, chunks in list(self._wanted.items()):
            try:
                self._replace(name, b"".join(chunks))
                self._known.add(name)
                self._unsaved.discard(name)
            except OSError as error:
                log.error(
                    "cannot save %s/%s before the end: %s. The next start knows what was saved "
                    "before, and what is in the journal; check the disk, and free space if it is "
                    "full",
                    self._root,
                    name,
                    error.strerror,
                )
        self._wanted.clear()
        for name in self._disk.names(self._root):
            table = name.removesuffix(".old").removesuffix(".journal")
            if table != name.removesuffix(".old") and table in self._known - self._unsaved:
                self._disk.remove(f"{self._root}/{name}")
