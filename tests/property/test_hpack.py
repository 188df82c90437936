"""Header blocks: what the ``hpack`` library writes is read as it was; garbage is an error."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firearrow.protocol.grpc.hpack import TABLE_BYTES_MAX, Decoder, HeaderError, encode

names = st.sampled_from([":path", "content-type", "te", "x-mq-client-id", "x-mq-request-id"])
values = st.text(st.characters(exclude_categories=["C"]), max_size=200)
fields = st.dictionaries(names, values, max_size=5)
blocks = st.lists(
    st.tuples(fields, st.booleans(), st.none() | st.integers(0, TABLE_BYTES_MAX)), max_size=40
)


@given(blocks)
def test_blocks_of_one_connection(blocks: list[tuple[dict[str, str], bool, int | None]]) -> None:
    encoder, decoder = hpack.Encoder(), Decoder()
    for headers, huffman, table_bytes in blocks:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        assert decoder.decode(encoder.encode(list(headers.items()), huffman=huffman)) == headers


def test_the_same_references_after_the_table_changed() -> None:
    """References count from the table's end: a new entry gives the same bytes another meaning."""
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x011\x40\x01b\x012")
    again, literal = b"\x83\xbe\xbf", b"\x00\x01x\x01y"
    for _ in range(2):
        assert decoder.decode(again + literal) == {":method": "POST", "b": "2", "a": "1", "x": "y"}
    assert decoder.decode(again + b"\x40\x01c\x013")["c"] == "3"
    for _ in range(2):
        assert decoder.decode(again) == {":method": "POST", "c": "3", "b": "2"}
    assert decoder.decode(b"\x20" + b"\x83") == {":method": "POST"}  # an empty table
    with pytest.raises(HeaderError):
        decoder.decode(again)


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_garbage(blocks: list[bytes]) -> None:
    decoder = Decoder()
    for block in blocks:
        try:
            decoder.decode(block)
        except HeaderError:
            return


@given(fields)
def test_what_we_write(headers: dict[str, str]) -> None:
    read = hpack.Decoder().decode(encode(list(headers.items())), raw=True)
    assert [(name.decode(), value.decode()) for name, value in read] == list(headers.items())


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # entry 0
        b"\xbe",  # of an empty table
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",  # a number that never ends
        b"\x40\x01X\x01y",  # an upper-case name
        b"\x40\x00\x01y",  # no name
        b"\x40\x01x\x03a\r\n",  # a value that would be two lines
        b"\x40\x01x\x7fabc",  # cut off
        b"\x40\x01x\x81\x00",  # Huffman code that ends in the middle
        b"\x3f\xe2\x1f",  # a table larger than ours
        b"\x83\x20",  # a table size behind a field
    ],
)
def test_what_is_no_block(block: bytes) -> None:
    with pytest.raises(HeaderError):
        Decoder().decode(block)
