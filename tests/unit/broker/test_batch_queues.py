"""Topics with queue.type=BatchCQ: a batch is one record, its messages have offsets of their own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.batches import create_fields
from tests.support.brokers import Answered, Connection, World, properties_of, send_fields
from tests.support.popping import GROUP, ack, pop

from firearrow.codec import lenient_json
from firearrow.codec.batch import decode_batch
from firearrow.model import codes
from firearrow.model.clock import VirtualClock
from firearrow.store.memory import MemoryDisk

TOPIC = "batches"
INNER = 0x80 | 0x40
UNIT = struct.Struct(">qiqqqhii")
SETTINGS: dict[str, Any] = {
    "mapped_file_size_commit_log": 64 * 1024,
    "mapper_file_size_batch_consume_queue": 46 * 5,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    world = opened(root)
    yield world
    world.stop()


@pytest.fixture
def client(world: World) -> Connection:
    return world.connect()


def opened(root: Path) -> World:
    return World(root, **SETTINGS)


def create(client: Connection, topic: str = TOPIC, kind: str = "BatchCQ") -> None:
    assert client.call(17, create_fields(topic, 2, kind)).code == codes.SUCCESS


def batch(*bodies: bytes) -> bytes:
    items = []
    for n, body in enumerate(bodies):
        properties = b"UNIQ_KEY\x01id-%d\x02" % n
        rest = struct.pack(">iiii", 0, 0, 0, len(body)) + body
        rest += struct.pack(">h", len(properties)) + properties
        items.append(struct.pack(">i", 4 + len(rest)) + rest)
    return b"".join(items)


def send(
    client: Connection, count: int = 3, *, tag: str = "", envelope: str = "", text: str = "m"
) -> Answered:
    properties = envelope or "UNIQ_KEY\x01envelope\x02"
    properties += f"TAGS\x01{tag}\x02" if tag else ""
    body = batch(*(b"%s-%d" % (text.encode(), n) for n in range(count)))
    return client.call(320, send_fields(TOPIC, batch=True, properties=properties), body)


def bounds(client: Connection, topic: str = TOPIC) -> tuple[int, int]:
    fields = {"topic": topic, "queueId": 0}
    low, high = client.call(31, fields), client.call(30, fields)
    return int(low.ext["offset"]), int(high.ext["offset"])


def search(client: Connection, timestamp: int, boundary: str = "LOWER") -> int:
    fields = {"topic": TOPIC, "queueId": 0, "timestamp": timestamp, "boundaryType": boundary}
    return int(client.call(29, fields).ext["offset"])


def contents(client: Connection, offset: int = 0) -> list[tuple[int, list[bytes]]]:
    """(offset, bodies) of every record to the end of the queue, pulled one after the other."""
    found = []
    while (answer := client.pull(TOPIC, 0, offset, count=1)).code == codes.SUCCESS:
        (record,) = answer.records()
        inner = record.sys_flag & 0x80
        bodies = [i.body for i in decode_batch(record.body)] if inner else [record.body]
        found.append((record.queue_offset, bodies))
        offset = int(answer.ext["nextBeginOffset"])
    return found


def test_a_batch_is_one_record_and_as_many_offsets(client: Connection) -> None:
    create(client)
    answer = send(client, 3, tag="a")
    assert answer.code == codes.SUCCESS
    assert (answer.ext["queueOffset"], answer.ext["batchUniqId"]) == ("0", "envelope")
    assert "," not in answer.ext["msgId"]
    assert send(client, 2).ext["queueOffset"] == "3"
    assert bounds(client) == (0, 5)
    first, second = client.pull(TOPIC).records()
    assert first.sys_flag == second.sys_flag == INNER
    assert (first.queue_offset, second.queue_offset) == (0, 3)
    assert [item.body for item in decode_batch(first.body)] == [b"m-0", b"m-1", b"m-2"]
    properties = properties_of(second)
    assert (properties["INNER_NUM"], properties["INNER_BASE"]) == ("2", "3")
    assert properties_of(first)["TAGS"] == "a"


def test_what_a_producer_says_of_number_and_base_does_not_count(client: Connection) -> None:
    create(client)
    send(client, 3)
    send(client, 2, envelope="INNER_BASE\x0177\x02UNIQ_KEY\x01k\x02INNER_NUM\x019\x02")
    record = client.pull(TOPIC, offset=3).records()[0]
    assert record.properties.count(b"INNER_NUM") == record.properties.count(b"INNER_BASE") == 1
    properties = properties_of(record)
    assert (properties["INNER_NUM"], properties["INNER_BASE"]) == ("2", "3")
    assert bounds(client) == (0, 5)


def test_a_pull_in_the_middle_of_a_batch_gets_it_whole(client: Connection) -> None:
    create(client)
    for _ in range(3):
        send(client, 10)
    answer = client.pull(TOPIC, offset=14, count=1)
    (record,) = answer.records()
    assert (record.queue_offset, answer.ext["nextBeginOffset"]) == (10, "20")


@pytest.mark.parametrize(("count", "records", "after"), [(1, 1, 10), (20, 2, 20), (29, 2, 20)])
def test_a_pull_counts_the_messages_of_a_batch(
    client: Connection, count: int, records: int, after: int
) -> None:
    create(client)
    for _ in range(3):
        send(client, 10)
    answer = client.pull(TOPIC, count=count)
    assert len(answer.records()) == records
    assert answer.ext["nextBeginOffset"] == str(after)


def test_offsets_outside_are_answered_as_in_any_queue(client: Connection) -> None:
    create(client)
    assert client.pull(TOPIC, offset=0).code == codes.PULL_NOT_FOUND
    send(client, 3)
    assert client.pull(TOPIC, offset=3).code == codes.PULL_NOT_FOUND
    moved = client.pull(TOPIC, offset=9)
    assert (moved.code, moved.ext["nextBeginOffset"]) == (codes.PULL_OFFSET_MOVED, "3")


def test_tags_are_those_of_the_batch(client: Connection) -> None:
    create(client)
    send(client, 2, tag="a")
    send(client, 2, tag="b")
    send(client, 2, tag="a")
    answer = client.pull(TOPIC, expression="b")
    (record,) = answer.records()
    assert (record.queue_offset, answer.ext["nextBeginOffset"]) == (2, "6")
    answer = client.pull(TOPIC, expression="none")
    assert answer.code == codes.PULL_RETRY_IMMEDIATELY
    assert answer.ext["nextBeginOffset"] == "6"


def test_a_waiting_pull_gets_a_batch_when_it_comes(world: World, client: Connection) -> None:
    create(client)
    waiting = world.connect()
    waiting.send(11, {**_pull_fields(), "sysFlag": 6, "suspendTimeoutMillis": 15000})
    assert waiting.received() == []
    send(client, 4)
    world.clock.advance(0.1)
    (answer,) = waiting.received()
    assert answer.ext["nextBeginOffset"] == "4"


def _pull_fields() -> dict[str, Any]:
    return {
        "consumerGroup": "group",
        "topic": TOPIC,
        "queueId": 0,
        "queueOffset": 0,
        "maxMsgNums": 32,
        "commitOffset": 0,
        "subVersion": 0,
        "subscription": "*",
    }


def test_single_messages_and_batches_share_a_queue(client: Connection) -> None:
    create(client)
    client.produce(TOPIC, b"alone")
    send(client, 2)
    client.produce(TOPIC, b"last")
    without_key = send_fields(TOPIC, batch=True, properties="WAIT\x01true\x02")
    answer = client.call(320, without_key, batch(b"x", b"y"))
    assert "batchUniqId" not in answer.ext
    assert answer.ext["msgId"].count(",") == 1
    assert contents(client) == [
        (0, [b"alone"]),
        (1, [b"m-0", b"m-1"]),
        (3, [b"last"]),
        (4, [b"x"]),
        (5, [b"y"]),
    ]
    assert bounds(client) == (0, 6)


def test_times_find_whole_batches(world: World, client: Connection) -> None:
    create(client)
    times = []
    for _ in range(12):  # three files of units
        world.clock.advance(1)
        times.append(world.clock.now_ms())
        send(client, 10)
    assert [search(client, time) for time in times] == [10 * n for n in range(12)]
    # Behind the last record of a file (of five) it is that one, not the next or the end.
    after = [10 * n for n in range(1, 13)]
    after[4], after[9], after[11] = 40, 90, 110
    assert [search(client, time + 1) for time in times] == after
    assert search(client, 0) == 0
    assert [search(client, time, "UPPER") for time in times] == [10 * n for n in range(12)]
    assert search(client, times[3] + 1, "UPPER") == 30


@pytest.mark.parametrize("topic", ["plain", TOPIC])
def test_a_number_without_the_flag_is_illegal(client: Connection, topic: str) -> None:
    create(client)
    for properties in ("INNER_NUM\x013\x02", "UNIQ_KEY\x01k\x02INNER_NUM\x013\x02") * 2:
        answer = client.produce(topic, properties=properties)
        assert answer.code == codes.MESSAGE_ILLEGAL
    item = struct.pack(">iiiiih", 34, 0, 0, 0, 0, 12) + b"INNER_NUM\x013\x02"
    answer = client.call(320, send_fields(topic, batch=True), item)
    assert answer.code == codes.MESSAGE_ILLEGAL
    assert bounds(client, topic) == (0, 0)


def test_the_flag_is_illegal_where_queues_hold_messages(client: Connection) -> None:
    client.produce("plain")
    for _ in range(2):
        fields = send_fields("plain", properties="INNER_NUM\x011\x02UNIQ_KEY\x01k\x02")
        answer = client.call(310, {**fields, "f": INNER}, batch(b"a"))
        assert answer.code == codes.MESSAGE_ILLEGAL
        fields = send_fields("plain", properties="UNIQ_KEY\x01k\x02")
        assert client.call(310, {**fields, "f": INNER}).code == codes.MESSAGE_ILLEGAL
    fields = {**send_fields("plain", batch=True), "f": INNER}
    assert client.call(320, fields, batch(b"a")).code == codes.MESSAGE_ILLEGAL
    assert bounds(client, "plain") == (0, 1)


@pytest.mark.parametrize("number", ["0", "-1", "32768", "99999999999", "x"])
def test_impossible_numbers_are_illegal(client: Connection, number: str) -> None:
    create(client)
    fields = send_fields(TOPIC, properties=f"INNER_NUM\x01{number}\x02UNIQ_KEY\x01k\x02")
    answer = client.call(310, {**fields, "f": INNER}, batch(b"a"))
    assert answer.code == codes.MESSAGE_ILLEGAL
    assert bounds(client) == (0, 0)
    assert client.produce(TOPIC).ext["queueOffset"] == "0"


def test_more_messages_than_a_unit_can_count_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path / "large")
    client = world.connect()
    create(client)
    item = struct.pack(">iiiiih", 22, 0, 0, 0, 0, 0)
    fields = send_fields(TOPIC, batch=True, properties="UNIQ_KEY\x01k\x02")
    assert client.call(320, fields, item * 32768).code == codes.MESSAGE_ILLEGAL
    assert client.call(320, fields, item * 32767).code == codes.SUCCESS
    assert bounds(client) == (0, 32767)
    world.stop()


def test_a_batch_cannot_be_sent_back(client: Connection) -> None:
    """The client then sends the one message to the retry topic itself."""
    create(client)
    send(client, 3)
    client.heartbeat("group", {TOPIC: "*"})
    fields = {"offset": 0, "group": "group", "delayLevel": 0, "originTopic": TOPIC}
    assert client.call(36, fields).code == codes.SYSTEM_ERROR
    assert bounds(client, "%RETRY%group") == (0, 0)


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


# -- what features make of batches


def test_a_pop_hands_out_whole_batches(world: World, client: Connection) -> None:
    """As RocketMQ does, though its clients do not take them apart in pop mode."""
    create(client)
    send(client, 10, tag="a")
    client.produce(TOPIC, b"alone")
    send(client, 5, tag="a")
    first, second, third = pop(client, TOPIC)
    assert [m.offset for m in (first, second, third)] == [0, 10, 11]
    assert ack(client, second).code == ack(client, first).code == codes.SUCCESS
    world.clock.advance(20)
    (again,) = pop(client, TOPIC)
    assert again.record.body == third.record.body
    assert again.record.reconsume_times == 1
    assert ack(client, again).code == codes.SUCCESS
    world.clock.advance(20)
    assert pop(client, TOPIC) == []


def test_a_pop_in_the_middle_of_a_batch_can_be_acknowledged(
    world: World, client: Connection
) -> None:
    create(client)
    send(client, 10)
    commit = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": 0, "commitOffset": 4}
    client.heartbeat(GROUP, {TOPIC: "*"})
    client.call(15, commit)
    (message,) = pop(client, TOPIC)
    assert message.offset == 0
    assert ack(client, message).code == codes.SUCCESS
    world.clock.advance(20)
    assert pop(client, TOPIC) == []


@pytest.mark.parametrize(
    ("attribute", "low"), [("retention.ms=60000", 20), ("retention.bytes=1000", 10)]
)
def test_a_topic_gives_up_whole_batches(
    world: World, client: Connection, attribute: str, low: int
) -> None:
    create(client)
    fields = create_fields(TOPIC, 2)
    assert client.call(17, {**fields, "attributes": f"+{attribute}"}).code == codes.SUCCESS
    for _ in range(4):
        send(client, 5)
    world.clock.advance(60 + 20 if "ms" in attribute else 20)
    assert bounds(client) == (low, 20)
    send(client, 5)
    assert contents(client, low)[-1][0] == 20


def test_a_batch_that_is_sent_again_is_stored_once(client: Connection) -> None:
    create(client)
    fields = create_fields(TOPIC, 2)
    client.call(17, {**fields, "attributes": "+dedup.window.ms=60000"})
    first, again = send(client, 3), send(client, 3)
    assert again.ext["msgId"] == first.ext["msgId"]
    assert again.ext["batchUniqId"] == "envelope"
    assert bounds(client) == (0, 3)


def test_a_batch_cannot_be_delayed_timed_or_half_of_a_transaction(client: Connection) -> None:
    create(client)
    for more in ("DELAY\x011\x02", "TIMER_DELAY_SEC\x015\x02", "TRAN_MSG\x01true\x02"):
        answer = send(client, 2, envelope=f"UNIQ_KEY\x01k\x02{more}")
        assert answer.code == codes.MESSAGE_ILLEGAL
    assert bounds(client) == (0, 0)


def test_single_messages_can_be_delayed(world: World, client: Connection) -> None:
    create(client)
    client.produce(TOPIC, b"later", properties="DELAY\x011\x02")
    send(client, 2)
    world.clock.advance(5)
    assert contents(client) == [(0, [b"m-0", b"m-1"]), (2, [b"later"])]


@pytest.mark.parametrize("flag", [1, 1 | 0x100, 1 | 0x200, 1 | 0x300])
def test_compressed_bodies_pass_as_they_are(client: Connection, flag: int) -> None:
    """Whatever compressed them, which the flag says: LZ4, Zstandard, zlib."""
    create(client)
    body = bytes(range(256)) * 8
    for topic in (TOPIC, "plain"):
        fields = {**send_fields(topic, properties="UNIQ_KEY\x01k\x02"), "f": flag}
        assert client.call(310, fields, body).code == codes.SUCCESS
        (record,) = client.pull(topic).records()
        assert (record.body, record.sys_flag) == (body, flag)
