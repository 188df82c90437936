"""What the first bytes of a connection say: TLS, a PROXY preamble, or plain remoting.

PROXY v1:  "PROXY TCP4 <source> <destination> <source port> <destination port>\\r\\n"
PROXY v2:  12 signature, 1 version and command, 1 family and transport, 2 length of what follows,
           then the addresses and any TLVs.

A plain connection begins with the top byte of a frame length, 0x00 or 0x01, so one byte is enough
unless it can begin a preamble (both preambles, read as a frame length, are far above the limit).
"""

from __future__ import annotations

import ipaddress
import struct
from enum import Enum
from typing import Final, NamedTuple

TLS_HANDSHAKE: Final = 0x16
V1_PREFIX: Final = b"PROXY"
V1_BYTES_MAX: Final = 107  # of the PROXY protocol specification, CRLF included
V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
V2_HEAD_BYTES: Final = 16
# Addresses and TLVs: some tens of bytes, a few hundred with a client certificate's names.
V2_BODY_BYTES_MAX: Final = 4096
PEEK_BYTES: Final = V2_HEAD_BYTES + V2_BODY_BYTES_MAX

_V2_TCP4: Final = 0x11
_V2_TCP6: Final = 0x21

Address = tuple[str, int]


class Kind(Enum):
    """What a connection begins with."""

    MORE = "more"
    PLAIN = "plain"
    TLS = "tls"
    PROXY = "proxy"


class Opening(NamedTuple):
    """The finding; ``size`` is a preamble's length, or for MORE the bytes needed in all."""

    kind: Kind
    size: int = 0
    source: Address | None = None
    destination: Address | None = None


class PreambleError(Exception):
    """A PROXY preamble that cannot be read; the connection must be closed."""


_PLAIN: Final = Opening(Kind.PLAIN)
_TLS: Final = Opening(Kind.TLS)


def detect(data: bytes) -> Opening:
    """Tell what a connection begins with.

    Raises:
        PreambleError: the bytes begin a PROXY preamble, and then are none.
    """
    if not data:
        return Opening(Kind.MORE, 1)
    if data[0] == TLS_HANDSHAKE:
        return _TLS
    if data.startswith(V1_PREFIX):
        return _v1(data)
    if data.startswith(V2_SIGNATURE):
        return _v2(data)
    if V1_PREFIX.startswith(data) or V2_SIGNATURE.startswith(data):
        return Opening(Kind.MORE, len(data) + 1)
    return _PLAIN


def after_preamble(data: bytes) -> Opening:
    """Tell what follows a PROXY preamble: TLS or plain; a second preamble is not looked for."""
    if not data:
        return Opening(Kind.MORE, 1)
    return _TLS if data[0] == TLS_HANDSHAKE else _PLAIN


def _v1(data: bytes) -> Opening:
    end = data.find(b"\r\n", 0, V1_BYTES_MAX)
    if end < 0:
        if len(data) >= V1_BYTES_MAX:
            raise PreambleError(f"PROXY v1 line without an end in {V1_BYTES_MAX} bytes")
        return Opening(Kind.MORE, len(data) + 1)
    words = data[:end].decode("latin-1").split(" ")
    if words[0] != "PROXY" or len(words) < 2:
        raise PreambleError(f"not a PROXY v1 line: {data[:end]!r}")
    if words[1] == "UNKNOWN":
        return Opening(Kind.PROXY, end + 2)
    if words[1] not in ("TCP4", "TCP6") or len(words) != 6:
        raise PreambleError(f"not a PROXY v1 line: {data[:end]!r}")
    source, destination = _text(words[2], words[4]), _text(words[3], words[5])
    return Opening(Kind.PROXY, end + 2, source, destination)


def _text(host: str, port: str) -> Address:
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError as error:
        raise PreambleError(f"PROXY v1: {error}") from None
    if not (port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
        raise PreambleError(f"PROXY v1: {port!r} is not a port")
    return address, int(port)


def _v2(data: bytes) -> Opening:
    if len(data) < V2_HEAD_BYTES:
        return Opening(Kind.MORE, V2_HEAD_BYTES)
    command, family, length = struct.unpack_from(">BBH", data, len(V2_SIGNATURE))
    if command not in (0x20, 0x21):
        raise PreambleError(f"PROXY v2: unknown version and command 0x{command:02x}")
    if length > V2_BODY_BYTES_MAX:
        raise PreambleError(f"PROXY v2: {length} bytes; the limit is {V2_BODY_BYTES_MAX}")
    size = V2_HEAD_BYTES + length
    if len(data) < size:
        return Opening(Kind.MORE, size)
    body = data[V2_HEAD_BYTES:size]
    if command == 0x20 or family not in (_V2_TCP4, _V2_TCP6):
        return Opening(Kind.PROXY, size)  # a health check of the proxy itself, or no address
    width = 4 if family == _V2_TCP4 else 16
    if length < 2 * width + 4:
        raise PreambleError(f"PROXY v2: {length} bytes are too few for two addresses")
    source_port, destination_port = struct.unpack_from(">HH", body, 2 * width)
    return Opening(
        Kind.PROXY,
        size,
        (str(ipaddress.ip_address(body[:width])), source_port),
        (str(ipaddress.ip_address(body[width : 2 * width])), destination_port),
    )
