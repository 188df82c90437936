"""Message ids: where a record lies, and the unique key of a message that came without one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from firearrow.codec.addresses import unpack_address


class UniqueIds:
    """Unique keys in the shape of Java's ``MessageClientIDSetter``, for messages without one:
    address, process id, a fixed word, time and a counter; 32 or 56 hex digits."""

    def __init__(self, store_host: bytes, process_id: int, now_ms: Callable[[], int]) -> None:
        self._prefix = store_host[:-4] + (process_id & 0xFFFF).to_bytes(2) + b"FIRE"
        self._now_ms = now_ms
        self._counter = itertools.count()

    def next(self) -> str:
        time_and_count = (self._now_ms() & 0xFFFFFFFF) << 16 | (next(self._counter) & 0xFFFF)
        return f"{self._prefix.hex().upper()}{time_and_count:012X}"


def offset_message_id(store_host: bytes, physical_offset: int) -> str:
    """Upper-case hex of the broker's packed address and the commit log offset (storage.md 2.10)."""
    return f"{store_host.hex().upper()}{physical_offset:016X}"


def parse_offset_message_id(text: str) -> tuple[tuple[str, int], int] | None:
    """(host, port) and physical offset; ``None`` when it is no such id."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return None
    if len(raw) not in (16, 28):
        return None
    return unpack_address(raw[:-8]), int.from_bytes(raw[-8:])
