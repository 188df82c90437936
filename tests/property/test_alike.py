"""Requests to send that are read by what is known of others are what protobuf reads."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tests.support.grpc import message

from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.proxy.alike import Alike
from firearrow.proxy.checks import milliseconds

bodies = st.binary(max_size=3) | st.integers(0, 20_000).map(bytes)
texts = st.sampled_from(["", "a", "bb", "ä", "01A2" * 9, "x" * 200])
systems = st.fixed_dictionaries(
    {"message_id": texts, "born_host": texts},
    optional={
        "tag": texts,
        "keys": st.lists(texts, max_size=2),
        "message_group": texts,
        "delivery_s": st.integers(0, 2),
        "body_encoding": st.sampled_from([v2.IDENTITY, v2.GZIP]),
        "trace_context": texts,
        "properties": st.dictionaries(texts, texts, max_size=2),
        "queue_offset": st.sampled_from([0, 1, 2**40, -1]),
    },
)
times = st.tuples(
    st.sampled_from([0, 1, -1, 1_700_000_000, 2**50, 2**62]),
    st.sampled_from([0, 1, 5_000_000, 999_999_999, -1]),
)


def request(
    system: dict[str, object], body: bytes, born: tuple[int, int], checksum: str
) -> rpc.SendMessageRequest:
    made = message("orders", body, **system)
    made.system_properties.born_timestamp.seconds, made.system_properties.born_timestamp.nanos = (
        born
    )
    if checksum:
        made.system_properties.body_digest.type = v2.CRC32
        made.system_properties.body_digest.checksum = checksum
    return rpc.SendMessageRequest(messages=[made])


requests = st.builds(request, systems, bodies, times, texts)


def values(found: rpc.SendMessageRequest) -> tuple[bytes, bytes, int, bytes]:
    """What a request has in common with others; its id, time of birth and body."""
    (made,) = found.messages
    system = made.system_properties
    identity, born, body = system.message_id, milliseconds(system.born_timestamp), made.body
    for field in ("message_id", "born_timestamp", "body_digest"):
        system.ClearField(field)
    made.ClearField("body")
    return found.SerializeToString(), identity.encode(), born, body


@given(st.lists(requests, min_size=1, max_size=4), st.data())
def test_what_is_recalled(learned: list[rpc.SendMessageRequest], data: st.DataObject) -> None:
    alike: Alike[bytes] = Alike()
    written = [each.SerializeToString() for each in learned]
    for each in written:
        alike.learn(each, values(rpc.SendMessageRequest.FromString(each))[0])
    for each in written:
        recalled = alike.recall(each)
        expected = values(rpc.SendMessageRequest.FromString(each))
        assert recalled is None or recalled == expected
        changed = bytearray(each)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, min(len(changed), 300) - 1))
            changed[at] = data.draw(st.sampled_from([0, 1, 10, 0x1A, 0x22, 0x7F, 0x80, 0xFF]))
        recalled = alike.recall(bytes(changed))
        if recalled is not None:
            assert recalled == values(rpc.SendMessageRequest.FromString(bytes(changed)))


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_garbage(pieces: list[bytes]) -> None:
    alike: Alike[int] = Alike()
    for piece in pieces:
        alike.learn(piece, 1)
        if alike.recall(piece) is not None:
            rpc.SendMessageRequest.FromString(piece)


def test_another_message_is_recalled() -> None:
    alike: Alike[str] = Alike()
    known = request({"message_id": "01", "born_host": "h"}, b"one", (1_700_000_000, 5_000_000), "a")
    alike.learn(known.SerializeToString(), "known")
    for size in (0, 1, 127, 128, 16_383, 16_384, 70_000):
        other = request(
            {"message_id": "02", "born_host": "h"}, bytes(size), (1_800_000_000, 7_000_000), "b"
        )
        recalled = alike.recall(other.SerializeToString())
        if size == 0:  # a body that is not there is not written
            assert recalled is None
        else:
            assert recalled == ("known", b"02", 1_800_000_000_007, bytes(size))


def test_what_is_no_text_is_not_recalled() -> None:
    alike: Alike[str] = Alike()
    system: dict[str, object] = {"message_id": "0102", "born_host": "h"}
    data = request(system, b"one", (1_700_000_000, 0), "abc").SerializeToString()
    alike.learn(data, "known")
    assert alike.recall(data) is not None
    for text in (b"0102", b"abc"):
        spoilt = data.replace(text, text[:-1] + b"\xff")
        assert alike.recall(spoilt) is None
        try:
            rpc.SendMessageRequest.FromString(spoilt)
        except DecodeError:
            continue
        raise AssertionError("protobuf takes it")
