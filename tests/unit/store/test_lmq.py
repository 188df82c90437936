"""Light message queues: a message stands in its own queue and in those that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import Connection, World, properties_of, pull_fields

from firearrow.config import BrokerSettings
from firearrow.model import codes


def light(tmp_path: Path, **more: Any) -> World:
    settings = BrokerSettings(enable_lmq=True, enable_multi_dispatch=True, **more)
    return World(tmp_path / "store", settings)


def dispatch(*names: str) -> str:
    return f"INNER_MULTI_DISPATCH\x01{','.join(names)}\x02"


def bodies(client: Connection, topic: str, **more: Any) -> list[bytes]:
    return [record.body for record in client.pull(topic, **more).records()]


def test_a_message_stands_in_every_queue_that_it_names(tmp_path: Path) -> None:
    world = light(tmp_path)
    client = world.connect()
    client.produce("parent", b"1", properties=dispatch("%LMQ%a", "%LMQ%b"), queue_id=2)
    client.produce("parent", b"2", properties=dispatch("%LMQ%b"))
    client.produce("parent", b"3")
    assert bodies(client, "%LMQ%a") == [b"1"]
    assert bodies(client, "%LMQ%b") == [b"1", b"2"]
    assert bodies(client, "parent") == [b"2", b"3"]
    first, second = client.pull("%LMQ%b").records()
    assert properties_of(first)["INNER_MULTI_QUEUE_OFFSET"] == "0,0"
    assert properties_of(second)["INNER_MULTI_QUEUE_OFFSET"] == "1"
    assert second.topic == "parent"
    folder = tmp_path / "store/consumequeue"
    world.stop()
    assert {"%LMQ%a", "%LMQ%b", "parent"} <= {path.name for path in folder.iterdir()}


def test_tags_are_filtered_there_too(tmp_path: Path) -> None:
    world = light(tmp_path)
    client = world.connect()
    for tag in ("x", "y"):
        client.produce("parent", tag.encode(), properties=f"TAGS\x01{tag}\x02" + dispatch("%LMQ%a"))
    assert bodies(client, "%LMQ%a", expression="y") == [b"y"]
    world.stop()


def test_a_waiting_pull_of_a_light_queue_is_woken(tmp_path: Path) -> None:
    world = light(tmp_path)
    client = world.connect()
    client.produce("parent", properties=dispatch("%LMQ%a"))
    client.received()
    client.send(11, pull_fields("%LMQ%a", offset=1, suspend_ms=15_000))
    world.connect().produce("parent", b"new", properties=dispatch("%LMQ%a"))
    world.clock.advance(0)
    (answer,) = client.received()
    assert [record.body for record in answer.records()] == [b"new"]
    world.stop()


@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", "SYNC_FLUSH"])
@pytest.mark.parametrize("clean", [True, False])
def test_they_are_there_after_a_restart(tmp_path: Path, clean: bool, flush: str) -> None:
    world = light(tmp_path, flush_disk_type=flush)
    client = world.connect()
    for n in range(50):
        client.send(310, {"b": "parent", "e": n % 3, "i": dispatch("%LMQ%a", f"%LMQ%{n % 5}")} | V2)
        world.clock.advance(1)
    if clean:
        world.stop()
    else:
        world.store.disk.unlock()  # as if the process had been killed
    again = light(tmp_path, flush_disk_type=flush)
    client = again.connect()
    assert again.store.max_offset("%LMQ%a", 0) == 50
    assert [again.store.max_offset(f"%LMQ%{n}", 0) for n in range(5)] == [10] * 5
    assert len(client.pull("%LMQ%3").records()) == 10
    client.send(310, {"b": "parent", "e": 0, "i": dispatch("%LMQ%3")} | V2, b"next")
    again.clock.advance(1)
    assert bodies(client, "%LMQ%3", offset=10) == [b"next"]
    again.stop()


V2 = {"a": "p", "c": "TBW102", "d": 4, "f": 0, "g": 0, "h": 0, "j": 0, "k": "false", "m": "false"}


def test_copies_do_not_disturb_the_queue_after_a_kill(tmp_path: Path) -> None:
    """A retry has the properties of its original, offsets of light queues among them; anybody can
    send such a property."""
    world = light(tmp_path)
    client = world.connect()
    client.heartbeat("group", {"parent": "*"})
    for n in range(3):
        client.produce("parent", b"%d" % n, properties=dispatch("%LMQ%a"))
    forged = dispatch("%LMQ%a") + "INNER_MULTI_QUEUE_OFFSET\x010\x02"
    client.produce("parent", b"3", properties=forged)
    properties = (dispatch("%LMQ%a") + "INNER_MULTI_QUEUE_OFFSET\x019999999999\x02").encode()
    tail = b"\0\0\0\1x" + len(properties).to_bytes(2) + properties
    batch = (16 + len(tail)).to_bytes(4) + bytes(12) + tail
    assert client.produce("parent", batch, batch=True).code == codes.SUCCESS
    assert client.call(36, {"offset": 0, "group": "group", "delayLevel": 1}).code == codes.SUCCESS
    world.clock.advance(2)
    assert world.store.max_offset("%RETRY%group", 0) == 1
    world.store.disk.unlock()  # as if the process had been killed
    again = light(tmp_path)
    client = again.connect()
    assert bodies(client, "%LMQ%a") == [b"0", b"1", b"2", b"3"]
    client.produce("parent", b"4", properties=dispatch("%LMQ%a"))
    assert bodies(client, "%LMQ%a", offset=4) == [b"4"]
    again.stop()


def test_a_delayed_message_is_dispatched_when_it_is_delivered(tmp_path: Path) -> None:
    world = light(tmp_path)
    client = world.connect()
    client.produce("parent", b"x", properties="DELAY\x011\x02" + dispatch("%LMQ%a"))
    assert bodies(client, "%LMQ%a") == []
    world.clock.advance(2)
    (record,) = client.pull("%LMQ%a").records()
    assert properties_of(record)["INNER_MULTI_QUEUE_OFFSET"] == "0"
    world.stop()


def test_names_that_are_none_are_passed_over(tmp_path: Path) -> None:
    world = light(tmp_path)
    client = world.connect()
    names = ("other", "%LMQ%/../x", "%LMQ%good", "", "%LMQ%" + "x" * 300)
    assert client.produce("parent", properties=dispatch(*names)).code == codes.SUCCESS
    (record,) = client.pull("%LMQ%good").records()
    assert properties_of(record)["INNER_MULTI_QUEUE_OFFSET"] == ",,0,,"
    assert {name for name, _ in world.store.queues()} == {"parent", "%LMQ%good"}
    world.stop()


def test_without_both_switches_it_is_an_ordinary_property(world: World, client: Connection) -> None:
    client.produce("parent", properties=dispatch("%LMQ%a"))
    (record,) = client.pull("parent").records()
    assert "INNER_MULTI_QUEUE_OFFSET" not in properties_of(record)
    assert client.pull("%LMQ%a").code == codes.TOPIC_NOT_EXIST


def test_groups_of_light_queues_are_in_a_file_of_their_own(tmp_path: Path) -> None:
    world = light(tmp_path)
    client = world.connect()
    client.produce("parent", properties=dispatch("%LMQ%a"))
    for topic, group, offset in (("%LMQ%a", "%LMQ%reader", 1), ("parent", "group", 7)):
        fields = {"topic": topic, "consumerGroup": group, "queueId": 0, "commitOffset": offset}
        assert client.call(15, fields).code == codes.SUCCESS
    assert "%LMQ%reader" not in world.core.groups.table
    world.stop()
    saved = msgspec.json.decode((tmp_path / "store/config/lmqConsumerOffset.json").read_bytes())
    assert saved["lmqOffsetTable"] == {"%LMQ%a@%LMQ%reader": 1}
    assert saved["offsetTable"] == {"parent@group": {"0": 7}}
    world = light(tmp_path)
    client = world.connect()
    fields = {"topic": "%LMQ%a", "consumerGroup": "%LMQ%reader", "queueId": 0}
    assert client.call(14, fields).ext["offset"] == "1"
    assert client.call(316).code == codes.SUCCESS  # cleaning unused topics leaves them alone
    assert world.store.max_offset("%LMQ%a", 0) == 1
    world.stop()
