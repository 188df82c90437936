"""What clients of every age get for a topic."""

from __future__ import annotations

import msgspec
import pytest
from tests.support.namesrv import NameServerWorld, topic_config

from firearrow.model import codes

# As ``TopicRouteData.encode`` of RocketMQ 5 writes it, for new and for old clients.
STANDARD = (
    b'{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:10911","1":"127.0.0.1:10921"},'
    b'"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],'
    b'"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,'
    b'"topicSysFlag":0,"writeQueueNums":4}]}'
)
BARE = STANDARD.replace(b'"0":', b"0:").replace(b'"1":', b"1:")


@pytest.fixture
def world() -> NameServerWorld:
    return NameServerWorld()


def pair(world: NameServerWorld) -> None:
    topic = topic_config("T1", readQueueNums=4, writeQueueNums=4)
    world.broker(address="127.0.0.1:10911").register(topic, "T2")
    world.broker(broker_id=1, address="127.0.0.1:10921").register(topic, "T2")


@pytest.mark.parametrize(
    ("version", "ext", "expected"),
    [
        (317, {}, BARE),  # Go
        (333, {}, BARE),  # C++
        (399, {}, BARE),
        (400, {}, BARE),
        (401, {}, STANDARD),
        (513, {}, STANDARD),
        (0, {}, BARE),
        (317, {"acceptStandardJsonOnly": "true"}, STANDARD),
        (317, {"acceptStandardJsonOnly": "false"}, BARE),
        (479, {"acceptStandardJsonOnly": "false"}, STANDARD),
    ],
)
def test_the_exact_bytes_depend_on_the_clients_version(
    world: NameServerWorld, version: int, ext: dict[str, str], expected: bytes
) -> None:
    pair(world)
    answer = world.connect().call(105, {"topic": "T1", **ext}, version=version)
    assert (answer.code, answer.body) == (codes.SUCCESS, expected)


def test_an_unknown_topic_is_said_with_the_words_of_rocketmq(world: NameServerWorld) -> None:
    pair(world)
    answer = world.connect().call(105, {"topic": "nowhere"})
    assert (answer.code, answer.body) == (codes.TOPIC_NOT_EXIST, b"")
    expected = "No topic route info in name server for the topic: nowhere"
    assert (answer.header.remark or "").startswith(expected)


def test_a_topic_is_needed(world: NameServerWorld) -> None:
    answer = world.connect().call(105, {})
    assert answer.code == codes.SYSTEM_ERROR
    assert "topic" in (answer.header.remark or "")


def test_a_name_server_may_wait_until_brokers_had_time_to_come(world: NameServerWorld) -> None:
    world.settings.need_wait_for_service = True
    pair(world)
    answer = world.connect().call(105, {"topic": "T1"})
    assert (answer.code, answer.header.remark) == (codes.SYSTEM_ERROR, "name server not ready")
    world.clock.advance(46)
    assert world.route("T1") is not None


# -- what more a route may have


def test_order_configuration_is_shown_only_where_it_is_enabled(world: NameServerWorld) -> None:
    pair(world)
    conf = "broker-a:4;broker-b:4"
    fields = {"namespace": "ORDER_TOPIC_CONFIG", "key": "T1", "value": conf}
    world.connect().call(100, fields)
    assert "orderTopicConf" not in world.route("T1")
    world.settings.order_message_enable = True
    body = world.connect().call(105, {"topic": "T1"}).body
    assert msgspec.json.decode(body)["orderTopicConf"] == conf
    assert body.index(b"filterServerTable") < body.index(b"orderTopicConf") < body.index(b"queueD")
    assert "orderTopicConf" not in world.route("T2")


def test_brokers_hear_of_ordered_topics_when_they_register(world: NameServerWorld) -> None:
    broker = world.broker()
    assert broker.register("T1", "T2").body == b""
    fields = {"namespace": "ORDER_TOPIC_CONFIG", "key": "T1", "value": "broker-a:8"}
    world.connect().call(100, fields)
    assert broker.register("T1", "T2").json() == {"table": {"T1": "broker-a:8"}}
    world.settings.return_order_topic_config_to_broker = False
    assert broker.register("T1", "T2").body == b""


def test_filter_servers_are_shown_under_their_brokers_address(world: NameServerWorld) -> None:
    broker = world.broker()
    body = msgspec.json.decode(broker.body("T1", "T2"))
    broker.register_body(msgspec.json.encode({**body, "filterServerList": ["10.0.0.1:30000"]}))
    assert world.route("T1")["filterServerTable"] == {"10.0.0.1:10911": ["10.0.0.1:30000"]}
    broker.register_body(msgspec.json.encode({**body, "filterServerList": []}))
    assert world.route("T1")["filterServerTable"] == {}


def test_static_topics_carry_their_mapping(world: NameServerWorld) -> None:
    broker = world.broker()
    info = {
        "bname": "broker-a",
        "currIdMap": {"0": 0},
        "dirty": False,
        "epoch": 7,
        "scope": "__global__",
        "topic": "T1",
        "totalQueues": 1,
    }
    bare = msgspec.json.encode(info).replace(b'{"0":0}', b"{0:0}")  # as fastjson writes it
    body = broker.body("T1", "T2").replace(
        b'"topicQueueMappingInfoMap":{}', b'"topicQueueMappingInfoMap":{"T1":' + bare + b"}"
    )
    broker.register_body(body)
    assert world.route("T1")["topicQueueMappingByBroker"] == {"broker-a": info}
    assert "topicQueueMappingByBroker" not in world.route("T2")


# -- zones


def zones(world: NameServerWorld) -> None:
    world.broker("broker-a").register("T", "T2", __ZONE_NAME="hangzhou")
    world.broker("broker-b").register("T", "T2", __ZONE_NAME="Shanghai")
    world.broker("broker-c", 1).register(
        "T", "T2", __ZONE_NAME="beijing", enableActingMaster="true"
    )


@pytest.mark.parametrize(
    ("ext", "expected"),
    [
        ({}, {"broker-a", "broker-b", "broker-c"}),
        ({"__ZONE_NAME": "shanghai"}, {"broker-a", "broker-b", "broker-c"}),
        ({"__ZONE_MODE": "true"}, {"broker-a", "broker-b", "broker-c"}),
        ({"__ZONE_MODE": "true", "__ZONE_NAME": " "}, {"broker-a", "broker-b", "broker-c"}),
        ({"__ZONE_MODE": "TRUE", "__ZONE_NAME": "shanghai"}, {"broker-b", "broker-c"}),
        ({"__ZONE_MODE": "true", "__ZONE_NAME": "nowhere"}, {"broker-c"}),
    ],
)
def test_a_client_may_ask_for_its_zone(
    world: NameServerWorld, ext: dict[str, str], expected: set[str]
) -> None:
    """A broker name without a master is kept: nobody else has its messages."""
    zones(world)
    route = world.connect().call(105, {"topic": "T", **ext}).json()
    assert {data["brokerName"] for data in route["brokerDatas"]} == expected
    assert {data["brokerName"] for data in route["queueDatas"]} == expected


def test_the_zone_of_a_broker_is_shown(world: NameServerWorld) -> None:
    zones(world)
    zone = {data["brokerName"]: data["zoneName"] for data in world.route("T")["brokerDatas"]}
    assert zone == {"broker-a": "hangzhou", "broker-b": "Shanghai", "broker-c": "beijing"}


# -- the broker of the same process


@pytest.mark.parametrize(
    ("local", "seen"),
    [
        (("127.0.0.2", 9876), "127.0.0.2:10911"),
        (("192.168.7.9", 9876), "192.168.7.9:10911"),
        (("fd00::9", 9876), "[fd00::9]:10911"),
    ],
)
def test_a_broker_in_this_process_is_shown_by_the_address_the_client_used(
    world: NameServerWorld, local: tuple[str, int], seen: str
) -> None:
    world.broker(address="10.0.0.1:10911").register("T1", "T2")
    world.broker(broker_id=1, address="10.0.0.2:10911").register("T1", "T2")
    world.server.shown.local_broker = "10.0.0.1:10911"
    client = world.connect(local)
    route = client.call(105, {"topic": "T1"}).json()
    assert route["brokerDatas"][0]["brokerAddrs"] == {"0": seen, "1": "10.0.0.2:10911"}
    info = client.call(106).json()["brokerAddrTable"]["broker-a"]["brokerAddrs"]
    assert info == {"0": seen, "1": "10.0.0.2:10911"}
    assert client.call(304).json()["brokerAddr"] == seen
