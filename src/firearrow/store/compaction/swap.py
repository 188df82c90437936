"""Putting rewritten pairs in the place of old ones, so that a kill at any moment loses neither.

The new pairs wait complete in a subdirectory. The swap gives the old files the suffix ``.delete``,
moves the new ones up, and removes the old ones. ``mend`` finishes or takes back what was begun, by
the same rule for our own swap and for a Java broker's (``CompactionLog.replaceFiles``, which swaps
the logs first and the entries after them): while a new log file waits, all old files are there.

A Java broker does not start with a store that has a ``.delete`` file, so it never sees half a swap.
Our own subdirectory has another name than Java's, since Java writes over what it finds in its own.
"""

from __future__ import annotations

from typing import Final

from firearrow.store.compaction.pairs import Pair, PairFiles, Place, is_record_of, path
from firearrow.store.disk import Disk

REWRITING: Final = "rewriting"
_JAVAS: Final = "compacting"
_DELETE: Final = ".delete"


def swap(disk: Disk, place: Place, old: list[Pair], new: list[Pair]) -> None:
    """Replace ``old`` by ``new``, which are complete and on the disk, and whose names are names of
    old ones. For the background.

    Raises:
        OSError: something is half done; ``mend`` is needed.
    """
    for pair in old:
        for directory in place.directories:
            disk.rename(f"{directory}/{pair.name}", f"{directory}/{pair.name}{_DELETE}")
    for pair in new:
        for directory in place.directories:
            disk.rename(path(directory, pair), f"{directory}/{pair.name}")
    for directory in place.directories:
        disk.sync_directory(directory)
    for pair in old:
        for directory in place.directories:
            disk.remove(f"{directory}/{pair.name}{_DELETE}")
    for directory in place.directories:
        disk.remove_directory(f"{directory}/{REWRITING}")


def discard(disk: Disk, place: Place) -> None:
    """Remove new pairs that no swap has begun with. The logs go last: they say that there was none.
    For the background."""
    for directory in (place.entries, place.logs):
        for sub in (REWRITING, _JAVAS):
            for name in disk.names(f"{directory}/{sub}"):
                disk.remove(f"{directory}/{sub}/{name}")
            disk.remove_directory(f"{directory}/{sub}")


def mend(files: PairFiles, place: Place) -> None:
    """Finish or take back a swap that was interrupted, and remove what was being rewritten. May
    run in the background.

    Raises:
        OSError: the disk refuses; it can be tried again.
    """
    disk = files.disk
    waiting = [sub for sub in (REWRITING, _JAVAS) if disk.names(f"{place.logs}/{sub}")]
    aside = [name for d in place.directories for name in disk.names(d) if name.endswith(_DELETE)]
    if waiting:
        if aside:
            _take_back(disk, place)
    else:
        moved = [_finish(files, place, sub) for sub in (REWRITING, _JAVAS)]
        if aside or any(moved):
            _remove_aside(disk, place)
    discard(disk, place)


def _take_back(disk: Disk, place: Place) -> None:
    for directory in place.directories:
        for name in disk.names(directory):
            if name.endswith(_DELETE):
                disk.rename(f"{directory}/{name}", f"{directory}/{name.removesuffix(_DELETE)}")
        disk.sync_directory(directory)
    # A new log file with a name that no old one had.
    _remove_without(disk, place.logs, place.entries)


def _finish(files: PairFiles, place: Place, sub: str) -> bool:
    """Move up the entries whose logs have gone before them. Without a ``.delete`` file to say so,
    the records tell: after a power failure there may be entries of a log that never was."""
    directory, disk = place.entries, files.disk
    moved = False
    for name in disk.names(f"{directory}/{sub}"):
        if _fits(files, place, name, sub) and not _fits(files, place, name, ""):
            disk.rename(f"{directory}/{sub}/{name}", f"{directory}/{name}")
            moved = True
    return moved


def _fits(files: PairFiles, place: Place, name: str, folder: str) -> bool:
    """Whether the entries in the folder are those of the log file that has the name now."""
    if len(name) != 20 or files.disk.size(f"{place.logs}/{name}") < 0:
        return False
    pair = Pair(int(name), folder)
    if files.disk.size(path(place.entries, pair)) < 0:
        return False
    files.measure(place, pair)
    for index in {0, pair.count - 1} if pair.count else ():
        (entry,) = files.entries(place, pair, index, 1)
        at = entry.position - pair.start
        if at < 0:
            return False
        data = files.disk.read_once(f"{place.logs}/{name}", at, entry.size)
        if not is_record_of(data, 0, entry):
            return False
    return pair.count > 0


def _remove_aside(disk: Disk, place: Place) -> None:
    for directory in place.directories:
        disk.sync_directory(directory)
    for directory in place.directories:
        for name in disk.names(directory):
            if name.endswith(_DELETE):
                disk.remove(f"{directory}/{name}")
    _remove_without(disk, place.entries, place.logs)


def _remove_without(disk: Disk, directory: str, other: str) -> None:
    """Remove the files of a directory that have no other half, but for the newest."""
    halves = {name for name in disk.names(other) if len(name) == 20}
    newest = max(halves, default="")
    for name in disk.names(directory):
        if len(name) == 20 and name not in halves and name < newest:
            disk.remove(f"{directory}/{name}")
