"""Header blocks that are alike: the calls of a client differ in a few values, an id and a deadline,
and have every other byte in common.

A layout is what was found out about one such block: which bytes are always there, and between them
the places of the values. Another block with the same bytes around its values, and values of the
same lengths, is read by one ``unpack``.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from firearrow.protocol.grpc.hpack import Decoder, Metadata, read_integer

LAYOUTS_MAX: Final = 16  # a connection
LAYOUT_BYTES_MAX: Final = 512  # of a block
# What decides about a request is part of its layout, and never one of its values.
_DECIDING: Final = frozenset(
    {":authority", ":method", ":path", ":scheme", "content-length", "content-type", "te"}
)


class Layout:
    """What blocks of one kind have in common."""

    __slots__ = ("fixed", "meaning", "metadata", "names", "unpack")

    def __init__(self, block: bytes, places: list[tuple[str, int, int]], metadata: Metadata):
        pieces, at = [], 0
        for _, start, stop in places:
            pieces += [start - at, stop - start]
            at = stop
        pieces.append(len(block) - at)
        # Of a block of the same size: every second piece is a value, the others are ``fixed``.
        self.unpack = struct.Struct("".join(f"{size}s" for size in pieces)).unpack
        self.fixed = self.unpack(block)[::2]
        self.names = tuple(name for name, _, _ in places)
        self.metadata = metadata  # of the block that was read first
        # What their owner found out about all of them; ``False``: that says nothing of one.
        self.meaning: Any = None

    def metadata_of(self, values: tuple[bytes, ...]) -> Metadata:
        """The fields of a block with these values."""
        metadata = self.metadata.copy()
        for name, value in zip(self.names, values, strict=True):
            metadata[name] = value.decode("utf-8", "replace")
        return metadata


Recalled = tuple[Layout, tuple[bytes, ...]]  # a block's layout, and its values


class LayoutDecoder(Decoder):
    """A decoder that remembers layouts, as long as its table stays as it is."""

    __slots__ = ("_layouts",)

    def __init__(self) -> None:
        super().__init__()
        self._layouts: dict[tuple[bytes, int], Layout] = {}

    def recall(self, block: bytes) -> Recalled | None:
        """The layout and the values of a block; ``None`` when it must be decoded."""
        layout = self._layouts.get((block[: self._run], len(block)))
        if layout is None:
            return None
        pieces = layout.unpack(block)
        if pieces[::2] != layout.fixed:
            return None
        values = pieces[1::2]
        # What may be forbidden is looked at by ``decode``.
        return (layout, values) if b"".join(values).decode("latin-1").isprintable() else None

    def decode(self, block: bytes) -> Metadata:
        """As ``Decoder``, and learn the block's layout if it has one."""
        metadata = super().decode(block)
        if self._steady and len(block) <= LAYOUT_BYTES_MAX and len(self._layouts) < LAYOUTS_MAX:
            key = (block[: self._run], len(block))
            if key not in self._layouts:
                places = _places(block, metadata)
                if places is not None:
                    self._layouts[key] = Layout(block, places, metadata)
        return metadata

    def _changed(self) -> None:
        super()._changed()
        self._layouts.clear()


def _places(block: bytes, metadata: Metadata) -> list[tuple[str, int, int]] | None:
    """Where the values of a block's literals stand, with their names; ``None`` for a block that
    has no layout: one that changes the table, has Huffman code in a value, or a field twice."""
    places: list[tuple[str, int, int]] = []
    names = list(metadata)
    at, count, end = 0, 0, len(block)
    while at < end:
        byte = block[at]
        if byte >= 0x80:
            _, at = read_integer(block, at, 0x7F)
        elif byte < 0x20:
            index, at = read_integer(block, at, 0x0F)
            if not index:
                size, at = read_integer(block, at, 0x7F)
                at += size
            if block[at] >= 0x80 or count >= len(names) or names[count] in _DECIDING:
                return None
            size, at = read_integer(block, at, 0x7F)
            places.append((names[count], at, at + size))
            at += size
        else:
            return None
        count += 1
    return places if count == len(names) else None
