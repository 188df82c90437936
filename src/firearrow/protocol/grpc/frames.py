"""HTTP/2 frames (RFC 9113): numbers, limits, and how the small ones are written.

A frame:
    3  length of the payload
    1  type
    1  flags
    4  stream
    n  payload
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

HEAD_BYTES: Final = 9
FRAME_BYTES_MAX: Final = 16 * 1024  # of a payload; what every peer must take, and may send
WINDOW_START: Final = 65_535
WINDOW_MAX: Final = 2**31 - 1

# The length as its first byte and the other two.
HEAD: Final = struct.Struct(">BHBBI")
_SETTING = struct.Struct(">HI")
_WORD = struct.Struct(">I")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id) + payload


def settings(values: Mapping[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    return list(_SETTING.iter_unpack(payload))


def window_update(stream_id: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(size))


def reset(stream_id: int, error_code: int) -> bytes:
    return frame(RST_STREAM, 0, stream_id, _WORD.pack(error_code))


def go_away(last_stream_id: int, error_code: int) -> bytes:
    return frame(GOAWAY, 0, 0, _WORD.pack(last_stream_id) + _WORD.pack(error_code))


def read_word(payload: bytes) -> int:
    """The 31 bits of a window's or an error code's four bytes."""
    (word,) = _WORD.unpack(payload)
    return int(word) & WINDOW_MAX
