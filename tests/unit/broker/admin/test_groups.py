"""Consumer groups as an operator makes, changes, asks and deletes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import Answered, Connection, World

from firearrow.model import codes


def update(client: Connection, name: str = "G", **more: Any) -> Answered:
    """UPDATE_AND_CREATE_SUBSCRIPTIONGROUP as mqadmin updateSubGroup sends it."""
    return client.call(200, body=msgspec.json.encode({"groupName": name, **more}))


def config(client: Connection, name: str = "G") -> dict[str, Any]:
    answer = client.call(352, {"group": name})
    assert answer.code == codes.SUCCESS, answer.header.remark
    found: dict[str, Any] = answer.json()
    return found


def table(client: Connection) -> dict[str, Any]:
    found: dict[str, Any] = client.call(201).json()["subscriptionGroupTable"]
    return found


def test_a_group_is_made_with_rocketmqs_defaults_and_changed(client: Connection) -> None:
    assert update(client).code == codes.SUCCESS
    assert config(client) == {
        "attributes": {},
        "brokerId": 0,
        "consumeBroadcastEnable": True,
        "consumeEnable": True,
        "consumeFromMinEnable": True,
        "consumeMessageOrderly": False,
        "consumeTimeoutMinute": 15,
        "groupName": "G",
        "groupRetryPolicy": {"type": "CUSTOMIZED"},
        "groupSysFlag": 0,
        "notifyConsumerIdsChangedEnable": True,
        "retryMaxTimes": 16,
        "retryQueueNums": 1,
        "whichBrokerWhenConsumeSlowly": 1,
    }
    update(client, retryMaxTimes=3, consumeEnable=False)
    assert config(client)["retryMaxTimes"] == 3
    client.produce("T")
    assert client.pull("T", group="G").code == codes.NO_PERMISSION


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"groupName": ""}, codes.INVALID_PARAMETER, "The specified group is blank."),
        ({"groupName": "a b"}, codes.INVALID_PARAMETER, "contains illegal characters"),
        ({"groupName": "x" * 121}, codes.INVALID_PARAMETER, "max length 120"),
        ({"groupName": "G", "retryQueueNums": -1}, codes.INVALID_PARAMETER, "retry queues"),
        ({"groupName": "G", "retryQueueNums": 10**9}, codes.INVALID_PARAMETER, "limit is 65535"),
        (
            {"groupName": "G", "groupRetryPolicy": {"customizedRetryPolicy": {"next": ["x"]}}},
            codes.INVALID_PARAMETER,
            "groupRetryPolicy: Expected `int`, got `str` - at `$.next[0]`",
        ),
        ({"groupName": "G", "attributes": {"+x": "1"}}, codes.SYSTEM_ERROR, "unsupported key: x"),
        ({"groupName": "G", "retryMaxTimes": "x"}, codes.SYSTEM_ERROR, "unreadable group"),
        ({}, codes.SYSTEM_ERROR, "unreadable group"),
        ([], codes.SYSTEM_ERROR, "unreadable group"),
    ],
)
def test_a_group_that_cannot_be_is_refused(
    client: Connection, body: Any, code: int, said: str
) -> None:
    before = table(client)
    answer = client.call(200, body=msgspec.json.encode(body))
    assert answer.code == code
    assert said in (answer.header.remark or "")
    assert table(client) == before


def test_many_groups_at_once_all_or_none(client: Connection) -> None:
    def make(*names: str) -> Answered:
        groups = [{"groupName": name} for name in names]
        return client.call(225, body=msgspec.json.encode({"groupConfigList": groups}))

    assert make("A", "a b").code == codes.INVALID_PARAMETER
    assert "A" not in table(client)
    assert make("A", "B").code == codes.SUCCESS
    assert table(client).keys() >= {"A", "B"}
    for body in (b"", b"[]", b"{}", b'{"groupConfigList":[7]}'):
        assert client.call(225, body=body).code == codes.SYSTEM_ERROR


def test_all_groups_are_counted(client: Connection) -> None:
    answer = client.call(201)
    assert answer.ext["totalGroupNum"] == str(len(answer.json()["subscriptionGroupTable"]))
    assert "TOOLS_CONSUMER" in answer.json()["subscriptionGroupTable"]


def test_an_unknown_group_is_made_by_use_where_that_is_allowed(
    world: World, client: Connection
) -> None:
    assert config(client, "Unknown")["groupName"] == "Unknown"
    world.settings.auto_create_subscription_group = False
    missing = client.call(352, {"group": "Other"})
    assert missing.code == codes.SUBSCRIPTION_GROUP_NOT_EXIST
    client.produce("T")
    assert client.pull("T", group="Other").code == codes.SUBSCRIPTION_GROUP_NOT_EXIST


def test_a_deleted_group_keeps_its_offsets_unless_told_otherwise(
    world: World, client: Connection
) -> None:
    world.settings.auto_create_subscription_group = False
    client.produce("T")
    for name, clean in (("Kept", "false"), ("Cleaned", "true")):
        update(client, name)
        fields = {"consumerGroup": name, "topic": "T", "queueId": 0}
        client.call(15, {**fields, "commitOffset": 1})
        delete = {"groupName": name, "cleanOffset": clean}
        assert client.call(207, delete).code == codes.SUCCESS
        assert name not in table(client)
        assert client.call(207, delete).code == codes.SUCCESS, "twice is no error"
        update(client, name)
        assert client.call(14, fields).ext["offset"] == ("1" if name == "Kept" else "0")


def test_a_group_may_be_kept_from_one_topic(client: Connection) -> None:
    client.heartbeat("G", {"T": "*", "U": "*"})
    client.produce("T")
    client.produce("U")
    fields = {"group": "G", "topic": "T"}
    assert client.call(353, fields).json() == {"group": "G", "readable": True, "topic": "T"}
    assert client.call(353, {**fields, "readable": "false"}).json()["readable"] is False
    assert client.pull("T", group="G", expression=None).code == codes.NO_PERMISSION
    assert client.pull("U", group="G", expression=None).code == codes.SUCCESS
    client.call(353, {**fields, "readable": "true"})
    assert client.pull("T", group="G", expression=None).code == codes.SUCCESS


def test_a_group_that_is_made_anew_is_not_forbidden_anything(client: Connection) -> None:
    client.heartbeat("G", {"T": "*"})
    client.produce("T")
    client.call(353, {"group": "G", "topic": "T", "readable": "false"})
    client.call(207, {"groupName": "G"})
    update(client)
    assert client.pull("T", group="G", expression=None).code == codes.SUCCESS


def test_groups_are_there_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path / "s")
    client = world.connect()
    update(client, retryMaxTimes=3)
    update(client, "Gone")
    client.call(353, {"group": "G", "topic": "T", "readable": "false"})
    client.call(207, {"groupName": "Gone"})
    world.stop()
    world = World(tmp_path / "s")
    client = world.connect()
    assert config(client)["retryMaxTimes"] == 3
    assert "Gone" not in table(client)
    assert client.call(353, {"group": "G", "topic": "T"}).json()["readable"] is False
    world.stop()
