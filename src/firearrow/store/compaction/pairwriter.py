"""Appending records to pairs: what is to be written, and where, without writing it.

A pair ends when a record and the filler behind it do not fit, or when there is room for the end
entry alone (``CompactionAppendMessageCallback``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from firearrow.codec.record import PHYSICAL_OFFSET_AT
from firearrow.store.compaction.pairs import (
    END_ENTRY,
    ENTRY,
    ENTRY_BYTES,
    FILLER_BYTES,
    Pair,
    Place,
    Sizes,
    filler,
    path,
)
from firearrow.store.disk import Disk

_POSITION = struct.Struct(">q")
_BEHIND_POSITION = PHYSICAL_OFFSET_AT + 8


class Piece(NamedTuple):
    """Bytes for both files of a pair, from where its ``count``-th record goes."""

    pair: Pair
    is_new: bool
    log_at: int
    records: bytearray
    entries_at: int
    entries: bytearray


class PairWriter:
    """Appends behind ``last``; ``following`` makes the pair after one."""

    def __init__(
        self, sizes: Sizes, last: Pair | None, following: Callable[[Pair | None], Pair]
    ) -> None:
        self._sizes = sizes
        self._following = following
        self.pair = None if last is None else last.copy()
        self.pieces: list[Piece] = []
        self.size = 0  # bytes in pieces
        if self.pair is not None:
            self._begin_piece(self.pair, is_new=False)

    def fits(self, size: int) -> bool:
        """Whether a file can hold such a record at all."""
        return size + FILLER_BYTES <= self._sizes.log

    def add(self, record: bytes, offset: int, tags_code: int, stored_ms: int) -> None:
        """Append a record."""
        size = len(record)
        pair = self.pair
        if pair is None or self._is_full(pair, size):
            pair = self._roll(pair)
        piece = self.pieces[-1]
        position = pair.end
        piece.records.extend(record[:PHYSICAL_OFFSET_AT])
        piece.records.extend(_POSITION.pack(position))
        piece.records.extend(record[_BEHIND_POSITION:])
        piece.entries.extend(ENTRY.pack(position, size, tags_code, stored_ms, offset, 1, -1, 0))
        pair.add(offset, size)
        self.size += size + ENTRY_BYTES

    def _is_full(self, pair: Pair, size: int) -> bool:
        return (
            pair.end - pair.start + size + FILLER_BYTES > self._sizes.log
            or (pair.count + 1) * ENTRY_BYTES >= self._sizes.entries
        )

    def _roll(self, pair: Pair | None) -> Pair:
        new = self._following(pair)
        if pair is not None:
            self.finish()
        self.pair = new
        self._begin_piece(new, is_new=True)
        return new

    def finish(self) -> None:
        """Say in both files that there is no more."""
        pair, piece = self.pair, self.pieces[-1]
        assert pair is not None
        piece.records.extend(filler(pair.start + self._sizes.log - pair.end))
        if (pair.count + 1) * ENTRY_BYTES <= self._sizes.entries:
            piece.entries.extend(END_ENTRY)

    def _begin_piece(self, pair: Pair, *, is_new: bool) -> None:
        log_at, entries_at = pair.end - pair.start, pair.count * ENTRY_BYTES
        self.pieces.append(Piece(pair, is_new, log_at, bytearray(), entries_at, bytearray()))

    def take(self) -> list[Piece]:
        """The pieces so far; the next record begins another one."""
        taken = [piece for piece in self.pieces if piece.records]
        self.pieces, self.size = [], 0
        if self.pair is not None:
            self._begin_piece(self.pair, is_new=False)
        return taken


def write(disk: Disk, place: Place, pieces: list[Piece], sizes: Sizes) -> list[str]:
    """Write the records of pieces; the paths that must be synced before their entries are written.
    For the background."""
    paths = []
    for piece in pieces:
        log, entries = path(place.logs, piece.pair), path(place.entries, piece.pair)
        if piece.is_new:
            for directory in (log.rpartition("/")[0], entries.rpartition("/")[0]):
                disk.make_directory(directory)
                paths.append(directory)
            # Both at once: a Java broker does not start with half a pair.
            disk.write_at(log, 0, b"", sizes.log)
            disk.write_at(entries, 0, b"", sizes.entries)
            paths.append(entries)
        disk.write_at(log, piece.log_at, bytes(piece.records), sizes.log)
        paths.append(log)
    return paths


def write_entries(disk: Disk, place: Place, pieces: list[Piece], sizes: Sizes) -> list[str]:
    """Write the entries of pieces whose records are on the disk; what must be synced. For the
    background."""
    paths = []
    for piece in pieces:
        entries = path(place.entries, piece.pair)
        disk.write_at(entries, piece.entries_at, bytes(piece.entries), sizes.entries)
        paths.append(entries)
    return paths
