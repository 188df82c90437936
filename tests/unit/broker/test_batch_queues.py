"""Topics with queue.type=BatchCQ: a batch is one record, its messages have offsets of their own."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from tests.support.batch_queues import (
    INNER,
    TOPIC,
    batch,
    bounds,
    client,
    contents,
    create,
    root,
    search,
    send,
    world,
)
from tests.support.batches import create_fields
from tests.support.brokers import Connection, World, properties_of, send_fields
from tests.support.popping import GROUP, ack, pop

from firearrow.codec.batch import decode_batch
from firearrow.model import codes

__all__ = ["client", "root", "world"]  # fixtures


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
