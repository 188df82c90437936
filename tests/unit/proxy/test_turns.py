"""Many receives at once: they take turns with whatever else clients want."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import World
from tests.support.grpc import Client, GrpcWorld, Stream

from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.proxy.service import SERVICE
from firearrow.proxy.turns import RECEIVES_A_TURN, RECEIVES_TOGETHER_MAX

TOPIC = "orders"
MESSAGES = 100


@pytest.fixture
def world(tmp_path: Path) -> Iterator[GrpcWorld]:
    broker = World(tmp_path)
    world = GrpcWorld(broker)
    world.create_topic(TOPIC)
    world.world.connect().call(200, body=b'{"groupName":"group"}')
    first = world.connect("first")
    first.receive(TOPIC)  # from here on the group gets what is sent
    world.world.clock.advance(30)
    for number in range(MESSAGES):
        first.produce(TOPIC, b"%d" % number)
    yield world
    world.proxy.stop()
    broker.stop()


def ask(client: Client) -> Stream:
    """Begin a receive of one message, within the turn of the loop that runs."""
    request = rpc.ReceiveMessageRequest(batch_size=1)
    request.group.name, request.message_queue.topic.name = "group", TOPIC
    request.invisible_duration.seconds = 30
    request.long_polling_timeout.seconds = 5
    stream = client.wire.open(
        SERVICE + "ReceiveMessage", {**client.metadata, "grpc-timeout": "20S"}
    )
    client.wire.write(stream, request.SerializeToString(), end=True)
    return stream


def bodies(client: Client, streams: list[Stream]) -> list[bytes]:
    client.wire.exchange()
    return [message.body for stream in streams for message in client.delivered(stream)]


def numbers(begin: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(begin, begin + count)]


def test_a_few_receives_are_answered_at_once(world: GrpcWorld) -> None:
    client = world.connect()
    streams = [ask(client) for _ in range(RECEIVES_A_TURN)]
    assert bodies(client, streams) == numbers(0, RECEIVES_A_TURN)
    world.world.clock.advance(0)
    assert bodies(client, [ask(client)]) == numbers(RECEIVES_A_TURN, 1)


def test_what_a_client_asks_together_is_answered_together(world: GrpcWorld) -> None:
    client = world.connect()
    streams = [ask(client) for _ in range(RECEIVES_TOGETHER_MAX + 1)]
    assert bodies(client, streams) == numbers(0, RECEIVES_TOGETHER_MAX)
    world.world.clock.advance(0)
    assert bodies(client, streams) == numbers(0, RECEIVES_TOGETHER_MAX + 1)


def test_others_need_not_wait_for_many_receives(world: GrpcWorld) -> None:
    clients = [world.connect(f"client-{number}") for number in range(4)]
    streams = {client: [ask(client) for _ in range(RECEIVES_A_TURN)] for client in clients}
    last = clients[-1]
    assert bodies(last, streams[last]) == []
    assert answered_at_once(last).status.code == v2.TOPIC_NOT_FOUND
    world.world.clock.advance(0)
    # In the order in which they asked.
    assert [bodies(client, streams[client]) for client in clients] == [
        numbers(RECEIVES_A_TURN * n, RECEIVES_A_TURN) for n in range(4)
    ]


def answered_at_once(client: Client) -> Any:
    request = rpc.QueryRouteRequest()
    request.topic.name = "unknown"
    stream = client.wire.open(SERVICE + "QueryRoute", client.metadata)
    client.wire.write(stream, request.SerializeToString(), end=True)
    (response,) = client.messages("QueryRoute", stream)
    return response


def test_a_receive_that_is_given_up_before_its_turn_takes_nothing(world: GrpcWorld) -> None:
    first, second = world.connect("client-1"), world.connect("client-2")
    streams = [ask(first) for _ in range(RECEIVES_A_TURN)]
    given_up = ask(second)
    second.wire.h2.reset_stream(given_up.stream_id)
    second.wire.exchange()
    world.world.clock.advance(0)
    assert bodies(first, streams) == numbers(0, RECEIVES_A_TURN)
    assert bodies(first, [ask(first)]) == numbers(RECEIVES_A_TURN, 1)


def test_the_server_stops_before_a_receive_has_its_turn(world: GrpcWorld) -> None:
    first, second = world.connect("client-1"), world.connect("client-2")
    streams = [ask(first) for _ in range(RECEIVES_A_TURN)]
    late = ask(second)
    world.proxy.dismiss()
    world.world.clock.advance(0)
    assert len(bodies(first, streams)) == RECEIVES_A_TURN
    second.wire.exchange()
    assert second.status_of(late) == v2.MESSAGE_NOT_FOUND
    assert late.ended
