"""The proxy in front of brokers elsewhere: several, that come and go, and name servers that do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.cluster import NAME_SERVERS, Cluster
from tests.support.grpc import Client, consumer_settings, producer_settings
from tests.support.grpc import message as grpc_message

from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, brokers=2)
    cluster.create_topic("orders", queues=2)
    yield cluster
    cluster.stop()


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return cluster.grpc.connect()


def route(client: Client, topic: str = "orders") -> Any:
    request = rpc.QueryRouteRequest()
    request.topic.name = topic
    request.endpoints.scheme = v2.IPv4
    request.endpoints.addresses.add(host="192.0.2.7", port=443)
    return client.call("QueryRoute", request)


def receive_from(client: Client, broker: str, topic: str = "orders") -> list[v2.Message]:
    queue = v2.MessageQueue()
    queue.topic.name, queue.broker.name = topic, broker
    request = rpc.ReceiveMessageRequest(batch_size=32, message_queue=queue)
    request.group.name = "group"
    request.invisible_duration.seconds = 30
    request.long_polling_timeout.seconds = 5
    return client.delivered(client.start("ReceiveMessage", request, timeout="20S"))


def test_a_route_names_every_broker_and_the_access_point_of_the_client(client: Client) -> None:
    answer = route(client)
    assert answer.status.code == v2.OK
    queues = [(q.broker.name, q.id) for q in answer.message_queues]
    assert queues == [("broker-a", 0), ("broker-a", 1), ("broker-b", 0), ("broker-b", 1)]
    addresses = {
        (a.host, a.port) for q in answer.message_queues for a in q.broker.endpoints.addresses
    }
    assert addresses == {("192.0.2.7", 443)}


def test_messages_spread_over_the_brokers_and_are_acknowledged_where_they_lie(
    cluster: Cluster, client: Client
) -> None:
    for number in range(8):
        assert client.produce("orders", b"%d" % number).status.code == v2.OK
    found = {name: receive_from(client, name) for name in ("broker-a", "broker-b")}
    assert [len(messages) for messages in found.values()] == [4, 4]
    for messages in found.values():
        for message in messages:
            assert client.ack(message).status.code == v2.OK
    cluster.clock.advance(60)
    assert not receive_from(client, "broker-a") + receive_from(client, "broker-b")


def test_a_receipt_works_at_another_proxy(cluster: Cluster, client: Client) -> None:
    client.produce("orders")
    client.produce("orders")
    messages = receive_from(client, "broker-a") + receive_from(client, "broker-b")
    other = cluster.another_proxy().connect("client-2")
    assert [other.ack(message).status.code for message in messages] == [v2.OK, v2.OK]
    cluster.clock.advance(60)
    assert not receive_from(client, "broker-a") + receive_from(client, "broker-b")


def test_consumers_are_known_to_every_broker_of_their_topic_until_they_go(
    cluster: Cluster, client: Client
) -> None:
    client.settings(consumer_settings("readers"))
    cluster.grpc.connect("client-2").settings(consumer_settings("readers"))
    cluster.clock.advance()
    for member in cluster.brokers:
        online = member.world.core.members.consumers["readers"].client_ids()
        assert sorted(online) == ["client-1", "client-2"]
    request = rpc.NotifyClientTerminationRequest()
    request.group.name = "readers"
    client.call("NotifyClientTermination", request)
    cluster.clock.advance()
    for member in cluster.brokers:
        assert member.world.core.members.consumers["readers"].client_ids() == ["client-2"]


def test_a_broker_asks_the_producer_about_its_transaction(cluster: Cluster, client: Client) -> None:
    cluster.create_topic("money", "TRANSACTION")
    stream, _ = client.settings(producer_settings("money"))
    for _ in range(2):  # one on each broker
        sent = client.produce("money", b"half", message_type=v2.TRANSACTION)
        assert sent.status.code == v2.OK
    for _ in range(12):
        cluster.clock.advance(10)
        client.call("Heartbeat", rpc.HeartbeatRequest(client_type=v2.PRODUCER))
    commands = [
        m.recover_orphaned_transaction_command
        for m in client.messages("Telemetry", stream)
        if m.WhichOneof("command") == "recover_orphaned_transaction_command"
    ]
    asked = {command.transaction_id.rpartition("@")[2] for command in commands}
    assert asked == {"broker-a", "broker-b"}
    for command in {c.transaction_id.rpartition("@")[2]: c for c in commands}.values():
        request = rpc.EndTransactionRequest(
            message_id=command.message.system_properties.message_id,
            transaction_id=command.transaction_id,
            resolution=v2.COMMIT,
            source=v2.SOURCE_SERVER_CHECK,
        )
        request.topic.name = "money"
        assert client.call("EndTransaction", request).status.code == v2.OK
    cluster.clock.advance()
    for name in ("broker-a", "broker-b"):
        assert [m.body for m in receive_from(client, name, "money")] == [b"half"]


# -- brokers that end


def test_without_a_broker_new_messages_go_to_the_other(
    cluster: Cluster, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(4):
        assert client.produce("orders").status.code == v2.OK
    cluster.brokers[0].stop()
    cluster.clock.advance()
    codes = [client.produce("orders").status.code for _ in range(20)]
    assert codes.count(v2.OK) >= 19  # the first one that meets it learns it
    assert set(codes) <= {v2.OK, v2.PROXY_TIMEOUT}
    told = [r.message for r in caplog.records if "broker-a" in r.message and "reached" in r.message]
    assert len(told) == 1
    assert "127.0.0.1:10911" in told[0]


def test_what_only_a_dead_broker_can_do_is_refused_at_once_and_clearly(
    cluster: Cluster, client: Client
) -> None:
    client.produce("orders")
    client.produce("orders")
    message, _ = receive_from(client, "broker-a")
    cluster.brokers[0].stop()
    cluster.clock.advance()
    for _ in range(3):
        answer = client.ack(message)
        assert answer.status.code == v2.PROXY_TIMEOUT
        assert "broker-a at 127.0.0.1:10911" in answer.status.message


def test_a_broker_that_starts_again_is_used_again_and_knows_its_clients(
    cluster: Cluster, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.settings(consumer_settings("readers"))
    client.produce("orders", b"before")
    cluster.brokers[0].stop()
    cluster.clock.advance()
    while client.produce("orders").status.code == v2.OK and not caplog.records:
        pass
    cluster.brokers[0].start()
    cluster.clock.advance(2)
    assert [m.body for m in receive_from(client, "broker-a")] == [b"before"]
    readers = cluster.brokers[0].world.core.members.consumers["readers"]
    assert readers.client_ids() == ["client-1"]
    assert all(client.produce("orders").status.code == v2.OK for _ in range(8))
    assert any("answers again" in record.message for record in caplog.records)


def test_a_broker_that_moved_is_found(cluster: Cluster, client: Client) -> None:
    for _ in range(4):
        client.produce("orders")
    member = cluster.brokers[0]
    member.stop()
    member.address = ("127.0.0.1", 12911)
    member.start()
    cluster.clock.advance(1)
    client.produce("orders"), client.produce("orders")
    cluster.clock.advance(5)
    assert len(receive_from(client, "broker-a")) >= 2


# -- name servers that end


def test_one_name_server_is_enough(cluster: Cluster, client: Client) -> None:
    cluster.network.stop(NAME_SERVERS[0])
    cluster.clock.advance()
    assert route(client).status.code == v2.OK


def test_known_topics_need_no_name_server(cluster: Cluster, client: Client) -> None:
    assert client.produce("orders").status.code == v2.OK
    for address in NAME_SERVERS:
        cluster.network.stop(address)
    for _ in range(5):
        cluster.clock.advance(100)
        assert client.produce("orders").status.code == v2.OK


def test_without_a_name_server_an_unknown_topic_is_not_said_to_be_missing(
    cluster: Cluster, client: Client
) -> None:
    assert route(client, "absent").status.code == v2.TOPIC_NOT_FOUND
    for address in NAME_SERVERS:
        cluster.network.stop(address)
    answer = route(client)
    assert answer.status.code == v2.PROXY_TIMEOUT
    assert "no name server answers" in answer.status.message
    cluster.name_server(1)
    cluster.clock.advance(40)
    assert route(client).status.code == v2.OK


def test_a_new_topic_is_found_at_once(cluster: Cluster, client: Client) -> None:
    assert client.produce("later").status.code == v2.TOPIC_NOT_FOUND
    cluster.create_topic("later")
    assert client.produce("later").status.code == v2.OK


def test_topics_changed_by_an_operator_are_seen_within_a_minute(
    cluster: Cluster, client: Client
) -> None:
    assert len(route(client).message_queues) == 4
    cluster.create_topic("orders", queues=5)
    cluster.clock.advance(31)
    route(client)
    assert len(route(client).message_queues) == 10


def test_a_broker_that_hangs_gets_no_new_messages_until_it_answers(
    cluster: Cluster, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.settings(producer_settings("orders"))
    for _ in range(4):
        assert client.produce("orders").status.code == v2.OK
    ends = [end for end in cluster.network.accepted if end.local == ("127.0.0.1", 10911)]
    for end in ends:
        end.deaf = True
    message = rpc.SendMessageRequest(messages=[grpc_message("orders")])
    streams = [client.start("SendMessage", message) for _ in range(4)]
    cluster.clock.advance(3)
    codes = [client.messages("SendMessage", s)[0].status.code for s in streams]
    assert sorted(codes) == [v2.OK, v2.OK, v2.PROXY_TIMEOUT, v2.PROXY_TIMEOUT]
    assert all(client.produce("orders").status.code == v2.OK for _ in range(8))
    for end in ends:
        end.deaf = False
    client.call("Heartbeat", rpc.HeartbeatRequest(client_type=v2.PRODUCER))
    cluster.clock.advance()
    told = [r.message for r in caplog.records if "broker-a" in r.message]
    assert [text.endswith("answers again") for text in told] == [False, True]
    before = len(cluster.brokers[0].world.connect().pull("orders").records())
    for _ in range(4):
        client.produce("orders")
    assert len(cluster.brokers[0].world.connect().pull("orders").records()) > before
