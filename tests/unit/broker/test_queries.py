"""Finding messages by id, by key and by place (behaviour.md 10.6)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.brokers import Answered, Connection, World, properties_of

from firearrow.config import BrokerSettings
from firearrow.model import codes

FOREVER = 1 << 62


def query(
    world: World, client: Connection, key: str, *, topic: str = "orders", **more: object
) -> Answered:
    client.received()
    fields = {
        "topic": topic,
        "key": key,
        "maxNum": 32,
        "beginTimestamp": 0,
        "endTimestamp": FOREVER,
        **more,
    }
    client.send(12, fields)
    world.clock.advance(0)
    (answer,) = client.received()
    return answer


def send(client: Connection, body: bytes, keys: str, unique: str = "") -> None:
    properties = f"KEYS\x01{keys}\x02" + (f"UNIQ_KEY\x01{unique}\x02" if unique else "")
    assert client.produce("orders", body, properties=properties).code == 0


def bodies(answer: Answered) -> list[bytes]:
    return [r.body for r in answer.records()] if answer.code == 0 else []


def test_every_key_finds_its_messages(world: World, client: Connection) -> None:
    send(client, b"one", "k1 k2")
    send(client, b"two", "k2")
    assert bodies(query(world, client, "k2")) == [b"one", b"two"]
    assert bodies(query(world, client, "k1")) == [b"one"]
    assert query(world, client, "k3").code == codes.QUERY_NOT_FOUND
    assert query(world, client, "k1", topic="others").code == codes.QUERY_NOT_FOUND


def test_a_time_range_is_a_range_of_store_times(world: World, client: Connection) -> None:
    start = world.clock.now_ms()
    send(client, b"early", "k")
    world.clock.advance(100)
    send(client, b"late", "k")
    found = query(world, client, "k", endTimestamp=start + 50_000)
    assert bodies(found) == [b"early"]
    found = query(world, client, "k", beginTimestamp=start + 50_000)
    assert bodies(found) == [b"late"]
    assert query(world, client, "k", endTimestamp=start - 1).code == codes.QUERY_NOT_FOUND


def test_the_unique_key_finds_its_message_whatever_the_number(
    world: World, client: Connection
) -> None:
    for n in range(3):
        send(client, b"%d" % n, "k", unique="same")
    found = query(world, client, "same", maxNum=1, _UNIQUE_KEY_QUERY="true")
    assert len(bodies(found)) == 3
    assert len(bodies(query(world, client, "k", maxNum=2))) == 2


def test_a_tag_is_a_key_of_its_own_kind(world: World, client: Connection) -> None:
    client.produce("orders", b"one", properties="UNIQ_KEY\x01u1\x02TAGS\x01TagA\x02")
    client.produce("orders", b"two", properties="UNIQ_KEY\x01u2\x02KEYS\x01TagA\x02")
    assert bodies(query(world, client, "TagA", indexType="T")) == [b"one"]
    assert bodies(query(world, client, "TagA")) == [b"two"]


def test_many_index_files(world: World, client: Connection) -> None:
    """A file of the test's broker holds 3,999 keys, of which each message has two."""
    for n in range(5000):
        send(client, b"%d" % n, f"key-{n}")
    for n in (0, 1999, 2000, 4999):
        assert bodies(query(world, client, f"key-{n}")) == [b"%d" % n]
    assert len(list(Path(world.store.root, "index").iterdir())) == 3


@pytest.mark.parametrize("clean", [True, False])
def test_keys_are_found_after_a_restart(tmp_path: Path, clean: bool) -> None:
    world = World(tmp_path)
    client = world.connect()
    for n in range(10):
        send(client, b"%d" % n, f"key-{n}")
        query(world, client, "key-0")
    if clean:
        world.stop()
    else:
        world.store.disk.unlock()  # as if the process had been killed
    world = World(tmp_path)
    client = world.connect()
    assert [bodies(query(world, client, f"key-{n}")) for n in range(10)] == [
        [b"%d" % n] for n in range(10)
    ]
    world.stop()


def test_keys_of_a_record_that_lie_in_two_files(tmp_path: Path) -> None:
    """A full file is kept after a kill, the next one, which has the record's last key, is not."""
    settings = BrokerSettings()
    settings.flush_consume_queue_thorough_interval = 1000
    world = World(tmp_path, settings, max_index_num=4)  # three keys a file
    client = world.connect()
    for n in range(2):
        send(client, b"%d" % n, f"key-{n}")
    assert bodies(query(world, client, "key-1")) == [b"1"]
    world.clock.advance(3)  # the checkpoint knows of the full file
    world.store.disk.unlock()  # as if the process had been killed
    world = World(tmp_path, max_index_num=4)
    client = world.connect()
    for n in range(2):
        assert bodies(query(world, client, f"key-{n}")) == [b"%d" % n]
    for record in client.pull("orders").records():
        unique = properties_of(record)["UNIQ_KEY"]
        assert len(bodies(query(world, client, unique))) == 1
    world.stop()


def test_without_an_index_nothing_is_found(tmp_path: Path) -> None:
    settings = BrokerSettings()
    world = World(tmp_path, settings, message_index_enable=False)
    client = world.connect()
    send(client, b"one", "k")
    assert query(world, client, "k").code == codes.QUERY_NOT_FOUND
    world.stop()


def test_an_offset_that_is_no_message(client: Connection) -> None:
    client.produce("orders")
    for offset in (1, -1, 1 << 60):
        assert client.call(33, {"offset": offset}).code == codes.SYSTEM_ERROR


def test_entries_of_a_queue(client: Connection) -> None:
    for _ in range(3):
        client.produce("orders", properties="TAGS\x01TagA\x02")
    fields = {"topic": "orders", "queueId": 0, "index": 1, "count": 5}
    body = client.call(321, fields).json()
    assert (body["minQueueIndex"], body["maxQueueIndex"]) == (0, 3)
    assert [e["tagsCode"] for e in body["queueData"]] == [2598919, 2598919]
    assert client.call(321, fields | {"topic": "none"}).code == codes.SYSTEM_ERROR
