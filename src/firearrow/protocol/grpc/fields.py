"""What the header fields of a request may be (RFC 9113, 8.2 and 8.3)."""

from __future__ import annotations

from typing import Final

from firearrow.protocol.grpc.hpack import MALFORMED, Metadata

PSEUDO: Final = frozenset({":authority", ":method", ":path", ":scheme", MALFORMED})
LENGTH_DIGITS_MAX: Final = 18
_NEEDED: Final = frozenset({":method", ":path", ":scheme"})
_SPOILT: Final = frozenset(
    {MALFORMED, "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)


def in_order(metadata: Metadata, ended: bool) -> bool:
    """Whether a request has the fields that it must have and none that it cannot have, the pseudo
    headers before all others, and a ``content-length`` that can be right; ``ended``: no body."""
    pseudo = [name[0] == ":" for name in metadata]
    if pseudo != sorted(pseudo, reverse=True) or not metadata.keys() >= _NEEDED:
        return False
    length = metadata.get("content-length")
    if length is None:
        return _SPOILT.isdisjoint(metadata)
    if not (length.isdecimal() and length.isascii()) or len(length) > LENGTH_DIGITS_MAX:
        return False
    return _SPOILT.isdisjoint(metadata) and not (ended and int(length))
