"""The Huffman code of header values (RFC 7541, appendix B), read a byte at a time.

``hpack`` reads half a byte at a time, which takes nearly twice as long. Clients in Go write an id
for each call in this code.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import (
    HUFFMAN_COMPLETE,
    HUFFMAN_EMIT_SYMBOL,
    HUFFMAN_FAIL,
    HUFFMAN_TABLE,
)


class _Step(NamedTuple):
    """What a byte does in a state of the decoder."""

    state: int  # the next, as the high byte of a key
    text: bytes  # that is complete with it
    may_end: bool


class _Steps(dict[int, _Step]):
    """Steps by state (high byte) and byte of the code; made when they are first taken."""

    def __missing__(self, key: int) -> _Step:
        text = bytearray()
        state, flags = key >> 8, 0
        for half in (key >> 4 & 0xF, key & 0xF):
            state, flags, symbol = HUFFMAN_TABLE[state << 4 | half]
            if flags & HUFFMAN_FAIL:
                raise HPACKDecodingError("Invalid Huffman string")
            if flags & HUFFMAN_EMIT_SYMBOL:
                text.append(symbol)
        step = self[key] = _Step(state << 8, bytes(text), bool(flags & HUFFMAN_COMPLETE))
        return step


_steps: Final = _Steps()  # 65,536 at most


def decode_huffman(coded: bytes) -> bytes:
    """Read a text.

    Raises:
        HPACKDecodingError: it is none.
    """
    state, pieces, step = 0, [], None
    for byte in coded:
        step = _steps[state | byte]
        state = step[0]
        pieces.append(step[1])
    if step is not None and not step.may_end:
        raise HPACKDecodingError("Incomplete Huffman string")
    return b"".join(pieces)
