"""Consumers over gRPC that keep their own offsets."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from tests.support.grpc import Client, GrpcWorld, Stream

from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc

START_S = 1_700_000_000  # of the virtual clock


class Pulled(NamedTuple):
    code: int | None
    bodies: list[bytes]
    next_offset: int | None
    messages: list[v2.Message]


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


def queue(topic: str = "orders", number: int = 0, broker: str = "") -> v2.MessageQueue:
    made = v2.MessageQueue(id=number)
    made.topic.name, made.broker.name = topic, broker
    return made


def start_pull(
    client: Client, offset: int = 0, *, polling_s: int = 0, timeout: str = "30S", **fields: Any
) -> Stream:
    request = rpc.PullMessageRequest(offset=offset, batch_size=fields.pop("batch_size", 32))
    request.group.name = fields.pop("group", "pullers")
    request.message_queue.CopyFrom(fields.pop("queue", queue()))
    request.long_polling_timeout.seconds = polling_s
    if "tags" in fields:
        request.filter_expression.type = v2.TAG
        request.filter_expression.expression = fields.pop("tags")
    assert not fields
    return client.start("PullMessage", request, timeout=timeout)


def pulled(client: Client, stream: Stream) -> Pulled:
    """The parts of a pull, in the order in which they must come."""
    kinds, code, messages, next_offset = [], None, [], None
    for part in client.messages("PullMessage", stream):
        kind = part.WhichOneof("content")
        kinds.append(kind)
        if kind == "status":
            code = part.status.code
        elif kind == "message":
            messages.append(part.message)
        else:
            next_offset = part.next_offset
    assert kinds == sorted(kinds, key=["status", "message", "next_offset"].index)
    return Pulled(code, [m.body for m in messages], next_offset, messages)


def pull(client: Client, offset: int = 0, **fields: Any) -> Pulled:
    stream = start_pull(client, offset, **fields)
    assert stream.ended
    assert stream.grpc_status == calls.OK
    return pulled(client, stream)


def test_a_pull_gets_messages_and_where_to_go_on(client: Client) -> None:
    for number in range(5):
        client.produce("orders", b"%d" % number)
    first = pull(client, 1, batch_size=2)
    assert (first.code, first.bodies, first.next_offset) == (v2.OK, [b"1", b"2"], 3)
    assert [m.system_properties.queue_offset for m in first.messages] == [1, 2]
    # What is pulled is not in work: it has no receipt.
    assert not first.messages[0].system_properties.HasField("receipt_handle")
    assert pull(client, 3).bodies == [b"3", b"4"]


def test_a_pull_that_finds_nothing_says_so_at_once(client: Client) -> None:
    client.produce("orders")
    assert pull(client, 1)[:3] == (v2.MESSAGE_NOT_FOUND, [], 1)


@pytest.mark.parametrize("offset", [7, -1])
def test_an_offset_outside_of_the_queue(client: Client, offset: int) -> None:
    client.produce("orders")
    found = pull(client, offset)
    assert found.code == v2.ILLEGAL_OFFSET
    assert found.next_offset == (None if offset < 0 else 1)


def test_a_waiting_pull_is_woken_by_a_message(grpc: GrpcWorld, client: Client) -> None:
    stream = start_pull(client, polling_s=15)
    grpc.world.clock.advance(5)
    client.wire.exchange()
    assert not stream.ended
    grpc.connect("other").produce("orders", b"new")
    grpc.world.clock.advance(0.01)
    assert pulled(client, stream)[:3] == (v2.OK, [b"new"], 1)


@pytest.mark.parametrize(
    ("polling_s", "timeout", "latest_s"), [(10, "30S", 11.5), (60, "90S", 21.5), (20, "4S", 3.95)]
)
def test_a_waiting_pull_ends_in_time(
    grpc: GrpcWorld, client: Client, polling_s: int, timeout: str, latest_s: float
) -> None:
    stream = start_pull(client, polling_s=polling_s, timeout=timeout)
    grpc.world.clock.advance(latest_s - 2)
    client.wire.exchange()
    assert not stream.ended
    grpc.world.clock.advance(2.5)
    client.wire.exchange()
    assert stream.ended


def test_pulled_tags_are_exact_even_where_their_hashes_are_the_same(client: Client) -> None:
    client.produce("orders", b"1", tag="Aa")
    client.produce("orders", b"2", tag="BB")
    found = pull(client, tags="BB")
    assert (found.bodies, found.next_offset) == ([b"2"], 2)
    assert pull(client, 0, batch_size=1, tags="AaBB")[:2] == (v2.MESSAGE_NOT_FOUND, [])


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"queue": queue("nowhere")}, v2.TOPIC_NOT_FOUND),
        ({"queue": queue("a b")}, v2.ILLEGAL_TOPIC),
        ({"queue": queue(number=9)}, v2.BAD_REQUEST),
        ({"queue": queue(number=-1)}, v2.BAD_REQUEST),
        ({"queue": queue(broker="another")}, v2.BAD_REQUEST),
        ({"group": "a b"}, v2.ILLEGAL_CONSUMER_GROUP),
    ],
)
def test_pulls_that_are_refused(client: Client, fields: dict[str, Any], code: int) -> None:
    assert pull(client, **fields).code == code


def test_a_pull_of_what_nobody_may_read(grpc: GrpcWorld, client: Client) -> None:
    fields = {"topic": "orders", "readQueueNums": 1, "writeQueueNums": 1, "perm": 2}
    fields |= {"defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG"}
    assert grpc.world.connect().call(17, fields).code == 0
    assert pull(client).code == v2.FORBIDDEN


def test_a_pull_without_a_client_id(client: Client) -> None:
    client.metadata = {}
    assert pull(client).code == v2.CLIENT_ID_REQUIRED


def test_pull_consumers_are_online(grpc: GrpcWorld, client: Client) -> None:
    settings = v2.Settings(client_type=v2.PULL_CONSUMER)
    settings.subscription.group.name = "pullers"
    _, answer = client.settings(settings)
    assert answer.status.code == v2.OK
    request = rpc.HeartbeatRequest(client_type=v2.PULL_CONSUMER)
    request.group.name = "pullers"
    assert client.call("Heartbeat", request).status.code == v2.OK
    assert grpc.world.core.members.consumers["pullers"].client_ids() == ["client-1"]


# -- offsets


def get(client: Client, group: str = "pullers", **where: Any) -> tuple[int, int]:
    request = rpc.GetOffsetRequest(message_queue=queue(**where))
    request.group.name = group
    answer = client.call("GetOffset", request)
    return answer.status.code, answer.offset


def update(client: Client, offset: int, group: str = "pullers", **where: Any) -> int:
    request = rpc.UpdateOffsetRequest(message_queue=queue(**where), offset=offset)
    request.group.name = group
    code: int = client.call("UpdateOffset", request).status.code
    return code


def test_a_groups_offset_is_kept(grpc: GrpcWorld, client: Client) -> None:
    for _ in range(4):
        client.produce("orders")
    assert get(client) == (v2.OFFSET_NOT_FOUND, 0)
    pull(client)  # the group exists from now on
    assert update(client, 3) == v2.OK
    assert get(client) == (v2.OK, 3)
    assert get(client, "others") == (v2.OFFSET_NOT_FOUND, 0)
    # A remoting consumer of the group goes on where this one stopped.
    fields = {"consumerGroup": "pullers", "topic": "orders", "queueId": 0}
    assert grpc.world.connect().call(14, fields).ext["offset"] == "3"


@pytest.mark.parametrize(
    ("offset", "where", "code"),
    [
        (-1, {}, v2.ILLEGAL_OFFSET),
        (1, {"topic": "nowhere"}, v2.TOPIC_NOT_FOUND),
        (1, {"number": 4}, v2.BAD_REQUEST),
        (1, {"group": "a b"}, v2.ILLEGAL_CONSUMER_GROUP),
    ],
)
def test_offsets_that_are_refused(
    client: Client, offset: int, where: dict[str, Any], code: int
) -> None:
    assert update(client, offset, **where) == code


def test_a_group_that_may_not_be_made_has_no_offset(grpc: GrpcWorld, client: Client) -> None:
    grpc.world.settings.auto_create_subscription_group = False
    assert update(client, 1, "nobody") == v2.CONSUMER_GROUP_NOT_FOUND


def query(client: Client, policy: int, at_s: int | None = None, **where: Any) -> tuple[int, int]:
    request = rpc.QueryOffsetRequest(message_queue=queue(**where))
    request.query_offset_policy = policy  # type: ignore[assignment]
    if at_s is not None:
        request.timestamp.seconds = at_s
    answer = client.call("QueryOffset", request)
    return answer.status.code, answer.offset


def test_a_queues_offsets(grpc: GrpcWorld, client: Client) -> None:
    for _ in range(3):
        client.produce("orders")
        grpc.world.clock.advance(10)
    assert query(client, v2.BEGINNING) == (v2.OK, 0)
    assert query(client, v2.END) == (v2.OK, 3)
    assert query(client, v2.TIMESTAMP, START_S + 10) == (v2.OK, 1)
    assert query(client, v2.TIMESTAMP) == (v2.BAD_REQUEST, 0)
    assert query(client, v2.END, topic="nowhere") == (v2.TOPIC_NOT_FOUND, 0)
