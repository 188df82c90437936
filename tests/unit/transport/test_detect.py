"""First-byte detection: whole, byte by byte, garbage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firearrow.transport.detect import (
    PEEK_BYTES,
    V2_SIGNATURE,
    Kind,
    Opening,
    PreambleError,
    after_preamble,
    detect,
)

V1 = b"PROXY TCP4 10.1.2.3 10.9.8.7 5000 10911\r\n"
V2_TCP4 = V2_SIGNATURE + b"\x21\x11\x00\x0c" + bytes([10, 1, 2, 3, 10, 9, 8, 7])
V2_TCP4 += struct.pack(">HH", 5000, 10911)
V2_TCP6 = V2_SIGNATURE + b"\x21\x21\x00\x29" + bytes(15) + b"\1" + bytes(15) + b"\2"
V2_TCP6 += struct.pack(">HH", 1, 2) + b"\x04\x00\x02hi"
V2_LOCAL = V2_SIGNATURE + b"\x20\x00\x00\x00"
PREAMBLES = {
    V1: Opening(Kind.PROXY, len(V1), ("10.1.2.3", 5000), ("10.9.8.7", 10911)),
    V2_TCP4: Opening(Kind.PROXY, len(V2_TCP4), ("10.1.2.3", 5000), ("10.9.8.7", 10911)),
    V2_TCP6: Opening(Kind.PROXY, len(V2_TCP6), ("::1", 1), ("::2", 2)),
    V2_LOCAL: Opening(Kind.PROXY, len(V2_LOCAL)),
    b"PROXY UNKNOWN\r\n": Opening(Kind.PROXY, 15),
}


@pytest.mark.parametrize("preamble", PREAMBLES)
def test_a_preamble_ends_exactly_where_it_ends(preamble: bytes) -> None:
    assert detect(preamble + b"\x16rest") == PREAMBLES[preamble]


@pytest.mark.parametrize("preamble", PREAMBLES)
def test_every_shorter_part_asks_for_more_but_never_for_too_much(preamble: bytes) -> None:
    for size in range(len(preamble)):
        opening = detect(preamble[:size])
        assert opening.kind is Kind.MORE
        assert size < opening.size <= len(preamble)


def test_one_byte_tells_tls_and_plain() -> None:
    assert detect(b"\x16").kind is Kind.TLS
    assert detect(b"\x00").kind is Kind.PLAIN
    assert after_preamble(b"\x16").kind is Kind.TLS
    assert after_preamble(b"P").kind is Kind.PLAIN
    assert after_preamble(b"").kind is Kind.MORE


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 70000\r\n",
        b"PROXY TCP4 1.2.3.400 5.6.7.8 1 2\r\n",
        b"PROXY\r\n",
        b"PROXYTCP4\r\n",
        b"PROXY " + b"x" * 120,
        V2_SIGNATURE + b"\x31\x11\x00\x0c",
        V2_SIGNATURE + b"\x21\x11\xff\xff",
        V2_SIGNATURE + b"\x21\x11\x00\x02\0\0",
    ],
)
def test_a_broken_preamble_is_an_error(data: bytes) -> None:
    with pytest.raises(PreambleError):
        detect(data)


@given(st.sampled_from([b"", b"PROXY ", V2_SIGNATURE, b"\x00", b"\x16"]), st.binary(max_size=200))
def test_garbage_gives_a_finding_or_the_error(head: bytes, tail: bytes) -> None:
    data = head + tail
    try:
        opening = detect(data)
    except PreambleError:
        return
    if opening.kind is Kind.MORE:
        assert len(data) < opening.size <= PEEK_BYTES
    else:
        assert opening.size <= len(data)
