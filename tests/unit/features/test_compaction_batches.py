"""Compaction topics with batch queues: a batch is one value, under the keys of the whole batch."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.batches import create_fields
from tests.support.brokers import Answered, Connection, World, pull_fields, send_fields
from tests.support.popping import ack, pop

from firearrow.codec.batch import decode_batch
from firearrow.codec.record import Record
from firearrow.model import codes
from firearrow.model.clock import VirtualClock

TOPIC = "prices"
# Nine records a file.
SIZES: dict[str, Any] = {"compaction_cq_mapped_file_size": 460, "compaction_mapped_file_size": 8000}
INTERVAL_S = 900
INNER = 0x80
UNIT = struct.Struct(">qiqqqhii")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, **SIZES)
    yield world
    world.stop()


@pytest.fixture
def client(world: World) -> Connection:
    client = world.connect()
    make_topic(client)
    return client


def make_topic(client: Connection) -> None:
    fields = create_fields(TOPIC, 1)
    fields["attributes"] += ",+cleanup.policy=COMPACTION"
    assert client.call(17, fields).code == codes.SUCCESS


def item(body: str) -> bytes:
    text = b"UNIQ_KEY\x01U%s\x02" % body.encode()
    rest = bytes(12) + struct.pack(">i", len(body)) + body.encode()
    rest += struct.pack(">h", len(text)) + text
    return struct.pack(">i", len(rest) + 4) + rest


def send_batch(client: Connection, keys: str, *bodies: str) -> Answered:
    properties = f"UNIQ_KEY\x01Ubatch{bodies[0]}\x02" + (f"KEYS\x01{keys}\x02" if keys else "")
    fields = send_fields(TOPIC, batch=True, properties=properties)
    return client.call(320, fields, b"".join(map(item, bodies)))


def put(client: Connection, keys: str, *bodies: str) -> int:
    """Send one message, or several as a batch; the offset of the first."""
    if len(bodies) > 1:
        answer = send_batch(client, keys, *bodies)
    else:
        properties = f"UNIQ_KEY\x01U{bodies[0]}\x02KEYS\x01{keys}\x02"
        answer = client.produce(TOPIC, bodies[0].encode(), 0, properties=properties)
    assert answer.code == codes.SUCCESS, answer.header.remark
    return int(answer.ext["queueOffset"])


def fill(client: Connection, rounds: int = 10) -> int:
    """Batches of three under one key and single messages under another; how many messages."""
    for n in range(rounds):
        put(client, "all", f"x{n}", f"y{n}", f"z{n}")
        put(client, "one", f"v{n}")
    return 4 * rounds


def bodies_of(record: Record) -> list[str]:
    if record.sys_flag & INNER:
        return [item.body.decode() for item in decode_batch(record.body)]
    return [record.body.decode()]


def read_all(client: Connection, offset: int = 0, count: int = 32) -> dict[int, list[str]]:
    """Offset -> bodies of every record that a consumer gets."""
    found: dict[int, list[str]] = {}
    while True:
        answer = client.pull(TOPIC, 0, offset, count=count)
        if answer.code == codes.SUCCESS:
            for record in answer.records():
                assert record.queue_offset not in found
                found[record.queue_offset] = bodies_of(record)
        elif answer.code != codes.PULL_RETRY_IMMEDIATELY:
            assert answer.code == codes.PULL_NOT_FOUND
            return found
        following = int(answer.ext["nextBeginOffset"])
        assert following > offset
        offset = following


def compact(world: World) -> None:
    world.clock.advance(INTERVAL_S + 5)


def reopened(world: World, *, clean: bool) -> World:
    if clean:
        world.stop()
    else:
        world.store.disk.unlock()  # the process is gone
    return World(Path(world.store.root), clock=VirtualClock(world.clock.now_ms()), **SIZES)


def units(root: Path) -> list[tuple[int, ...]]:
    """What the compaction log's entries say, but for the ones that end a file."""
    found = []
    for path in sorted((root / f"compaction/compactionCq/{TOPIC}/0").iterdir()):
        found += [u for u in UNIT.iter_unpack(path.read_bytes()) if u[0] >= 0 and u[1] > 0]
    return found


def test_a_batch_needs_keys_of_its_own(client: Connection) -> None:
    """A Java broker acknowledges one without, and never gives it to anybody."""
    answer = send_batch(client, "", "a", "b")
    assert (answer.code, answer.header.remark) == (13, "Required message key is missing")
    assert read_all(client) == {}
    assert put(client, "k", "a", "b") == 0


def test_before_a_compaction_every_record_is_there(world: World, client: Connection) -> None:
    end = fill(client, 3)
    expected = {4 * n: [f"x{n}", f"y{n}", f"z{n}"] for n in range(3)}
    expected |= {4 * n + 3: [f"v{n}"] for n in range(3)}
    for _ in range(2):  # from the commit log, and from the compaction log
        assert read_all(client) == read_all(client, count=1) == expected
        world.clock.advance(5)
    assert put(client, "k", "p", "q") == end
    assert read_all(client) == {**expected, end: ["p", "q"]}  # from both
    assert read_all(client, end + 1) == {end: ["p", "q"]}


def test_the_newest_of_the_same_keys_stays_whole(world: World, client: Connection) -> None:
    put(client, "a b", "old1", "old2")
    put(client, "a", "alone")
    put(client, "b a", "another order")
    put(client, "a b", "new1", "new2", "new3")
    end = 7 + fill(client)
    compact(world)
    found = read_all(client)
    # A batch's key is all of its KEYS: what has one of them, or the same in another order, stays.
    assert 0 not in found
    assert (found[2], found[3], found[4]) == (
        ["alone"],
        ["another order"],
        ["new1", "new2", "new3"],
    )
    assert found[end - 4] == ["x9", "y9", "z9"]
    assert len(found) < 20
    assert client.call(30, {"topic": TOPIC, "queueId": 0}).ext["offset"] == str(end)


def test_an_offset_in_the_middle_of_a_batch_gets_it_whole(world: World, client: Connection) -> None:
    put(client, "k", "a", "b", "c")
    put(client, "l", "d", "e", "f")
    fill(client)
    end = 46
    for wait_s in (5, INTERVAL_S, 0):  # in the commit log, copied, compacted
        for offset, start in ((0, 0), (1, 0), (2, 0), (3, 3), (5, 3), (end - 3, end - 4)):
            answer = client.pull(TOPIC, 0, offset, count=1)
            (record,) = answer.records()
            assert record.queue_offset == start
            assert int(answer.ext["nextBeginOffset"]) == start + len(bodies_of(record))
        answer = client.pull(TOPIC, 0, end, count=1)
        assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_NOT_FOUND, str(end))
        world.clock.advance(wait_s)
    assert len(read_all(client)) < 20


def test_a_last_batch_is_read_to_its_end(world: World, client: Connection) -> None:
    """A Java broker calls the offset behind such a batch illegal, and its consumers begin anew."""
    put(client, "k", "a", "b", "c")
    world.clock.advance(5)
    assert read_all(client, 2) == {0: ["a", "b", "c"]}
    answer = client.pull(TOPIC, 0, 3)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_NOT_FOUND, "3")
    waiting = world.connect()
    waiting.send(11, pull_fields(TOPIC, 0, 3, suspend_ms=15_000))
    put(client, "k", "d", "e")
    world.clock.advance(0.1)
    (answer,) = waiting.received()
    assert [bodies_of(record) for record in answer.records()] == [["d", "e"]]


def test_a_pull_counts_the_messages_of_a_batch(world: World, client: Connection) -> None:
    fill(client, 2)
    for _ in range(2):
        answer = client.pull(TOPIC, 0, 0, count=7)
        assert [record.queue_offset for record in answer.records()] == [0, 3, 4]
        assert answer.ext["nextBeginOffset"] == "7"
        answer = client.pull(TOPIC, 0, 0, count=6)
        assert [record.queue_offset for record in answer.records()] == [0, 3]
        world.clock.advance(5)


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_a_restart_changes_nothing(tmp_path: Path, clean: bool) -> None:
    world = World(tmp_path, **SIZES)
    client = world.connect()
    make_topic(client)
    end = fill(client)
    compact(world)
    end = put(client, "tail", "p", "q", "r") + 3
    for _ in range(3):
        before = read_all(client)
        world.clock.advance(5)
        copied = units(tmp_path)
        world = reopened(world, clean=clean)
        client = world.connect()
        assert read_all(client) == before
        assert put(client, "tail", "s", "t") == end
        end += 2
        world.clock.advance(5)
        assert units(tmp_path)[: len(copied)] == copied
        assert len(units(tmp_path)) == len(copied) + 1  # no record is copied twice
    world.stop()


def test_the_commit_log_may_go_and_the_batches_stay(tmp_path: Path) -> None:
    world = World(tmp_path, **SIZES)
    client = world.connect()
    make_topic(client)
    fill(client)
    end = put(client, "tail", "p", "q", "r") + 3
    compact(world)
    before = read_all(client)
    for path in forget_the_log(world, client):
        assert not path.exists()
    assert read_all(client) == before
    world.stop()
    for path in sorted(tmp_path.glob("batchconsumequeue/prices/**/*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    world = World(tmp_path, clock=VirtualClock(world.clock.now_ms()), **SIZES)
    client = world.connect()
    assert read_all(client) == before
    assert put(client, "tail", "s", "t") == end
    assert read_all(client) == {**before, end: ["s", "t"]}
    world.stop()


def forget_the_log(world: World, client: Connection) -> list[Path]:
    """Fill the log's first file with other messages, and let it expire; which file it was."""
    first = sorted(Path(world.store.root).glob("commitlog/*"))[:1]
    for _ in range(18):
        client.produce("filling", bytes(1_000_000))
    world.clock.advance(5)
    for path in Path(world.store.root).glob("commitlog/*"):
        os.utime(path, (0, 0))
    client.call(329)
    world.clock.advance(120)
    assert world.store.commit_log_range()[0] > 0
    return first


def test_a_pop_takes_whole_batches(world: World, client: Connection) -> None:
    fill(client)
    compact(world)
    there = read_all(client)
    taken: list[int] = []
    while popped := pop(client, TOPIC, queueId=0, maxMsgNums=8, invisibleTime=60_000, initMode=0):
        for message in popped:
            taken.append(message.offset)
            assert bodies_of(message.record) == there[message.offset]
            assert ack(client, message).code == codes.SUCCESS
    assert taken == sorted(there)


def test_files_are_as_a_java_brokers(world: World, client: Connection, tmp_path: Path) -> None:
    """An entry tells the offset of a batch's first message, and says that it is one message."""
    fill(client, 3)
    world.clock.advance(5)
    found = units(tmp_path)
    assert [(unit[4], unit[5], unit[6]) for unit in found] == [
        (offset, 1, -1) for offset in (0, 3, 4, 7, 8, 11)
    ]
