"""Batch queues on the disk: restarts, retention, deletion, and what an operator sees of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.batch_queues import (
    SETTINGS,
    TOPIC,
    UNIT,
    batch,
    bounds,
    client,
    contents,
    create,
    opened,
    root,
    send,
    world,
)
from tests.support.brokers import Connection, World, send_fields

from firearrow.codec import lenient_json
from firearrow.model import codes
from firearrow.model.clock import VirtualClock
from firearrow.store.memory import MemoryDisk

__all__ = ["client", "root", "world"]  # fixtures


def test_units_are_as_rocketmq_writes_them(root: Path, world: World, client: Connection) -> None:
    create(client)
    send(client, 3, tag="a")
    for _ in range(5):
        send(client, 2)
    stored_ms = world.clock.now_ms()
    world.clock.advance(120)
    directory = root / "batchconsumequeue" / TOPIC / "0"
    assert sorted(f.name for f in directory.iterdir()) == [f"{0:020d}", f"{230:020d}"]
    first, second = ((directory / f"{n:020d}").read_bytes() for n in (0, 230))
    assert len(first) == len(second) == 230
    units = list(UNIT.iter_unpack(first + second))
    assert [unit[4:] for unit in units[:6]] == [
        (3 * bool(n) + 2 * max(0, n - 1), 2 if n else 3, -1, 0) for n in range(6)
    ]
    assert units[6:] == [(0,) * 8] * 4
    assert units[0][2:4] == (97, stored_ms)  # Java's hash of "a"
    end = units[0][0] + units[0][1]
    assert units[1][0] == end
    assert not (root / "consumequeue" / TOPIC).exists()


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("idle_s", [0, 120])
def test_batches_survive_a_restart(root: Path, clean: bool, idle_s: int) -> None:
    world = opened(root)
    client = world.connect()
    create(client)
    for n in range(7):
        send(client, n + 1)
    world.clock.advance(idle_s)
    client.produce(TOPIC, b"alone")
    before = contents(client)
    if clean:
        world.stop()
    else:
        world.store.disk.unlock()
    world = opened(root)
    client = world.connect()
    assert bounds(client) == (0, 29)
    assert contents(client) == before
    assert send(client, 2).ext["queueOffset"] == "29"
    assert bounds(client) == (0, 31)
    world.stop()


def test_a_topic_without_a_flushed_batch_is_still_one_of_batches(root: Path) -> None:
    """Its attribute says so before any file does."""
    world = opened(root)
    client = world.connect()
    create(client)
    client.produce(TOPIC, b"alone")
    world.store.disk.unlock()  # killed
    world = opened(root)
    client = world.connect()
    assert send(client, 2).ext["queueOffset"] == "1"
    world.stop()
    assert (root / "batchconsumequeue" / TOPIC / "0").exists()
    assert not (root / "consumequeue" / TOPIC).exists()


def test_with_sync_flush_a_batch_is_acknowledged_and_seen_once_it_is_flushed(
    world: World, client: Connection
) -> None:
    create(client)
    world.store.settings.flush_disk_type = world.settings.flush_disk_type = "SYNC_FLUSH"
    fields = send_fields(TOPIC, batch=True, properties="UNIQ_KEY\x01k\x02")
    client.send(320, fields, batch(b"a", b"b"))
    assert client.received() == []
    assert bounds(client) == (0, 0)
    client.send(320, fields, batch(b"c"))
    world.clock.advance(1)
    assert [answer.ext["queueOffset"] for answer in client.received()] == ["0", "2"]
    assert contents(client) == [(0, [b"a", b"b"]), (2, [b"c"])]


def test_files_of_units_go_with_the_log() -> None:
    clock = VirtualClock()
    disk = MemoryDisk(clock)
    world = World(Path("/store"), disk=disk, clock=clock, **SETTINGS)
    client = world.connect()
    create(client)
    while len(world.store.log.files) < 4:
        send(client, 5, text="x" * 1000)
    clock.advance(world.settings.file_reserved_time * 3600 + 1)
    send(client, 5)
    for _ in range(2):
        world.store.delete_expired()
        clock.advance(1)
    low, high = bounds(client)
    assert 0 < low < high
    assert low % 5 == 0
    assert contents(client, low)[0][0] == low
    assert client.pull(TOPIC, offset=low - 1).code == codes.PULL_OFFSET_MOVED
    assert min(map(int, disk.names(f"/store/batchconsumequeue/{TOPIC}/0"))) > 0
    world.stop()
    again = World(Path("/store"), disk=disk, clock=clock, **SETTINGS)
    assert bounds(again.connect()) == (low, high)
    again.stop()


def test_a_deleted_topic_may_come_back_as_the_other_kind(
    root: Path, world: World, client: Connection
) -> None:
    create(client)
    send(client, 3)
    world.clock.advance(120)
    client.call(215, {"topic": TOPIC})
    world.clock.advance(1)
    assert not (root / "batchconsumequeue" / TOPIC).exists()
    create(client, kind="SimpleCQ")
    assert send(client, 2).ext["queueOffset"] == "0"
    world.clock.advance(120)
    assert (root / "consumequeue" / TOPIC).exists()
    client.call(215, {"topic": TOPIC})
    world.clock.advance(1)
    create(client)
    assert send(client, 2).ext["batchUniqId"] == "envelope"
    assert bounds(client) == (0, 2)


def test_a_directory_of_the_wrong_kind_is_left_alone(
    root: Path, world: World, client: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    client.produce(TOPIC)
    world.stop()
    stray = root / "batchconsumequeue" / TOPIC / "0"
    stray.mkdir(parents=True)
    (stray / f"{0:020d}").write_bytes(UNIT.pack(0, 100, 0, 0, 50, 10, -1, 0).ljust(230, b"\0"))
    again = opened(root)
    assert bounds(again.connect()) == (0, 1)
    assert "a Java broker would not start" in caplog.text
    again.stop()


@pytest.mark.parametrize(
    ("index", "count", "entries"), [(0, 2, 1), (0, 4, 2), (4, 1, 1), (6, 9, 0)]
)
def test_an_operator_sees_an_entry_for_each_batch(
    client: Connection, index: int, count: int, entries: int
) -> None:
    create(client)
    send(client, 3)
    send(client, 3)
    fields = {"topic": TOPIC, "queueId": 0, "index": index, "count": count}
    body = client.call(321, fields).json()
    assert (body["minQueueIndex"], body["maxQueueIndex"]) == (0, 6)
    assert len(body["queueData"]) == entries


def test_topic_statistics_tell_messages(world: World, client: Connection) -> None:
    create(client)
    send(client, 10)
    send(client, 5)
    queue = lenient_json.loads(client.call(202, {"topic": TOPIC}).body, None)["offsetTable"]
    (stats,) = [value for key, value in queue.items() if '"queueId":0' in key]
    assert (stats["minOffset"], stats["maxOffset"]) == (0, 15)
    assert stats["lastUpdateTimestamp"] == world.clock.now_ms()
