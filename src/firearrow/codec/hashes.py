"""The two hashes of the format: Java's string hash and the body CRC (storage.md 0.1, 0)."""

from __future__ import annotations

import zlib
from operator import mul
from typing import Final

_POWERS_MAX: Final = 512
# 31^(n-1) ... 31^0, so that the last ``len`` of them fit a text of ``len`` units.
_POWERS: Final = tuple(pow(31, n, 1 << 32) for n in reversed(range(_POWERS_MAX)))


def java_hash(text: str) -> int:
    """``String.hashCode``: over UTF-16 code units, as a signed 32-bit integer."""
    value = unsigned_java_hash(text)
    return value - (1 << 32) if value & 0x80000000 else value


def unsigned_java_hash(text: str) -> int:
    """The same, as the unsigned value of the 32 bits."""
    units: bytes | tuple[int, ...]
    if text.isascii():
        units = text.encode()
    else:
        encoded = text.encode("utf-16-be", "surrogatepass")
        units = tuple(int.from_bytes(encoded[i : i + 2]) for i in range(0, len(encoded), 2))
    if len(units) <= _POWERS_MAX:
        total: int = sum(map(mul, units, _POWERS[_POWERS_MAX - len(units) :]))
        return total & 0xFFFFFFFF
    value = 0
    for unit in units:
        value = (31 * value + unit) & 0xFFFFFFFF
    return value


def body_crc(body: bytes) -> int:
    """CRC-32 with the sign bit cleared; 0 for an empty body."""
    return zlib.crc32(body) & 0x7FFFFFFF
