"""Remoting clients that know nothing but the proxy's address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import Answered, Connection, pull_fields, send_fields
from tests.support.cluster import NAME_SERVERS, Cluster
from tests.support.grpc import consumer_settings

from firearrow.model import codes
from firearrow.model.clock import VirtualClock
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession
from firearrow.proxy.remote.forwarding import Forwarding

PROXY = ("192.0.2.7", 8081)
BROKERS = ("broker-a", "broker-b")


class Front:
    """The proxy's port, as remoting clients see it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.clock: VirtualClock = cluster.clock
        self.forwarding = Forwarding(cluster.backend)
        self.dispatcher = Dispatcher(self.forwarding.routes())
        self._ports = iter(range(50000, 60000))

    def session_closed(self, caller: RemotingSession) -> None:
        self.forwarding.closed(caller)

    def connect(self) -> Remote:
        return Remote(self, next(self._ports), PROXY)


class Remote(Connection):
    """A client whose requests are answered after they went elsewhere."""

    def __init__(self, front: Front, port: int, local: tuple[str, int]) -> None:
        super().__init__(front, port, local)
        self._front = front

    def call(
        self, code: int, ext: dict[str, Any] | None = None, body: bytes = b"", **more: Any
    ) -> Answered:
        self.received()
        opaque = self.send(code, ext, body, **more)
        self._front.clock.advance()
        (answer,) = [f for f in self.received() if f.header.opaque == opaque and f.header.flag & 1]
        return answer

    def send_to(self, broker: str, body: bytes = b"hello", **more: Any) -> Answered:
        return self.call(310, {**send_fields("orders", **more), "n": broker}, body)

    def pull_from(self, broker: str, **more: Any) -> Answered:
        return self.call(11, {**pull_fields("orders", **more), "bname": broker})

    def members(self, group: str) -> list[str]:
        ids: list[str] = self.call(38, {"consumerGroup": group}).json()["consumerIdList"]
        return sorted(ids)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, brokers=2)
    cluster.create_topic("orders")
    yield cluster
    cluster.stop()


@pytest.fixture
def front(cluster: Cluster) -> Front:
    return Front(cluster)


@pytest.fixture
def client(front: Front) -> Remote:
    return front.connect()


def test_a_route_names_the_proxy_in_the_place_of_every_broker(client: Remote) -> None:
    route = client.call(105, {"topic": "orders"}).json()
    addresses = {data["brokerName"]: data["brokerAddrs"] for data in route["brokerDatas"]}
    assert addresses == {name: {"0": "192.0.2.7:8081"} for name in BROKERS}
    assert [(q["brokerName"], q["writeQueueNums"]) for q in route["queueDatas"]] == [
        ("broker-a", 1),
        ("broker-b", 1),
    ]
    old = client.call(105, {"topic": "orders"}, version=300)
    assert b'"brokerAddrs":{0:"192.0.2.7:8081"}' in old.body
    assert client.call(105, {"topic": "absent"}).code == codes.TOPIC_NOT_EXIST


def test_messages_go_to_the_broker_that_the_client_chose_and_come_from_it(
    cluster: Cluster, client: Remote
) -> None:
    for broker in BROKERS:
        assert client.send_to(broker, broker.encode()).code == codes.SUCCESS
    for member in cluster.brokers:
        (record,) = member.world.connect().pull("orders").records()
        assert record.body == member.name.encode()
        (record,) = client.pull_from(member.name).records()
        assert record.body == member.name.encode()


def test_a_client_that_names_no_broker_is_served_where_there_is_one_only(
    cluster: Cluster, front: Front, client: Remote
) -> None:
    refused = client.call(310, send_fields("orders"), b"hello")
    assert refused.code == codes.VERSION_NOT_SUPPORTED
    assert "bname" in (refused.header.remark or "")
    cluster.grpc.create_topic("alone")  # on the first broker
    assert client.call(310, send_fields("alone"), b"hello").code == codes.SUCCESS
    assert client.call(11, pull_fields("alone")).records()[0].body == b"hello"
    refused = front.connect().call(310, send_fields("absent"), b"hello")
    assert refused.code == codes.TOPIC_NOT_EXIST


def test_a_transaction_is_ended_without_bname_where_the_client_deals_with_one_broker(
    cluster: Cluster, client: Remote
) -> None:
    end = {
        "producerGroup": "p",
        "tranStateTableOffset": 0,
        "commitLogOffset": 0,
        "commitOrRollback": 8,
    }
    assert client.call(37, end).code == codes.VERSION_NOT_SUPPORTED
    text = "UNIQ_KEY\x01id-1\x02TRAN_MSG\x01true\x02PGROUP\x01p\x02"
    fields = {**send_fields("orders", properties=text), "n": "broker-b", "f": 4}
    half = client.call(310, fields, b"half")
    offset = int(half.ext["msgId"][16:], 16)
    assert client.call(37, {**end, "commitLogOffset": offset}).code == codes.SUCCESS
    assert [r.body for r in client.pull_from("broker-b").records()] == [b"half"]


def test_a_message_is_sent_back_to_the_only_broker_of_its_topic(
    cluster: Cluster, client: Remote
) -> None:
    cluster.grpc.create_topic("alone")
    client.call(34, body=beat("client-0"))
    client.call(310, send_fields("alone"), b"hello")
    (record,) = client.call(11, pull_fields("alone")).records()
    back = {"group": "readers", "offset": record.physical_offset, "delayLevel": 1}
    assert client.call(36, {**back, "originTopic": "alone"}).code == codes.SUCCESS


def test_a_pull_waits_for_a_message(front: Front, client: Remote) -> None:
    client.send(11, {**pull_fields("orders", suspend_ms=20_000), "bname": "broker-b"})
    front.clock.advance(15)
    assert not client.received()
    front.connect().send_to("broker-b", b"at last")
    front.clock.advance(0.1)
    (answer,) = client.received()
    assert answer.records()[0].body == b"at last"


def test_a_client_that_goes_waits_no_longer(cluster: Cluster, front: Front, client: Remote) -> None:
    client.send(11, {**pull_fields("orders", suspend_ms=20_000), "bname": "broker-b"})
    client.heartbeat("readers", {"orders": "*"})
    front.clock.advance(1)
    client.drop()
    front.clock.advance(1)
    for member in cluster.brokers:
        assert "readers" not in member.world.core.members.consumers


def test_every_broker_knows_the_consumers_of_its_topics(
    cluster: Cluster, front: Front, client: Remote
) -> None:
    other = front.connect()
    for number, remote in enumerate((client, other)):
        remote.send(34, body=beat(f"client-{number}"))
    front.clock.advance()
    assert client.members("readers") == ["client-0", "client-1"]
    for member in cluster.brokers:
        online = member.world.core.members.consumers["readers"]
        assert sorted(online.client_ids()) == ["client-0", "client-1"]
        assert {c.language for c in online.clients.values()} == {"JAVA"}
        assert {c.version for c in online.clients.values()} == {479}
    client.call(35, {"clientID": "client-0", "consumerGroup": "readers"})
    assert other.members("readers") == ["client-1"]


def beat(client_id: str, group: str = "readers") -> bytes:
    consumer = {
        "groupName": group,
        "consumeType": "CONSUME_PASSIVELY",
        "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET",
        "subscriptionDataSet": [{"topic": "orders", "subString": "*", "subVersion": 1}],
    }
    return msgspec.json.encode(
        {"clientID": client_id, "producerDataSet": [], "consumerDataSet": [consumer]}
    )


def test_consumers_hear_of_each_other(front: Front, client: Remote) -> None:
    client.call(34, body=beat("client-0"))
    client.received()
    front.connect().call(34, body=beat("client-1"))
    told = [f for f in client.received() if f.header.code == 40]
    assert told
    assert all(f.ext == {"consumerGroup": "readers"} for f in told)


def test_what_a_broker_asks_of_a_consumer_is_answered_by_it(
    cluster: Cluster, front: Front, client: Remote
) -> None:
    client.call(34, body=beat("client-0"))
    admin = cluster.brokers[0].world.connect()
    opaque = admin.send(307, {"consumerGroup": "readers", "clientId": "client-0"})
    front.clock.advance()
    (question,) = [f for f in client.received() if f.header.code == 307]
    assert question.ext["consumerGroup"] == "readers"
    client.answer(question.header.opaque, b'{"properties":{}}')
    front.clock.advance()
    (answer,) = [f for f in admin.received() if f.header.opaque == opaque]
    assert (answer.code, answer.body) == (0, b'{"properties":{}}')


def test_a_popped_message_is_acknowledged_where_its_handle_says(
    cluster: Cluster, client: Remote
) -> None:
    client.send_to("broker-b")
    pop = {
        "consumerGroup": "group",
        "topic": "orders",
        "queueId": -1,
        "maxMsgNums": 8,
        "invisibleTime": 30_000,
        "pollTime": 0,
        "bornTime": cluster.clock.now_ms(),
        "initMode": 0,
    }
    popped = client.call(200050, {**pop, "bname": "broker-b"})
    handle = f"0 {popped.ext['popTime']} 30000 {popped.ext['reviveQid']} 0 broker-b 0 0"
    place = {"consumerGroup": "group", "topic": "orders", "queueId": 0, "offset": 0}
    longer = {**place, "extraInfo": handle, "invisibleTime": 60_000}
    changed = client.call(200053, longer)
    assert changed.code == codes.SUCCESS
    new = f"0 {changed.ext['popTime']} 60000 {changed.ext['reviveQid']} 0 broker-b 0 0"
    assert client.call(200051, {**place, "extraInfo": new}).code == codes.SUCCESS
    assert client.call(200051, {**place, "extraInfo": "nonsense"}).code != codes.SUCCESS
    cluster.clock.advance(70)
    assert not client.call(200050, {**pop, "bname": "broker-b"}).body


def test_a_query_finds_the_messages_of_every_broker(cluster: Cluster, client: Remote) -> None:
    for broker in BROKERS:
        client.send_to(broker, broker.encode(), properties="KEYS\x01k\x02UNIQ_KEY\x01u\x02")
    now = cluster.clock.now_ms()
    wanted = {
        "topic": "orders",
        "key": "k",
        "maxNum": 32,
        "beginTimestamp": 0,
        "endTimestamp": now + 1000,
    }
    cluster.clock.advance(5)
    found = client.call(12, wanted)
    assert sorted(record.body for record in found.records()) == [b"broker-a", b"broker-b"]
    assert client.call(12, {**wanted, "key": "other"}).code == codes.QUERY_NOT_FOUND


def test_a_wrong_expression_is_found_out_before_it_is_used(client: Remote) -> None:
    for expression, code in (("a > 1", codes.SUCCESS), ("a >", codes.SUBSCRIPTION_PARSE_FAILED)):
        subscription = {"topic": "orders", "subString": expression, "expressionType": "SQL92"}
        body = {"clientId": "c", "group": "g", "subscriptionData": subscription}
        assert client.call(46, body=msgspec.json.encode(body)).code == code


def test_offsets_and_locks_are_kept_by_the_broker_of_the_queue(
    cluster: Cluster, client: Remote
) -> None:
    place = {"consumerGroup": "readers", "topic": "orders", "queueId": 0, "bname": "broker-b"}
    client.send_to("broker-b")
    assert client.call(30, place).ext["offset"] == "1"
    assert client.call(15, {**place, "commitOffset": 1}).code == codes.SUCCESS
    assert client.call(14, place).ext["offset"] == "1"
    assert client.call(14, {**place, "bname": "broker-a"}).ext.get("offset") != "1"
    queue = {"topic": "orders", "brokerName": "broker-b", "queueId": 0}
    body = {"consumerGroup": "readers", "clientId": "client-0", "mqSet": [queue]}
    client.call(34, body=beat("client-0"))
    assert client.call(41, body=msgspec.json.encode(body)).json()["lockOKMQSet"] == [queue]
    taken = msgspec.json.encode({**body, "clientId": "client-1"})
    direct = cluster.brokers[1].world.connect().call(41, body=taken)
    assert direct.json()["lockOKMQSet"] == []
    assert client.call(42, body=msgspec.json.encode(body)).code == codes.SUCCESS


def test_what_comes_by_remoting_is_received_by_grpc_and_the_reverse(
    cluster: Cluster, client: Remote
) -> None:
    grpc = cluster.grpc.connect()
    text = "UNIQ_KEY\x01id-1\x02TAGS\x01red\x02KEYS\x01k1 k2\x02colour\x01dark\x02"
    client.call(310, {**send_fields("orders", properties=text), "n": "broker-a"}, b"one")
    _, (message,) = grpc.receive("orders")
    system = message.system_properties
    assert (message.body, system.message_id, system.tag) == (b"one", "id-1", "red")
    assert list(system.keys) == ["k1", "k2"]
    assert dict(message.user_properties) == {"colour": "dark"}
    sent = [grpc.produce("orders", b"two", tag="blue", keys=["k3"]) for _ in BROKERS]
    found = [
        r
        for b, start in (("broker-a", 1), ("broker-b", 0))
        for r in client.pull_from(b, offset=start).records()
    ]
    assert [r.body for r in found] == [b"two", b"two"]
    stored = [dict(p.split(b"\x01") for p in r.properties.split(b"\x02") if p) for r in found]
    assert {p[b"TAGS"] for p in stored} == {b"blue"}
    assert {p[b"KEYS"] for p in stored} == {b"k3"}
    assert {p[b"UNIQ_KEY"].decode() for p in stored} == {a.entries[0].message_id for a in sent}


def test_remoting_and_grpc_consumers_are_members_of_one_group(
    cluster: Cluster, client: Remote
) -> None:
    grpc = cluster.grpc.connect("grpc-client")
    grpc.settings(consumer_settings("readers", kind=v2.SIMPLE_CONSUMER))
    client.call(34, body=beat("client-0"))
    assert client.members("readers") == ["client-0", "grpc-client"]


def test_a_dead_broker_is_an_error_that_clients_try_again(cluster: Cluster, client: Remote) -> None:
    client.send_to("broker-a")
    cluster.brokers[0].stop()
    cluster.clock.advance()
    answer = client.send_to("broker-a")
    assert answer.code == codes.SYSTEM_ERROR
    assert "broker-a at 127.0.0.1:10911 cannot be reached" in (answer.header.remark or "")
    assert client.send_to("broker-b").code == codes.SUCCESS
    unknown = client.send_to("broker-x")
    assert unknown.code == codes.SYSTEM_ERROR
    assert "broker-x is not known" in (unknown.header.remark or "")


def test_without_name_servers_routes_are_refused_and_known_brokers_serve(
    cluster: Cluster, client: Remote
) -> None:
    client.send_to("broker-a")
    for address in NAME_SERVERS:
        cluster.network.stop(address)
    answer = client.call(105, {"topic": "orders"})
    assert (answer.code, answer.header.remark) == (codes.SYSTEM_ERROR, "no name server answers")
    assert client.send_to("broker-a").code == codes.SUCCESS


@pytest.mark.parametrize("code", [34, 41, 42, 46, 400, 401, 200151])
@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"mqSet":[1]}', b'{"mqSet":{}}'])
def test_odd_bodies_are_refused(client: Remote, code: int, body: bytes) -> None:
    assert client.call(code, {}, body).code in (codes.SYSTEM_ERROR, codes.TOPIC_NOT_EXIST)


def test_what_the_proxy_does_not_serve_is_said(client: Remote) -> None:
    assert client.call(17, {"topic": "T"}).code == codes.REQUEST_CODE_NOT_SUPPORTED


def test_a_configured_address_is_the_one_that_clients_get(cluster: Cluster) -> None:
    front = Front(cluster)
    front.dispatcher = Dispatcher(Forwarding(cluster.backend, "10.0.0.9").routes())
    route = front.connect().call(105, {"topic": "orders"}).json()
    assert {a for b in route["brokerDatas"] for a in b["brokerAddrs"].values()} == {"10.0.0.9:8081"}
