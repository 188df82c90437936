"""Compaction topics, from outside: of every key the newest message stays, where it was."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import Answered, Connection, World, properties_of, pull_fields
from tests.support.popping import bodies, pop

from firearrow.codec.properties import format_properties
from firearrow.codec.record import decode_record
from firearrow.model import codes
from firearrow.model.clock import VirtualClock
from firearrow.store.memory import MemoryDisk

TOPIC = "prices"
# Nine messages a file: the entries' file has room for ten.
SIZES = {"compaction_cq_mapped_file_size": 460, "compaction_mapped_file_size": 8000}
INTERVAL_S = 900


def open_world(root: Path, clock: VirtualClock | None = None, **more: Any) -> World:
    return World(root, clock=clock, **{**SIZES, **more})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = open_world(tmp_path)
    yield world
    world.stop()


@pytest.fixture
def client(world: World) -> Connection:
    return world.connect()


def make_topic(
    client: Connection, attributes: str = "+cleanup.policy=COMPACTION", topic: str = TOPIC
) -> Answered:
    """As ``mqadmin updateTopic -a``."""
    fields = {
        "topic": topic,
        "defaultTopic": "TBW102",
        "readQueueNums": 2,
        "writeQueueNums": 2,
        "perm": 6,
        "topicFilterType": "SINGLE_TAG",
        "order": "false",
        "attributes": attributes,
    }
    return client.call(17, fields)


def put(
    client: Connection, key: str, body: str, queue_id: int = 0, topic: str = TOPIC, tag: str = ""
) -> int:
    """Send; the message's offset."""
    properties = {"UNIQ_KEY": f"U{body}", "KEYS": key, "TAGS": tag}
    text = format_properties({k: v for k, v in properties.items() if v}).decode()
    answer = client.produce(topic, body.encode(), queue_id, properties=text)
    assert answer.code == codes.SUCCESS, answer.header.remark
    return int(answer.ext["queueOffset"])


def put_many(client: Connection, count: int, keys: int, first: int = 0, queue_id: int = 0) -> None:
    for n in range(first, first + count):
        put(client, f"k{n % keys}", f"v{n}", queue_id)


def read_all(
    client: Connection, offset: int = 0, queue_id: int = 0, topic: str = TOPIC
) -> dict[int, str]:
    """Offset -> body of everything that a consumer gets."""
    found: dict[int, str] = {}
    while True:
        answer = client.pull(TOPIC, queue_id, offset)
        if answer.code == codes.SUCCESS:
            for record in answer.records():
                assert record.queue_offset >= offset
                found[record.queue_offset] = record.body.decode()
        elif answer.code != codes.PULL_RETRY_IMMEDIATELY:
            return found
        following = int(answer.ext["nextBeginOffset"])
        assert following > offset
        offset = following


def compact(world: World) -> None:
    """Let the messages be copied, and a compaction run."""
    world.clock.advance(INTERVAL_S + 5)


def restart(world: World, *, clean: bool, **more: Any) -> World:
    if clean:
        world.stop()
    else:
        world.store.disk.unlock()  # the process is gone
    return open_world(Path(world.store.root), VirtualClock(world.clock.now_ms()), **more)


# -- what may be sent


def test_a_message_needs_keys(client: Connection) -> None:
    assert make_topic(client).code == codes.SUCCESS
    answer = client.produce(TOPIC, properties="TAGS\x01a\x02")
    assert (answer.code, answer.header.remark) == (13, "Required message key is missing")
    assert client.produce(TOPIC, properties="KEYS\x01 \x02").code == 13
    # Once a producer's ordinary messages are known to the broker, too.
    for n in range(3):
        assert client.produce("plain", properties=f"UNIQ_KEY\x01U{n}\x02TAGS\x01a\x02").code == 0
    assert client.produce(TOPIC, properties="UNIQ_KEY\x01U9\x02TAGS\x01a\x02").code == 13
    assert put(client, "k", "v") == 0


def test_the_policy_is_chosen_when_the_topic_is_made(client: Connection) -> None:
    assert make_topic(client, "").code == codes.SUCCESS
    answer = make_topic(client)
    assert answer.code != codes.SUCCESS
    assert "unchangeable" in (answer.header.remark or "")
    assert make_topic(client, topic="other").code == codes.SUCCESS
    assert make_topic(client, "-cleanup.policy", topic="other").code != codes.SUCCESS


def test_a_batch_needs_keys_in_each_message(client: Connection) -> None:
    make_topic(client)

    def batch(*keys: str) -> Answered:
        texts = [f"KEYS\x01{key}\x02" if key else "TAGS\x01t\x02" for key in keys]
        return client.produce(TOPIC, b"".join(map(batch_item, texts)), batch=True)

    assert batch("k1", "", "k2").code == 13
    assert read_all(client) == {}
    assert batch("k1", "k2").code == codes.SUCCESS
    assert len(read_all(client)) == 2


def batch_item(properties: str) -> bytes:
    text = properties.encode()
    head = bytes(12) + (1).to_bytes(4) + b"v" + len(text).to_bytes(2) + text
    return (len(head) + 4).to_bytes(4) + head


def test_a_message_must_fit_into_a_file(world: World, client: Connection) -> None:
    make_topic(client)
    answer = client.produce(TOPIC, bytes(7000), properties="KEYS\x01k\x02")
    assert answer.code == 13
    assert "compactionMappedFileSize" in (answer.header.remark or "")
    for size in (6000, 100, 6000):
        answer = client.produce(TOPIC, bytes(size), properties="KEYS\x01k\x02")
        assert answer.code == codes.SUCCESS
    compact(world)
    assert len(read_all(client)) == 2  # what is in the last file, and the newest before it


# -- what is read


def test_before_a_compaction_every_message_is_there(world: World, client: Connection) -> None:
    make_topic(client)
    put_many(client, 40, keys=3)
    expected = {n: f"v{n}" for n in range(40)}
    assert read_all(client) == expected  # from the commit log
    world.clock.advance(5)
    assert read_all(client) == expected  # from the compaction log
    put(client, "k9", "tail")
    assert read_all(client) == {**expected, 40: "tail"}  # from both
    assert read_all(client, 17) == {n: body for n, body in read_all(client).items() if n >= 17}


def test_after_a_compaction_the_newest_of_each_key_is_there_at_its_offset(
    world: World, client: Connection
) -> None:
    make_topic(client)
    for value in (1, 2, 3):
        put(client, "k", str(value))
    put_many(client, 60, keys=4, first=3)
    compact(world)
    found = read_all(client)
    assert found[2] == "3"
    assert [offset for offset in found if offset < 3] == [2]
    newest = {f"k{n % 4}": n for n in range(3, 63)}
    assert set(newest.values()) <= set(found)
    # What is in the last file stays as it is.
    first_of_last_file = max(n for n in found if n - 1 not in found)
    assert all(found[n] == f"v{n}" for n in range(first_of_last_file, 63))
    assert len(found) < 30
    # Any offset between two messages leads to the next one.
    for offset in range(3):
        answer = client.pull(TOPIC, offset=offset)
        assert answer.records()[0].queue_offset == 2
    assert client.call(30, {"topic": TOPIC, "queueId": 0}).ext["offset"] == "63"


def test_an_empty_body_takes_the_key_away(world: World, client: Connection) -> None:
    make_topic(client)
    put(client, "gone", "value")
    put(client, "kept", "value2")
    put(client, "gone", "")
    put_many(client, 30, keys=2)
    assert 2 in read_all(client)  # until the compaction it tells that the key is gone
    compact(world)
    found = read_all(client)
    assert (found.get(0), found.get(1), found.get(2)) == (None, "value2", None)


def test_a_topic_of_tombstones_alone_becomes_empty(world: World, client: Connection) -> None:
    make_topic(client)
    for n in range(30):
        put(client, f"k{n}", "")
    compact(world)
    assert min(read_all(client)) == 27
    put(client, "k", "v")
    assert max(read_all(client)) == 30


def test_each_queue_is_compacted_for_itself(world: World, client: Connection) -> None:
    make_topic(client)
    put_many(client, 30, keys=1, queue_id=0)
    put_many(client, 30, keys=1, queue_id=1)
    compact(world)
    for queue_id in (0, 1):
        assert sorted(read_all(client, queue_id=queue_id))[0] == 26


def test_it_is_compacted_again_and_again(world: World, client: Connection) -> None:
    make_topic(client)
    newest: dict[str, str] = {}
    for round_ in range(6):
        for n in range(25):
            key, body = f"k{(n * 7 + round_) % 11}", f"{round_}.{n}"
            put(client, key, body)
            newest[key] = body
        compact(world)
        records = {
            record.queue_offset: (properties_of(record)["KEYS"], record.body.decode())
            for record in pull_records(client)
        }
        seen: dict[str, str] = {}
        for offset in sorted(records):
            seen[records[offset][0]] = records[offset][1]
        assert seen == newest
        assert len(records) < 11 + 20


def pull_records(client: Connection) -> list[Any]:
    found, offset = [], 0
    while (answer := client.pull(TOPIC, offset=offset)).code == codes.SUCCESS:
        found += answer.records()
        offset = int(answer.ext["nextBeginOffset"])
    return found


def test_filters_are_the_clients_business(world: World, client: Connection) -> None:
    make_topic(client)
    put(client, "k1", "a", tag="A")
    put(client, "k2", "b", tag="B")
    for _ in range(2):  # before and after it is copied
        answer = client.pull(TOPIC, expression="B")
        assert [record.body for record in answer.records()] == [b"a", b"b"]
        world.clock.advance(5)


def test_offsets_outside_are_answered_as_ever(world: World, client: Connection) -> None:
    make_topic(client)
    assert client.pull(TOPIC).code == codes.PULL_NOT_FOUND
    put_many(client, 5, keys=5)
    for _ in range(2):
        answer = client.pull(TOPIC, offset=5)
        assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_NOT_FOUND, "5")
        answer = client.pull(TOPIC, offset=99)
        assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_OFFSET_MOVED, "0")
        answer = client.pull(TOPIC, offset=0, count=2)
        assert len(answer.records()) == 2
        world.clock.advance(5)


def test_a_waiting_pull_gets_the_next_message(world: World, client: Connection) -> None:
    make_topic(client)
    put(client, "k", "old")
    world.clock.advance(5)
    waiting = world.connect()
    waiting.send(11, pull_fields(TOPIC, 0, 1, suspend_ms=15_000))
    assert not waiting.received()
    put(client, "k", "new")
    world.clock.advance(0.1)
    (answer,) = waiting.received()
    assert [record.body for record in answer.records()] == [b"new"]


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
