"""AckMessageRequests read by hand: as protobuf reads them, whatever stands in them."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.protobuf import varint
from firearrow.proxy.acknowledging import Acks, Entry, read_acks

HANDLE = "1200 1700000000000 600000 3 0 broker-a 3 1234 123456"
texts = st.one_of(st.text(max_size=150), st.just(HANDLE), st.integers(120, 135).map("x".__mul__))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    request = rpc.AckMessageRequest()
    for resource in (request.group, request.topic):
        resource.name = draw(texts)
        resource.resource_namespace = draw(st.sampled_from(["", "", "", "space"]))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2]))):
        entry = request.entries.add(message_id=draw(texts), receipt_handle=draw(texts))
        if draw(st.integers(0, 3)) == 0:
            entry.lite_topic = draw(texts)
    return request.SerializeToString()


def by_protobuf(data: bytes) -> Acks | None:
    """``None``: it cannot be read."""
    try:
        request = rpc.AckMessageRequest.FromString(data)
    except DecodeError:
        return None
    entries = [
        Entry(entry.message_id, entry.receipt_handle, entry.lite_topic, b"")
        for entry in request.entries
    ]
    return Acks(request.topic.name, request.group.name, entries)


def by_hand(data: bytes) -> Acks | None:
    try:
        acks = read_acks(data)
    except (DecodeError, UnicodeDecodeError):
        return None
    for entry in acks.entries:
        shown = rpc.AckMessageResultEntry.FromString(entry.shown)
        assert (shown.message_id, shown.receipt_handle) == entry[:2]
        assert not shown.HasField("status")
    return Acks(acks.topic, acks.group, [entry._replace(shown=b"") for entry in acks.entries])


@given(requests())
def test_any_request(data: bytes) -> None:
    acks = by_hand(data)
    assert acks is not None
    assert acks == by_protobuf(data)


def usual(message_id: str = "7F000001", handle: str = HANDLE) -> bytes:
    request = rpc.AckMessageRequest()
    request.group.name, request.topic.name = "group", "orders"
    request.entries.add(message_id=message_id, receipt_handle=handle)
    return request.SerializeToString()


@pytest.mark.parametrize("handle", ["", HANDLE])
def test_every_length(handle: str) -> None:
    for count in range(300):
        for data in (usual("m" * count, handle), usual(handle, "h" * count)):
            assert by_hand(data) == by_protobuf(data)


def test_every_damage_of_one_byte() -> None:
    data = usual()
    for at, byte in enumerate(data):
        assert by_hand(data[:at]) == by_protobuf(data[:at])
        for other in (*range(0, 256, 17), 0x08, 0x0A, 0x12, 0x1A, 0x80, byte - 1 & 0xFF, byte + 1):
            damaged = data[:at] + bytes([other]) + data[at + 1 :]
            assert by_hand(damaged) == by_protobuf(damaged), (at, other)


@pytest.mark.parametrize("text", ["", "0", "m" * 130])
def test_fields_that_come_again(text: str) -> None:
    """The last one counts, as in every protobuf message."""
    more = rpc.AckMessageEntry(message_id=text, receipt_handle=text).SerializeToString()
    data = usual()
    assert by_hand(data + data) == by_protobuf(data + data)
    head = data[: data.index(b"\x1a")]
    entry = data[len(head) + 2 :] + more
    doubled = head + b"\x1a" + varint(len(entry)) + entry
    assert by_hand(doubled) == by_protobuf(doubled)
