"""Up to which offset each queue was compacted (``CompactionPositionMgr``):
``compaction/position-checkpoint``, ``{"empty":false,"queueOffsetMap":{"topic_0":120}}``."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from firearrow.codec import lenient_json
from firearrow.model.background import Background
from firearrow.store.disk import Disk

log = logging.getLogger(__name__)

FILE: Final = "position-checkpoint"


class Positions:
    """The file's content. What is missing is only looked at again."""

    def __init__(self, disk: Disk, root: str, background: Background) -> None:
        self._disk = disk
        self._root = root
        self._background = background
        self._offsets: dict[str, int] = {}
        self._failing = False

    def load(self) -> None:
        path = f"{self._root}/{FILE}"
        if self._disk.size(path) <= 0:
            return
        try:
            table = lenient_json.loads(self._disk.read(path))["queueOffsetMap"]
            self._offsets = msgspec.convert(table, dict[str, int])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s is unreadable (%s): everything is compacted again", path, error)

    def get(self, queue: tuple[str, int]) -> int:
        """The newest offset that was looked at, -1 when none was."""
        return self._offsets.get(_name(queue), -1)

    def set(self, queue: tuple[str, int], offset: int) -> None:
        self._offsets[_name(queue)] = offset
        self._save()

    def forget(self, queue: tuple[str, int]) -> None:
        if self._offsets.pop(_name(queue), None) is not None:
            self._save()

    def _save(self) -> None:
        data = msgspec.json.encode({"empty": not self._offsets, "queueOffsetMap": self._offsets})
        path = f"{self._root}/{FILE}"

        def write() -> None:
            self._disk.write(f"{path}.tmp", data)
            self._disk.rename(f"{path}.tmp", path)
            self._disk.sync_directory(self._root)

        self._background.submit(write, lambda _, error: self._saved(error))

    def _saved(self, error: OSError | None) -> None:
        if error is not None and not self._failing:
            log.warning(
                "cannot save %s/%s: %s. It is saved after the next compaction; until then a "
                "restart compacts again what was compacted",
                self._root,
                FILE,
                error.strerror,
            )
        self._failing = error is not None


def _name(queue: tuple[str, int]) -> str:
    return f"{queue[0]}_{queue[1]}"
