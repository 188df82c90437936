"""Messages that are not delivered any more once their time is over."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from tests.support import popping
from tests.support.brokers import Connection, World, pull_fields
from tests.unit.features.test_topic_retention import set_attributes

from firearrow.config import BrokerSettings
from firearrow.model import codes


def bodies(client: Connection, topic: str = "orders", **more: Any) -> list[bytes]:
    return [record.body for record in client.pull(topic, **more).records()]


def ttl(ms: object) -> str:
    return f"TTL_MS\x01{ms}\x02"


def test_a_message_is_not_delivered_after_its_time(world: World, client: Connection) -> None:
    client.produce("orders", b"short", properties=ttl(5000))
    client.produce("orders", b"for ever")
    client.produce("orders", b"long", properties="TAGS\x01a\x02" + ttl(60_000))
    world.clock.advance(4.9)
    assert bodies(client) == [b"short", b"for ever", b"long"]
    world.clock.advance(0.1)
    assert bodies(client) == [b"for ever", b"long"]
    assert bodies(client, expression="a") == [b"long"]
    assert bodies(client, offset=0, count=1) == [b"for ever"]
    world.clock.advance(60)
    answer = client.pull("orders", offset=2)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_RETRY_IMMEDIATELY, "3")


def test_a_time_that_is_none_is_no_time(world: World, client: Connection) -> None:
    for wrong in ("0", "-1", "soon", "9" * 30):
        client.produce("orders", properties=ttl(wrong))
    client.produce("orders", properties="NOT_TTL_MS\x011\x02")
    world.clock.advance(1000)
    assert len(bodies(client)) == 5


def test_a_topic_has_a_time_for_all_its_messages(world: World, client: Connection) -> None:
    set_attributes(client, "+ttl.ms=5000")
    client.produce("orders", b"default")
    client.produce("orders", b"own", properties=ttl(60_000))
    client.produce("others", b"other")
    world.clock.advance(6)
    assert bodies(client) == [b"own"]
    assert bodies(client, "others") == [b"other"]
    set_attributes(client, "-ttl.ms")
    assert bodies(client) == [b"default", b"own"]
    assert set_attributes(client, "+ttl.ms=0") == codes.SYSTEM_ERROR


def test_a_waiting_pull_gets_what_is_new(world: World, client: Connection) -> None:
    client.produce("orders", properties=ttl(5000))
    world.clock.advance(6)
    client.received()
    client.send(11, pull_fields("orders", offset=1, suspend_ms=15_000))
    world.connect().produce("orders", b"new", properties=ttl(5000))
    world.clock.advance(0)
    (answer,) = client.received()
    assert [record.body for record in answer.records()] == [b"new"]


def test_pops_pass_it_over_too(world: World, client: Connection) -> None:
    client.produce(popping.TOPIC, b"short", properties=ttl(5000), queues=1)
    client.produce(popping.TOPIC, b"for ever", queues=1)
    world.clock.advance(6)
    assert [got.body for got in popping.pop(client)] == [b"for ever"]


def test_a_delayed_message_lives_from_its_delivery(world: World, client: Connection) -> None:
    client.produce("orders", b"later", properties="DELAY\x013\x02" + ttl(5000))  # 10 s
    world.clock.advance(12)
    assert bodies(client) == [b"later"]
    world.clock.advance(5)
    assert bodies(client) == []


def test_messages_of_a_batch_have_their_own_times(world: World, client: Connection) -> None:
    def item(body: bytes, properties: bytes) -> bytes:
        tail = struct.pack(">i", len(body)) + body + struct.pack(">h", len(properties)) + properties
        return struct.pack(">iiii", 16 + len(tail), 0, 0, 0) + tail

    client.produce("orders", b"creates the topic")
    batch = item(b"short", ttl(5000).encode()) + item(b"long", b"")
    assert client.produce("orders", batch, batch=True).code == codes.SUCCESS
    world.clock.advance(6)
    assert bodies(client, offset=1) == [b"long"]


def test_a_retry_does_not_give_new_time(world: World, client: Connection) -> None:
    client.produce("orders", b"tried", properties=ttl(30_000))
    client.heartbeat("group", {"orders": "*"})
    for delay_s, wanted in ((10, [b"tried"]), (30, [])):
        client.call(36, {"offset": 0, "group": "group", "delayLevel": 3 if wanted else 4})
        world.clock.advance(delay_s + 1)
        retry = "%RETRY%group"
        assert bodies(client, retry, offset=world.store.max_offset(retry, 0) - 1) == wanted


def test_it_is_known_after_a_kill(tmp_path: Path) -> None:
    world = World(tmp_path / "store")
    client = world.connect()
    client.produce("orders", b"short", properties=ttl(5000))
    client.produce("orders", b"for ever")
    world.store.disk.unlock()  # as if the process had been killed
    world.clock.advance(6)
    again = World(tmp_path / "store", clock=world.clock)
    assert bodies(again.connect()) == [b"for ever"]
    again.stop()
    clean = World(tmp_path / "store", BrokerSettings(), clock=world.clock)
    assert bodies(clean.connect()) == [b"for ever"]
    clean.stop()
