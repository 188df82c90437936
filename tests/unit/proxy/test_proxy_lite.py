"""Lite topics as RocketMQ 5 clients notice them over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import World
from tests.support.cluster import Cluster
from tests.support.grpc import Client, GrpcWorld, Stream, message
from tests.support.lite import GROUP, PARENT, create_group, create_parent, lite_world, queue_of

from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = lite_world(tmp_path)
    yield world
    world.stop()


@pytest.fixture
def grpc(world: World) -> Iterator[GrpcWorld]:
    grpc = GrpcWorld(world)
    yield grpc
    grpc.proxy.stop()


def settings_of(
    kind: v2.ClientType.ValueType = v2.LITE_PUSH_CONSUMER, group: str = GROUP, topic: str = PARENT
) -> v2.Settings:
    settings = v2.Settings(client_type=kind)
    settings.subscription.group.name = group
    settings.subscription.subscriptions.add().topic.name = topic
    return settings


def consumer(grpc: GrpcWorld, client_id: str = "c1") -> Client:
    client = grpc.connect(client_id)
    client.settings(settings_of())
    return client


def sync(
    client: Client,
    *lite_topics: str,
    action: v2.LiteSubscriptionAction.ValueType = v2.PARTIAL_ADD,
    group: str = GROUP,
    topic: str = PARENT,
    **option: int,
) -> int:
    request = rpc.SyncLiteSubscriptionRequest(action=action, lite_topic_set=lite_topics)
    request.group.name, request.topic.name = group, topic
    for name, value in option.items():
        setattr(request.offset_option, name, value)
    code: int = client.call("SyncLiteSubscription", request).status.code
    return code


def send(client: Client, lite_topic: str, *bodies: bytes) -> None:
    for body in bodies:
        answer = client.produce(
            PARENT, body, lite_topic=lite_topic, message_id=f"{lite_topic}-{body.decode()}"
        )
        assert answer.status.code == v2.OK, answer


def receive(client: Client, **more: Any) -> list[v2.Message]:
    return client.receive(PARENT, GROUP, **more)[1]


def ack(client: Client, message: v2.Message, lite_topic: str | None = None) -> int:
    request = rpc.AckMessageRequest()
    request.group.name, request.topic.name = GROUP, PARENT
    entry = request.entries.add(
        message_id=message.system_properties.message_id,
        receipt_handle=message.system_properties.receipt_handle,
    )
    if lite_topic is not None:
        entry.lite_topic = lite_topic
    code: int = client.call("AckMessage", request).status.code
    return code


def texts(messages: list[v2.Message]) -> list[bytes]:
    return [message.body for message in messages]


# -- settings and routes


def test_settings_tell_the_groups_quota(grpc: GrpcWorld) -> None:
    create_group(grpc.world.connect(), lite_sub_client_quota="7")
    _, answer = grpc.connect().settings(settings_of())
    subscription = answer.settings.subscription
    assert (subscription.lite_subscription_quota, subscription.max_lite_topic_size) == (7, 64)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (settings_of(group="nowhere"), "group not found"),
        (settings_of(group="ordinary"), "regular group cannot use LITE mode"),
        (settings_of(v2.PUSH_CONSUMER), "lite group must use LITE mode"),
        (settings_of(topic="elsewhere"), "expected to bind topic devices"),
    ],
)
def test_lite_consumers_and_lite_groups_go_together(
    grpc: GrpcWorld, settings: v2.Settings, text: str
) -> None:
    grpc.world.connect().call(200, body=b'{"groupName":"ordinary"}')
    client = grpc.connect()
    stream = client.wire.open("/apache.rocketmq.v2.MessagingService/Telemetry", client.metadata)
    client.wire.write(stream, rpc.TelemetryCommand(settings=settings).SerializeToString())
    assert stream.grpc_status == calls.INVALID_ARGUMENT
    assert text in stream.trailers["grpc-message"]


def test_the_broker_sees_a_lite_consumer(grpc: GrpcWorld) -> None:
    consumer(grpc)
    answer = grpc.world.connect().call(203, {"consumerGroup": GROUP})
    assert answer.json()["messageModel"] == "LITE_SELECTIVE"


def test_a_route_of_a_parent_takes_lite_messages_only(grpc: GrpcWorld) -> None:
    request = rpc.QueryRouteRequest()
    request.topic.name = PARENT
    queues = grpc.connect().call("QueryRoute", request).message_queues
    assert [list(queue.accept_message_types) for queue in queues] == [[v2.LITE]] * 4


def test_a_lite_group_in_order_is_assigned_the_broker_not_queues(grpc: GrpcWorld) -> None:
    body = b'{"groupName":"%s","consumeMessageOrderly":true}' % GROUP.encode()
    assert grpc.world.connect().call(200, body=body).code == 0
    request = rpc.QueryAssignmentRequest()
    request.topic.name, request.group.name = PARENT, GROUP
    (assignment,) = grpc.connect().call("QueryAssignment", request).assignments
    assert assignment.message_queue.id == -1


# -- sends


@pytest.mark.parametrize("name", ["a b", "a$b", "x" * 65, "ä", " "])
def test_names_that_a_lite_topic_cannot_have(grpc: GrpcWorld, name: str) -> None:
    client = consumer(grpc)
    request = rpc.SendMessageRequest(messages=[message(PARENT, b"x", lite_topic=name)])
    assert client.call("SendMessage", request).status.code == v2.ILLEGAL_LITE_TOPIC
    assert sync(client, name) == v2.ILLEGAL_LITE_TOPIC


def test_a_parent_takes_nothing_but_lite_messages(grpc: GrpcWorld) -> None:
    client = grpc.connect()
    code = client.produce(PARENT, b"x").status.code
    assert code == v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE
    grpc.create_topic("orders")
    code = client.produce("orders", b"x", lite_topic="d1").status.code
    assert code == v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE


def test_messages_of_a_lite_topic_go_to_one_queue_of_the_parent(grpc: GrpcWorld) -> None:
    client = grpc.connect()
    send(client, "d1", *[b"%d" % n for n in range(6)])
    counts = [grpc.world.store.max_offset(PARENT, queue_id) for queue_id in range(4)]
    assert sorted(counts) == [0, 0, 0, 6]
    assert grpc.world.store.max_offset(queue_of("d1"), 0) == 6


def test_no_more_lite_topics_than_the_quota(tmp_path: Path) -> None:
    world = lite_world(tmp_path, enable_lmq_quota=True, max_lmq_consume_queue_num=1)
    grpc = GrpcWorld(world)
    client = grpc.connect()
    send(client, "d1", b"x")
    answer = client.produce(PARENT, b"x", lite_topic="d2")
    assert answer.status.code == v2.LITE_TOPIC_QUOTA_EXCEEDED
    grpc.proxy.stop()
    world.stop()


# -- subscriptions


def test_subscriptions_that_cannot_be(grpc: GrpcWorld) -> None:
    create_group(grpc.world.connect(), lite_sub_client_quota="2")
    client = consumer(grpc)
    assert sync(client, "d1", group="nowhere") == v2.ILLEGAL_CONSUMER_GROUP
    assert sync(client, "d1", topic="elsewhere") == v2.ILLEGAL_TOPIC
    many = [f"d{number}" for number in range(303)]
    quota = v2.LITE_SUBSCRIPTION_QUOTA_EXCEEDED
    assert sync(client, *many, action=v2.COMPLETE_ADD) == quota
    assert sync(client, *many[:302], action=v2.COMPLETE_ADD) == v2.OK


def test_the_brokers_quota_of_subscriptions(tmp_path: Path) -> None:
    world = lite_world(tmp_path, max_lite_subscription_count=1)
    grpc = GrpcWorld(world)
    client = consumer(grpc)
    assert sync(client, "d1") == v2.OK
    assert sync(client, "d2") == v2.LITE_SUBSCRIPTION_QUOTA_EXCEEDED
    grpc.proxy.stop()
    world.stop()


def test_too_many_subscriptions_in_a_second(grpc: GrpcWorld, monkeypatch: Any) -> None:
    monkeypatch.setattr("firearrow.proxy.lite.ADDS_PER_S_MAX", 2)
    client = consumer(grpc)
    codes = [sync(client, f"d{number}") for number in range(3)]
    assert codes == [v2.OK, v2.OK, v2.TOO_MANY_REQUESTS]
    assert sync(client, "d1", action=v2.COMPLETE_ADD) == v2.OK
    grpc.world.clock.advance(1)
    assert sync(client, "d9") == v2.OK


def test_where_a_subscription_begins(grpc: GrpcWorld) -> None:
    client = consumer(grpc)
    send(client, "d1", b"0", b"1", b"2")
    send(client, "d2", b"3")
    assert sync(client, "d1", offset=2) == v2.OK
    assert sync(client, "d2", policy=v2.OffsetOption.MAX) == v2.OK
    assert texts(receive(client)) == [b"2"]


# -- receives


@pytest.mark.parametrize("kind", [v2.LITE_PUSH_CONSUMER, v2.LITE_SIMPLE_CONSUMER])
def test_what_a_lite_consumer_receives(grpc: GrpcWorld, kind: v2.ClientType.ValueType) -> None:
    client = grpc.connect("c1")
    client.settings(settings_of(kind))
    sync(client, "d1", "d2")
    send(client, "d1", b"a", b"b")
    send(client, "d2", b"c")
    messages = receive(client)
    shown = [(m.body, m.system_properties.lite_topic) for m in messages]
    assert shown == [(b"a", "d1"), (b"b", "d1"), (b"c", "d2")]
    system = messages[1].system_properties
    assert (system.message_type, system.queue_offset, system.delivery_attempt) == (v2.LITE, 1, 1)
    assert messages[0].topic.name == PARENT
    for got in messages:
        assert ack(client, got, got.system_properties.lite_topic) == v2.OK
    assert grpc.world.core.offsets.find(queue_of("d1"), GROUP, 0) == 2


def test_a_client_need_not_tell_the_lite_topic_when_it_acknowledges(grpc: GrpcWorld) -> None:
    client = consumer(grpc)
    sync(client, "d1")
    send(client, "d1", b"a")
    (got,) = receive(client)
    assert ack(client, got) == v2.OK
    assert grpc.world.core.offsets.find(queue_of("d1"), GROUP, 0) == 1


def test_a_receipt_of_another_proxy_counts_with_the_lite_topic_told(grpc: GrpcWorld) -> None:
    client = consumer(grpc)
    sync(client, "d1")
    send(client, "d1", b"a")
    (got,) = receive(client)
    fields = got.system_properties.receipt_handle.split(" ")
    got.system_properties.receipt_handle = " ".join(fields[:9])
    assert ack(client, got, "d1") == v2.OK
    assert grpc.world.core.offsets.find(queue_of("d1"), GROUP, 0) == 1


def test_what_is_not_acknowledged_comes_again_with_its_attempt(grpc: GrpcWorld) -> None:
    client = consumer(grpc)
    sync(client, "d1")
    send(client, "d1", b"a")
    receive(client)
    grpc.world.clock.advance(31)
    (again,) = receive(client)
    assert again.system_properties.delivery_attempt == 2


def test_the_invisible_time_of_a_lite_message_is_changed(grpc: GrpcWorld) -> None:
    client = consumer(grpc)
    sync(client, "d1")
    send(client, "d1", b"a")
    (got,) = receive(client)
    request = rpc.ChangeInvisibleDurationRequest(
        receipt_handle=got.system_properties.receipt_handle, suspend=True
    )
    request.group.name, request.topic.name = GROUP, PARENT
    request.invisible_duration.seconds = 5
    answer = client.call("ChangeInvisibleDuration", request)
    assert answer.status.code == v2.OK
    assert answer.receipt_handle.endswith(" d1")
    grpc.world.clock.advance(4)
    stream, none = client.receive(PARENT, GROUP)
    assert none == []
    grpc.world.clock.advance(2)
    assert texts(client.delivered(stream)) == [b"a"]


def test_messages_in_work_are_renewed(grpc: GrpcWorld) -> None:
    client = consumer(grpc)
    sync(client, "d1")
    send(client, "d1", b"a")
    (got,) = receive(client, auto_renew=True)
    heartbeat = rpc.HeartbeatRequest(client_type=v2.LITE_PUSH_CONSUMER)
    heartbeat.group.name = GROUP
    for _ in range(10):
        assert client.call("Heartbeat", heartbeat).status.code == v2.OK
        sync(client, "d1", action=v2.COMPLETE_ADD)
        grpc.world.clock.advance(30)
    assert receive(client) == []
    assert ack(client, got, "d1") == v2.OK


def test_a_message_that_failed_too_often_is_a_dead_letter(grpc: GrpcWorld) -> None:
    body = b'{"groupName":"%s","retryMaxTimes":1}' % GROUP.encode()
    assert grpc.world.connect().call(200, body=body).code == 0
    client = consumer(grpc)
    sync(client, "d1")
    send(client, "d1", b"bad", b"good")
    for _ in range(2):
        assert texts(receive(client)) == [b"bad", b"good"]
        grpc.world.clock.advance(31)
    assert receive(client) == []
    assert grpc.world.store.max_offset(f"%DLQ%{GROUP}", 0) == 2
    assert grpc.world.core.offsets.find(queue_of("d1"), GROUP, 0) == 2


def test_a_client_can_give_a_message_to_the_dead_letters(grpc: GrpcWorld) -> None:
    client = consumer(grpc)
    sync(client, "d1")
    send(client, "d1", b"bad", b"good")
    bad, good = receive(client)
    request = rpc.ForwardMessageToDeadLetterQueueRequest(
        receipt_handle=bad.system_properties.receipt_handle,
        message_id=bad.system_properties.message_id,
        lite_topic="d1",
    )
    request.group.name, request.topic.name = GROUP, PARENT
    assert client.call("ForwardMessageToDeadLetterQueue", request).status.code == v2.OK
    assert ack(client, good) == v2.OK
    assert grpc.world.store.max_offset(f"%DLQ%{GROUP}", 0) == 1
    assert grpc.world.core.offsets.find(queue_of("d1"), GROUP, 0) == 2


def test_a_client_that_did_not_say_what_it_is_does_not_get_the_parents_messages(
    grpc: GrpcWorld,
) -> None:
    client = grpc.connect("c1")
    send(client, "d1", b"x")
    stream, none = client.receive(PARENT, GROUP)
    assert none == []
    assert client.status_of(stream) == v2.UNRECOGNIZED_CLIENT_TYPE


def test_a_client_with_too_much_in_work_gets_no_more(grpc: GrpcWorld) -> None:
    client = consumer(grpc)
    names = [f"d{number}" for number in range(110)]
    sync(client, *names)
    for name in names:
        send(client, name, b"x")
    count = 0
    while count <= 100:
        found = receive(client, auto_renew=True)
        assert found
        count += len(found)
    stream, _ = client.receive(PARENT, GROUP, auto_renew=True)
    assert client.status_of(stream) == v2.FORBIDDEN


# -- who has a lite topic


def commands(client: Client, stream: Stream) -> list[str]:
    return [
        command.notify_unsubscribe_lite_command.lite_topic
        for command in client.messages("Telemetry", stream)
        if command.WhichOneof("command") == "notify_unsubscribe_lite_command"
    ]


def test_the_client_that_loses_an_exclusive_lite_topic_is_told(grpc: GrpcWorld) -> None:
    create_group(grpc.world.connect(), lite_sub_model="Exclusive")
    first, second = grpc.connect("c1"), grpc.connect("c2")
    stream, _ = first.settings(settings_of())
    second.settings(settings_of())
    sync(first, "d1", "d2")
    sync(second, "d1")
    assert commands(first, stream) == ["d1"]
    send(second, "d1", b"one")
    send(second, "d2", b"two")
    assert texts(receive(first)) == [b"two"]
    assert texts(receive(second)) == [b"one"]


def test_what_waits_for_a_client_that_terminates_goes_to_another(grpc: GrpcWorld) -> None:
    first, second = consumer(grpc, "c1"), consumer(grpc, "c2")
    for client in (first, second):
        sync(client, "d1", "d2")
    send(first, "d1", b"one")
    send(first, "d2", b"two")
    request = rpc.NotifyClientTerminationRequest()
    request.group.name = GROUP
    assert first.call("NotifyClientTermination", request).status.code == v2.OK
    assert sorted(texts(receive(second))) == [b"one", b"two"]


def test_what_waits_for_a_client_whose_stream_breaks_goes_to_another(grpc: GrpcWorld) -> None:
    first, second = grpc.connect("c1"), consumer(grpc, "c2")
    stream, _ = first.settings(settings_of())
    for client in (first, second):
        sync(client, "d1", "d2")
    send(first, "d1", b"one")
    send(first, "d2", b"two")
    first.wire.h2.reset_stream(stream.stream_id)
    first.wire.exchange()
    assert sorted(texts(receive(second))) == [b"one", b"two"]
    sync(first, "d3", action=v2.COMPLETE_ADD)
    send(second, "d3", b"three")
    assert texts(receive(first)) == [b"three"], "it is back"


def test_each_lite_topic_lies_on_one_of_two_brokers(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, brokers=2, enable_lmq=True, enable_multi_dispatch=True)
    for member in cluster.brokers:
        create_parent(member.world.connect())
        create_group(member.world.connect())
    cluster.clock.advance(31)
    client = cluster.grpc.connect("c1")
    client.settings(settings_of())
    cluster.clock.advance()
    names = [f"d{number}" for number in range(12)]
    request = rpc.SyncLiteSubscriptionRequest(action=v2.PARTIAL_ADD, lite_topic_set=names)
    request.group.name, request.topic.name = GROUP, PARENT
    stream = client.start("SyncLiteSubscription", request)
    cluster.clock.advance()
    (answer,) = client.messages("SyncLiteSubscription", stream)
    assert answer.status.code == v2.OK
    for name in names:
        sent = client.start(
            "SendMessage",
            rpc.SendMessageRequest(messages=[message(PARENT, b"x", lite_topic=name)]),
        )
        cluster.clock.advance()
        (answer,) = client.messages("SendMessage", sent)
        assert answer.status.code == v2.OK
    found = []
    for member in cluster.brokers:
        receive = rpc.ReceiveMessageRequest(batch_size=32)
        receive.group.name, receive.message_queue.topic.name = GROUP, PARENT
        receive.message_queue.broker.name = member.name
        receive.invisible_duration.seconds = 30
        receive.long_polling_timeout.seconds = 5
        stream = client.start("ReceiveMessage", receive, timeout="20S")
        cluster.clock.advance()
        delivered = client.delivered(stream)
        info = member.world.connect().call(200074).json()
        assert info["liteSubscriptionCount"] == len(delivered) > 0, "only what belongs there"
        found += [m.system_properties.lite_topic for m in delivered]
    assert sorted(found) == sorted(names)
    cluster.stop()
