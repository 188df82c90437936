"""Topics that store a message once within a time, however often it is sent."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tests.support.brokers import Answered, Connection, World, send_fields
from tests.unit.features.test_topic_retention import set_attributes

from firearrow.config import BrokerSettings
from firearrow.model import codes


def send(
    client: Connection, key: str = "", *, unique: str = "", queue_id: int = 0, more: str = ""
) -> Answered:
    properties = f"UNIQ_KEY\x01{unique}\x02" if unique else ""
    properties += f"KEYS\x01{key}\x02" if key else ""
    answer = client.produce("orders", properties=properties + more, queue_id=queue_id)
    assert answer.code == codes.SUCCESS, answer.header.remark
    return answer


def place(answer: Answered) -> tuple[str, str, str]:
    ext = answer.ext
    return ext["msgId"], ext["queueId"], ext["queueOffset"]


def stored(world: World, topic: str = "orders") -> int:
    return sum(world.store.max_offset(topic, queue_id) for queue_id in range(4))


@pytest.fixture
def orders(world: World, client: Connection) -> World:
    assert set_attributes(client, "+dedup.window.ms=60000", queues=4) == codes.SUCCESS
    return world


def test_a_second_send_is_acknowledged_as_the_first(orders: World, client: Connection) -> None:
    first = send(client, "k1", unique="A", queue_id=1)
    send(client, "k2", unique="B")
    orders.clock.advance(59)
    again = send(client, "k1", unique="C", queue_id=3)
    assert place(again) == place(first)
    assert again.ext["transactionId"] == "C"
    assert stored(orders) == 2
    orders.clock.advance(1)
    assert place(send(client, "k1")) != place(first)
    assert stored(orders) == 3


def test_what_a_client_tries_again_is_the_same_message(orders: World, client: Connection) -> None:
    first = send(client, unique="A")
    assert place(send(client, unique="A", queue_id=2)) == place(first)
    send(client, unique="B")
    send(client)
    send(client)  # without any key: never the same
    assert stored(orders) == 4


def test_the_key_can_be_chosen(world: World, client: Connection) -> None:
    set_attributes(client, "+dedup.window.ms=60000,+dedup.key=UNIQ_KEY", queues=4)
    send(client, "k", unique="A")
    send(client, "k", unique="B")
    assert stored(world) == 2
    set_attributes(client, "+dedup.key=KEYS", queues=4)
    send(client, "k", unique="C")
    assert stored(world) == 3  # the number of its key was not noted before
    send(client, "k", unique="D")
    send(client, unique="A")  # without keys
    assert stored(world) == 4
    assert set_attributes(client, "+dedup.key=TAGS", queues=4) == codes.SYSTEM_ERROR


def test_other_topics_and_times_are_not_touched(world: World, client: Connection) -> None:
    set_attributes(client, "", queues=4)
    for _ in range(2):
        send(client, "k")
    assert stored(world) == 2
    set_attributes(client, "+dedup.window.ms=60000", queues=4)
    for _ in range(3):
        send(client, "k")
    assert stored(world) == 3
    set_attributes(client, "-dedup.window.ms", queues=4)
    send(client, "k")
    assert stored(world) == 4


@pytest.mark.parametrize("clean", [True, False])
def test_it_is_known_after_a_restart(tmp_path: Path, clean: bool) -> None:
    world = World(tmp_path / "store")
    client = world.connect()
    set_attributes(client, "+dedup.window.ms=60000", queues=4)
    early = send(client, "early")
    world.clock.advance(50)
    late = send(client, "late", queue_id=2)
    delayed = send(client, "delayed", queue_id=3, more="DELAY\x015\x02")  # a minute
    if clean:
        world.stop()
    else:
        world.store.disk.unlock()  # as if the process had been killed
    world.clock.advance(15)
    again = World(tmp_path / "store", clock=world.clock)
    client = again.connect()
    assert place(send(client, "late")) == place(late)
    assert place(send(client, "delayed")) == place(delayed)
    assert place(send(client, "early")) != place(early)
    again.clock.advance(50)
    assert stored(again) == 4  # the delayed one came once
    again.stop()


def test_messages_of_a_batch_are_looked_at_one_by_one(orders: World, client: Connection) -> None:
    def batch(*keys: str) -> Answered:
        items = b""
        for key in keys:
            properties = f"KEYS\x01{key}\x02".encode()
            tail = struct.pack(">i", 1) + b"x" + struct.pack(">h", len(properties)) + properties
            items += struct.pack(">iiii", 16 + len(tail), 0, 0, 0) + tail
        answer = client.produce("orders", items, batch=True)
        assert answer.code == codes.SUCCESS
        return answer

    one = batch("a").ext["msgId"]
    ids = batch("b", "a", "c", "b").ext["msgId"].split(",")
    assert (len(ids), ids[1], ids[3]) == (4, one, ids[0])
    assert stored(orders) == 3
    assert batch("c", "a").ext["msgId"] == f"{ids[2]},{one}"
    assert stored(orders) == 3


def test_memory_is_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "store", BrokerSettings(dedup_keys_max=2000))
    client = world.connect()
    set_attributes(client, "+dedup.window.ms=60000", queues=4)
    for n in range(9000):
        send(client, f"k{n}")
    (window,) = world.core.writer.guards.values()
    assert len(window) <= 2000 + 1024  # type: ignore[arg-type]
    assert "dedupKeysMax" in caplog.text
    assert place(send(client, "k8999")) != place(send(client, "k0"))
    assert stored(world) == 9001  # k0 was forgotten, k8999 not
    world.stop()


@pytest.mark.parametrize("sys_flag", [0, 4])
def test_a_half_message_is_no_first_one(orders: World, client: Connection, sys_flag: int) -> None:
    properties = "UNIQ_KEY\x01A\x02KEYS\x01k\x02TRAN_MSG\x01true\x02PGROUP\x01producers\x02"
    half = client.call(
        310, {**send_fields("orders", properties=properties), "f": sys_flag}, b"half"
    )
    assert half.code == codes.SUCCESS
    send(client, "k", unique="B")
    assert stored(orders) == 1
