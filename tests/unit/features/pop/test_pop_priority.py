"""Priority topics: the queue is the priority, and pops read the highest first."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.brokers import Connection, World
from tests.support.popping import GROUP, ack, bodies, pop

from firearrow.config import BrokerSettings
from firearrow.model.group import Group
from firearrow.model.topic import Topic

TOPIC = "urgent"


def prepare(world: World, kind: str = "PRIORITY", factor: str = "") -> None:
    topic = Topic(
        name=TOPIC, read_queues=3, write_queues=3, attributes={"message.type": kind} if kind else {}
    )
    world.core.topics.create(topic)
    attributes = {"priority.factor": factor} if factor else {}
    world.core.groups.update(Group(name=GROUP, attributes=attributes))


def send(client: Connection, priority: str, body: bytes = b"x", queue_id: int = 0) -> int:
    """Send with a priority; the queue that the answer names."""
    properties = f"_SYS_MSG_PRIORITY_\x01{priority}\x02" if priority else ""
    answer = client.produce(TOPIC, body, queue_id=queue_id, properties=properties)
    assert answer.code == 0
    return int(answer.ext["queueId"])


def revived(world: World, count: int) -> list[int]:
    """Wait until so many messages came again; how many there are in each queue."""
    for _ in range(60):
        world.clock.advance(1)
        found = [world.store.max_offset(f"%RETRY%{GROUP}_{TOPIC}", q) for q in range(3)]
        if sum(found) == count:
            return found
    raise AssertionError(f"{found} came again")


def one(client: Connection) -> bytes:
    (body,) = bodies(pop(client, topic=TOPIC, maxMsgNums=1))
    return body


def test_the_priority_chooses_the_queue(world: World, client: Connection) -> None:
    prepare(world)
    assert [send(client, p) for p in ("2", "0", "9", "1")] == [2, 0, 2, 1]
    assert [world.store.max_offset(TOPIC, q) for q in range(3)] == [1, 1, 2]


@pytest.mark.parametrize("priority", ["", "x", "-1"])
def test_without_a_priority_the_producer_chooses(
    world: World, client: Connection, priority: str
) -> None:
    prepare(world)
    assert send(client, priority, queue_id=1) == 1


@pytest.mark.parametrize("kind", ["", "NORMAL"])
def test_in_other_topics_the_property_means_nothing(
    world: World, client: Connection, kind: str
) -> None:
    prepare(world, kind)
    assert send(client, "2", queue_id=1) == 1


def test_a_topic_becomes_one_with_its_attribute(world: World, client: Connection) -> None:
    prepare(world, "NORMAL")
    assert send(client, "2", queue_id=1) == 1
    prepare(world)
    assert send(client, "2", queue_id=1) == 2


def test_a_pop_gets_the_highest_first(world: World, client: Connection) -> None:
    prepare(world)
    for _ in range(10):
        for priority in range(3):
            send(client, str(priority), b"%d" % priority)
    assert [one(client) for _ in range(30)] == [b"2"] * 10 + [b"1"] * 10 + [b"0"] * 10


def test_a_pop_goes_on_to_a_lower_one_only_when_the_higher_is_empty(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.max_transfer_count_on_message_in_memory = 8
    world = World(tmp_path, settings)
    client = world.connect()
    prepare(world)
    for priority in (1, 2):
        for _ in range(12):
            send(client, str(priority), b"%d" % priority)
    assert bodies(pop(client, topic=TOPIC)) == [b"2"] * 8
    assert bodies(pop(client, topic=TOPIC)) == [b"2"] * 4 + [b"1"] * 8
    world.stop()


def test_small_numbers_may_be_the_urgent_ones(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.priority_order_asc = False
    world = World(tmp_path, settings)
    client = world.connect()
    prepare(world)
    for priority in (1, 2, 0):
        send(client, str(priority), b"%d" % priority)
    assert [one(client) for _ in range(3)] == [b"0", b"1", b"2"]
    world.stop()


def test_a_group_may_not_care(world: World, client: Connection) -> None:
    prepare(world, factor="0")
    for priority in range(3):
        for _ in range(40):
            send(client, str(priority), b"%d" % priority)
    first = [one(client) for _ in range(40)]
    assert set(first) == {b"0", b"1", b"2"}  # once in 10^18 it is not


def test_a_newer_message_goes_before_a_retry(world: World, client: Connection) -> None:
    prepare(world)
    send(client, "0", b"old")
    assert one(client) == b"old"
    revived(world, 1)
    for _ in range(20):
        send(client, "0", b"new")
    assert [one(client) for _ in range(21)] == [b"new"] * 20 + [b"old"]


def test_retries_keep_their_priority(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.use_separate_retry_queue = True
    world = World(tmp_path, settings)
    client = world.connect()
    prepare(world)
    for priority in (0, 1, 2):
        send(client, str(priority), b"%d" % priority)
    assert [one(client) for _ in range(3)] == [b"2", b"1", b"0"]
    assert revived(world, 3) == [1, 1, 1]
    assert world.core.topics.table[f"%RETRY%{GROUP}_{TOPIC}"].read_queues == 3
    again = [pop(client, topic=TOPIC, maxMsgNums=1)[0] for _ in range(3)]
    assert [m.body for m in again] == [b"2", b"1", b"0"]
    for message in again:
        assert ack(client, message).code == 0
    world.clock.advance(60)
    assert pop(client, topic=TOPIC) == []
    world.stop()
