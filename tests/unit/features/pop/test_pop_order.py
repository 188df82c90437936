"""Ordered pops: one batch of a queue at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from tests.support.brokers import Connection, World
from tests.support.popping import (
    GROUP,
    NOTIFICATION,
    POP,
    TOPIC,
    Got,
    ack,
    batch_ack,
    bodies,
    change,
    got,
    pop,
    pop_fields,
    produce,
)

from firearrow.model import codes


def pop_ordered(client: Connection, **more: Any) -> list[Got]:
    return pop(client, **({"order": "true"} | more))


def counts(client: Connection, **more: Any) -> str:
    answer = client.call(POP, pop_fields(**({"order": "true"} | more)))
    assert answer.code == 0
    return answer.ext["orderCountInfo"]


def committed(world: World) -> int | None:
    return world.core.offsets.find(TOPIC, GROUP, 0)


def test_the_next_batch_waits_for_every_acknowledgement(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(4)))
    one, two = pop_ordered(client, maxMsgNums=2)
    assert one.handle.split(" ")[3] == "999"
    assert pop_ordered(client) == []
    assert ack(client, one).code == codes.SUCCESS
    assert committed(world) == 1
    assert pop_ordered(client) == []
    assert ack(client, two).code == codes.SUCCESS
    assert bodies(pop_ordered(client)) == [b"2", b"3"]


def test_acknowledged_out_of_order(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(3)))
    messages = pop_ordered(client)
    ack(client, messages[2])
    ack(client, messages[1])
    assert committed(world) == 0
    ack(client, messages[0])
    assert committed(world) == 3


def test_an_open_batch_becomes_visible_again_whole(client: Connection, world: World) -> None:
    produce(client, b"5", b"6")
    assert counts(client) == "0 0 0"
    world.clock.advance(9.9)
    assert pop_ordered(client) == []
    world.clock.advance(0.2)
    assert counts(client) == "0 qo0%0 1;0 qo0%1 1;0 0 1"
    world.clock.advance(10.1)
    assert counts(client) == "0 qo0%0 2;0 qo0%1 2;0 0 2"
    assert f"%RETRY%{GROUP}_{TOPIC}" not in world.core.topics.table


def test_what_was_acknowledged_of_it_does_not_come_again(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(4)))
    messages = pop_ordered(client, maxMsgNums=3)
    ack(client, messages[0])
    world.clock.advance(11)
    assert bodies(pop_ordered(client)) == [b"1", b"2", b"3"]


def test_the_same_attempt_gets_the_same_answer(client: Connection, world: World) -> None:
    produce(client, b"one", b"two")
    assert bodies(pop_ordered(client, attemptId="a")) == [b"one", b"two"]
    assert counts(client, attemptId="a") == "0 0 0"
    assert pop_ordered(client, attemptId="b") == []
    assert pop_ordered(client) == []


def test_an_acknowledgement_of_an_earlier_batch_moves_nothing(
    client: Connection, world: World
) -> None:
    produce(client, b"one", b"two")
    old = pop_ordered(client)
    world.clock.advance(11)
    new = pop_ordered(client)
    assert ack(client, old[0]).code == codes.SUCCESS
    assert committed(world) == 0
    assert ack(client, new[0]).code == codes.SUCCESS
    assert committed(world) == 1


def test_acknowledging_what_is_not_in_the_batch(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(5)))
    messages = pop_ordered(client, maxMsgNums=2)
    assert ack(client, messages[0], offset=4).code == codes.MESSAGE_ILLEGAL
    assert ack(client, messages[0]).code == codes.SUCCESS
    assert ack(client, messages[0]).code == codes.SUCCESS  # below the offset: over


def test_acknowledged_together(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(5)))
    messages = pop_ordered(client, maxMsgNums=3)
    assert batch_ack(client, messages).code == codes.SUCCESS
    assert bodies(pop_ordered(client)) == [b"3", b"4"]


def test_a_changed_time_of_one_message_opens_or_keeps_the_queue(
    client: Connection, world: World
) -> None:
    produce(client, b"one")
    (message,) = pop_ordered(client)
    answer = change(client, message, 30_000)
    assert answer.ext == {
        "popTime": message.handle.split(" ")[1],
        "invisibleTime": "30000",
        "reviveQid": "999",
    }
    world.clock.advance(29.9)
    assert pop_ordered(client) == []
    world.clock.advance(0.2)
    (message,) = pop_ordered(client)
    assert change(client, message, 0).code == codes.SUCCESS
    assert bodies(pop_ordered(client)) == [b"one"]


def test_queues_block_each_for_itself(client: Connection, world: World) -> None:
    produce(client, b"q0", queue_id=0)
    produce(client, b"q1", queue_id=1)
    assert bodies(pop_ordered(client, queueId=0)) == [b"q0"]
    assert bodies(pop_ordered(client)) == [b"q1"]


def test_a_waiting_pop_is_woken_by_the_last_acknowledgement(
    client: Connection, world: World
) -> None:
    produce(client, b"one", b"two")
    first, second = pop_ordered(client)[0], world.connect()
    produce(client, b"three")
    second.send(POP, pop_fields(order="true", pollTime=15_000))
    world.clock.advance(0)
    assert second.received() == []  # what waits behind the batch does not wake it
    ack(client, first)
    other = Got(first.record, first.handle, first.stored_topic)
    assert (
        client.call(
            200051,
            {
                "consumerGroup": GROUP,
                "topic": TOPIC,
                "queueId": 0,
                "extraInfo": other.handle,
                "offset": 1,
            },
        ).code
        == 0
    )
    world.clock.advance(0)
    (answer,) = second.received()
    assert bodies(got(answer)) == [b"three"]


def test_a_waiting_pop_is_woken_when_the_batch_becomes_visible(
    client: Connection, world: World
) -> None:
    produce(client, b"one")
    pop_ordered(client)
    second, third = world.connect(), world.connect()
    second.send(POP, pop_fields(order="true", pollTime=15_000))
    third.send(
        NOTIFICATION,
        {
            "consumerGroup": GROUP,
            "topic": TOPIC,
            "queueId": -1,
            "pollTime": 15_000,
            "bornTime": 0,
            "order": "true",
            "attemptId": "x",
        },
    )
    world.clock.advance(9.9)
    assert second.received() == third.received() == []
    world.clock.advance(0.2)
    (answer,) = second.received()
    assert bodies(got(answer)) == [b"one"]


def test_it_is_not_woken_where_that_is_not_wanted(client: Connection, world: World) -> None:
    world.settings.enable_notify_after_pop_order_lock_release = False
    produce(client, b"one")
    pop_ordered(client)
    second = world.connect()
    second.send(POP, pop_fields(order="true", pollTime=15_000))
    world.clock.advance(11)
    assert second.received() == []


def test_a_reset_of_the_offset_opens_the_queue(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(3)))
    for message in pop_ordered(client):
        ack(client, message)
    produce(client, b"3")
    pop_ordered(client)
    answer = client.call(
        222,
        {
            "topic": TOPIC,
            "group": GROUP,
            "timestamp": -1,
            "isForce": "true",
            "queueId": 0,
            "offset": 1,
        },
    )
    assert answer.code == 0
    assert bodies(pop_ordered(client)) == [b"1", b"2", b"3"]


def test_batches_survive_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    produce(client, *(b"%d" % n for n in range(3)))
    messages = pop_ordered(client, maxMsgNums=2, attemptId="a")
    ack(client, messages[0])
    change(client, messages[1], 60_000)
    world.stop()
    file = msgspec.json.decode((tmp_path / "config/consumerOrderInfo.json").read_bytes())
    batch = file["table"][f"{TOPIC}@{GROUP}"]["0"]
    now = world.clock.now_ms()
    assert batch == {
        "a": "a",
        "cm": 1,
        "i": 10_000,
        "l": now,
        "o": [0, 1],
        "ot": {"1": now + 60_000},
        "popTime": now,
    }
    world = World(tmp_path, clock=world.clock)
    client = world.connect()
    assert pop_ordered(client) == []
    world.clock.advance(59)
    assert pop_ordered(client) == []
    world.clock.advance(2)
    assert bodies(pop_ordered(client)) == [b"1", b"2"]
    world.stop()


def test_batches_of_a_java_broker(tmp_path: Path) -> None:
    world = World(tmp_path)
    produce(world.connect(), *(b"%d" % n for n in range(3)))
    world.stop()
    now = world.clock.now_ms()
    written = (
        f'{{\n\t"table":{{\n\t\t"{TOPIC}@{GROUP}":{{0:{{\n\t\t\t"a":"x","cm":1,"i":30000,'
        f'"l":{now},"o":[0,1,2],"oc":{{1:4}},"popTime":{now}}}\n\t\t}}\n\t}}\n}}'
    )
    (tmp_path / "config/consumerOrderInfo.json").write_text(written)
    world = World(tmp_path, clock=world.clock)
    client = world.connect()
    world.core.offsets.commit(TOPIC, GROUP, 0, 1)
    assert pop_ordered(client) == []
    world.clock.advance(31)
    assert counts(client) == "0 qo0%1 5;0 qo0%2 1;0 0 1"
    world.stop()


def test_nobody_comes_back_for_a_batch_of_yesterday(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    produce(client, b"one")
    pop_ordered(client)
    world.clock.advance(25 * 3600)
    produce(client, b"q1", queue_id=1)
    pop_ordered(client, queueId=1)
    world.clock.advance(11)
    world.stop()
    file = msgspec.json.decode((tmp_path / "config/consumerOrderInfo.json").read_bytes())
    assert file["table"][f"{TOPIC}@{GROUP}"].keys() == {"1"}
