"""Topics as an operator makes, changes, asks and deletes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import Answered, Connection, World

from firearrow.model import codes


def create(client: Connection, topic: str = "T", **more: Any) -> Answered:
    """UPDATE_AND_CREATE_TOPIC as mqadmin updateTopic sends it."""
    fields = {
        "topic": topic,
        "defaultTopic": "TBW102",
        "readQueueNums": 8,
        "writeQueueNums": 8,
        "perm": 6,
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": 0,
        "order": "false",
        "attributes": "",
        **more,
    }
    return client.call(17, {k: v for k, v in fields.items() if v is not None})


def config(client: Connection, topic: str = "T") -> dict[str, Any]:
    answer = client.call(351, {"topic": topic})
    assert answer.code == codes.SUCCESS, answer.header.remark
    found: dict[str, Any] = answer.json()
    return found


def all_topics(client: Connection) -> dict[str, Any]:
    table: dict[str, Any] = client.call(21).json()["topicConfigTable"]
    return table


def test_a_topic_is_made_and_changed(client: Connection) -> None:
    assert create(client, readQueueNums=3, writeQueueNums=2, perm=2).code == codes.SUCCESS
    assert config(client) == {
        "attributes": {},
        "order": False,
        "perm": 2,
        "readQueueNums": 3,
        "topicFilterType": "SINGLE_TAG",
        "topicName": "T",
        "topicSysFlag": 0,
        "writeQueueNums": 2,
    }
    client.produce("T")
    assert client.pull("T").code == codes.NO_PERMISSION
    create(client, readQueueNums=3, writeQueueNums=2, order="true")
    assert client.pull("T").code == codes.SUCCESS
    assert client.produce("T", queue_id=3).code == codes.INVALID_PARAMETER
    assert config(client)["order"] is True


def test_the_same_again_changes_no_version(client: Connection) -> None:
    create(client)
    version = client.call(21).json()["dataVersion"]
    create(client)
    assert client.call(21).json()["dataVersion"] == version
    create(client, perm=4)
    assert client.call(21).json()["dataVersion"]["counter"] == version["counter"] + 1


def test_old_clients_may_leave_fields_out(client: Connection) -> None:
    answer = create(client, topicSysFlag=None, order=None, attributes=None, defaultTopic=None)
    assert answer.code == codes.SUCCESS


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"topic": ""}, codes.INVALID_PARAMETER, "The specified topic is blank."),
        ({"topic": "a b"}, codes.INVALID_PARAMETER, "contains illegal characters"),
        ({"topic": "../x"}, codes.INVALID_PARAMETER, "contains illegal characters"),
        ({"topic": "x" * 128}, codes.INVALID_PARAMETER, "longer than topic max length 127"),
        ({"topic": "TBW102"}, codes.INVALID_PARAMETER, "conflict with system topic"),
        ({"topic": "rmq_sys_x"}, codes.INVALID_PARAMETER, "conflict with system topic"),
        ({"readQueueNums": -1}, codes.INVALID_PARAMETER, "-1 read queues; the limit is 65535"),
        ({"writeQueueNums": 2147483647}, codes.INVALID_PARAMETER, "the limit is 65535"),
        ({"perm": 8}, codes.INVALID_PARAMETER, "perm 8 is none"),
        ({"perm": -1}, codes.INVALID_PARAMETER, "perm -1 is none"),
        ({"topicFilterType": "NO"}, codes.INVALID_PARAMETER, "[NO] value invalid"),
        ({"readQueueNums": "many"}, codes.SYSTEM_ERROR, "UPDATE_AND_CREATE_TOPIC: "),
        ({"topic": None}, codes.SYSTEM_ERROR, "topic"),
    ],
)
def test_a_topic_that_cannot_be_is_refused(
    client: Connection, fields: dict[str, Any], code: int, said: str
) -> None:
    before = all_topics(client)
    answer = create(client, **fields)
    assert answer.code == code
    assert said in (answer.header.remark or "")
    assert all_topics(client) == before


# -- attributes


def test_attributes_are_added_changed_and_removed(client: Connection) -> None:
    create(client, attributes="+message.type=FIFO,+reserve.time=3600")
    assert config(client)["attributes"] == {"message.type": "FIFO", "reserve.time": "3600"}
    create(client, attributes="+message.type=DELAY")
    assert config(client)["attributes"] == {"message.type": "DELAY", "reserve.time": "3600"}
    create(client, attributes="-reserve.time")
    assert config(client)["attributes"] == {"message.type": "DELAY"}
    create(client, perm=4)
    assert config(client)["attributes"] == {"message.type": "DELAY"}, (
        "nothing said, nothing changed"
    )


@pytest.mark.parametrize(
    ("existing", "change", "said"),
    [
        (None, "message.type=FIFO", "write +key=value"),
        (None, "+no.such=1", "unsupported key: no.such"),
        (None, "-message.type", "only add attribute is supported while creating"),
        (None, "+message.type=WRONG", "WRONG is no value for message.type"),
        (None, "+reserve.time=--5", "--5 is no value for reserve.time"),
        (None, "+reserve.time=²", "is no value for reserve.time"),
        (None, "+reserve.time=-2", "-2 is no value for reserve.time"),
        (None, "+reserve.time=9223372036854775808", "is no value for reserve.time"),
        (None, "+message.type=FIFO,+message.type=DELAY", "key duplication"),
        ("+message.type=FIFO", "-reserve.time", "attempt to delete a nonexistent key"),
        ("+queue.type=SimpleCQ", "+queue.type=BatchCQ", "unchangeable attribute"),
        ("+cleanup.policy=DELETE", "-cleanup.policy", "unchangeable attribute"),
    ],
)
def test_a_change_of_attributes_that_cannot_be_is_refused(
    client: Connection, existing: str | None, change: str, said: str
) -> None:
    if existing is not None:
        create(client, attributes=existing)
    before = all_topics(client)
    answer = create(client, attributes=change)
    assert answer.code == codes.SYSTEM_ERROR
    assert said in (answer.header.remark or "")
    assert all_topics(client) == before


def test_mixed_types_need_a_setting(world: World, client: Connection) -> None:
    refused = create(client, attributes="+message.type=MIXED")
    assert (refused.code, refused.header.remark) == (
        codes.INVALID_PARAMETER,
        "MIXED message type is not supported.",
    )
    world.settings.enable_mixed_message_type = True
    assert create(client, attributes="+message.type=MIXED").code == codes.SUCCESS


# -- lists


def make_all(client: Connection, *topics: dict[str, Any]) -> Answered:
    return client.call(18, body=msgspec.json.encode({"topicConfigList": topics}))


def test_many_topics_at_once_all_or_none(client: Connection) -> None:
    good = {"topicName": "A", "readQueueNums": 2, "writeQueueNums": 2, "perm": 6}
    assert make_all(client, good, {"topicName": "bad name"}).code == codes.INVALID_PARAMETER
    assert make_all(client, good, {"topicName": "B", "perm": 99}).code == codes.INVALID_PARAMETER
    assert "A" not in all_topics(client)
    assert make_all(client, good, {"topicName": "B"}).code == codes.SUCCESS
    assert all_topics(client).keys() >= {"A", "B"}


@pytest.mark.parametrize("key", ["+message.type", "message.type"])
def test_attributes_in_a_list_are_changes_too(client: Connection, key: str) -> None:
    """mqadmin signs them; a configuration that was exported has them without a sign."""
    assert make_all(client, {"topicName": "A", "attributes": {key: "FIFO"}}).code == codes.SUCCESS
    assert config(client, "A")["attributes"] == {"message.type": "FIFO"}
    refused = make_all(client, {"topicName": "A", "attributes": {"+no.such": "1"}})
    assert refused.code == codes.SYSTEM_ERROR
    mixed = make_all(client, {"topicName": "C", "attributes": {key: "MIXED"}})
    assert mixed.code == codes.INVALID_PARAMETER


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"topicConfigList":7}', b'{"topicConfigList":[7]}', b"\xff"]
)
def test_an_unreadable_list_is_refused(client: Connection, body: bytes) -> None:
    answer = client.call(18, body=body)
    assert answer.code == codes.SYSTEM_ERROR
    assert "unreadable list of topics" in (answer.header.remark or "")


# -- asking


def test_pages_of_all_topics(client: Connection) -> None:
    everything = client.call(21)
    total = len(everything.json()["topicConfigTable"])
    assert everything.ext["totalTopicNum"] == str(total)
    seen: set[str] = set()
    for start in range(0, total, 5):
        page = client.call(21, {"topicSeq": start, "maxTopicNum": 5}).json()["topicConfigTable"]
        assert len(page) <= 5
        seen |= page.keys()
    assert seen == everything.json()["topicConfigTable"].keys()


def test_the_state_of_every_queue(world: World, client: Connection) -> None:
    create(client, readQueueNums=2, writeQueueNums=1)
    world.clock.advance(5)
    client.produce("T")
    client.produce("T")
    body = client.call(202, {"topic": "T"}).body
    stored = world.clock.now_ms()
    first = b'{"brokerName":"broker-a","queueId":0,"topic":"T"}'
    assert first + b':{"lastUpdateTimestamp":%d,"maxOffset":2,"minOffset":0}' % stored in body
    assert b'"queueId":1,"topic":"T"}:{"lastUpdateTimestamp":0,"maxOffset":0' in body
    missing = client.call(202, {"topic": "nowhere"})
    assert (missing.code, missing.header.remark) == (
        codes.TOPIC_NOT_EXIST,
        "topic[nowhere] not exist",
    )


def test_an_unknown_topic_has_no_configuration(client: Connection) -> None:
    missing = client.call(351, {"topic": "nowhere"})
    assert missing.code == codes.TOPIC_NOT_EXIST
    assert missing.header.remark == "No topic in this broker. topic: nowhere"


def test_system_topics_name_the_cluster_and_the_broker(client: Connection) -> None:
    create(client)
    answer = client.call(305).json()
    assert {"DefaultCluster", "broker-a", "TBW102", "SCHEDULE_TOPIC_XXXX"} <= {*answer["topicList"]}
    assert "T" not in answer["topicList"]
    assert answer["brokerAddr"] == "127.0.0.1:10911"


# -- deleting


def test_a_deleted_topic_takes_its_messages_and_offsets_along(
    world: World, client: Connection
) -> None:
    create(client)
    client.produce("T")
    fields = {"consumerGroup": "group", "topic": "T", "queueId": 0}
    client.call(15, {**fields, "commitOffset": 1})
    assert client.call(215, {"topic": "T"}).code == codes.SUCCESS
    assert client.call(351, {"topic": "T"}).code == codes.TOPIC_NOT_EXIST
    assert client.pull("T").code == codes.TOPIC_NOT_EXIST
    assert client.call(215, {"topic": "T"}).code == codes.SUCCESS, "twice is no error"
    create(client)
    assert client.call(30, {"topic": "T", "queueId": 0}).ext["offset"] == "0"
    assert client.call(14, fields).ext["offset"] == "0"


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        (" ", "The specified topic is blank."),
        ("TBW102", "The topic[TBW102] is conflict with system topic."),
        ("DefaultCluster", "The topic[DefaultCluster] is conflict with system topic."),
    ],
)
def test_some_topics_cannot_be_deleted(client: Connection, topic: str, said: str) -> None:
    answer = client.call(215, {"topic": topic})
    assert (answer.code, answer.header.remark) == (codes.INVALID_PARAMETER, said)


def test_topics_are_there_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path / "s")
    client = world.connect()
    create(client, attributes="+message.type=FIFO")
    create(client, "Gone")
    client.call(215, {"topic": "Gone"})
    world.stop()
    world = World(tmp_path / "s")
    assert config(world.connect())["attributes"] == {"message.type": "FIFO"}
    assert "Gone" not in all_topics(world.connect())
    world.stop()


@pytest.mark.parametrize("code", [306, 316, 329])
def test_cleaning_on_demand_is_answered(client: Connection, code: int) -> None:
    client.produce("T")
    assert client.call(code).code == codes.SUCCESS
    assert len(client.pull("T").records()) == 1, "nothing that is alive is cleaned"
