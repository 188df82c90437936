"""The Admin service, as an operator with grpcurl sees it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import Connection, World
from tests.support.cluster import Cluster
from tests.support.grpc import Client, GrpcWorld, Stream

from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.pb import admin_pb2 as rpc
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2

START_S = 1_700_000_000  # of the virtual clock


@pytest.fixture(params=["up", "proxy"])
def grpc(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GrpcWorld]:
    """The broker in the proxy's process (``firearrow up``), and elsewhere (``firearrow proxy``)."""
    if request.param == "proxy":
        cluster = Cluster(tmp_path)
        cluster.create_topic("orders")
        yield cluster.grpc
        cluster.stop()
        return
    world = World(tmp_path)
    grpc = GrpcWorld(world)
    grpc.create_topic("orders")
    yield grpc
    grpc.proxy.stop()
    world.stop()


class Operator:
    """Somebody with grpcurl: no client id, no settings."""

    def __init__(self, grpc: GrpcWorld) -> None:
        self.grpc = grpc
        self.wire = grpc.wire()

    def start(self, method: str, request: Any) -> Stream:
        stream = self.wire.open(f"/apache.rocketmq.v2.Admin/{method}")
        self.wire.write(stream, request.SerializeToString(), end=True)
        self.grpc.world.clock.advance(0)
        self.wire.exchange()
        return stream

    def answer(self, stream: Stream, request: Any) -> Any:
        self.wire.exchange()
        assert stream.grpc_status == calls.OK, stream.trailers or stream.headers
        (data,) = stream.raw_messages()
        name = type(request).__name__.replace("Request", "Response")
        return getattr(rpc, name).FromString(data)

    def ask(self, method: str, request: Any) -> Any:
        return self.answer(self.start(method, request), request)


@pytest.fixture
def operator(grpc: GrpcWorld) -> Operator:
    return Operator(grpc)


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


def consumer(
    grpc: GrpcWorld, group: str, expression: str = "*", client_id: str = "reader"
) -> tuple[Client, Stream]:
    """A push consumer with its Telemetry stream."""
    settings = v2.Settings(client_type=v2.PUSH_CONSUMER)
    settings.user_agent.language, settings.user_agent.version = v2.GOLANG, "5.1.4"
    settings.user_agent.hostname = "shop-1"
    settings.subscription.group.name = group
    entry = settings.subscription.subscriptions.add()
    entry.topic.name, entry.expression.expression = "orders", expression
    entry.expression.type = v2.TAG
    client = grpc.connect(client_id)
    stream, _ = client.settings(settings)
    return client, stream


def remoting_consumer(grpc: GrpcWorld, group: str, client_id: str) -> Connection:
    connection = grpc.world.connect()
    consumer = {
        "groupName": group,
        "consumeType": "CONSUME_PASSIVELY",
        "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
        "subscriptionDataSet": [{"topic": "orders", "subString": "A", "subVersion": 1}],
    }
    body = {"clientID": client_id, "consumerDataSet": [consumer], "producerDataSet": []}
    assert connection.call(34, body=json.dumps(body).encode()).code == 0
    return connection


def name(text: str) -> v2.Resource:
    return v2.Resource(name=text)


# -- topics


def test_a_topic(grpc: GrpcWorld, operator: Operator) -> None:
    grpc.create_topic("later", "DELAY")
    answer = operator.ask(
        "DescribeTopicStatus", rpc.DescribeTopicStatusRequest(topic=name("later"))
    )
    assert answer.status.code == v2.OK
    assert answer.topic_message_type == v2.DELAY
    assert answer.tags["message.type"] == "DELAY"


def test_a_topics_route(operator: Operator) -> None:
    answer = operator.ask("GetTopicRoute", rpc.GetTopicRouteRequest(topic=name("orders")))
    route = json.loads(answer.topic_route_data)
    ((broker,), (queues,)) = route["brokerDatas"], route["queueDatas"]
    assert broker["brokerAddrs"] == {"0": "127.0.0.1:10911"}
    assert broker["brokerName"] == queues["brokerName"]
    assert (queues["readQueueNums"], queues["writeQueueNums"], queues["perm"]) == (1, 1, 6)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("DescribeTopicStatus", rpc.DescribeTopicStatusRequest(topic=name("nowhere"))),
        ("GetTopicRoute", rpc.GetTopicRouteRequest(topic=name("nowhere"))),
        ("QueryTimeSpan", rpc.QueryTimeSpanRequest(group=name("g"), topics=[name("nowhere")])),
        ("AdminSendMessage", rpc.AdminSendMessageRequest(topic=name("nowhere"), body=b"x")),
    ],
)
def test_a_topic_that_is_not_there(operator: Operator, method: str, request_: Any) -> None:
    assert operator.ask(method, request_).status.code == v2.TOPIC_NOT_FOUND


# -- groups


def test_the_consumers_of_a_group(grpc: GrpcWorld, operator: Operator) -> None:
    consumer(grpc, "readers")
    remoting_consumer(grpc, "readers", "old@1")
    request = rpc.ListConsumerConnectionRequest(group=name("readers"))
    found = {
        info.client_id: info for info in operator.ask("ListConsumerConnection", request).client_info
    }
    assert set(found) == {"reader", "old@1"}
    assert (found["reader"].language, found["reader"].version) == ("GOLANG", "5.1.4")
    assert found["reader"].hostname == "shop-1"
    assert found["old@1"].egress_ip == "127.0.0.1"
    assert found["old@1"].message_model == rpc.CLUSTERING
    request.topic.name = "another"
    assert not operator.ask("ListConsumerConnection", request).client_info


def test_subscriptions(grpc: GrpcWorld, operator: Operator, client: Client) -> None:
    consumer(grpc, "readers", "A || B")
    client.produce("orders")
    _, (got,) = client.receive("orders", "offline")
    client.ack(got, "offline")
    grpc.world.clock.advance(30)  # so that the group's progress is known

    def ask(**fields: Any) -> dict[str, Any]:
        answer = operator.ask("ListSubscription", rpc.ListSubscriptionRequest(**fields))
        assert answer.status.code == v2.OK
        return {info.group.name: info for info in answer.subscription_info}

    info = ask(group=name("readers"))["readers"]
    assert (info.topic.name, info.expression.expression) == ("orders", "A || B")
    assert info.online
    assert info.subscription_consistency
    assert not ask(group=name("offline"))["offline"].online
    assert set(ask(topic=name("orders"))) >= {"readers"}
    assert ask(group=name("readers"), topic=name("another")) == {}
    consumer(grpc, "readers", "B", "reader-2")
    assert not ask(group=name("readers"))["readers"].subscription_consistency
    refused = operator.ask("ListSubscription", rpc.ListSubscriptionRequest())
    assert refused.status.code == v2.BAD_REQUEST


def test_each_clients_subscriptions(grpc: GrpcWorld, operator: Operator) -> None:
    consumer(grpc, "readers", "A")
    consumer(grpc, "readers", "B", "reader-2")
    request = rpc.DescribeSubscriptionRequest(group=name("readers"))
    answer = operator.ask("DescribeSubscription", request)
    found = {
        entry.client_info.client_id: entry.subscription_info.expression.expression
        for entry in answer.client_subscription_info
    }
    assert found == {"reader": "A", "reader-2": "B"}


def test_a_subscription_cannot_be_deleted(operator: Operator) -> None:
    request = rpc.DeleteSubscriptionRequest(topic=name("orders"), group=name("readers"))
    assert operator.ask("DeleteSubscription", request).status.code == v2.NOT_IMPLEMENTED


def commit(client: Client, offset: int, group: str = "readers") -> None:
    request = service_pb2.UpdateOffsetRequest(offset=offset)
    request.group.name, request.message_queue.topic.name = group, "orders"
    assert client.call("UpdateOffset", request).status.code == v2.OK


def test_how_far_a_group_is_behind(grpc: GrpcWorld, operator: Operator, client: Client) -> None:
    for _ in range(5):
        client.produce("orders")
    consumer(grpc, "readers")
    commit(client, 2)
    grpc.world.clock.advance(30)
    request = rpc.DescribeGroupAccumulationRequest(group=name("readers"), topics=[name("orders")])
    answer = operator.ask("DescribeGroupAccumulation", request)
    assert answer.status.code == v2.OK
    assert answer.accumulation.accumulation == 3
    assert answer.topic_accumulation["orders"].ready_messages == 3
    assert answer.accumulation.last_consume_timestamp == START_S * 1000
    assert answer.accumulation.deliver_delay_time.seconds == 30


def test_the_times_of_a_groups_queues(grpc: GrpcWorld, operator: Operator, client: Client) -> None:
    client.produce("orders")
    grpc.world.clock.advance(10)
    client.produce("orders")
    consumer(grpc, "readers")
    commit(client, 1)
    request = rpc.QueryTimeSpanRequest(group=name("readers"), topics=[name("orders")])
    (span,) = operator.ask("QueryTimeSpan", request).queue_time_span_list
    assert span.message_queue.topic.name == "orders"
    assert (span.min_timestamp, span.max_timestamp) == (START_S * 1000, (START_S + 10) * 1000)


def test_a_reset_goes_back_in_time(grpc: GrpcWorld, operator: Operator, client: Client) -> None:
    for _ in range(3):
        client.produce("orders")
        grpc.world.clock.advance(10)
    consumer(grpc, "readers")
    commit(client, 3)
    request = rpc.ResetGroupOffsetRequest(topic=name("orders"), group=name("readers"))
    assert operator.ask("ResetGroupOffset", request).status.code == v2.BAD_REQUEST
    request.reset_timestamp.seconds = START_S + 10
    assert operator.ask("ResetGroupOffset", request).status.code == v2.OK
    fields = {"consumerGroup": "readers", "topic": "orders", "queueId": 0, "queueOffset": 3}
    fields |= {"maxMsgNums": 1, "sysFlag": 4, "subscription": "*"}
    moved = grpc.world.connect().call(11, fields)
    assert moved.ext["nextBeginOffset"] == "1"


# -- messages


def test_messages_by_id_and_key(grpc: GrpcWorld, operator: Operator, client: Client) -> None:
    client.produce("orders", b"one", message_id="01AA", keys=["k1"])
    client.produce("orders", b"two", message_id="01BB", keys=["k1"])
    grpc.world.clock.advance(5)  # the index is written

    def find(**fields: Any) -> Any:
        return operator.ask("QueryMessage", rpc.ListMessageRequest(topic=name("orders"), **fields))

    assert [m.body for m in find(message_id="01BB").messages] == [b"two"]
    assert {m.body for m in find(message_key="k1").messages} == {b"one", b"two"}
    assert len(find(message_key="k1", max_message_nums=1).messages) == 1
    assert find(message_id="nothing").status.code == v2.MESSAGE_NOT_FOUND
    assert find(subscription="x").status.code == v2.NOT_IMPLEMENTED


def test_an_operator_sends_a_message(operator: Operator, client: Client) -> None:
    request = rpc.AdminSendMessageRequest(
        topic=name("orders"), tag="A", key="k", body=b"test", user_properties={"x": "y"}
    )
    answer = operator.ask("AdminSendMessage", request)
    assert answer.status.code == v2.OK
    _, (got,) = client.receive("orders")
    assert got.body == b"test"
    assert got.system_properties.message_id == answer.message_id
    assert (got.system_properties.tag, list(got.system_properties.keys)) == ("A", ["k"])
    assert dict(got.user_properties) == {"x": "y"}
    request.body = b""
    assert operator.ask("AdminSendMessage", request).status.code == v2.MESSAGE_BODY_EMPTY


# -- clients


def test_the_stacks_of_a_grpc_client(grpc: GrpcWorld, operator: Operator) -> None:
    reader, telemetry = consumer(grpc, "readers")
    request = rpc.PrintThreadStackTraceRequest(client_id="reader", group=name("readers"))
    waiting = operator.start("PrintThreadStackTrace", request)
    assert not waiting.ended
    command = reader.messages("Telemetry", telemetry)[-1].print_thread_stack_trace_command
    answer = service_pb2.TelemetryCommand()
    answer.status.code = v2.OK
    answer.thread_stack_trace.nonce = command.nonce
    answer.thread_stack_trace.thread_stack_trace = "main: at rest"
    reader.wire.write(telemetry, answer.SerializeToString())
    grpc.world.clock.advance(0)
    assert operator.answer(waiting, request).thread_stack_trace == "main: at rest"


def test_a_client_that_does_not_answer(grpc: GrpcWorld, operator: Operator) -> None:
    consumer(grpc, "readers")
    request = rpc.PrintThreadStackTraceRequest(client_id="reader", group=name("readers"))
    waiting = operator.start("PrintThreadStackTrace", request)
    grpc.world.clock.advance(6)
    assert operator.answer(waiting, request).status.code == v2.PROXY_TIMEOUT


@pytest.mark.parametrize("code", [v2.OK, v2.FAILED_TO_CONSUME_MESSAGE, v2.NOT_IMPLEMENTED])
def test_a_client_consumes_a_message_for_the_operator(
    grpc: GrpcWorld, operator: Operator, client: Client, code: v2.Code.ValueType
) -> None:
    client.produce("orders", b"one", message_id="01AA")
    reader, telemetry = consumer(grpc, "readers")
    grpc.world.clock.advance(5)
    request = rpc.VerifyMessageRequest(
        client_id="reader", group=name("readers"), topic=name("orders"), message_id="01AA"
    )
    waiting = operator.start("VerifyMessage", request)
    command = reader.messages("Telemetry", telemetry)[-1].verify_message_command
    assert command.message.body == b"one"
    answer = service_pb2.TelemetryCommand()
    answer.status.code = code
    answer.verify_message_result.nonce = command.nonce
    reader.wire.write(telemetry, answer.SerializeToString())
    grpc.world.clock.advance(0)
    assert operator.answer(waiting, request).status.code == code


def test_a_message_to_verify_that_is_not_there(grpc: GrpcWorld, operator: Operator) -> None:
    request = rpc.VerifyMessageRequest(
        client_id="reader", group=name("readers"), topic=name("orders"), message_id="01AA"
    )
    assert operator.ask("VerifyMessage", request).status.code == v2.MESSAGE_NOT_FOUND


def test_answers_that_nobody_asked_for(grpc: GrpcWorld) -> None:
    reader, telemetry = consumer(grpc, "readers")
    answer = service_pb2.TelemetryCommand()
    answer.thread_stack_trace.nonce = "7"
    reader.wire.write(telemetry, answer.SerializeToString())
    assert not telemetry.ended


def test_what_is_known_of_a_grpc_client(grpc: GrpcWorld, operator: Operator) -> None:
    consumer(grpc, "readers", "A")
    request = rpc.GetConsumerRunningInfoRequest(client_id="reader", group=name("readers"))
    info = operator.ask("GetConsumerRunningInfo", request).consumer_running_info
    assert info.properties["PROP_CLIENT_VERSION"] == "5.1.4"
    assert info.subscriptions["orders"].expression == "A"


def test_what_a_remoting_client_says_of_itself(grpc: GrpcWorld, operator: Operator) -> None:
    old = remoting_consumer(grpc, "readers", "old@1")
    old.received()
    request = rpc.GetConsumerRunningInfoRequest(client_id="old@1", group=name("readers"))
    waiting = operator.start("GetConsumerRunningInfo", request)
    (asked,) = [frame for frame in old.received() if frame.code == 307]
    body = (
        b'{"properties":{"PROP_NAMESERVER_ADDR":"x"},'
        b'"subscriptionSet":[{"topic":"orders","subString":"A"}],'
        b'"mqTable":{{"brokerName":"b","queueId":3,"topic":"orders"}:'
        b'{"commitOffset":5,"cachedMsgCount":2}},'
        b'"statusTable":{"orders":{"consumeOKTPS":1.5,"consumeFailedMsgs":3}}}'
    )
    old.reply(asked, body)
    grpc.world.clock.advance(0)
    info = operator.answer(waiting, request).consumer_running_info
    assert info.subscriptions["orders"].expression == "A"
    (item,) = info.message_queue_table
    assert (item.message_queue.id, item.process_queue_info.commit_offset) == (3, 5)
    assert info.consume_status_table["orders"].consume_ok_tps == 1.5


@pytest.mark.parametrize("method", ["GetConsumerRunningInfo", "PrintThreadStackTrace"])
def test_a_client_that_nobody_knows(grpc: GrpcWorld, operator: Operator, method: str) -> None:
    request = getattr(rpc, method + "Request")(client_id="nobody", group=name("readers"))
    assert operator.ask(method, request).status.code == v2.INTERNAL_SERVER_ERROR


# -- the proxy


def test_the_proxys_own_numbers(grpc: GrpcWorld, operator: Operator) -> None:
    consumer(grpc, "readers")
    settings = v2.Settings(client_type=v2.PRODUCER)
    settings.publishing.topics.add(name="orders")
    grpc.connect("writer").settings(settings)
    answer = operator.ask("GetProxyRuntimeStats", rpc.GetProxyRuntimeStatsRequest())
    assert (answer.producers, answer.consumers) == (1, 1)
    assert answer.version


def test_the_proxys_rates(grpc: GrpcWorld, operator: Operator, client: Client) -> None:
    def rates() -> tuple[float, float]:
        answer = operator.ask("GetProxyRuntimeStats", rpc.GetProxyRuntimeStatsRequest())
        return answer.in_tps, answer.out_tps

    assert rates() == (0, 0)
    for _ in range(30):
        client.produce("orders")
    _, received = client.receive("orders", "readers")
    assert len(received) == 30
    request = service_pb2.PullMessageRequest(offset=0, batch_size=30)
    request.group.name, request.message_queue.topic.name = "pullers", "orders"
    client.start("PullMessage", request)
    grpc.world.clock.advance(30)
    in_tps, out_tps = rates()
    assert in_tps == pytest.approx(1, rel=0.1)
    assert out_tps == pytest.approx(2, rel=0.1)
    grpc.world.clock.advance(70)
    assert rates() == (0, 0)


def test_the_log_level(operator: Operator) -> None:
    log = logging.getLogger("firearrow")
    before = log.level
    try:
        request = rpc.ChangeLogLevelRequest(level=rpc.ChangeLogLevelRequest.DEBUG)
        assert "DEBUG" in operator.ask("ChangeLogLevel", request).remark
        assert log.isEnabledFor(logging.DEBUG)
    finally:
        log.setLevel(before)
