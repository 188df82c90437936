"""Topics that keep their messages for a time, or up to a size."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.brokers import Answered, Connection, World

from firearrow.features import topic_retention
from firearrow.model import codes


def set_attributes(client: Connection, changes: str, topic: str = "orders", queues: int = 2) -> int:
    """As ``mqadmin updateTopic -a``."""
    fields = {
        "topic": topic,
        "defaultTopic": "TBW102",
        "readQueueNums": queues,
        "writeQueueNums": queues,
        "perm": 6,
        "topicFilterType": "SINGLE_TAG",
        "order": "false",
        "attributes": changes,
    }
    return client.call(17, fields).code


def oldest(world: World, queue_id: int = 0, topic: str = "orders") -> int:
    return world.store.min_offset(topic, queue_id)


def pull(client: Connection, offset: int = 0) -> Answered:
    return client.pull("orders", offset=offset)


def test_what_is_older_than_the_topic_keeps_is_not_readable(
    world: World, client: Connection
) -> None:
    assert set_attributes(client, "+retention.ms=60000") == codes.SUCCESS
    for n in range(10):
        client.produce("orders", b"%d" % n)
        client.produce("others", b"%d" % n)
        world.clock.advance(10)
    assert oldest(world) == 4
    answer = pull(client)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_OFFSET_MOVED, "4")
    assert pull(client, 4).records()[0].body == b"4"
    assert len(client.pull("others").records()) == 10
    world.clock.advance(120)
    assert oldest(world) == 10  # all of it; the queue goes on where it was
    client.produce("orders", b"new")
    assert [record.body for record in pull(client, 10).records()] == [b"new"]


def test_only_so_many_bytes_of_each_queue_are_readable(
    world: World, client: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_retention, "ENTRIES_PER_STEP", 16)  # several steps
    assert set_attributes(client, "+retention.bytes=5000") == codes.SUCCESS
    for _ in range(100):
        client.produce("orders", bytes(400))
    client.produce("orders", queue_id=1)
    world.clock.advance(11)
    kept = world.store.read("orders", 0, oldest(world), 32)
    assert oldest(world) + kept.count == 100
    assert 4000 < len(kept.records) <= 5000
    assert oldest(world, 1) == 0
    client.produce("orders", bytes(4990))  # one that alone is too much
    world.clock.advance(11)
    assert oldest(world) == 101


def test_rules_come_and_go_while_the_broker_runs(world: World, client: Connection) -> None:
    set_attributes(client, "")
    for _ in range(5):
        client.produce("orders")
        world.clock.advance(10)
    assert oldest(world) == 0
    set_attributes(client, "+retention.ms=15000")
    world.clock.advance(11)
    assert oldest(world) == 5
    client.produce("orders")
    set_attributes(client, "-retention.ms")
    world.clock.advance(100)
    assert oldest(world) == 5
    for wrong in ("+retention.ms=0", "+retention.ms=x", "+retention.bytes=-1", "+retention=5"):
        assert set_attributes(client, wrong) == codes.SYSTEM_ERROR


def test_what_was_too_old_stays_unreadable_after_a_kill(tmp_path: Path) -> None:
    world = World(tmp_path / "store")
    client = world.connect()
    set_attributes(client, "+retention.ms=60000")
    for _ in range(4):
        client.produce("orders")
        world.clock.advance(30)
    assert oldest(world) == 2
    world.store.disk.unlock()  # as if the process had been killed
    again = World(tmp_path / "store", clock=world.clock)
    assert oldest(again) == 2  # before the first look
    assert len(again.connect().pull("orders", offset=2).records()) == 2
    again.stop()


def test_entries_go_with_their_files(tmp_path: Path) -> None:
    world = World(tmp_path / "store", mapped_file_size_consume_queue=2000)
    client = world.connect()
    set_attributes(client, "+retention.ms=60000", queues=1)
    for n in range(250):
        client.produce("orders", queues=1)
        if n % 50 == 0:
            world.clock.advance(70)
    folder = tmp_path / "store/consumequeue/orders/0"
    assert min(path.name for path in folder.iterdir()) == f"{4000:020d}"
    assert len(client.pull("orders", offset=oldest(world)).records()) == 32
    world.stop()
