"""Traces are ordinary messages of the clients: the topic for them, and finding them by id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.brokers import Connection, World

from firearrow.config import BrokerSettings
from firearrow.model import codes

ID = "7F000001000118B4AAC2000000000000"
RECORD = b"\x01".join([b"Pub", b"1700000000000", b"DefaultRegion", b"producers", b"orders"])


def traced(client: Connection, topic: str) -> int:
    """Send a trace as the Java client does: ids and keys of what it is about as KEYS."""
    fields: dict[str, Any] = {
        "a": "_INNER_TRACE_PRODUCER",
        "b": topic,
        "c": "TBW102",
        "d": 4,
        "e": 0,
        "f": 0,
        "g": 1_700_000_000_000,
        "h": 0,
        "i": f"KEYS\x01{ID} order-7\x02UNIQ_KEY\x01T1\x02",
    }
    return client.call(310, fields, RECORD + b"\x02").code


def found(world: World, client: Connection, topic: str, key: str) -> list[bytes]:
    """What a query of the trace by id answers."""
    ext = {"topic": topic, "key": key, "maxNum": 64, "beginTimestamp": 0, "endTimestamp": 1 << 60}
    client.received()
    client.send(12, ext)
    world.clock.advance(1)
    (answer,) = client.received()
    return [r.body for r in answer.records()] if answer.code == codes.SUCCESS else []


def test_the_trace_topic_is_made_when_it_is_wanted(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.trace_topic_enable = True
    settings.msg_trace_topic_name = "OurTraces"
    settings.auto_create_topic_enable = False
    world = World(tmp_path, settings)
    topic = world.core.topics.table["OurTraces"]
    assert (topic.read_queues, topic.write_queues, topic.perm) == (1, 1, 6)
    client = world.connect()
    assert traced(client, "OurTraces") == codes.SUCCESS
    assert found(world, client, "OurTraces", ID) == [RECORD + b"\x02"]
    assert found(world, client, "OurTraces", "order-7") == [RECORD + b"\x02"]
    assert found(world, client, "OurTraces", "order-8") == []
    world.stop()


def test_else_the_first_trace_makes_it(world: World, client: Connection) -> None:
    assert "RMQ_SYS_TRACE_TOPIC" not in world.core.topics.table
    assert traced(client, "RMQ_SYS_TRACE_TOPIC") == codes.SUCCESS
    assert found(world, client, "RMQ_SYS_TRACE_TOPIC", ID) == [RECORD + b"\x02"]


def test_without_either_it_is_refused(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.auto_create_topic_enable = False
    world = World(tmp_path, settings)
    assert traced(world.connect(), "RMQ_SYS_TRACE_TOPIC") == codes.TOPIC_NOT_EXIST
    world.stop()


def test_clients_are_told_whether_to_trace(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.trace_on = False
    settings.region_id = "here"
    world = World(tmp_path, settings)
    ext = world.connect().produce("orders").ext
    assert (ext["TRACE_ON"], ext["MSG_REGION"]) == ("false", "here")
    world.stop()
