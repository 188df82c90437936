"""Host and port as text, and as a record stores them: 4 or 16 address bytes and an i4 port."""

from __future__ import annotations

import ipaddress
import struct

_PORT = struct.Struct(">i")


def pack_address(host: str, port: int) -> bytes:
    """8 bytes for IPv4, 20 for IPv6. IPv4-mapped IPv6 is stored as IPv4, which C++ can read;
    what is no address at all (a unix path, a name) as 0.0.0.0."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return bytes(4) + _PORT.pack(port)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.packed + _PORT.pack(port)


def join_address(host: str, port: int) -> str:
    """``host:port``; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unpack_address(packed: bytes) -> tuple[str, int]:
    """Inverse of ``pack_address`` for 8 or 20 bytes."""
    (port,) = _PORT.unpack(packed[-4:])
    return str(ipaddress.ip_address(packed[:-4])), port
