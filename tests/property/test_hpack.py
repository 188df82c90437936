"""Header blocks: what the ``hpack`` library writes is read as it was; garbage is an error."""

from __future__ import annotations

import hpack
import hpack.huffman_table
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from firearrow.protocol.grpc.hpack import TABLE_BYTES_MAX, Decoder, HeaderError, encode
from firearrow.protocol.grpc.huffman import decode_huffman
from firearrow.protocol.grpc.layouts import LayoutDecoder

CODE = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
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


# Few of each, so that blocks are alike.
REFERENCES = [b"\x83", b"\x86", b"\xbe", b"\xbf", b"\x83\xbe"]
PLAIN = [b"\x00\x01x\x02", b"\x00\x01y\x02", b"\x10\x01x\x02", b"\x04\x02", b"\x0f\x10\x02"]
OTHERS = [
    b"\x40\x01a\x02",
    b"\x00\x01x\x82",
    b"\x3f\x20",
    b"\x20",
    b"\x00\x01x\x03",
    b"\x0f\x2f\x02",
]
values_2 = st.sampled_from([b"ab", b"cd", b"\xc3\xa4", b"\xff\xfe", b"\t ", b"a\n", b"\x1f\xff"])
pieces = st.one_of(
    st.sampled_from(REFERENCES),
    st.builds(bytes.__add__, st.sampled_from(PLAIN), values_2),
    st.builds(bytes.__add__, st.sampled_from(PLAIN + OTHERS), values_2),
)


@given(
    st.lists(st.lists(pieces, max_size=4).map(b"".join), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), values_2), max_size=20),
)
def test_blocks_that_are_alike(blocks: list[bytes], order: list[tuple[int, bytes]]) -> None:
    """Read by their layout they are what they are without."""
    plain, decoder = Decoder(), LayoutDecoder()
    for number, value in order:
        block = blocks[number % len(blocks)]
        block = block[:-2] + value
        expected = read(plain, block)
        recalled = decoder.recall(block)
        if recalled is not None:
            layout, found = recalled
            assert list(layout.metadata_of(found).items()) == expected
        else:
            assert read(decoder, block) == expected
        if expected is None:
            return


def read(decoder: Decoder, block: bytes) -> list[tuple[str, str]] | None:
    try:
        return list(decoder.decode(block).items())
    except HeaderError:
        return None


def test_a_layout_is_used() -> None:
    decoder = LayoutDecoder()
    head = b"\x83\x86"
    decoder.decode(head + b"\x00\x02id\x031-2")
    recalled = decoder.recall(head + b"\x00\x02id\x033-4")
    assert recalled is not None
    assert recalled[0].metadata_of(recalled[1]) == {
        ":method": "POST",
        ":scheme": "http",
        "id": "3-4",
    }
    for other in (b"\x00\x02ie\x033-4", b"\x00\x02id\x043-45", b"\x00\x02id\x033\r\n"):
        assert decoder.recall(head + other) is None


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


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode).map(CODE.encode))
def test_huffman_code(coded: bytes) -> None:
    try:
        expected = hpack.huffman_table.decode_huffman(coded)
    except hpack.HPACKDecodingError:
        with pytest.raises(hpack.HPACKDecodingError):
            decode_huffman(coded)
    else:
        assert decode_huffman(coded) == expected


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
