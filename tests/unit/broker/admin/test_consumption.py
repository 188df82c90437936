"""How far groups are, and setting them elsewhere, as mqadmin's consumer commands do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.support.brokers import Answered, Connection, World

from firearrow.codec import lenient_json
from firearrow.model import codes

RESET_NOTICE = 220


@pytest.fixture
def stored(world: World, client: Connection) -> Connection:
    """A topic T with two queues: five messages in the first, one a second; and a group at 2."""
    fields = {"topic": "T", "readQueueNums": 2, "writeQueueNums": 2, "perm": 6}
    client.call(17, {**fields, "topicFilterType": "SINGLE_TAG", "order": "false"})
    for _ in range(5):
        client.produce("T")
        world.clock.advance(1)
    client.call(200, body=b'{"groupName":"G"}')
    commit(client, 2)
    return client


def commit(client: Connection, offset: int, group: str = "G", queue_id: int = 0) -> None:
    fields = {"consumerGroup": group, "topic": "T", "queueId": queue_id, "commitOffset": offset}
    client.call(15, fields)


def committed(client: Connection, group: str = "G", queue_id: int = 0) -> str:
    fields = {"consumerGroup": group, "topic": "T", "queueId": queue_id}
    return client.call(14, fields).ext["offset"]


def table(answer: Answered, key: str = "offsetTable") -> dict[int, Any]:
    """A map keyed by queues, by queue id."""
    assert answer.code in (codes.SUCCESS, RESET_NOTICE), answer.header.remark
    found = lenient_json.loads(answer.body)[key]
    return {msgspec.json.decode(queue)["queueId"]: value for queue, value in found.items()}


# -- progress


def test_consumer_progress_counts_what_is_behind(world: World, stored: Connection) -> None:
    answer = stored.call(208, {"consumerGroup": "G", "topic": "T"})
    rows = table(answer)
    first = world.clock.now_ms() - 5000
    assert rows[0] == {
        "brokerOffset": 5,
        "consumerOffset": 2,
        "lastTimestamp": first + 1000,
        "pullOffset": 2,
    }
    assert rows[1]["brokerOffset"] == 0
    assert answer.body.startswith(b'{"consumeTps":0.0,"offsetTable":{{"brokerName":"broker-a",')


@pytest.mark.parametrize("fields", [{}, {"topic": "T"}, {"topicList": "T;nowhere"}, {"topic": ""}])
def test_progress_of_one_of_some_or_of_all_topics(
    stored: Connection, fields: dict[str, str]
) -> None:
    assert table(stored.call(208, {"consumerGroup": "G", **fields}))[0]["consumerOffset"] == 2


def test_progress_of_somebody_unknown_is_empty(stored: Connection) -> None:
    assert table(stored.call(208, {"consumerGroup": "nobody"})) == {}
    assert table(stored.call(208, {"consumerGroup": "G", "topic": "nowhere"})) == {}
    assert stored.call(208).code == codes.SYSTEM_ERROR


def test_what_all_groups_are_behind(stored: Connection) -> None:
    body = lenient_json.loads(stored.call(317, {"isOrder": "false"}).body)
    assert (body["brokerAddr"], body["totalDiff"]) == ("127.0.0.1:10911", 3)
    assert [list(row) for row in body["consumeStatsList"]] == [["G"]]
    ordered = lenient_json.loads(stored.call(317, {"isOrder": "true"}).body)
    assert ordered["consumeStatsList"] == []


def test_the_time_span_of_a_group(world: World, stored: Connection) -> None:
    answer = stored.call(303, {"topic": "T", "group": "G"})
    first, second = answer.json()["consumeTimeSpanSet"]
    start = world.clock.now_ms() - 5000
    assert first["messageQueue"] == {"brokerName": "broker-a", "queueId": 0, "topic": "T"}
    assert (first["minTimeStamp"], first["maxTimeStamp"]) == (start, start + 4000)
    assert (first["consumeTimeStamp"], first["delayTime"]) == (start + 1000, 3000)
    assert (second["minTimeStamp"], second["delayTime"]) == (-1, 0)
    assert stored.call(303, {"topic": "nowhere", "group": "G"}).code == codes.TOPIC_NOT_EXIST
    assert stored.call(303, {"topic": "T"}).code == codes.SYSTEM_ERROR


def test_who_consumes_what(stored: Connection) -> None:
    stored.heartbeat("Online", {"T": "TagA"})
    assert stored.call(300, {"topic": "T"}).json()["groupList"] == ["G", "Online"]
    assert stored.call(300, {"topic": "nowhere"}).json()["groupList"] == []
    assert stored.call(343, {"group": "G"}).json()["topicList"] == ["T"]
    fields = {"group": "Online", "topic": "T"}
    found = stored.call(345, fields).json()
    assert found["subscriptionData"]["subString"] == "TagA"
    assert "subscriptionData" not in stored.call(345, {**fields, "group": "G"}).json()


# -- resetting


def reset(client: Connection, **more: Any) -> Answered:
    fields = {"topic": "T", "group": "G", "timestamp": -1, "isForce": "true", **more}
    return client.call(222, fields)


def test_a_reset_to_the_end_or_to_a_time(world: World, stored: Connection) -> None:
    assert table(reset(stored)) == {0: 5, 1: 0}
    assert committed(stored) == "5"
    middle = world.clock.now_ms() - 3000
    assert table(reset(stored, timestamp=middle)) == {0: 2, 1: 0}
    assert committed(stored) == "2"
    assert table(reset(stored, timestamp=0))[0] == 0


def test_a_reset_of_one_queue_to_an_offset(stored: Connection) -> None:
    assert table(reset(stored, queueId=0, offset=4)) == {0: 4}
    assert committed(stored) == "4"
    assert table(reset(stored, queueId=0, offset=6)) == {0: 6}  # one behind the end still counts
    refused = reset(stored, queueId=0, offset=7)
    assert refused.code == codes.SYSTEM_ERROR
    assert refused.header.remark == "Target offset 7 not in consume queue range [0-5]"
    assert table(reset(stored, queueId=0, offset=-1)) == {0: 5}


def test_a_member_that_pulls_goes_on_from_where_it_was_set(stored: Connection) -> None:
    """The next pull is answered with the new offset, and a late commit does not undo it."""
    stored.heartbeat("G", {"T": "*"})
    reset(stored, timestamp=0)
    commit(stored, 5)
    assert committed(stored) == "0"
    answer = stored.pull("T", group="G", offset=5)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_OFFSET_MOVED, "0")
    commit(stored, 1)
    assert committed(stored) == "1"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"topic": "nowhere"}, codes.TOPIC_NOT_EXIST),
        ({"group": "nobody"}, codes.SUBSCRIPTION_GROUP_NOT_EXIST),
        ({"timestamp": "soon"}, codes.SYSTEM_ERROR),
        ({"queueId": "x"}, codes.SYSTEM_ERROR),
    ],
)
def test_a_reset_that_cannot_be_is_refused(
    stored: Connection, fields: dict[str, Any], code: int
) -> None:
    assert reset(stored, **fields).code == code
    assert committed(stored) == "2"


def test_the_way_before_5_tells_every_member(world: World, stored: Connection) -> None:
    world.settings.use_server_side_reset_offset = False
    assert reset(stored).code == codes.CONSUMER_NOT_ONLINE
    java, cpp = world.connect(), world.connect()
    java.heartbeat("G", {"T": "*"}, client_id="java")
    beat = {"clientID": "cpp", "consumerDataSet": [{"groupName": "G", "subscriptionDataSet": []}]}
    cpp.call(34, body=msgspec.json.encode(beat), language="CPP")
    commit(stored, 2, queue_id=1)
    java.received()
    cpp.received()
    assert table(reset(stored)) == {0: 5, 1: 0}
    (notice,) = [f for f in java.received() if f.code == RESET_NOTICE]
    assert table(notice) == {0: 5, 1: 0}
    assert (notice.ext["topic"], notice.ext["group"]) == ("T", "G")
    (notice,) = [f for f in cpp.received() if f.code == RESET_NOTICE]
    assert {row["queueId"]: row["offset"] for row in notice.json()["offsetTable"]} == {0: 5, 1: 0}


def test_without_force_a_reset_goes_only_back(world: World, stored: Connection) -> None:
    world.settings.use_server_side_reset_offset = False
    stored.heartbeat("G", {"T": "*"})
    commit(stored, 0, queue_id=1)
    assert table(reset(stored, isForce="false"))[0] == 2
    assert table(reset(stored, isForce="false", timestamp=0))[0] == 0


# -- copying and correcting


def test_offsets_are_cloned_to_another_group(stored: Connection) -> None:
    clone = {"srcGroup": "G", "destGroup": "New", "topic": "T"}
    assert stored.call(314, clone).code == codes.SUCCESS
    assert committed(stored, "New") == "2"
    commit(stored, 3, "New")
    assert committed(stored) == "2", "they are no longer the same"
    assert stored.call(314, {**clone, "srcGroup": "nobody"}).code == codes.SUCCESS
    assert committed(stored, "New") == "3"
    assert stored.call(314, {"srcGroup": "G"}).code == codes.SYSTEM_ERROR


def test_corrections_are_the_lowest_offsets_of_others(stored: Connection) -> None:
    commit(stored, 1, "Other")
    commit(stored, 0, "Ignored")
    fields = {"topic": "T", "compareGroup": "G", "filterGroups": "Ignored"}
    assert stored.call(308, fields).json() == {"correctionOffsets": {"0": 1}}


def test_all_offsets_are_given_to_whoever_copies_them(stored: Connection) -> None:
    body = lenient_json.loads(stored.call(43).body)
    assert body["offsetTable"]["T@G"] == {"0": 2}
