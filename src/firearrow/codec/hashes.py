"""The hashes of the format: Java's string hash, the body CRC, MurmurHash3 of bloom filters, and
the consistent hash that places what has a key."""

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


def consistent_hash(value: int, buckets: int) -> int:
    """Guava's ``Hashing.consistentHash``: the queue of a message group or a lite topic."""
    state, candidate = value & 0xFFFFFFFFFFFFFFFF, 0
    while True:
        state = (2862933555777941757 * state + 1) & 0xFFFFFFFFFFFFFFFF
        following = int((candidate + 1) / ((((state >> 33) & 0x7FFFFFFF) + 1) / 2147483648.0))
        if not 0 <= following < buckets:
            return candidate
        candidate = following


def body_crc(body: bytes) -> int:
    """CRC-32 with the sign bit cleared; 0 for an empty body."""
    return zlib.crc32(body) & 0x7FFFFFFF


_MASK: Final = (1 << 64) - 1
_C1: Final = 0x87C37B91114253D5
_C2: Final = 0x4CF5AD432745937F


def murmur3_128_low(data: bytes) -> int:
    """The first 64 bits of MurmurHash3 x64 128 with seed 0 (Guava's ``murmur3_128().asLong()``)."""
    h1 = h2 = 0
    whole = len(data) & ~15
    for at in range(0, whole, 16):
        h1 ^= _mix1(int.from_bytes(data[at : at + 8], "little"))
        h1 = ((_rotate(h1, 27) + h2) * 5 + 0x52DCE729) & _MASK
        h2 ^= _mix2(int.from_bytes(data[at + 8 : at + 16], "little"))
        h2 = ((_rotate(h2, 31) + h1) * 5 + 0x38495AB5) & _MASK
    tail = data[whole:]
    h2 ^= _mix2(int.from_bytes(tail[8:], "little")) ^ len(data)
    h1 ^= _mix1(int.from_bytes(tail[:8], "little")) ^ len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    return (_finish(h1) + _finish(h2)) & _MASK


def _mix1(k: int) -> int:
    return _rotate(k * _C1 & _MASK, 31) * _C2 & _MASK


def _mix2(k: int) -> int:
    return _rotate(k * _C2 & _MASK, 33) * _C1 & _MASK


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _finish(value: int) -> int:
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & _MASK
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33
