"""Codecs under garbage: a value or the codec's own error, never anything else, never a hang."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.protocol.test_session import BINARY_105, Server, json_frame

from firearrow.codec import lenient_json
from firearrow.codec.batch import BatchError, decode_batch
from firearrow.codec.hashes import java_hash
from firearrow.codec.message_id import offset_message_id, parse_offset_message_id
from firearrow.codec.properties import find_property, format_properties, parse_properties
from firearrow.codec.record import RecordError, decode_record, encode_record, split_records
from firearrow.model.network import SessionError
from firearrow.protocol.remoting.headers import decode_header

# storage.md 2.12
RECORD = bytes.fromhex(
    "0000007cdaa320a769c865ed00000003000000000000000000000007000000000000400000000000"
    "0000018bcfe56800c0a8010a0000c3500000018bcfe5687bc0a8011400002a9f"
    "0000000000000000000000000000000e48656c6c6f20526f636b65744d51"
    "09546f70696354657374000a54414753015461674102"
)
VALID = BINARY_105 + json_frame(
    {"code": 30, "extFields": {"topic": "T", "queueId": "1"}, "opaque": 8, "version": 479}, b"body"
)


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """A valid input with bytes changed, cut out or doubled."""
    data = bytearray(original)
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.integers(0, max(0, len(data) - 1)))
        change = draw(st.sampled_from(("set", "cut", "double")))
        if change == "set" and data:
            data[position] = draw(st.integers(0, 255))
        elif change == "cut":
            del data[position : position + draw(st.integers(1, 8))]
        else:
            data[position:position] = data[position : position + 8]
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(max_examples=500)
@given(st.binary(max_size=200) | damaged(VALID), st.integers(1, 50))
def test_a_session_answers_or_ends(data: bytes, size: int) -> None:
    whole = pieces = None
    with contextlib.suppress(SessionError):
        whole = Server().session.receive(data)
    server = Server()
    with contextlib.suppress(SessionError):
        pieces = b"".join(
            server.session.receive(data[i : i + size]) for i in range(0, len(data), size)
        )
    assert (whole is None) == (pieces is None)
    if whole is not None:
        assert pieces == whole


@settings(max_examples=500)
@given(st.integers(0, 3), st.binary(max_size=200) | damaged(BINARY_105[8:]))
def test_headers(kind: int, data: bytes) -> None:
    with contextlib.suppress(SessionError):
        decode_header(kind, data)


def test_the_record_of_the_reference() -> None:
    record = decode_record(RECORD, check_crc=True)
    assert (record.topic, record.queue_id, record.body) == ("TopicTest", 3, b"Hello RocketMQ")
    assert (record.queue_offset, record.physical_offset) == (7, 0x4000)
    assert parse_properties(record.properties) == {"TAGS": "TagA"}
    assert encode_record(record) == RECORD
    assert offset_message_id(record.store_host, record.physical_offset) == (
        "C0A8011400002A9F0000000000004000"
    )


@settings(max_examples=500)
@given(st.binary(max_size=200) | damaged(RECORD))
def test_records(data: bytes) -> None:
    for check_crc in (False, True):
        with contextlib.suppress(RecordError):
            decode_record(data, check_crc=check_crc)
    with contextlib.suppress(RecordError):
        assert b"".join(split_records(data)) == data


@given(st.integers(0, len(RECORD) * 8 - 1))
def test_a_flipped_bit_of_the_body_is_found(bit: int) -> None:
    body_at = RECORD.index(b"Hello")
    if body_at <= bit // 8 < body_at + 14:
        data = bytearray(RECORD)
        data[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(RecordError, match="CRC"):
            decode_record(bytes(data), check_crc=True)


def item(body: bytes, properties: bytes) -> bytes:
    size = 22 + len(body) + len(properties)
    head = struct.pack(">iiiii", size, 0, 0, 7, len(body))
    return head + body + struct.pack(">h", len(properties)) + properties


@settings(max_examples=300)
@given(st.binary(max_size=100) | damaged(item(b"a", b"b") + item(b"", b"")))
def test_batches(data: bytes) -> None:
    try:
        items = decode_batch(data)
    except BatchError:
        return
    assert b"".join(len(item(i.body, i.properties)).to_bytes(4) for i in items)


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), min_size=1))
def test_a_batch_is_read_back(items: list[tuple[bytes, bytes]]) -> None:
    decoded = decode_batch(b"".join(item(*i) for i in items))
    assert [(i.body, i.properties, i.flag) for i in decoded] == [(b, p, 7) for b, p in items]


names = st.text(st.characters(exclude_characters="\x01\x02", exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(names, names))
def test_properties_are_read_back(properties: dict[str, str]) -> None:
    data = format_properties(properties)
    assert parse_properties(data) == properties
    assert parse_properties(data.removesuffix(b"\x02")) == properties
    for name, value in properties.items():
        assert find_property(data, name.encode()) == value.encode()


@given(st.binary(max_size=100))
def test_any_bytes_are_properties(data: bytes) -> None:
    parse_properties(data)
    find_property(data, b"TAGS")


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text('{}[]",:01e.-truefalsn\\ ').map(str.encode))
def test_lenient_json(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        lenient_json.loads(data)


def test_the_json_of_java() -> None:
    text = b'{"a":{0:"x",1:{"b":2}},"t":{{"q":1,"t":"T"}:{"o":5}},"n":null,"r":{"$ref":"$.a"}}'
    assert lenient_json.loads(text) == {
        "a": {"0": "x", "1": {"b": 2}},
        "t": {'{"q":1,"t":"T"}': {"o": 5}},
        "n": None,
        "r": {"$ref": "$.a"},
    }


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"{0:" * 100_000])
def test_deep_json_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"nested|value|recursion|deep"):
        lenient_json.loads(data)


@given(st.text())
def test_any_text_may_be_asked_as_an_id(text: str) -> None:
    parse_offset_message_id(text)


def slow_hash(text: str) -> int:
    data = text.encode("utf-16-be", "surrogatepass")
    value = 0
    for i in range(0, len(data), 2):
        value = (31 * value + int.from_bytes(data[i : i + 2])) & 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


@given(st.text(max_size=700))
def test_the_hash_of_java(text: str) -> None:
    assert java_hash(text) == slow_hash(text)


def test_hashes_of_the_reference() -> None:
    assert (java_hash("TagA"), java_hash("TagB")) == (2598919, 2598920)
    assert java_hash("TopicTest#KEY0") == -1656969517
