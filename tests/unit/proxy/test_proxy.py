"""The gRPC service as RocketMQ 5 clients notice it: who calls, routes, transactions, and what other
clients may have stored."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from tests.support.brokers import send_fields
from tests.support.grpc import (
    Client,
    GrpcWorld,
    consumer_settings,
    producer_settings,
    termination,
)

from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc


@pytest.fixture
def grpc(either_way: GrpcWorld) -> GrpcWorld:
    return either_way


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


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
    answer = client.call("NotifyClientTermination", termination("readers"))
    assert answer.status.code == v2.OK
    assert "readers" not in grpc.world.core.members.consumers


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
