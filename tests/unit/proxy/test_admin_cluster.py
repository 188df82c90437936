"""The Admin service of a proxy in front of two brokers: one answer for both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cluster import Cluster
from tests.unit.proxy.test_admin import START_S, Operator, consumer, name

from firearrow.protocol.grpc.pb import admin_pb2 as rpc
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2

BEHIND = rpc.DescribeGroupAccumulationRequest(group=name("readers"), topics=[name("orders")])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, brokers=2)
    cluster.create_topic("orders")
    yield cluster
    cluster.stop()


@pytest.fixture
def operator(cluster: Cluster) -> Operator:
    return Operator(cluster.grpc)


def fill(cluster: Cluster, count: int) -> None:
    """Messages on both brokers; the group has consumed one on each."""
    client = cluster.grpc.connect("writer")
    for number in range(count):
        sent = client.produce("orders", b"%d" % number, message_id=f"01{number:02}", keys=["k"])
        assert sent.status.code == v2.OK
        cluster.clock.advance(1)
    consumer(cluster.grpc, "readers")
    for member in cluster.brokers:
        request = service_pb2.UpdateOffsetRequest(offset=1)
        request.group.name, request.message_queue.topic.name = "readers", "orders"
        request.message_queue.broker.name = member.name
        assert client.call("UpdateOffset", request).status.code == v2.OK
    cluster.clock.advance(10)


def test_how_far_a_group_is_behind_on_both(cluster: Cluster, operator: Operator) -> None:
    fill(cluster, 10)
    answer = operator.ask("DescribeGroupAccumulation", BEHIND)
    assert answer.status.code == v2.OK
    assert answer.accumulation.accumulation == 8


def test_a_client_of_both_is_there_once(cluster: Cluster, operator: Operator) -> None:
    consumer(cluster.grpc, "readers", "A")
    cluster.clock.advance()
    request = rpc.ListConsumerConnectionRequest(group=name("readers"))
    (found,) = operator.ask("ListConsumerConnection", request).client_info
    assert found.client_id == "reader"


def test_a_reset_reaches_both(cluster: Cluster, operator: Operator) -> None:
    fill(cluster, 10)
    request = rpc.ResetGroupOffsetRequest(topic=name("orders"), group=name("readers"))
    request.reset_timestamp.seconds = START_S + 6
    assert operator.ask("ResetGroupOffset", request).status.code == v2.OK
    for member in cluster.brokers:
        fields = {"consumerGroup": "readers", "topic": "orders", "queueId": 0, "queueOffset": 1}
        fields |= {"maxMsgNums": 1, "sysFlag": 4, "subscription": "*"}
        moved = member.world.connect().call(11, fields)
        assert moved.ext["nextBeginOffset"] == "3"


def test_messages_and_times_of_both(cluster: Cluster, operator: Operator) -> None:
    fill(cluster, 4)
    found = operator.ask(
        "QueryMessage", rpc.ListMessageRequest(topic=name("orders"), message_key="k")
    )
    assert {m.body for m in found.messages} == {b"0", b"1", b"2", b"3"}
    request = rpc.QueryTimeSpanRequest(group=name("readers"), topics=[name("orders")])
    spans = operator.ask("QueryTimeSpan", request).queue_time_span_list
    assert {span.message_queue.broker.name for span in spans} == {"broker-a", "broker-b"}


def test_a_reset_that_does_not_reach_both_is_no_success(
    cluster: Cluster, operator: Operator
) -> None:
    fill(cluster, 2)
    cluster.brokers[1].stop()
    request = rpc.ResetGroupOffsetRequest(topic=name("orders"), group=name("readers"))
    request.reset_timestamp.seconds = START_S
    waiting = operator.start("ResetGroupOffset", request)
    cluster.clock.advance(6)
    assert operator.answer(waiting, request).status.code == v2.PROXY_TIMEOUT
