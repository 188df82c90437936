"""What gRPC clients receive, acknowledge and put off."""

from __future__ import annotations

import pytest
from tests.support.grpc import Client, GrpcWorld, consumer_settings, message, termination

from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc


@pytest.fixture
def grpc(either_way: GrpcWorld) -> GrpcWorld:
    return either_way


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


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
    client.call("NotifyClientTermination", termination("workers"))
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
