"""Compaction topics, from outside: of every key the newest message stays, where it was."""

from __future__ import annotations

from typing import Any

from tests.support.brokers import Answered, Connection, World, properties_of, pull_fields
from tests.support.compaction import (
    TOPIC,
    client,
    compact,
    make_topic,
    put,
    put_many,
    read_all,
    world,
)

from firearrow.model import codes

__all__ = ["client", "world"]  # fixtures

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
