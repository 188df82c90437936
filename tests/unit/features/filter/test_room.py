"""Consumers that filter by expression get what they want, waiting or not, after a restart too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support import popping
from tests.support.brokers import Answered, Connection, World, pull_fields

from firearrow.config import BrokerSettings
from firearrow.features.filter.registered import bloom_of
from firearrow.model import codes
from firearrow.model.message import Message


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "store", BrokerSettings(enable_property_filter=True))
    yield world
    world.stop()


def produce(client: Connection, **properties: object) -> None:
    text = "".join(f"{name}\x01{value}\x02" for name, value in properties.items())
    assert client.produce("orders", properties=text).code == codes.SUCCESS


def fields(expression: str | None, **more: Any) -> dict[str, Any]:
    own = {} if expression is None else {"expressionType": "SQL92"}
    return pull_fields("orders", expression=expression, **more) | own


def pull(client: Connection, expression: str | None, **more: Any) -> Answered:
    return client.call(11, fields(expression, **more))


def offsets(answer: Answered) -> list[int]:
    assert answer.code == codes.SUCCESS, answer.header.remark
    return [record.queue_offset for record in answer.records()]


def heartbeat(client: Connection, expression: str, version: int = 1, **more: Any) -> None:
    wanted = {"topic": "orders", "subString": expression, "subVersion": version}
    consumer = {
        "groupName": "group",
        "consumeType": "CONSUME_PASSIVELY",
        "messageModel": "CLUSTERING",
        "subscriptionDataSet": [{"expressionType": "SQL92", **wanted, **more}],
    }
    body = {"clientID": "client-1", "consumerDataSet": [consumer]}
    assert client.call(34, body=msgspec.json.encode(body)).code == codes.SUCCESS


def check(client: Connection, expression: str, kind: str = "SQL92") -> Answered:
    data = {"topic": "orders", "subString": expression, "expressionType": kind}
    body = {"clientId": "c", "group": "group", "subscriptionData": data}
    return client.call(46, body=msgspec.json.encode(body))


def test_a_pull_brings_what_its_expression_wants(client: Connection) -> None:
    for n in range(8):
        produce(client, a=n, TAGS="even" if n % 2 == 0 else "odd")
    assert offsets(pull(client, "a BETWEEN 0 AND 3")) == [0, 1, 2, 3]
    assert offsets(pull(client, "a > 2 AND TAGS = 'even'", offset=1)) == [4, 6]
    answer = pull(client, "a > 100")
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_RETRY_IMMEDIATELY, "8")


def test_what_is_in_the_record_does_not_matter(world: World, client: Connection) -> None:
    client.produce("orders", b"a\x015\x02" * 100)  # looks like the property, is the body
    assert pull(client, "a = 5").code == codes.PULL_RETRY_IMMEDIATELY
    topic = "%RETRY%" + "g" * 200  # a record with the long form of topics
    world.core.topics.create_retry(topic, 1)
    for host in (bytes(8), bytes(20)):  # IPv4, IPv6
        world.store.append(Message(topic, 0, b"x" * 300, b"a\x015\x02", 0, host))
    own = pull_fields(topic, expression="a = 5") | {"expressionType": "SQL92"}
    assert offsets(client.call(11, own)) == [0, 1]


def test_a_message_that_the_expression_makes_no_sense_for_is_passed_over(
    client: Connection,
) -> None:
    produce(client, a="abc")
    produce(client, b=1)
    produce(client, a=6)
    assert offsets(pull(client, "a > 5")) == [2]


def test_a_group_subscribes_with_an_expression(client: Connection) -> None:
    for n in range(4):
        produce(client, a=n)
    heartbeat(client, "a > 1", version=10)
    assert offsets(pull(client, None, version=10)) == [2, 3]
    heartbeat(client, "a < 1", version=9)  # an old one, late
    assert offsets(pull(client, None, version=9)) == [2, 3]
    heartbeat(client, "a < 1", version=11)
    assert offsets(pull(client, None, version=11)) == [0]


def test_a_group_whose_expression_cannot_be_read_is_told(
    client: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    produce(client, a=1)
    heartbeat(client, "a > 0", version=1)
    heartbeat(client, "a >", version=2)
    assert "cannot be read: Encountered" in caplog.text
    answer = pull(client, None, version=2)
    assert answer.code == codes.FILTER_DATA_NOT_EXIST
    heartbeat(client, "a > 0", version=3)
    assert offsets(pull(client, None, version=3)) == [0]
    assert pull(client, None, version=4).code == codes.SUBSCRIPTION_NOT_LATEST


def test_clients_ask_before_they_subscribe(client: Connection) -> None:
    assert check(client, "a > 5 AND b = 'x'").code == codes.SUCCESS
    assert check(client, "a LIKE 'x'").code == codes.SUCCESS  # as RocketMQ: a bare property
    assert check(client, "whatever", "TAG").code == codes.SUCCESS
    for wrong in ("a > 'x'", "a BETWEEN 5 AND 1", "a = 0.0", "a != 1", "NOT a > 5", "a IN (5)", ""):
        answer = check(client, wrong)
        assert answer.code == codes.SUBSCRIPTION_PARSE_FAILED, wrong
        assert "line" in (answer.header.remark or "")
    assert check(client, "a > 5", "GROOVY").code == codes.SUBSCRIPTION_PARSE_FAILED


def test_a_pull_with_a_wrong_expression_is_refused(client: Connection) -> None:
    produce(client, a=1)
    answer = pull(client, "a >")
    assert answer.code == codes.SUBSCRIPTION_PARSE_FAILED
    assert "line 1, column 3" in (answer.header.remark or "")


def test_expressions_are_off_unless_the_broker_allows_them(tmp_path: Path) -> None:
    world = World(tmp_path / "store")
    client = world.connect()
    produce(client, a=1)
    refusal = "The broker does not support consumer to filter message by SQL92"
    heartbeat(client, "a > 0")
    for answer in (pull(client, "a > 0"), pull(client, None, version=1), check(client, "a > 0")):
        assert (answer.code, answer.header.remark) == (codes.SYSTEM_ERROR, refusal)
    world.settings.enable_property_filter = True  # as mqadmin updateBrokerConfig does
    assert offsets(pull(client, "a > 0")) == [0]
    world.stop()


# -- waiting


def test_a_waiting_pull_wakes_for_a_matching_message_only(world: World, client: Connection) -> None:
    produce(client, a=1)
    client.received()
    client.send(11, fields("a > 5", offset=1, suspend_ms=15_000))
    other = world.connect()
    produce(other, a=2)
    produce(other, a="abc")
    world.clock.advance(1)
    assert client.received() == []
    produce(other, a=7)
    world.clock.advance(0)
    (answer,) = client.received()
    assert offsets(answer) == [3]


def test_a_waiting_pull_moves_on_past_what_it_does_not_want(
    world: World, client: Connection
) -> None:
    heartbeat(client, "a > 5", version=1)
    produce(client, a=1)
    client.received()
    client.send(11, fields(None, offset=1, suspend_ms=15_000, version=1))
    produce(world.connect(), a=2)
    world.clock.advance(5.5)
    (answer,) = client.received()
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_RETRY_IMMEDIATELY, "2")


# -- pop: RocketMQ does not ask the switch here


def test_a_pop_brings_what_its_expression_wants(tmp_path: Path) -> None:
    world = World(tmp_path / "store")
    client = world.connect()
    for n in range(6):
        client.produce(popping.TOPIC, properties=f"a\x01{n}\x02", queue_id=0, queues=1)
    wanted = {"exp": "a > 3 OR a = 1", "expType": "SQL92"}
    assert [got.record.queue_offset for got in popping.pop(client, **wanted)] == [1, 4, 5]
    wrong = client.call(popping.POP, popping.pop_fields(exp="a >", expType="SQL92"))
    assert wrong.code == codes.SUBSCRIPTION_PARSE_FAILED
    world.stop()


def test_a_waiting_pop_wakes_for_a_matching_message_only(world: World, client: Connection) -> None:
    other = world.connect()
    other.produce(popping.TOPIC, properties="a\x010\x02", queues=1)
    wanted: dict[str, Any] = {"exp": "a > 3", "expType": "SQL92", "pollTime": 15_000}
    client.received()
    client.send(popping.POP, popping.pop_fields(bornTime=world.clock.now_ms(), **wanted))
    other.produce(popping.TOPIC, properties="a\x012\x02", queues=1)
    world.clock.advance(1)
    assert client.received() == []
    other.produce(popping.TOPIC, properties="a\x014\x02", queues=1)
    world.clock.advance(0)
    (answer,) = client.received()
    assert [record.queue_offset for record in answer.records()] == [2]


# -- consumerFilter.json


def saved(tmp_path: Path) -> Any:
    data = msgspec.json.decode((tmp_path / "store/config/consumerFilter.json").read_bytes())
    return data["filterDataByTopic"]


def test_the_file_is_rocketmqs(tmp_path: Path, world: World, client: Connection) -> None:
    born = world.clock.now_ms()
    heartbeat(client, "a > 5 AND b = 'x'", version=17)
    world.clock.advance(11)
    assert saved(tmp_path) == {
        "orders": {
            "groupFilterData": {
                "group": {
                    "bloomFilterData": msgspec.to_builtins(bloom_of("group", "orders")),
                    "bornTime": born,
                    "clientVersion": 17,
                    "consumerGroup": "group",
                    "dead": False,
                    "deadTime": 0,
                    "expression": "a > 5 AND b = 'x'",
                    "expressionType": "SQL92",
                    "topic": "orders",
                }
            },
            "topic": "orders",
        }
    }


def test_bloom_bits_are_those_of_a_java_broker() -> None:
    assert bloom_of("GID_sql", "TopicTest").bit_pos == [33, 81, 17]


def test_a_group_that_left_is_dead_for_a_day_then_forgotten(
    tmp_path: Path, world: World, client: Connection
) -> None:
    heartbeat(client, "a > 5")
    world.clock.advance(60)
    client.drop()
    left = world.clock.now_ms()
    world.clock.advance(10)
    filtering = saved(tmp_path)["orders"]["groupFilterData"]["group"]
    assert (filtering["dead"], filtering["deadTime"]) == (True, left)
    world.clock.advance(23 * 3600)
    assert saved(tmp_path)
    world.clock.advance(3600)
    assert saved(tmp_path) == {}


def test_a_topic_left_out_of_the_next_heartbeat_is_dead(
    tmp_path: Path, world: World, client: Connection
) -> None:
    heartbeat(client, "a > 5")
    world.clock.advance(1)
    client.heartbeat("group", {"others": "*"})
    world.clock.advance(10)
    assert saved(tmp_path)["orders"]["groupFilterData"]["group"]["dead"]


def test_what_was_registered_is_there_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path / "store", BrokerSettings(enable_property_filter=True))
    client = world.connect()
    produce(client, a=1)
    heartbeat(client, "a > 5", version=9)
    world.stop()
    world = World(tmp_path / "store", BrokerSettings(enable_property_filter=True))
    client = world.connect()
    heartbeat(client, "a > 0", version=8)  # older than what the file has
    assert pull(client, None, version=8).code == codes.PULL_RETRY_IMMEDIATELY
    world.stop()


def test_a_damaged_file_costs_only_what_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "store/config"
    folder.mkdir(parents=True)
    good: dict[str, Any] = {"topic": "orders", "consumerGroup": "group", "expression": "a > 0"}
    good |= {"expressionType": "SQL92", "clientVersion": 5}
    groups = {"group": good, "broken": {"topic": 5}, "worse": {**good, "expression": "a >"}}
    content = {"orders": {"groupFilterData": groups}, "others": None}
    (folder / "consumerFilter.json").write_bytes(
        msgspec.json.encode({"filterDataByTopic": content})
    )
    world = World(tmp_path / "store", BrokerSettings(enable_property_filter=True))
    client = world.connect()
    produce(client, a=1)
    heartbeat(client, "a > 5", version=5)  # same version: what is known stays
    assert offsets(pull(client, None, version=5)) == [0]
    world.stop()
