"""What an operator changes and asks at a name server."""

from __future__ import annotations

import errno

import msgspec
import pytest
from tests.support.namesrv import NameServerWorld, topic_config

from firearrow.model import codes
from firearrow.namesrv.kv import KvConfig


@pytest.fixture
def world() -> NameServerWorld:
    world = NameServerWorld()
    world.broker("broker-a").register("T1", topic_config("T2", perm=7), topic_config("T3", perm=4))
    world.broker("broker-b", cluster="Other").register("T1", "OnlyB")
    return world


# -- permissions


def test_a_broker_can_be_closed_for_writing_and_opened_again(world: NameServerWorld) -> None:
    operator = world.connect()
    answer = operator.call(205, {"brokerName": "broker-a"})
    assert answer.ext == {"wipeTopicCount": "3"}
    assert [world.perm(t, "broker-a") for t in ("T1", "T2", "T3")] == [4, 5, 4]
    assert world.perm("T1", "broker-b") == 6
    answer = operator.call(327, {"brokerName": "broker-a"})
    assert answer.ext == {"addTopicCount": "3"}
    assert [world.perm(t, "broker-a") for t in ("T1", "T2", "T3")] == [6, 6, 6]


def test_permissions_of_an_unknown_broker_count_nothing(world: NameServerWorld) -> None:
    assert world.connect().call(205, {"brokerName": "nobody"}).ext == {"wipeTopicCount": "0"}
    assert world.connect().call(327, {"brokerName": "nobody"}).ext == {"addTopicCount": "0"}
    assert world.connect().call(205, {}).code == codes.SYSTEM_ERROR


def test_a_wiped_permission_lasts_while_the_broker_has_nothing_new(world: NameServerWorld) -> None:
    broker = world.broker("broker-b", cluster="Other")
    broker.register("T1", "OnlyB")
    world.connect().call(205, {"brokerName": "broker-b"})
    broker.register("T1", "OnlyB")
    assert world.perm("T1", "broker-b") == 4
    broker.bump()
    broker.register("T1", "OnlyB")
    assert world.perm("T1", "broker-b") == 6


# -- topics


def test_topics_by_cluster(world: NameServerWorld) -> None:
    operator = world.connect()
    topics = operator.call(224, {"cluster": "Other"}).json()["topicList"]
    assert set(topics) == {"T1", "OnlyB"}
    assert operator.call(224, {"cluster": "nowhere"}).json() == {"topicList": []}
    world.settings.enable_topic_list = False
    refused = operator.call(224, {"cluster": "Other"})
    assert (refused.code, refused.header.remark) == (codes.SYSTEM_ERROR, "disable")


def test_the_list_of_all_topics_can_be_disabled(world: NameServerWorld) -> None:
    assert world.topics() == {"T1", "T2", "T3", "OnlyB"}
    world.settings.enable_all_topic_list = False
    refused = world.connect().call(206)
    assert (refused.code, refused.header.remark) == (codes.SYSTEM_ERROR, "disable")


def test_system_topics_are_the_names_of_clusters_and_brokers(world: NameServerWorld) -> None:
    answer = world.connect().call(304).json()
    assert set(answer["topicList"]) == {"DefaultCluster", "Other", "broker-a", "broker-b"}
    assert answer["brokerAddr"] in ("10.0.0.1:10911", "10.0.0.2:10911")
    assert NameServerWorld().connect().call(304).json() == {"topicList": []}


def test_topics_with_the_unit_flags() -> None:
    world = NameServerWorld()
    world.broker().register(
        topic_config("Unit", topicSysFlag=1),
        topic_config("UnitSub", topicSysFlag=2),
        topic_config("Both", topicSysFlag=3),
        "Neither",
    )
    lists = {code: set(world.connect().call(code).json()["topicList"]) for code in (311, 312, 313)}
    assert lists == {311: {"Unit", "Both"}, 312: {"UnitSub", "Both"}, 313: {"UnitSub"}}
    world.settings.enable_topic_list = False
    assert [world.connect().call(c).code for c in (311, 312, 313)] == [codes.SYSTEM_ERROR] * 3


def test_deleting_a_topic_everywhere_or_in_one_cluster(world: NameServerWorld) -> None:
    operator = world.connect()
    assert operator.call(216, {"topic": "T1", "clusterName": "Other"}).code == codes.SUCCESS
    assert set(world.brokers_of("T1")) == {"broker-a"}
    assert operator.call(216, {"topic": "T2", "clusterName": "nowhere"}).code == codes.SUCCESS
    assert "T2" in world.topics()
    operator.call(216, {"topic": "T1"})
    assert world.route("T1") is None
    assert operator.call(216, {"topic": "T1"}).code == codes.SUCCESS, "twice is no error"
    assert operator.call(216, {}).code == codes.SYSTEM_ERROR


def test_deleting_the_last_topic_of_a_cluster_keeps_the_brokers(world: NameServerWorld) -> None:
    for topic in ("T1", "OnlyB"):
        world.connect().call(216, {"topic": topic, "clusterName": "Other"})
    assert "broker-b" in world.connect().call(106).json()["brokerAddrTable"]


def test_an_unknown_code_is_said(world: NameServerWorld) -> None:
    answer = world.connect().call(9999)
    assert (answer.code, answer.header.remark) == (
        codes.REQUEST_CODE_NOT_SUPPORTED,
        " request type 9999 not supported",
    )


# -- key-value configuration


def test_key_values_are_put_asked_listed_and_deleted(world: NameServerWorld) -> None:
    operator = world.connect()
    place = {"namespace": "N", "key": "k"}
    missing = operator.call(101, place)
    assert missing.code == codes.QUERY_NOT_FOUND
    assert missing.header.remark == "No config item, Namespace: N Key: k"
    assert operator.call(219, {"namespace": "N"}).code == codes.QUERY_NOT_FOUND
    assert operator.call(100, {**place, "value": "ü"}).code == codes.SUCCESS
    assert operator.call(101, place).ext == {"value": "ü"}
    operator.call(100, {**place, "key": "l", "value": "2"})
    assert operator.call(219, {"namespace": "N"}).json() == {"table": {"k": "ü", "l": "2"}}
    assert operator.call(102, place).code == codes.SUCCESS
    assert operator.call(101, place).code == codes.QUERY_NOT_FOUND
    assert operator.call(102, place).code == codes.SUCCESS, "twice is no error"
    for wrong in ({"key": "k", "value": "v"}, {"namespace": "N", "value": "v"}):
        assert operator.call(100, wrong).code == codes.SYSTEM_ERROR


def test_every_change_is_saved_in_the_form_of_java(world: NameServerWorld) -> None:
    operator = world.connect()
    place = {"namespace": "N", "key": "k"}
    operator.call(100, {**place, "value": "v"})
    assert msgspec.json.decode(world.saved[-1]) == {"configTable": {"N": {"k": "v"}}}
    again = KvConfig()
    again.load(world.saved[-1])
    assert again.get("N", "k") == "v"
    operator.call(102, place)
    again.load(world.saved[-1])
    assert again.get("N", "k") is None


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"7", b'{"configTable":[1]}', b'{"configTable":{"N":7}}']
)
def test_a_file_that_is_none_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        KvConfig().load(data)


def test_a_value_that_cannot_be_saved_is_refused_and_not_shown() -> None:
    world = NameServerWorld()

    def full(data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    world.kv.put("N", "old", "1")
    world.kv._save = full
    operator = world.connect()
    refused = operator.call(100, {"namespace": "N", "key": "k", "value": "v"})
    assert refused.code == codes.SYSTEM_ERROR
    assert "No space left" in (refused.header.remark or "")
    assert operator.call(101, {"namespace": "N", "key": "k"}).code == codes.QUERY_NOT_FOUND
    assert operator.call(102, {"namespace": "N", "key": "old"}).code == codes.SYSTEM_ERROR
    assert operator.call(101, {"namespace": "N", "key": "old"}).ext == {"value": "1"}


# -- configuration


def config_of(world: NameServerWorld) -> dict[str, str]:
    text = world.connect().call(319).body.decode()
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_configuration_is_shown_and_changed(world: NameServerWorld) -> None:
    assert config_of(world)["orderMessageEnable"] == "false"
    assert config_of(world)["scanNotActiveBrokerInterval"] == "5000"
    body = b"orderMessageEnable=true\nwaitSecondsForService=7\nnoSuchKey=1\n"
    assert world.connect().call(318, body=body).code == codes.SUCCESS
    assert config_of(world)["orderMessageEnable"] == "true"
    assert config_of(world)["waitSecondsForService"] == "7"
    assert "noSuchKey" not in config_of(world)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("waitSecondsForService=many", "waitSecondsForService=many: must be a whole number"),
        ("waitSecondsForService=-1", "must be at least 0"),
        ("scanNotActiveBrokerInterval=0", "must be at least 100"),
        ("orderMessageEnable=perhaps", "must be true or false"),
    ],
)
def test_an_impossible_value_refuses_the_whole_change(
    world: NameServerWorld, line: str, said: str
) -> None:
    before = config_of(world)
    answer = world.connect().call(318, body=f"enableTopicList=false\n{line}\n".encode())
    assert answer.code == codes.SYSTEM_ERROR
    assert said in (answer.header.remark or "")
    assert config_of(world) == before


@pytest.mark.parametrize("body", [b"\xff\xfe\n", b"", b"====\n", b"noSuchKey=1\n", b"# a=b\n"])
def test_a_change_of_nothing_changes_nothing(world: NameServerWorld, body: bytes) -> None:
    before = config_of(world)
    assert world.connect().call(318, body=body).code == codes.SUCCESS
    assert config_of(world) == before


@pytest.mark.parametrize(
    "key", ["configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"]
)
def test_some_keys_may_not_be_changed_from_outside(world: NameServerWorld, key: str) -> None:
    body = f"{key}=/tmp/x\norderMessageEnable=true\n".encode()
    refused = world.connect().call(318, body=body)
    assert (refused.code, refused.header.remark) == (
        codes.NO_PERMISSION,
        "Can not update config in black list.",
    )
    assert config_of(world)["orderMessageEnable"] == "false", "nothing of it counts"
