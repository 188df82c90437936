"""What gRPC clients send, and what becomes of it."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import pytest
from tests.support.brokers import properties_of
from tests.support.grpc import Client, GrpcWorld, message

from firearrow.codec.hashes import consistent_hash
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc

START_S = 1_700_000_000  # of the virtual clock


@pytest.fixture
def grpc(either_way: GrpcWorld) -> GrpcWorld:
    return either_way


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


def test_a_message_keeps_everything(grpc: GrpcWorld, client: Client) -> None:
    sent = client.produce(
        "orders", b"body", tag="red", keys=["k1", "k2"], message_id="ID1", properties={"mine": "1"}
    )
    (entry,) = sent.entries
    assert (sent.status.code, entry.message_id, entry.offset) == (v2.OK, "ID1", 0)
    _, (got,) = client.receive("orders")
    system = got.system_properties
    assert (got.body, system.tag, list(system.keys)) == (b"body", "red", ["k1", "k2"])
    assert dict(got.user_properties) == {"mine": "1"}
    assert system.message_id == "ID1"
    assert system.delivery_attempt == 1
    assert system.body_digest.type == v2.MD5
    assert system.body_digest.checksum == hashlib.md5(b"body").hexdigest().upper()
    assert system.body_encoding == v2.IDENTITY
    assert system.message_type == v2.NORMAL
    assert system.born_timestamp.seconds == START_S
    (record,) = grpc.world.connect().pull("orders").records()
    assert properties_of(record)["KEYS"] == "k1 k2"


def test_messages_that_are_nearly_the_same_keep_what_differs(client: Client) -> None:
    sent = []
    for number in range(3):
        properties = {"MY_BORN_TIMESTAMP": "x", "MYKEYS": "y", "number": str(number // 2)}
        sent.append((f"id-{number}", [f"key-{number}", "all"], properties))
        client.produce(
            "orders",
            b"%d" % number,
            message_id=sent[-1][0],
            keys=sent[-1][1],
            properties=properties,
            tag="t",
        )
    _, messages = client.receive("orders")
    found = [(m.system_properties, dict(m.user_properties)) for m in messages]
    assert [(s.message_id, list(s.keys), p) for s, p in found] == sent
    assert [m.body for m in messages] == [b"0", b"1", b"2"]
    assert {s.tag for s, _ in found} == {"t"}


@pytest.mark.parametrize(
    "properties",
    [
        "UNIQ_KEY\x01one\x02KEYS\x01a b\x02BORN_TIMESTAMP\x015\x02MY_KEYS\x01c\x02",
        "KEYS\x01a b\x02MY_KEYS\x01c\x02UNIQ_KEY\x01one\x02",
        "UNIQ_KEY\x01one\x02MY_KEYS\x01c\x02KEYS\x01a b\x02",
        "UNIQ_KEY\x01one\x02KEYS\x01x\x02MY_KEYS\x01c\x02KEYS\x01a b\x02",  # the last one wins
    ],
)
def test_properties_in_any_order(grpc: GrpcWorld, client: Client, properties: str) -> None:
    grpc.world.connect().produce("orders", b"hello", properties=properties)
    _, (message,) = client.receive("orders")
    system = message.system_properties
    assert (system.message_id, list(system.keys)) == ("one", ["a", "b"])
    assert dict(message.user_properties) == {"MY_KEYS": "c"}


def test_remoting_and_grpc_clients_understand_each_other(grpc: GrpcWorld, client: Client) -> None:
    old = grpc.world.connect()
    old.produce("orders", b"from 4.x", properties="TAGS\x01blue\x02KEYS\x01a b\x02")
    client.produce("orders", b"from 5.x", tag="red")
    _, messages = client.receive("orders")
    assert [(m.body, m.system_properties.tag) for m in messages] == [
        (b"from 4.x", "blue"),
        (b"from 5.x", "red"),
    ]
    assert [r.body for r in old.pull("orders", expression="red").records()] == [b"from 5.x"]


def test_compressed_bodies_are_delivered_plain(client: Client) -> None:
    client.produce("orders", zlib.compress(b"long" * 100), body_encoding=v2.GZIP)
    _, (got,) = client.receive("orders")
    assert (got.body, got.system_properties.body_encoding) == (b"long" * 100, v2.IDENTITY)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"body": b""}, v2.MESSAGE_BODY_EMPTY),
        ({"body": b"x" * (4 * 1024 * 1024 + 1)}, v2.MESSAGE_BODY_TOO_LARGE),
        ({"properties": {f"p{n}": "v" for n in range(129)}}, v2.MESSAGE_PROPERTIES_TOO_LARGE),
        ({"properties": {"p": "v" * 16384}}, v2.MESSAGE_PROPERTIES_TOO_LARGE),
        ({"properties": {"UNIQ_KEY": "v"}}, v2.ILLEGAL_MESSAGE_PROPERTY_KEY),
        ({"properties": {"p": "a\x01b"}}, v2.ILLEGAL_MESSAGE_PROPERTY_KEY),
        ({"tag": "a|b"}, v2.ILLEGAL_MESSAGE_TAG),
        ({"tag": " "}, v2.ILLEGAL_MESSAGE_TAG),
        ({"keys": ["\n"]}, v2.ILLEGAL_MESSAGE_KEY),
        ({"message_id": " "}, v2.ILLEGAL_MESSAGE_ID),
        ({"message_id": "A1\x02TIMER_DELAY_MS\x0160000"}, v2.ILLEGAL_MESSAGE_ID),
        ({"trace_context": "t\x02DELAY\x0118"}, v2.BAD_REQUEST),
        ({"born_host": "h\x02DELAY\x0118"}, v2.BAD_REQUEST),
        ({"message_group": "g" * 64}, v2.ILLEGAL_MESSAGE_GROUP),
        ({"delivery_s": START_S + 86_401}, v2.ILLEGAL_DELIVERY_TIME),
        ({"message_group": "g"}, v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"delivery_s": START_S + 5}, v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ],
)
def test_messages_that_are_refused(client: Client, change: dict[str, Any], code: int) -> None:
    assert client.produce("orders", **change).status.code == code


def test_an_id_brings_no_properties_of_its_own_whatever_came_before(client: Client) -> None:
    assert client.produce("orders", message_id="A1").status.code == v2.OK
    smuggled = client.produce("orders", message_id="A2\x02DELAY\x0118")
    assert smuggled.status.code == v2.ILLEGAL_MESSAGE_ID


def test_no_message_and_different_topics(client: Client) -> None:
    request = rpc.SendMessageRequest()
    assert client.call("SendMessage", request).status.code == v2.MESSAGE_CORRUPTED
    request.messages.extend([message("orders"), message("other")])
    assert client.call("SendMessage", request).status.code == v2.MESSAGE_CORRUPTED


def test_each_message_of_a_request_has_its_entry(client: Client) -> None:
    request = rpc.SendMessageRequest()
    request.messages.extend([message("orders", message_id=f"M{n}") for n in range(3)])
    answer = client.call("SendMessage", request)
    assert [(e.message_id, e.offset) for e in answer.entries] == [("M0", 0), ("M1", 1), ("M2", 2)]


def test_a_message_group_stays_in_one_queue(grpc: GrpcWorld, client: Client) -> None:
    grpc.create_topic("fifo", "FIFO", queues=8)
    for number in range(20):
        client.produce("fifo", b"%d" % number, message_group="user-7")
    old = grpc.world.connect()
    queues = [[r.body for r in old.pull("fifo", q).records()] for q in range(8)]
    assert [b"%d" % n for n in range(20)] in queues


def test_consistent_hash_moves_as_little_as_it_can() -> None:
    assert [consistent_hash(n, 1) for n in (0, 5, -7)] == [0, 0, 0]
    assert {consistent_hash(n, 8) for n in range(1000)} == set(range(8))
    moved = sum(consistent_hash(n, 8) != consistent_hash(n, 9) for n in range(9000))
    assert 800 < moved < 1200  # a ninth of them


def test_delayed_messages_and_their_recall(grpc: GrpcWorld, client: Client) -> None:
    grpc.create_topic("later", "DELAY")
    kept = client.produce("later", b"kept", message_id="A", delivery_s=START_S + 5)
    gone = client.produce("later", b"gone", message_id="B", delivery_s=START_S + 5)
    assert kept.entries[0].recall_handle
    request = rpc.RecallMessageRequest(recall_handle=gone.entries[0].recall_handle)
    request.topic.name = "later"
    answer = client.call("RecallMessage", request)
    assert (answer.status.code, answer.message_id) == (v2.OK, "B")
    stream, _ = client.receive("later", polling_s=10)
    grpc.world.clock.advance(4.9)
    assert client.delivered(stream) == []
    grpc.world.clock.advance(2)
    assert [m.body for m in client.delivered(stream)] == [b"kept"]
