"""The gRPC service as RocketMQ 5 clients notice it, over a real broker on a virtual clock."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import World, properties_of, send_fields
from tests.support.cluster import Cluster
from tests.support.grpc import Client, GrpcWorld, message

from firearrow.codec.hashes import consistent_hash
from firearrow.config import BrokerSettings
from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc

START_S = 1_700_000_000  # of the virtual clock


@pytest.fixture(params=["the broker's own", "alone"])
def grpc(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GrpcWorld]:
    """A proxy in the broker's process, and one that reaches it over a network."""
    if request.param == "alone":
        cluster = Cluster(tmp_path)
        cluster.grpc.create_topic("orders")
        yield cluster.grpc
        cluster.stop()
        return
    settings = BrokerSettings()
    settings.recall_message_enable = True
    world = World(tmp_path, settings)
    grpc = GrpcWorld(world)
    grpc.create_topic("orders")
    yield grpc
    grpc.proxy.stop()
    world.stop()


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


def producer_settings(*topics: str) -> v2.Settings:
    settings = v2.Settings(client_type=v2.PRODUCER)
    settings.publishing.SetInParent()
    for topic in topics:
        settings.publishing.topics.add(name=topic)
    return settings


def consumer_settings(
    group: str, topic: str = "orders", kind: v2.ClientType.ValueType = v2.PUSH_CONSUMER
) -> v2.Settings:
    settings = v2.Settings(client_type=kind)
    settings.subscription.group.name = group
    settings.subscription.subscriptions.add().topic.name = topic
    return settings


# -- who calls


def test_a_client_without_an_id_is_refused(client: Client) -> None:
    client.metadata = {}
    answer = client.call("QueryRoute", rpc.QueryRouteRequest())
    assert answer.status.code == v2.CLIENT_ID_REQUIRED


def test_heartbeats_need_settings(client: Client) -> None:
    answer = client.call("Heartbeat", rpc.HeartbeatRequest())
    assert answer.status.code == v2.UNRECOGNIZED_CLIENT_TYPE


def test_a_producers_settings_are_answered_with_what_it_needs(client: Client) -> None:
    _, answer = client.settings(producer_settings("orders"))
    assert answer.status.code == v2.OK
    settings = answer.settings
    assert settings.publishing.max_body_size == 4 * 1024 * 1024
    assert settings.publishing.validate_message_type
    backoff = settings.backoff_policy.exponential_backoff
    assert (backoff.initial.nanos, backoff.max.seconds, backoff.multiplier) == (10_000_000, 1, 2)
    assert settings.backoff_policy.max_attempts == 3


def test_a_consumers_settings_are_answered_with_its_groups(grpc: GrpcWorld, client: Client) -> None:
    body = b'{"groupName":"ordered","consumeMessageOrderly":true,"retryMaxTimes":5}'
    assert grpc.world.connect().call(200, body=body).code == 0
    _, answer = client.settings(consumer_settings("ordered"))
    settings = answer.settings
    assert settings.subscription.fifo
    assert settings.subscription.receive_batch_size == 32
    assert settings.subscription.long_polling_timeout.seconds == 20
    assert settings.backoff_policy.max_attempts == 6
    assert [d.seconds for d in settings.backoff_policy.customized_backoff.next][:3] == [1, 5, 10]


def test_settings_of_neither_kind_end_the_stream(client: Client) -> None:
    stream = client.wire.open("/apache.rocketmq.v2.MessagingService/Telemetry", client.metadata)
    command = rpc.TelemetryCommand(settings=v2.Settings(client_type=v2.PRODUCER))
    client.wire.write(stream, command.SerializeToString())
    assert stream.grpc_status == calls.INVALID_ARGUMENT


def test_the_broker_sees_grpc_consumers_as_its_own(grpc: GrpcWorld, client: Client) -> None:
    client.settings(consumer_settings("readers"))
    online = grpc.world.core.members.consumers["readers"]
    assert online.client_ids() == ["client-1"]
    answer = client.call("NotifyClientTermination", _termination("readers"))
    assert answer.status.code == v2.OK
    assert "readers" not in grpc.world.core.members.consumers


def _termination(group: str) -> rpc.NotifyClientTerminationRequest:
    request = rpc.NotifyClientTerminationRequest()
    request.group.name = group
    return request


def test_a_silent_client_is_forgotten(grpc: GrpcWorld, client: Client) -> None:
    client.settings(consumer_settings("readers"))
    grpc.world.clock.advance(200)
    assert "readers" not in grpc.world.core.members.consumers
    assert len(grpc.proxy.clients) == 0


# -- routes


def test_a_route_sends_clients_back_to_where_they_came(client: Client) -> None:
    request = rpc.QueryRouteRequest()
    request.topic.name = "orders"
    request.endpoints.scheme = v2.IPv4
    request.endpoints.addresses.add(host="10.9.8.7", port=1234)
    answer = client.call("QueryRoute", request)
    (queue,) = answer.message_queues
    assert queue.permission == v2.READ_WRITE
    assert (queue.broker.name, queue.broker.id) == ("broker-a", 0)
    assert queue.broker.endpoints == request.endpoints
    assert list(queue.accept_message_types) == [v2.NORMAL]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nowhere", v2.TOPIC_NOT_FOUND),
        ("", v2.ILLEGAL_TOPIC),
        ("a b", v2.ILLEGAL_TOPIC),
        ("TBW102", v2.ILLEGAL_TOPIC),
        ("rmq_sys_x", v2.ILLEGAL_TOPIC),
        ("x" * 128, v2.ILLEGAL_TOPIC),
    ],
)
def test_topics_without_a_route(client: Client, name: str, code: int) -> None:
    request = rpc.QueryRouteRequest()
    request.topic.name = name
    assert client.call("QueryRoute", request).status.code == code


def test_a_group_in_order_is_assigned_each_queue(grpc: GrpcWorld, client: Client) -> None:
    grpc.create_topic("wide", queues=3)
    request = rpc.QueryAssignmentRequest()
    request.topic.name, request.group.name = "wide", "g"
    answer = client.call("QueryAssignment", request)
    assert [a.message_queue.id for a in answer.assignments] == [-1]
    body = b'{"groupName":"g","consumeMessageOrderly":true}'
    grpc.world.connect().call(200, body=body)
    grpc.world.clock.advance(301)  # a proxy alone asks the broker only from time to time
    answer = client.call("QueryAssignment", request)
    assert [a.message_queue.id for a in answer.assignments] == [0, 1, 2]


# -- sending


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


# -- receiving


def test_an_empty_topic_answers_after_the_polling_time(grpc: GrpcWorld, client: Client) -> None:
    stream, _ = client.receive("orders", polling_s=10)
    grpc.world.clock.advance(9)
    client.wire.exchange()
    assert not stream.ended
    grpc.world.clock.advance(3)
    client.wire.exchange()
    assert stream.ended
    assert client.status_of(stream) == v2.MESSAGE_NOT_FOUND
    last = client.messages("ReceiveMessage", stream)[-1]
    assert last.WhichOneof("content") == "delivery_timestamp"


def test_a_waiting_receive_is_woken_by_a_message(grpc: GrpcWorld, client: Client) -> None:
    stream, _ = client.receive("orders", polling_s=20)
    grpc.connect("other").produce("orders", b"new")
    grpc.world.clock.advance(0.01)
    assert [m.body for m in client.delivered(stream)] == [b"new"]


def test_acknowledged_messages_do_not_come_back(grpc: GrpcWorld, client: Client) -> None:
    client.produce("orders")
    _, (got,) = client.receive("orders")
    assert client.ack(got).status.code == v2.OK
    grpc.world.clock.advance(60)
    stream, messages = client.receive("orders")
    grpc.world.clock.advance(10)
    assert messages + client.delivered(stream) == []


def test_others_come_back_with_their_attempt(grpc: GrpcWorld, client: Client) -> None:
    client.produce("orders")
    _, (first,) = client.receive("orders")
    grpc.world.clock.advance(40)
    _, (second,) = client.receive("orders")
    assert second.system_properties.delivery_attempt == 2
    assert second.topic.name == "orders"
    assert client.ack(first).status.code == v2.INVALID_RECEIPT_HANDLE
    assert client.ack(second).status.code == v2.OK


def test_the_invisible_time_can_be_changed(grpc: GrpcWorld, client: Client) -> None:
    client.produce("orders")
    _, (got,) = client.receive("orders")
    request = rpc.ChangeInvisibleDurationRequest(
        receipt_handle=got.system_properties.receipt_handle,
        message_id=got.system_properties.message_id,
    )
    request.group.name, request.topic.name = "group", "orders"
    request.invisible_duration.seconds = 300
    answer = client.call("ChangeInvisibleDuration", request)
    assert answer.status.code == v2.OK
    grpc.world.clock.advance(100)
    got.system_properties.receipt_handle = answer.receipt_handle
    assert client.ack(got).status.code == v2.OK


def test_a_receive_that_asks_for_too_little_or_too_much(client: Client) -> None:
    for seconds in (9, 12 * 3600 + 1):
        request = rpc.ReceiveMessageRequest(batch_size=1)
        request.group.name, request.message_queue.topic.name = "group", "orders"
        request.invisible_duration.seconds = seconds
        stream = client.start("ReceiveMessage", request, timeout="20S")
        assert client.status_of(stream) == v2.ILLEGAL_INVISIBLE_TIME


@pytest.mark.parametrize("handle", ["", "x", "1 2 3", "a b c d e f g h i", "1 " * 40])
def test_handles_that_are_none(client: Client, handle: str) -> None:
    got = message("orders")
    got.system_properties.receipt_handle = handle
    assert client.ack(got).entries[0].status.code == v2.INVALID_RECEIPT_HANDLE


def test_tags_are_exact_even_where_their_hashes_are_the_same(client: Client) -> None:
    for tag in ("Aa", "BB"):  # the same Java hash
        client.produce("orders", tag.encode(), tag=tag)
    wanted = v2.FilterExpression(type=v2.TAG, expression="Aa")
    _, messages = client.receive("orders", filter_expression=wanted)
    assert [m.body for m in messages] == [b"Aa"]


def test_a_message_with_a_time_to_live_is_not_received_later(
    grpc: GrpcWorld, client: Client
) -> None:
    client.produce("orders", b"short", properties={"TTL_MS": "5000"})
    client.produce("orders", b"long", properties={"TTL_MS": "60000"})
    client.produce("orders", b"endless")
    grpc.world.clock.advance(6)
    _, messages = client.receive("orders")
    assert [m.body for m in messages] == [b"long", b"endless"]
    assert dict(messages[0].user_properties) == {"TTL_MS": "60000"}


def test_a_topic_that_stores_once_answers_the_second_send_as_the_first(
    grpc: GrpcWorld, client: Client
) -> None:
    grpc.create_topic("once", "NORMAL,+dedup.window.ms=60000")
    first = client.produce("once", b"first", keys=["order-7"], message_id="A1").entries[0]
    again = client.produce("once", b"again", keys=["order-7"], message_id="A2").entries[0]
    tried = client.produce("once", b"other", keys=["order-8"], message_id="A3").entries[0]
    assert (first.status.code, again.status.code) == (v2.OK, v2.OK)
    assert (first.offset, again.offset, tried.offset) == (0, 0, 1)
    _, messages = client.receive("once")
    assert [m.body for m in messages] == [b"first", b"other"]


def test_a_send_that_is_tried_again_is_stored_once_where_the_id_is_the_key(
    grpc: GrpcWorld, client: Client
) -> None:
    grpc.create_topic("once", "NORMAL,+dedup.window.ms=60000,+dedup.key=UNIQ_KEY")
    for _ in range(2):
        entry = client.produce("once", message_id="A1").entries[0]
        assert (entry.status.code, entry.message_id, entry.offset) == (v2.OK, "A1", 0)
    _, messages = client.receive("once")
    assert len(messages) == 1


def test_push_consumers_messages_stay_invisible_while_they_live(
    grpc: GrpcWorld, client: Client
) -> None:
    client.settings(consumer_settings("workers"))
    client.produce("orders")
    _, (got,) = client.receive("orders", "workers", auto_renew=True)
    heartbeat = rpc.HeartbeatRequest(client_type=v2.PUSH_CONSUMER)
    heartbeat.group.name = "workers"
    other = grpc.connect("other")
    for _ in range(30):  # five minutes of work
        grpc.world.clock.advance(10)
        assert client.call("Heartbeat", heartbeat).status.code == v2.OK
        assert other.receive("orders", "workers")[1] == []
    assert client.ack(got, "workers").status.code == v2.OK  # with the handle it got first


def test_a_push_consumer_that_goes_frees_its_messages(grpc: GrpcWorld, client: Client) -> None:
    client.settings(consumer_settings("workers"))
    client.produce("orders")
    client.receive("orders", "workers", auto_renew=True)
    client.call("NotifyClientTermination", _termination("workers"))
    grpc.world.clock.advance(5)
    _, messages = grpc.connect("other").receive("orders", "workers")
    assert len(messages) == 1


def test_dead_letters(grpc: GrpcWorld, client: Client) -> None:
    client.produce("orders", b"poison")
    _, (got,) = client.receive("orders")
    request = rpc.ForwardMessageToDeadLetterQueueRequest(
        receipt_handle=got.system_properties.receipt_handle,
        message_id=got.system_properties.message_id,
    )
    request.group.name, request.topic.name = "group", "orders"
    answer = client.call("ForwardMessageToDeadLetterQueue", request)
    assert answer.status.code == v2.OK
    dead = grpc.world.connect().pull("%DLQ%group").records()
    assert [record.body for record in dead] == [b"poison"]
    grpc.world.clock.advance(60)
    assert client.receive("orders")[1] == []


# -- transactions


def end(client: Client, topic: str, transaction: str, resolution: int, source: int = 1) -> Any:
    request = rpc.EndTransactionRequest(
        transaction_id=transaction,
        resolution=resolution,  # type: ignore[arg-type]
        source=source,  # type: ignore[arg-type]
    )
    request.topic.name = topic
    return client.call("EndTransaction", request)


@pytest.mark.parametrize(("resolution", "bodies"), [(v2.COMMIT, [b"half"]), (v2.ROLLBACK, [])])
def test_the_end_of_a_transaction(
    grpc: GrpcWorld, client: Client, resolution: int, bodies: list[bytes]
) -> None:
    grpc.create_topic("money", "TRANSACTION")
    client.settings(producer_settings("money"))
    sent = client.produce("money", b"half", message_type=v2.TRANSACTION)
    old = grpc.world.connect()
    assert old.pull("money").records() == []
    answer = end(client, "money", sent.entries[0].transaction_id, resolution)
    assert answer.status.code == v2.OK
    assert [r.body for r in old.pull("money").records()] == bodies


def test_orphans_are_asked_about_over_telemetry(grpc: GrpcWorld, client: Client) -> None:
    grpc.create_topic("money", "TRANSACTION")
    stream, _ = client.settings(producer_settings("money"))
    client.produce("money", b"half", message_type=v2.TRANSACTION)
    heartbeat = rpc.HeartbeatRequest(client_type=v2.PRODUCER)
    for _ in range(10):
        grpc.world.clock.advance(10)
        client.call("Heartbeat", heartbeat)
    commands = client.messages("Telemetry", stream)
    orphans = [c for c in commands if c.HasField("recover_orphaned_transaction_command")]
    orphan = orphans[0].recover_orphaned_transaction_command
    assert (orphan.message.body, orphan.message.topic.name) == (b"half", "money")
    answer = end(client, "money", orphan.transaction_id, v2.COMMIT, v2.SOURCE_SERVER_CHECK)
    assert answer.status.code == v2.OK
    assert [r.body for r in grpc.world.connect().pull("money").records()] == [b"half"]


@pytest.mark.parametrize("transaction", ["", "unknown", "1-2", "x-y-z"])
def test_transactions_that_are_none(client: Client, transaction: str) -> None:
    code = v2.INVALID_TRANSACTION_ID if not transaction else v2.INTERNAL_SERVER_ERROR
    assert end(client, "orders", transaction, v2.COMMIT).status.code == code


# -- what other clients may have stored


@pytest.mark.parametrize(
    "properties",
    [
        "_SYS_MSG_PRIORITY_\x01" + "9" * 12 + "\x02",
        "TIMER_DELAY_SEC\x01" + "9" * 5000 + "\x02TIMER_OUT_MS\x011\x02",
        "TIMER_DELIVER_MS\x01" + "9" * 30 + "\x02TIMER_OUT_MS\x011\x02",
        "POP_CK\x01nonsense\x02",
    ],
)
def test_odd_properties_of_a_remoting_client_hold_nobody_up(
    grpc: GrpcWorld, client: Client, properties: str
) -> None:
    old = grpc.world.connect()
    old.produce("orders", b"odd", properties=properties)
    old.produce("orders", b"good")
    _, messages = client.receive("orders")
    assert [m.body for m in messages] == [b"odd", b"good"]


def test_a_receive_that_fails_leaves_others_that_wait_alone(
    grpc: GrpcWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = grpc.connect("bad")
    connection = bad.wire.session.connection
    write = connection.data

    def fail(stream: Any, data: bytes) -> None:
        if b"poison" in data:
            raise ValueError("no")
        write(stream, data)

    monkeypatch.setattr(connection, "data", fail)
    other = grpc.connect("other")
    failing, _ = bad.receive("orders", "first", polling_s=20)
    waiting, _ = other.receive("orders", "second", polling_s=20)
    sent = grpc.connect("sender").produce("orders", b"poison")
    assert sent.status.code == v2.OK
    grpc.world.clock.advance(0.01)
    assert [m.body for m in other.delivered(waiting)] == [b"poison"]
    bad.wire.exchange()
    assert failing.grpc_status == calls.INTERNAL
    assert "a receive of topic orders by group first failed" in caplog.text


def _batch(body: bytes, properties: bytes) -> bytes:
    """A batch of one message, whose properties need not be text."""
    size = 22 + len(body) + len(properties)
    head = struct.pack(">iiiii", size, 0, 0, 0, len(body)) + body
    return head + struct.pack(">h", len(properties)) + properties


def test_a_dead_letter_whose_key_is_no_text(grpc: GrpcWorld, client: Client) -> None:
    fields = {"groupName": "group", "retryMaxTimes": 0}
    assert grpc.world.connect().call(200, body=msgspec.json.encode(fields)).code == 0
    properties = b"UNIQ_KEY\x01\xff\xfe\x02"
    grpc.world.connect().call(320, send_fields("orders", batch=True), _batch(b"odd", properties))
    _, (first,) = client.receive("orders")
    assert first.body == b"odd"
    grpc.world.clock.advance(40)
    client.produce("orders", b"good")
    _, messages = client.receive("orders")
    assert [m.body for m in messages] == [b"good"]
