"""The check points of pop on the disk, as RocketMQ has them; RocketMQ's known defects of pop."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
from tests.support.brokers import Connection, World
from tests.support.pop_worlds import REVIVE, TIMER, drain
from tests.support.popping import (
    GROUP,
    POP,
    TOPIC,
    ack,
    batch_ack,
    bodies,
    pop,
    pop_fields,
    produce,
)

from firearrow.codec.properties import parse_properties
from firearrow.codec.record import decode_record
from firearrow.config import BrokerSettings
from firearrow.features.pop.checkpoints import CheckPoint, ReviveTopic
from firearrow.model import codes
from firearrow.model.group import Group

# -- what is on the disk


def test_the_records_of_the_revive_topic(client: Connection, world: World) -> None:
    produce(client, b"one", b"two", b"three", properties="TAGS\x01a\x02")
    messages = pop(client, invisibleTime=60_000)
    now = world.clock.now_ms()
    ack(client, messages[1])
    batch_ack(client, [messages[0], messages[2]])
    point, single, batch = (
        decode_record(world.store.record(entry.physical_offset) or b"")
        for entry in world.store.entries(TIMER, 0, 0, 10)
    )
    base = {"c": GROUP, "pt": now, "q": 0, "so": 0, "t": TOPIC, "bn": "broker-a"}
    assert msgspec.json.decode(point.body) == base | {
        "bm": 0,
        "d": [0, 1, 2],
        "it": 60_000,
        "n": 3,
        "reviveTime": now + 60_000,
        "ro": 0,
    }
    assert msgspec.json.decode(single.body) == base | {"ao": 1}
    assert msgspec.json.decode(batch.body) == base | {"ao": -1, "aol": [0, 2]}
    kept = ("TAGS", "TIMER_DELIVER_MS", "REAL_TOPIC", "REAL_QID", "UNIQ_KEY")
    assert [
        tuple(parse_properties(record.properties)[name] for name in kept)
        for record in (point, single, batch)
    ] == [
        ("ck", f"{now + 59_000}", REVIVE, "0", f"{TOPIC}@0@0@{GROUP}@{now}@broker-a@ck"),
        ("ack", f"{now + 60_000}", REVIVE, "0", f"{TOPIC}@0@1@{GROUP}@{now}@broker-a@ack"),
        ("bAck", f"{now + 60_000}", REVIVE, "0", f"{TOPIC}@0@-1@{GROUP}@{now}@broker-a@ack"),
    ]


def test_revive_leaves_its_place_as_a_java_broker_does(client: Connection, world: World) -> None:
    produce(client, b"one")
    pop(client)
    world.clock.advance(20)
    # The last record that is over; a reader begins behind it.
    assert world.core.offsets.find(REVIVE, "CID_RMQ_SYS_REVIVE_GROUP", 0) == 0


def test_check_points_of_old_brokers_name_no_distances(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(4)))
    world.core.groups.update(Group(name=GROUP))
    world.core.offsets.commit(TOPIC, GROUP, 0, 4)
    now = world.clock.now_ms()
    point = CheckPoint(
        broker_name="broker-a",
        group=GROUP,
        invisible_ms=5000,
        count=2,
        pop_ms=now,
        queue_id=0,
        start_offset=1,
        topic=TOPIC,
    )
    revive_topic = ReviveTopic(
        lambda message, _: world.core.writer.put(message), REVIVE, world.core.store_host
    )
    revive_topic.check_point(point, 3, now)
    world.clock.advance(9)
    assert bodies(pop(client)) == [b"1", b"2"]


def test_messages_of_a_topic_or_group_that_is_gone_are_gone(
    client: Connection, world: World
) -> None:
    produce(client, b"one")
    produce(client, b"other", topic="other")
    pop(client)
    pop(client, "other", consumerGroup="leaver")
    client.call(215, {"topic": TOPIC})
    client.call(207, {"groupName": "leaver", "cleanOffset": "false"})
    world.clock.advance(30)
    assert world.store.max_offset(f"%RETRY%{GROUP}_{TOPIC}", 0) == 0
    assert world.store.max_offset("%RETRY%leaver_other", 0) == 0


# -- RocketMQ's defects: the number is that of its issue


def test_7914_a_message_stored_after_the_pop_time_is_given_again(
    client: Connection, world: World
) -> None:
    produce(client, b"work")
    world.clock.jump_wall_clock(-60_000)
    (message,) = pop(client)
    assert int(message.handle.split(" ")[1]) < message.record.store_timestamp
    world.clock.advance(20)
    assert bodies(pop(client)) == [b"work"]


def test_7914_random_acknowledgements_lose_nothing(client: Connection, world: World) -> None:
    chance = random.Random(7914)
    open_ones = set()
    for round_ in range(20):
        produce(client, *(b"%d-%d" % (round_, n) for n in range(chance.randrange(5))))
        for message in pop(client):
            if chance.random() < 0.5:
                ack(client, message)
            else:
                open_ones.add(message.body)
        world.clock.advance(chance.random())
    assert {message.body for message in drain(world, client, 40)} >= open_ones


def test_8835_an_incomplete_acknowledgement_doubles_nothing(
    client: Connection, world: World
) -> None:
    produce(client, *(b"%d" % n for n in range(6)))
    messages = pop(client)
    world.clock.advance(9.5)  # late, and still in time
    for message in messages[:3]:
        ack(client, message)
    batch_ack(client, messages[3:5])
    assert bodies(drain(world, client, 30)) == [b"5"]


def test_8835_an_acknowledgement_without_a_broker_name_counts(
    client: Connection, world: World
) -> None:
    produce(client, b"one")
    (message,) = pop(client)
    fields = message.handle.split(" ")
    fields[5] = ""
    message.handle = " ".join(fields)
    assert ack(client, message).code == codes.SUCCESS
    assert drain(world, client, 30) == []


def test_9105_light_message_queues_are_popped_once(tmp_path: Path) -> None:
    settings = BrokerSettings(enable_lmq=True, enable_multi_dispatch=True)
    world = World(tmp_path, settings)
    client = world.connect()
    topic, group = "%LMQ%light", "%LMQ%group"
    produce(client, b"not for it")
    for n in range(6):
        tag = "ab"[n % 2]
        properties = f"TAGS\x01{tag}\x02INNER_MULTI_DISPATCH\x01{topic},%LMQ%other\x02"
        produce(client, b"%d" % n, properties=properties)
    seen = []
    for _ in range(2):
        answer = client.call(POP, pop_fields(topic, consumerGroup=group, maxMsgNums=2))
        seen += [record.body for record in answer.records()]
        world.clock.advance(1)
    world.stop()
    world = World(tmp_path, settings, clock=world.clock)
    client = world.connect()
    answer = client.call(POP, pop_fields(topic, consumerGroup=group, maxMsgNums=2))
    assert answer.ext["msgOffsetInfo"] == "0 0 4,5"
    seen += [record.body for record in answer.records()]
    assert seen == [b"%d" % n for n in range(6)]
    assert pop(client, topic, consumerGroup=group) == []
    filtered = pop_fields("%LMQ%other", consumerGroup=group, exp="b")
    assert client.call(POP, filtered).ext["msgOffsetInfo"] == "0 0 1,3,5"
    fields = answer.ext
    handle = f"4 {fields['popTime']} 10000 {fields['reviveQid']} 0 broker-a 0 4"
    acked = {"consumerGroup": group, "topic": topic, "queueId": 0, "extraInfo": handle}
    assert client.call(200051, acked | {"offset": 4}).code == codes.SUCCESS
    world.clock.advance(20)
    again = client.call(POP, pop_fields(topic, consumerGroup=group))
    assert [record.body for record in again.records()] == [b"0", b"1", b"2", b"3", b"5"]
    world.stop()
