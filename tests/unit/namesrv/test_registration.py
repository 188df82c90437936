"""Brokers register, stay alive, go away; what a client then finds."""

from __future__ import annotations

import struct
import zlib

import msgspec
import pytest
from tests.support.namesrv import JavaBroker, NameServerWorld, topic_config

from firearrow.model import codes


@pytest.fixture
def world() -> NameServerWorld:
    return NameServerWorld()


# -- taking over


def test_a_registered_broker_is_found_by_topic(world: NameServerWorld) -> None:
    answer = world.broker().register("T1", topic_config("T2", perm=4, readQueueNums=3))
    assert (answer.code, answer.ext, answer.body) == (codes.SUCCESS, {}, b"")
    assert world.brokers_of("T1") == {"broker-a": {"0": "10.0.0.1:10911"}}
    (queues,) = world.route("T2")["queueDatas"]
    assert (queues["perm"], queues["readQueueNums"], queues["writeQueueNums"]) == (4, 3, 8)
    assert world.topics() == {"T1", "T2"}


def test_the_same_names_in_several_brokers_and_clusters(world: NameServerWorld) -> None:
    world.broker("broker-a").register("T", "OnlyA")
    world.broker("broker-b").register("T", "OnlyB")
    world.broker("broker-c", cluster="Other").register("T", "OnlyC")
    assert set(world.brokers_of("T")) == {"broker-a", "broker-b", "broker-c"}
    assert set(world.brokers_of("OnlyB")) == {"broker-b"}
    info = world.connect().call(106).json()
    assert info["clusterAddrTable"] == {
        "DefaultCluster": ["broker-a", "broker-b"],
        "Other": ["broker-c"],
    }
    assert info["brokerAddrTable"]["broker-c"]["brokerAddrs"] == {"0": "10.0.0.3:10911"}


def test_a_broker_that_moves_to_another_cluster_leaves_the_first(world: NameServerWorld) -> None:
    world.broker().register("T1", "T2")
    world.broker(cluster="Other").register("T1", "T2")
    assert world.connect().call(106).json()["clusterAddrTable"] == {"Other": ["broker-a"]}


def compressed(broker: JavaBroker, *topics: str, attributes: str = "{}") -> bytes:
    """``RegisterBrokerBody.encode(compress=true)``."""

    def block(data: bytes) -> bytes:
        return struct.pack(">i", len(data)) + data

    parts = [block(msgspec.json.encode(broker.data_version)), struct.pack(">i", len(topics))]
    parts += [block(f"{name} 8 4 6 SINGLE_TAG {attributes}".encode()) for name in topics]
    parts.append(block(b"[]"))
    if broker.version >= 413:
        parts.append(struct.pack(">i", 0))
    return zlib.compress(b"".join(parts), 9)


@pytest.mark.parametrize("version", [399, 479])
@pytest.mark.parametrize("announced", ["true", "false"])
def test_a_compressed_body_is_read_whatever_the_header_says(
    world: NameServerWorld, version: int, announced: str
) -> None:
    """Java 5 compresses with compressedRegister=true, and says compressed=false."""
    broker = world.broker(version=version)
    body = compressed(broker, "T1", "T2", attributes='{"message.type":"FIFO"}')
    assert broker.register_body(body, compressed=announced).code == codes.SUCCESS
    (queues,) = world.route("T1")["queueDatas"]
    assert (queues["readQueueNums"], queues["writeQueueNums"], queues["perm"]) == (8, 4, 6)


def test_an_old_broker_registers_without_the_wrapper(world: NameServerWorld) -> None:
    """Before 3.0.11 the body was the topic table alone."""
    world.broker(version=36).register("T1", "T2")
    assert world.topics() == {"T1", "T2"}


def test_no_body_registers_the_address_alone(world: NameServerWorld) -> None:
    broker = world.broker()
    assert broker.register_body(b"").code == codes.SUCCESS
    assert world.topics() == set()
    assert "broker-a" in world.connect().call(106).json()["brokerAddrTable"]


def test_a_wrong_checksum_is_refused_and_zero_is_none(world: NameServerWorld) -> None:
    broker = world.broker()
    refused = broker.register("T1", "T2", bodyCrc32=12345)
    assert (refused.code, refused.header.remark) == (codes.SYSTEM_ERROR, "crc32 not match")
    assert world.topics() == set()
    assert broker.register("T1", "T2", bodyCrc32=0).code == codes.SUCCESS


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"7",
        b'{"topicConfigSerializeWrapper":null}',
        b'{"topicConfigSerializeWrapper":{"topicConfigTable":[]}}',
        b'{"topicConfigSerializeWrapper":{"topicConfigTable":{"T":7}}}',
        b'{"topicConfigSerializeWrapper":{"topicConfigTable":{"T":{"perm":"x"}}}}',
        b'{"topicConfigSerializeWrapper":{"dataVersion":7}}',
        b'{"topicConfigSerializeWrapper":{},"filterServerList":{"a":1}}',
        b'{"topicConfigSerializeWrapper":{"topicQueueMappingInfoMap":[1]}}',
        b"\x78\x9c garbage",
        zlib.compress(b"\x7f\xff\xff\xff"),
        zlib.compress(struct.pack(">i", 2) + b"{}" + struct.pack(">i", 1)),
        zlib.compress(struct.pack(">i", 2) + b"{}" + struct.pack(">ii", 1, 5) + b"T 8 x"),
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_an_unreadable_body_is_refused_and_changes_nothing(
    world: NameServerWorld, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    answer = world.broker().register_body(body)
    assert answer.code == codes.SYSTEM_ERROR
    assert "unreadable registration" in (answer.header.remark or "")
    assert world.topics() == set()
    assert world.connect().call(106).json()["brokerAddrTable"] == {}
    assert not [r for r in caplog.records if r.exc_info], "a foreseen error left a traceback"


def test_a_bomb_of_zeros_is_refused_before_it_fills_the_memory(world: NameServerWorld) -> None:
    packer = zlib.compressobj(9)
    zeros = b" " * (16 * 1024 * 1024)
    bomb = b"".join(packer.compress(zeros) for _ in range(9)) + packer.flush()
    answer = world.broker().register_body(bomb)
    assert answer.code == codes.SYSTEM_ERROR
    assert "more than" in (answer.header.remark or "")


def test_the_first_registration_must_be_a_whole_one(world: NameServerWorld) -> None:
    """One topic is what an incremental registration looks like."""
    broker = world.broker()
    answer = broker.register("T1")
    assert (answer.code, answer.header.remark) == (codes.SYSTEM_ERROR, "register broker failed")
    assert world.connect().call(106).json() == {"brokerAddrTable": {}, "clusterAddrTable": {}}
    broker.register("T1", "T2")
    broker.bump()
    assert broker.register("T3").code == codes.SUCCESS
    assert world.topics() == {"T1", "T2", "T3"}


# -- versions of the data


def test_a_change_counts_only_with_a_new_data_version(world: NameServerWorld) -> None:
    broker = world.broker()
    broker.register("T1", "T2")
    broker.register(topic_config("T1", perm=4), topic_config("New"))
    assert world.perm("T1", "broker-a") == 6
    assert "New" in world.topics(), "a topic that is not known is taken over all the same"
    broker.bump()
    broker.register(topic_config("T1", perm=4), "T2")
    assert world.perm("T1", "broker-a") == 4


def test_topics_that_are_not_named_stay_unless_told_otherwise(world: NameServerWorld) -> None:
    broker = world.broker()
    broker.register("T1", "T2", "T3")
    broker.bump()
    broker.register("T1", "T2")
    assert world.topics() == {"T1", "T2", "T3"}
    world.settings.delete_topic_with_broker_registration = True
    broker.register("T1", "T2")
    assert world.topics() == {"T1", "T2"}


def test_a_broker_may_ask_whether_it_should_register(world: NameServerWorld) -> None:
    broker = world.broker()
    answer = broker.query_version()
    assert (answer.ext["changed"], answer.body) == ("true", b"")
    broker.register("T1", "T2")
    answer = broker.query_version()
    assert (answer.ext["changed"], answer.json()) == ("false", broker.data_version)
    broker.bump()
    assert broker.query_version().ext["changed"] == "true"
    for body in (b"", b"[]", b"null", b'{"counter":"x"}'):
        assert broker.connection.call(322, broker.identity(), body).code == codes.SYSTEM_ERROR


# -- masters and slaves


def test_a_slave_learns_its_master_and_brings_no_topics(world: NameServerWorld) -> None:
    slave = world.broker(broker_id=1)
    assert slave.register("Slave1", "Slave2", enableActingMaster=None).ext == {}
    assert world.topics() == set()
    world.broker().register("T1", "T2")
    answer = slave.register("Slave1", "Slave2")
    assert answer.ext == {"masterAddr": "10.0.0.1:10911", "haServerAddr": "10.0.0.1:10912"}
    assert world.topics() == {"T1", "T2"}
    assert world.brokers_of("T1")["broker-a"] == {"0": "10.0.0.1:10911", "1": "10.0.0.1:10921"}


def test_an_address_has_one_id(world: NameServerWorld) -> None:
    world.broker(address="10.0.0.9:10911").register("T1", "T2")
    world.broker(broker_id=1, address="10.0.0.9:10911").register("T1", "T2")
    assert world.brokers_of("T1")["broker-a"] == {"1": "10.0.0.9:10911"}


def test_a_stale_master_does_not_take_the_new_ones_place(world: NameServerWorld) -> None:
    new = world.broker(address="10.0.0.8:10911")
    new.data_version = {**new.data_version, "stateVersion": 5}
    new.register("T1", "T2")
    stale = world.broker(address="10.0.0.7:10911")
    stale.data_version = {**stale.data_version, "stateVersion": 4}
    assert stale.register("T1", "T2").code == codes.SUCCESS
    assert world.brokers_of("T1")["broker-a"] == {"0": "10.0.0.8:10911"}
    stale.connection.drop()
    assert world.brokers_of("T1")["broker-a"] == {"0": "10.0.0.8:10911"}


def test_without_its_master_an_acting_master_is_read_only(world: NameServerWorld) -> None:
    world.settings.support_acting_master = True
    master, slave = world.broker(), world.broker(broker_id=2)
    master.register("T1", "T2", enableActingMaster="true")
    slave.register("T1", "T2", enableActingMaster="true")
    master.unregister()
    assert world.perm("T1", "broker-a") == 4
    assert world.brokers_of("T1")["broker-a"] == {"0": "10.0.0.1:10931"}, "shown as the master"
    slave.bump()
    slave.register("T1", "New", enableActingMaster="true")
    assert world.perm("New", "broker-a") == 4
    world.settings.support_acting_master = False
    assert world.brokers_of("T1")["broker-a"] == {"2": "10.0.0.1:10931"}


def test_members_of_a_broker_name(world: NameServerWorld) -> None:
    world.broker().register("T1", "T2")
    world.broker(broker_id=1).register("T1", "T2")
    fields = {"clusterName": "DefaultCluster", "brokerName": "broker-a"}
    assert world.connect().call(901, fields).json() == {
        "brokerMemberGroup": {
            "brokerAddrs": {"0": "10.0.0.1:10911", "1": "10.0.0.1:10921"},
            "brokerName": "broker-a",
            "cluster": "DefaultCluster",
        }
    }
    unknown = world.connect().call(901, {**fields, "brokerName": "nobody"})
    assert unknown.json()["brokerMemberGroup"]["brokerAddrs"] == {}


def test_a_new_lowest_id_is_told_when_asked_for(world: NameServerWorld) -> None:
    world.settings.notify_min_broker_id_changed = True
    master, slave = world.broker(), world.broker(broker_id=1)
    slave.register("T1", "T2", enableActingMaster="true")
    world.notices.clear()
    master.register("T1", "T2", enableActingMaster="true")
    assert world.notices == [
        (
            "10.0.0.1:10921",
            905,
            {
                "minBrokerId": "0",
                "minBrokerAddr": "10.0.0.1:10911",
                "haBrokerAddr": "10.0.0.1:10912",
            },
        )
    ]
    world.notices.clear()
    master.unregister()
    assert world.notices == [
        (
            "10.0.0.1:10921",
            905,
            {
                "minBrokerId": "1",
                "minBrokerAddr": "10.0.0.1:10921",
                "offlineBrokerAddr": "10.0.0.1:10911",
            },
        )
    ]


def test_nobody_is_told_of_ids_by_default(world: NameServerWorld) -> None:
    master, slave = world.broker(), world.broker(broker_id=1)
    slave.register("T1", "T2", enableActingMaster="true")
    master.register("T1", "T2", enableActingMaster="true")
    master.unregister()
    assert world.notices == []


# -- going away


def test_a_silent_broker_expires(world: NameServerWorld) -> None:
    broker = world.broker()
    broker.register("T1", "T2")
    world.clock.advance(119)
    assert world.brokers_of("T1")
    world.clock.advance(7)
    assert world.topics() == set()
    assert world.connect().call(106).json() == {"brokerAddrTable": {}, "clusterAddrTable": {}}
    assert broker.connection.peer.closed


def test_a_time_out_of_its_own_counts(world: NameServerWorld) -> None:
    broker = world.broker()
    broker.register("T1", "T2", heartbeatTimeoutMillis=10_000)
    world.clock.advance(9)
    assert world.brokers_of("T1")
    world.clock.advance(7)
    assert not world.brokers_of("T1")


@pytest.mark.parametrize("how", ["register", "query", "heartbeat"])
def test_whoever_speaks_stays(world: NameServerWorld, how: str) -> None:
    broker = world.broker()
    broker.register("T1", "T2")
    for _ in range(5):
        world.clock.advance(100)
        if how == "register":
            broker.register("T1", "T2")
        elif how == "query":
            broker.query_version()
        else:
            broker.connection.send(904, broker.identity(), one_way=True)
    assert world.brokers_of("T1")


def test_a_heartbeat_of_somebody_unknown_makes_no_broker(world: NameServerWorld) -> None:
    broker = world.broker()
    assert broker.connection.call(904, broker.identity()).code == codes.SUCCESS
    assert world.connect().call(106).json()["brokerAddrTable"] == {}


def test_a_lost_connection_takes_its_brokers_along_at_once(world: NameServerWorld) -> None:
    first, second = world.broker("broker-a"), world.broker("broker-b")
    first.register("T1", "OnlyA")
    second.register("T1", "OnlyB")
    client = world.connect()
    client.drop()
    first.connection.drop()
    assert set(world.brokers_of("T1")) == {"broker-b"}
    assert world.topics() == {"T1", "OnlyB"}


def test_an_old_connection_that_ends_late_does_not_take_the_new_one_along(
    world: NameServerWorld,
) -> None:
    old, new = world.broker(), world.broker()
    old.register("T1", "T2")
    new.register("T1", "T2")
    old.connection.drop()
    assert world.brokers_of("T1") == {"broker-a": {"0": "10.0.0.1:10911"}}


def test_unregistering_one_of_a_name_keeps_its_topics(world: NameServerWorld) -> None:
    master, slave = world.broker(), world.broker(broker_id=1)
    master.register("T1", "T2")
    slave.register("T1", "T2")
    assert master.unregister().code == codes.SUCCESS
    assert world.brokers_of("T1")["broker-a"] == {"1": "10.0.0.1:10921"}
    slave.unregister()
    assert world.topics() == set()
    assert slave.unregister().code == codes.SUCCESS, "twice is no error"


def test_many_brokers_unregister_one_after_the_other(world: NameServerWorld) -> None:
    brokers = [world.broker(f"broker-{letter}") for letter in "abcdefgh"]
    for broker in brokers:
        broker.register("T", f"Only-{broker.name}")
    for broker in brokers[:-1]:
        broker.unregister()
    assert set(world.brokers_of("T")) == {"broker-h"}
    assert world.topics() == {"T", "Only-broker-h"}


def test_a_single_topic_may_be_registered(world: NameServerWorld) -> None:
    broker = world.broker()
    broker.register("T1", "T2")
    row = {
        "brokerName": "broker-a",
        "perm": 6,
        "readQueueNums": 2,
        "topicSysFlag": 0,
        "writeQueueNums": 2,
    }
    body = msgspec.json.encode({"queueDatas": [row]})
    assert world.connect().call(217, {"topic": "Single"}, body).code == codes.SUCCESS
    assert set(world.brokers_of("Single")) == {"broker-a"}
    stranger = msgspec.json.encode({"queueDatas": [{**row, "brokerName": "nobody"}]})
    assert world.connect().call(217, {"topic": "Other"}, stranger).code == codes.SUCCESS
    assert "Other" not in world.topics()
    for garbage in (b"", b"[]", b'{"queueDatas":[7]}'):
        assert world.connect().call(217, {"topic": "X"}, garbage).code == codes.SYSTEM_ERROR


@pytest.mark.parametrize("missing", ["brokerName", "brokerAddr", "clusterName", "brokerId"])
@pytest.mark.parametrize("code", [103, 104, 322])
def test_a_broker_must_say_who_it_is(world: NameServerWorld, code: int, missing: str) -> None:
    fields = {k: v for k, v in world.broker().identity().items() if k != missing}
    answer = world.connect().call(code, fields)
    assert answer.code == codes.SYSTEM_ERROR
    assert missing in (answer.header.remark or "")
