"""How compaction topics last: restarts, deletion, limits, faults, what other features need."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import msgspec
import pytest
from tests.support.brokers import Connection, World
from tests.support.compaction import (
    INTERVAL_S,
    TOPIC,
    client,
    compact,
    make_topic,
    open_world,
    put,
    put_many,
    read_all,
    restart,
    world,
)
from tests.support.popping import bodies, pop

from firearrow.codec.record import decode_record
from firearrow.model import codes
from firearrow.model.clock import VirtualClock
from firearrow.store.memory import MemoryDisk

__all__ = ["client", "world"]  # fixtures

# -- how long it lasts


def test_the_commit_log_may_go_and_the_values_stay(world: World, client: Connection) -> None:
    make_topic(client)
    put_many(client, 60, keys=60)
    put_many(client, 60, keys=2, first=1000)
    compact(world)
    before = read_all(client)
    assert set(range(2, 60)) <= set(before)
    forget_the_log(world, client)
    assert world.store.commit_log_range()[0] > 0
    assert read_all(client) == before
    # The beginning is what can be read, not what the commit log has.
    assert client.call(31, {"topic": TOPIC, "queueId": 0}).ext["offset"] == "2"
    put(client, "k0", "new")
    assert max(read_all(client)) == 120


def forget_the_log(world: World, client: Connection) -> None:
    """Fill the log's first file with other messages, and let it expire."""
    for _ in range(18):
        client.produce("filling", bytes(1_000_000))
    world.clock.advance(5)
    for path in Path(world.store.root).glob("commitlog/*"):
        os.utime(path, (0, 0))
    client.call(329)
    world.clock.advance(120)
    assert world.store.commit_log_range()[0] > 0


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_a_restart_changes_nothing(tmp_path: Path, clean: bool) -> None:
    world = open_world(tmp_path)
    client = world.connect()
    make_topic(client)
    put_many(client, 50, keys=3)
    compact(world)
    put_many(client, 12, keys=12, first=100)
    before = read_all(client)
    for _ in range(3):
        world = restart(world, clean=clean)
        assert read_all(world.connect()) == before
        compact(world)
        before = read_all(world.connect())
    put_many(world.connect(), 30, keys=1, first=500)
    assert {n: body for n, body in read_all(world.connect()).items() if n < 62} == before
    world.stop()


def test_a_restart_finds_the_values_that_only_the_compaction_log_has(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    client = world.connect()
    make_topic(client)
    put_many(client, 60, keys=60)
    compact(world)
    forget_the_log(world, client)
    before = read_all(client)
    assert len(before) == 60
    for clean in (True, False):
        world = restart(world, clean=clean)
        assert read_all(world.connect()) == before
    # Even without the consume queues, as an operator may remove them to have them made anew.
    world.stop()
    for path in sorted(tmp_path.glob("consumequeue/prices/**/*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    world = open_world(tmp_path, VirtualClock(world.clock.now_ms()))
    client = world.connect()
    assert put(client, "k0", "newer") == 60
    assert read_all(client) == {**before, 60: "newer"}
    world.stop()


def test_a_deleted_topic_leaves_nothing(world: World, client: Connection, tmp_path: Path) -> None:
    make_topic(client)
    put_many(client, 50, keys=3)
    compact(world)
    assert client.call(215, {"topic": TOPIC}).code == codes.SUCCESS
    world.clock.advance(5)
    assert not [path for path in tmp_path.glob("compaction/**/*") if TOPIC in str(path)]
    make_topic(client)
    assert read_all(client) == {}
    assert put(client, "k", "again") == 0
    put_many(client, 30, keys=1)
    compact(world)
    found = read_all(client)
    assert found[0] == "again"
    assert max(found) == 30
    saved = msgspec.json.decode((tmp_path / "compaction/position-checkpoint").read_bytes())
    assert saved["queueOffsetMap"].keys() == {"prices_0"}


def test_a_topic_may_be_deleted_while_it_is_compacted(world: World, client: Connection) -> None:
    make_topic(client)
    put_many(client, 2000, keys=1500)
    world.clock.advance(INTERVAL_S + 0.004)  # between two blocks
    client.call(215, {"topic": TOPIC})
    make_topic(client)
    put_many(client, 30, keys=1)
    compact(world)
    assert sorted(read_all(client))[0] == 26


# -- limits


def test_more_keys_than_memory_may_hold_take_several_runs(tmp_path: Path) -> None:
    world = open_world(tmp_path, max_offset_map_size=20 * 200)  # 20 keys
    client = world.connect()
    make_topic(client)
    put_many(client, 200, keys=50)
    sizes = []
    for _ in range(12):
        compact(world)
        found = read_all(client)
        sizes.append(len(found))
        assert {f"v{n}" for n in range(150, 200)} <= set(found.values())
    assert sizes[0] > sizes[-1]
    assert sizes[-1] <= 50 + 10
    world.stop()


def test_a_broker_without_such_topics_has_no_files_for_them(
    world: World, client: Connection, tmp_path: Path
) -> None:
    client.produce("orders")
    compact(world)
    assert not (tmp_path / "compaction").exists()


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    world = open_world(tmp_path, enable_compaction=False)
    client = world.connect()
    make_topic(client)
    assert client.produce(TOPIC, properties="").code == 13
    put_many(client, 40, keys=1)
    compact(world)
    assert len(read_all(client)) == 40
    world = restart(world, clean=True, enable_compaction=True)
    compact(world)
    assert sorted(read_all(world.connect()))[0] == 35
    world.stop()


# -- what other features need of it


def test_a_message_that_comes_back_is_not_taken_for_another(
    world: World, client: Connection
) -> None:
    """Its position in the compaction log may be another message's in the commit log."""
    client.produce("first", b"at position 0", properties="UNIQ_KEY\x01Uother\x02")
    make_topic(client)
    put(client, "k", "v")
    world.clock.advance(5)
    (record,) = client.pull(TOPIC).records()
    assert record.physical_offset == 0
    fields = {"offset": record.physical_offset, "group": "group", "delayLevel": 0}
    fields |= {"originMsgId": "Uv", "originTopic": TOPIC}
    assert client.call(36, fields).code == codes.SYSTEM_ERROR
    assert client.call(36, {**fields, "originTopic": "first"}).code == codes.SUCCESS


def test_a_popped_message_that_the_commit_log_has_lost_is_given_again(
    world: World, client: Connection
) -> None:
    make_topic(client)
    put_many(client, 20, keys=20)
    compact(world)
    forget_the_log(world, client)
    popped = pop(client, TOPIC, queueId=0, maxMsgNums=1, invisibleTime=10_000, initMode=0)
    assert bodies(popped) == [b"v0"]
    world.clock.advance(15)
    again = pop(client, TOPIC, queueId=-1, maxMsgNums=32, invisibleTime=10_000, initMode=0)
    assert b"v0" in bodies(again)


# -- faults


def test_a_full_disk_delays_a_compaction_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    disk = MemoryDisk(clock)
    world = open_world(Path("/store"), clock, disk=disk)
    client = world.connect()
    make_topic(client)
    put_many(client, 60, keys=2)
    clock.advance(5)
    before = read_all(client)
    disk.free_bytes = 0
    clock.advance(3 * INTERVAL_S)
    assert read_all(client) == before
    told = [r.getMessage() for r in caplog.records if "cannot compact" in r.getMessage()]
    assert len(told) == 1
    assert "No space left on device" in told[0]
    disk.free_bytes = 1 << 40
    clock.advance(70)
    assert len(read_all(client)) < 15
    world.stop()


def test_a_full_disk_delays_copies_and_holds_the_commit_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock()
    disk = MemoryDisk(clock)
    world = open_world(Path("/store"), clock, disk=disk, mapped_file_size_commit_log=65536)
    client = world.connect()
    make_topic(client)
    put_many(client, 3, keys=3)
    assert len(read_all(client)) == 3  # this makes the group
    disk.free_bytes = 0
    clock.advance(5)
    assert len(read_all(client)) == 3
    disk.free_bytes = 1 << 40
    for _ in range(400):
        assert client.produce("filling", bytes(1000)).code == codes.SUCCESS
    clock.advance(0.6)  # flushed
    clock.jump_wall_clock(200 * 3600 * 1000)
    world.store.delete_expired()
    assert world.store.commit_log_range()[0] == 0  # not before they are copied
    clock.advance(10)
    world.store.delete_expired()
    assert world.store.commit_log_range()[0] > 0
    assert len(read_all(client)) == 3
    assert len([r for r in caplog.records if "cannot write compaction" in r.getMessage()]) == 1
    world.stop()


def test_a_damaged_record_is_passed_over_and_told_once(
    world: World, client: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_topic(client)
    put_many(client, 5, keys=5)
    world.clock.advance(5)
    path = tmp_path / "compaction/compactionLog/prices/0/00000000000000000000"
    second = client.pull(TOPIC).records()[1].physical_offset
    with path.open("r+b") as file:
        file.seek(second)
        file.write(bytes(40))
    assert set(read_all(client)) == {0, 2, 3, 4}
    assert set(read_all(client)) == {0, 2, 3, 4}
    (told,) = [r.getMessage() for r in caplog.records if r.name.startswith("firearrow.store.comp")]
    assert "message 1 of queue 0 of topic prices is unreadable" in told


def test_files_are_rocketmqs_to_the_byte(world: World, client: Connection, tmp_path: Path) -> None:
    """As ``CompactionLog`` and ``SparseConsumeQueue`` load them."""
    make_topic(client)
    put_many(client, 60, keys=7)
    compact(world)
    put(client, "k", "last", tag="TagA")
    sent = client.pull(TOPIC, offset=60).records()[0].physical_offset  # in the commit log
    from_commit_log = world.store.record(sent)
    assert from_commit_log is not None
    world.clock.advance(5)
    logs, all_entries = (tmp_path / f"compaction/compaction{n}/prices/0" for n in ("Log", "Cq"))
    names = sorted(path.name for path in logs.iterdir())
    assert names == sorted(path.name for path in all_entries.iterdir())
    log_bytes = 460 * 17  # 8000, to the nearest multiple of the entries' size
    offsets: list[int] = []
    for name in names:
        log = (logs / name).read_bytes()
        entries = (all_entries / name).read_bytes()
        assert (len(log), len(entries)) == (log_bytes, 460)
        assert int(name) % log_bytes == 0
        position = int(name)
        units = list(struct.iter_unpack(">qiqqqhii", entries))
        used = next(n for n, unit in enumerate(units) if unit[0] < 0 or unit[1] <= 0)
        for phy, size, tags_code, stored_ms, offset, messages, compacted, reserved in units[:used]:
            assert phy == position
            record = decode_record(log[phy - int(name) :][:size], check_crc=True)
            assert (record.physical_offset, record.queue_offset) == (phy, offset)
            assert (record.store_timestamp, messages, compacted, reserved) == (stored_ms, 1, -1, 0)
            assert tags_code == (2598919 if offset == 60 else 0)  # "TagA".hashCode()
            offsets.append(offset)
            position += size
        rest = log[position - int(name) :]
        if name == names[-1]:
            assert not any(rest)
            assert not any(entries[used * 46 :])
            own = log[phy - int(name) :][:size]
            assert own[:28] + own[36:] == from_commit_log[:28] + from_commit_log[36:]
        else:
            assert rest[:8] == struct.pack(">iI", len(rest), 0xCBD43194)
            assert units[used] == (-1, 0, 0, 0, 0, 0, -1, 0)
    assert offsets == sorted(read_all(client))
    assert int(names[-1]) > int(names[-2]) + log_bytes  # what was rewritten left a gap
    saved = json.loads((tmp_path / "compaction/position-checkpoint").read_text())
    assert saved == {"empty": False, "queueOffsetMap": {"prices_0": 53}}
