"""What a consumer gets when it pulls, and when it waits (behaviour.md 2.10)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.support.brokers import Connection, World, pull_fields

from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.model.group import Group
from firearrow.model.topic import Topic


def test_messages_come_back_as_they_were_sent(client: Connection) -> None:
    for n in range(3):
        client.produce("orders", b"body-%d" % n)
    answer = client.pull("orders")
    assert answer.code == codes.SUCCESS
    assert answer.header.remark == "FOUND"
    assert [r.body for r in answer.records()] == [b"body-0", b"body-1", b"body-2"]
    assert answer.ext == {
        "groupSysFlag": "0",
        "maxOffset": "3",
        "minOffset": "0",
        "nextBeginOffset": "3",
        "suggestWhichBrokerId": "0",
        "topicSysFlag": "0",
    }


def test_where_a_pull_outside_the_queue_is_sent(world: World, client: Connection) -> None:
    for _ in range(5):
        client.produce("orders")
    answer = client.pull("orders", offset=5)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_NOT_FOUND, "5")
    answer = client.pull("orders", offset=50)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_OFFSET_MOVED, "5")
    answer = client.pull("orders", queue_id=1, offset=7)  # never written
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_OFFSET_MOVED, "0")
    assert client.pull("orders", queue_id=1).code == codes.PULL_NOT_FOUND
    assert client.pull("orders", queue_id=4).code == codes.INVALID_PARAMETER


def test_how_much_one_pull_brings(client: Connection) -> None:
    for _ in range(40):
        client.produce("small")
    assert len(client.pull("small", count=64).records()) == 32
    client.produce("large", bytes(3 * 1024 * 1024))
    client.produce("large", b"x")
    assert len(client.pull("large").records()) == 1


def test_tags_are_filtered_on_the_server(client: Connection) -> None:
    for n in range(1000):
        client.produce("orders", properties=f"TAGS\x01{'wanted' if n == 900 else 'other'}\x02")
    answer = client.pull("orders", expression="wanted || unknown")
    assert answer.code == codes.PULL_RETRY_IMMEDIATELY
    assert answer.ext["nextBeginOffset"] == "800"
    answer = client.pull("orders", offset=800, expression="wanted || unknown")
    assert [r.queue_offset for r in answer.records()] == [900]


def test_some_tags_of_many(client: Connection) -> None:
    for tag in ("A", "B", "C", "A"):
        client.produce("orders", tag.encode(), properties=f"TAGS\x01{tag}\x02")
    answer = client.pull("orders", expression="A || B")
    assert [r.body for r in answer.records()] == [b"A", b"B", b"A"]


def test_tags_with_the_same_hash_are_left_to_the_client(client: Connection) -> None:
    for tag in ("Aa", "BB", "other"):
        client.produce("orders", tag.encode(), properties=f"TAGS\x01{tag}\x02")
    answer = client.pull("orders", expression="Aa")
    assert [r.body for r in answer.records()] == [b"Aa", b"BB"]


def test_who_may_pull(world: World, client: Connection) -> None:
    client.produce("orders")
    world.core.groups.update(Group(name="shut", consume_enable=False))
    answer = client.pull("orders", group="shut")
    assert (answer.code, answer.ext["forbiddenType"]) == (codes.NO_PERMISSION, "2")
    assert client.pull("nowhere").code == codes.TOPIC_NOT_EXIST
    world.core.topics.create(Topic(name="closed", perm=2))
    answer = client.pull("closed")
    assert (answer.code, answer.ext["forbiddenType"]) == (codes.NO_PERMISSION, "3")
    world.settings.auto_create_subscription_group = False
    assert client.pull("orders", group="unknown").code == codes.SUBSCRIPTION_GROUP_NOT_EXIST
    world.settings.broker_permission = 2
    answer = client.pull("orders")
    assert (answer.code, answer.ext["forbiddenType"]) == (codes.NO_PERMISSION, "1")


def test_a_topic_shrinks_first_for_producers_and_then_for_consumers(
    world: World, client: Connection
) -> None:
    world.core.topics.create(Topic(name="orders", read_queues=8, write_queues=8))
    client.produce("orders", b"last", queue_id=5)
    world.core.topics.create(Topic(name="orders", read_queues=8, write_queues=4))
    assert [r.body for r in client.pull("orders", queue_id=5).records()] == [b"last"]
    world.core.topics.create(Topic(name="orders", read_queues=4, write_queues=4))
    assert client.pull("orders", queue_id=5).code == codes.INVALID_PARAMETER
    assert client.pull("orders", queue_id=3).code == codes.PULL_NOT_FOUND


def test_a_push_consumer_needs_its_heartbeat(client: Connection) -> None:
    client.produce("orders", properties="TAGS\x01a\x02")
    client.produce("orders", properties="TAGS\x01b\x02")
    assert client.pull("orders", expression=None).code == codes.SUBSCRIPTION_NOT_EXIST
    client.heartbeat("group", {"orders": "b"}, version=10)
    (record,) = client.pull("orders", expression=None, version=10).records()
    assert record.queue_offset == 1
    answer = client.pull("orders", expression=None, version=11)
    assert answer.code == codes.SUBSCRIPTION_NOT_LATEST
    client.produce("others")
    assert client.pull("others", expression=None).code == codes.SUBSCRIPTION_NOT_EXIST


def test_filters_that_are_not_served_are_refused_clearly(client: Connection) -> None:
    client.produce("orders")
    fields = pull_fields("orders", expression="a > 1") | {"expressionType": "SQL92"}
    answer = client.call(11, fields)
    assert answer.code == codes.SYSTEM_ERROR
    assert "SQL92" in (answer.header.remark or "")


# -- waiting


def wait(client: Connection, **more: object) -> None:
    client.received()
    client.send(11, pull_fields("orders", suspend_ms=15_000, **more))  # type: ignore[arg-type]
    assert client.received() == []


def test_a_waiting_pull_is_answered_by_the_next_message(world: World, client: Connection) -> None:
    client.produce("orders")
    wait(client, offset=1)
    world.connect().produce("orders", b"news")
    world.clock.advance(0)
    (answer,) = client.received()
    assert [r.body for r in answer.records()] == [b"news"]


def test_a_waiting_pull_ends_after_its_time(world: World, client: Connection) -> None:
    client.produce("orders")
    wait(client, offset=1)
    world.clock.advance(14.9)
    assert client.received() == []
    world.clock.advance(1.2)
    (answer,) = client.received()
    assert answer.code == codes.PULL_NOT_FOUND


def test_a_waiting_pull_takes_no_notice_of_other_tags_at_first(
    world: World, client: Connection
) -> None:
    client.produce("orders")
    wait(client, offset=1, expression="wanted")
    other = world.connect()
    other.produce("orders", properties="TAGS\x01other\x02")
    world.clock.advance(1)
    assert client.received() == []
    world.clock.advance(4)  # but its offset moves on
    (answer,) = client.received()
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_RETRY_IMMEDIATELY, "2")
    wait(client, offset=2, expression="wanted")
    other.produce("orders", properties="TAGS\x01wanted\x02")
    world.clock.advance(0)
    (answer,) = client.received()
    assert answer.code == codes.SUCCESS


def test_a_waiting_pull_whose_client_left_is_forgotten(world: World, client: Connection) -> None:
    client.produce("orders")
    wait(client, offset=1)
    client.drop()
    world.connect().produce("orders")  # FakePeer.send fails on a closed peer
    world.clock.advance(20)
    assert len(world.broker.long_poll) == 0


def test_many_messages_at_once_wake_a_pull_once(world: World, client: Connection) -> None:
    client.produce("orders")
    wait(client, offset=1)
    other = world.connect()
    for _ in range(10):
        other.produce("orders")
    world.clock.advance(0)
    (answer,) = client.received()
    assert len(answer.records()) == 10


# -- offsets


def query(client: Connection, group: str = "group", **more: object) -> int | None:
    fields = {"consumerGroup": group, "topic": "orders", "queueId": 0, **more}
    answer = client.call(14, fields)
    return int(answer.ext["offset"]) if answer.code == 0 else None


def test_a_young_queue_is_consumed_from_its_beginning(client: Connection) -> None:
    client.produce("orders")
    assert query(client) == 0
    assert query(client, setZeroIfNotFound="false") is None


def test_offsets_go_where_they_are_told(client: Connection) -> None:
    client.produce("orders")
    client.pull("orders")
    for offset in (100, 50):
        fields = {
            "consumerGroup": "group",
            "topic": "orders",
            "queueId": 0,
            "commitOffset": offset,
        }
        assert client.call(15, fields).code == codes.SUCCESS
        assert query(client) == offset
    client.pull("orders", offset=1, commit=7)
    assert query(client) == 7
    del fields["commitOffset"]
    assert client.call(15, fields).code == codes.INVALID_PARAMETER


def test_offsets_are_there_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    client.produce("orders")
    client.pull("orders", commit=1)
    world.stop()
    world = World(tmp_path)
    assert query(world.connect()) == 1
    world.stop()


def test_offsets_by_time(world: World, client: Connection) -> None:
    times = []
    for _ in range(5):
        times.append(world.clock.now_ms())
        client.produce("orders")
        world.clock.advance(1)

    def search(time: int, boundary: str) -> str:
        fields = {"topic": "orders", "queueId": 0, "timestamp": time, "boundaryType": boundary}
        return client.call(29, fields).ext["offset"]

    assert search(times[2], "LOWER") == "2"
    assert search(times[2], "UPPER") == "2"
    assert search(times[2] + 1, "LOWER") == "3"
    assert search(times[2] + 1, "UPPER") == "2"
    assert search(0, "LOWER") == "0"
    assert search(times[4] + 99_999, "LOWER") == "5"
    assert search(times[4] + 99_999, "UPPER") == "4"
    earliest = client.call(32, {"topic": "orders", "queueId": 0})
    assert earliest.ext["timestamp"] == str(times[0])
    assert client.call(32, {"topic": "orders", "queueId": 1}).ext["timestamp"] == "-1"


@pytest.mark.parametrize("code", [30, 31, 29])
def test_an_unknown_queue_is_at_zero(client: Connection, code: int) -> None:
    fields = {"topic": "nowhere", "queueId": 3, "timestamp": 5}
    assert client.call(code, fields).ext["offset"] == "0"


def test_broadcast_can_be_forbidden(tmp_path: Path) -> None:
    world = World(tmp_path, BrokerSettings())
    client = world.connect()
    client.produce("orders")
    world.core.groups.update(
        msgspec.structs.replace(Group(name="group"), consume_broadcast_enable=False)
    )
    client.heartbeat("group", {"orders": "*"}, model="BROADCASTING")
    answer = client.pull("orders", expression=None)
    assert (answer.code, answer.ext["forbiddenType"]) == (codes.NO_PERMISSION, "4")
    world.stop()
