"""The JSON tables in ``config/``, as Java reads and writes them (storage.md 6.1).

A save replaces the whole file and keeps the old one as ``.bak``. It runs in the background, and
saves of one file that come close together become one. What must not wait that long (a topic made
by a first message) is noted in a journal beside the file first: one ``write``, which survives a
kill. The next save makes the journal superfluous. A Java broker does not read journals, and finds
none after a clean stop.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from firearrow.codec import lenient_json
from firearrow.model.background import Background
from firearrow.model.clock import Clock
from firearrow.store.disk import Disk

log = logging.getLogger(__name__)

# After a save the next one of the same file waits so many times as long as it took, so that
# saving a large table takes at most a twentieth of the time.
REST_FACTOR: Final = 20
REST_S_MIN: Final = 0.05
RETRY_S: Final = 5.0


class ConfigFiles:
    """All tables of one store."""

    def __init__(self, disk: Disk, root: str, background: Background, clock: Clock) -> None:
        self._disk = disk
        self._root = root
        self._background = background
        self._clock = clock
        self._wanted: dict[str, Iterable[bytes]] = {}
        self._busy: set[str] = set()  # being saved, or resting after it
        disk.make_directory(root)

    # -- read

    def load(self, name: str) -> Any:
        """The parsed file, or its ``.bak``; ``None`` when there is neither."""
        for path in (f"{self._root}/{name}", f"{self._root}/{name}.bak"):
            if self._disk.size(path) <= 0:
                continue
            try:
                return lenient_json.loads(self._disk.read(path))
            except ValueError as error:
                log.error("%s is unreadable, trying its backup: %s", path, error)
        return None

    # -- write

    def save(self, name: str, chunks: Iterable[bytes]) -> None:
        """Replace the file soon; ``chunks`` are read when it happens."""
        self._wanted[name] = chunks
        if name not in self._busy:
            self._busy.add(name)
            self._clock.call_soon(self._start, name)

    def _start(self, name: str) -> None:
        chunks = self._wanted.pop(name, None)
        if chunks is None:
            self._busy.discard(name)
            return
        begun_s = self._clock.monotonic()
        data = b"".join(chunks)
        self._turn_journal(name)
        self._background.submit(
            lambda: self._replace(name, data),
            lambda _, error: self._saved(name, begun_s, chunks, error),
        )

    def _saved(
        self, name: str, begun_s: float, chunks: Iterable[bytes], error: OSError | None
    ) -> None:
        rest_s = max(REST_S_MIN, REST_FACTOR * (self._clock.monotonic() - begun_s))
        if error is not None:
            log.error(
                "cannot save %s/%s: %s. It is kept in memory and tried again; free disk space",
                self._root,
                name,
                error.strerror,
            )
            rest_s = RETRY_S
        self._clock.call_later(rest_s, self._start, name)

    def _replace(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        self._disk.write(path + ".tmp", data)
        if self._disk.size(path) >= 0:
            self._disk.rename(path, path + ".bak")
        self._disk.rename(path + ".tmp", path)
        self._disk.sync_directory(self._root)
        self._disk.remove(path + ".journal.old")

    # -- journal

    def note(self, name: str, data: bytes) -> None:
        """Add one line to the journal of a file. An error is logged: the save follows anyway."""
        try:
            self._disk.append(f"{self._root}/{name}.journal", data + b"\n")
        except OSError as error:
            log.error("cannot note a change of %s/%s: %s", self._root, name, error.strerror)

    def notes(self, name: str) -> list[Any]:
        """Everything noted since the last save; a torn last line is left out."""
        values = []
        for path in (f"{self._root}/{name}.journal.old", f"{self._root}/{name}.journal"):
            if self._disk.size(path) <= 0:
                continue
            for line in self._disk.read(path).split(b"\n"):
                try:
                    values.append(lenient_json.loads(line))
                except ValueError:
                    continue
        return values

    def _turn_journal(self, name: str) -> None:
        """What was noted until now is in the data of this save; later notes go to a new file."""
        path = f"{self._root}/{name}.journal"
        if self._disk.size(path) > 0 and self._disk.size(path + ".old") < 0:
            self._disk.rename(path, path + ".old")

    def close(self) -> None:
        """Save what waits in this call (blocks), and drop the journals."""
        for name, chunks in list(self._wanted.items()):
            self._replace(name, b"".join(chunks))
        self._wanted.clear()
        for name in self._disk.names(self._root):
            if name.endswith((".journal", ".journal.old")):
                self._disk.remove(f"{self._root}/{name}")
