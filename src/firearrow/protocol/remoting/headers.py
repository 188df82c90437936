"""Both encodings of the remoting header (remoting.md 1.3 and 1.4), bytes to values and back."""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from firearrow.model.network import SessionError
from firearrow.protocol.remoting.command import LANGUAGE, VERSION, Reply, Request

SERIALIZE_JSON: Final = 0
SERIALIZE_BINARY: Final = 1

# ``LanguageCode`` ordinals, for binary headers.
LANGUAGES: Final = (
    "JAVA",
    "CPP",
    "DOTNET",
    "PYTHON",
    "DELPHI",
    "ERLANG",
    "RUBY",
    "OTHER",
    "HTTP",
    "GO",
    "PHP",
    "OMS",
    "RUST",
    "NODE_JS",
)

# POP-family codes do not fit the int16 of a binary header and arrive truncated (remoting.md 1.4).
_TRUNCATED_CODES: Final = {
    code & 0xFFFF: code for code in (*range(200050, 200057), *range(200070, 200080), 200151)
}

ExtFields = dict[str, Any]
_FIXED = struct.Struct(">hbhii")
_I2 = struct.Struct(">h")
_I4 = struct.Struct(">i")
_FRAME = struct.Struct(">II")
_loose_request = msgspec.json.Decoder(Request[ExtFields | None], strict=False)
_encode = msgspec.json.Encoder().encode


class Header(msgspec.Struct, gc=False):
    """A decoded header of either direction, ext fields as they came."""

    code: int
    flag: int = 0
    opaque: int = 0
    version: int = 0
    language: Any = "JAVA"
    remark: str | None = None
    ext: ExtFields | None = msgspec.field(default=None, name="extFields")


_json_header = msgspec.json.Decoder(Header, strict=False)


def decode_header(serialize_type: int, data: bytes) -> Header:
    """Decode a whole header.

    Raises:
        SessionError: neither encoding can read it.
    """
    if serialize_type == SERIALIZE_JSON:
        try:
            return _json_header.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise SessionError(f"unreadable JSON header: {error}") from None
    if serialize_type == SERIALIZE_BINARY:
        try:
            return _decode_binary(data)
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise SessionError(f"unreadable binary header: {error}") from None
    raise SessionError(f"unknown header encoding {serialize_type}")


def decode_frame(data: bytes) -> tuple[Header, bytes]:
    """Header and body of one whole frame of our own."""
    _, word = _FRAME.unpack_from(data)
    stop = _FRAME.size + (word & 0xFFFFFF)
    return decode_header(word >> 24, data[_FRAME.size : stop]), data[stop:]


def _decode_binary(data: bytes) -> Header:
    code, language, version, opaque, flag = _FIXED.unpack_from(data, 0)
    position = _FIXED.size
    remark, position = _text(data, position, _I4)
    (ext_bytes,) = _I4.unpack_from(data, position)
    position += 4
    if ext_bytes < 0 or position + ext_bytes > len(data):
        raise SessionError(f"binary header announces {ext_bytes} bytes of ext fields")
    end = position + ext_bytes
    ext: ExtFields = {}
    while position < end:
        key, position = _text(data, position, _I2)
        value, position = _text(data, position, _I4)
        if key is not None and value is not None:
            ext[key] = value
    if not flag & 1:
        code = _TRUNCATED_CODES.get(code & 0xFFFF, code)
    name = LANGUAGES[language] if 0 <= language < len(LANGUAGES) else "OTHER"
    return Header(code, flag, opaque, version, name, remark, ext)


def _text(data: bytes, position: int, length: struct.Struct) -> tuple[str | None, int]:
    (size,) = length.unpack_from(data, position)
    position += length.size
    if size < 0 or position + size > len(data):
        raise SessionError(f"binary header announces a text of {size} bytes")
    end = position + size
    return (data[position:end].decode() if size else None), end


class _ReplyHeader(msgspec.Struct, gc=False, omit_defaults=True):
    """Keys in the order of Java's writer; absent rather than null, which Java does not survive."""

    code: int
    flag: int
    language: str
    opaque: int
    version: int
    ext: dict[str, str] | None = msgspec.field(default=None, name="extFields")
    remark: str | None = None


class _RequestHeader(msgspec.Struct, gc=False, omit_defaults=True):
    code: int
    flag: int
    language: str
    opaque: int
    version: int
    ext: dict[str, str] | None = msgspec.field(default=None, name="extFields")


def frame(header: bytes, body: bytes = b"") -> bytes:
    """One frame with a JSON header: every client reads JSON, C++ nothing else."""
    size = len(header)
    return b"".join((_FRAME.pack(4 + size + len(body), size), header, body))


def encode_reply(opaque: int, reply: Reply) -> bytes:
    """The frame that answers request ``opaque``."""
    header = _ReplyHeader(reply.code, 1, LANGUAGE, opaque, VERSION, reply.ext, reply.remark)
    return frame(_encode(header), reply.body)


Identity = tuple[str, int]  # language and version, as a header has them
OURS: Final[Identity] = (LANGUAGE, VERSION)


def encode_request(
    code: int,
    opaque: int,
    ext: dict[str, str] | None,
    body: bytes = b"",
    *,
    one_way: bool = False,
    identity: Identity = OURS,
) -> bytes:
    """The frame of a request of ours, or of the client that ``identity`` is of."""
    language, version = identity
    header = _RequestHeader(code, 2 if one_way else 0, language, opaque, version, ext)
    return frame(_encode(header), body)
