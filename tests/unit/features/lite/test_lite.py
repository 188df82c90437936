"""Lite topics: sends, subscriptions, pops, acknowledgements, as clients see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import Connection, World, properties_of
from tests.support.lite import (
    GROUP,
    PARENT,
    POP_LITE,
    ack,
    bodies,
    change,
    create_group,
    create_parent,
    got,
    lite_world,
    pop,
    pop_fields,
    queue_of,
    send,
    subscribe,
)

# -- sends


def test_a_message_stands_in_its_parent_and_in_the_queue_of_its_lite_topic(
    client: Connection,
) -> None:
    send(client, "d1", b"one", b"two")
    (first, second) = client.pull(queue_of("d1")).records()
    assert properties_of(first)["INNER_MULTI_QUEUE_OFFSET"] == "0"
    assert (second.topic, second.body) == (PARENT, b"two")
    assert [r.body for r in client.pull(PARENT).records()] == [b"one", b"two"]


def test_a_producer_cannot_choose_other_light_queues(client: Connection) -> None:
    properties = "__LITE_TOPIC\x01d1\x02INNER_MULTI_DISPATCH\x01%LMQ%other\x02"
    assert client.produce(PARENT, b"x", properties=properties).code == 0
    assert client.pull("%LMQ%other").code != 0
    assert len(client.pull(queue_of("d1")).records()) == 1


@pytest.mark.parametrize("name", ["a/b", "a,b", "a$b", "a b", "x" * 250])
def test_a_lite_topic_that_no_queue_can_have_is_refused(client: Connection, name: str) -> None:
    answer = client.produce(PARENT, b"x", properties=f"__LITE_TOPIC\x01{name}\x02")
    assert answer.code == 13
    assert client.pull(PARENT).code == 19


def test_without_light_queues_a_lite_message_is_refused_not_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = lite_world(tmp_path, enable_lmq=False)
    client = world.connect()
    answer = client.produce(PARENT, b"x", properties="__LITE_TOPIC\x01d1\x02")
    assert answer.code == 13
    assert "enableLmq" in (answer.header.remark or "")
    assert "enableLmq=true" in caplog.text
    assert client.produce("ordinary", b"x", properties="__LITE_TOPIC\x01d1\x02").code == 0
    world.stop()


def test_a_dead_letter_of_a_lite_topic_does_not_come_back_to_it(
    world: World, client: Connection
) -> None:
    send(client, "d1", b"bad")
    (record,) = client.pull(PARENT).records()
    fields = {"offset": record.physical_offset, "group": GROUP, "delayLevel": -1}
    assert client.call(36, fields).code == 0
    assert len(client.pull(f"%DLQ%{GROUP}").records()) == 1
    assert len(client.pull(queue_of("d1")).records()) == 1


def test_no_more_light_queues_than_the_quota(tmp_path: Path) -> None:
    world = lite_world(tmp_path, enable_lmq_quota=True, max_lmq_consume_queue_num=1)
    client = world.connect()
    send(client, "d1", b"one")
    assert client.produce(PARENT, b"x", properties="__LITE_TOPIC\x01d2\x02").code == 2017
    other = "INNER_MULTI_DISPATCH\x01%LMQ%other\x02"
    assert client.produce("ordinary", b"x", properties=other).code == 2017
    send(client, "d1", b"two")
    world.stop()


# -- attributes


@pytest.mark.parametrize(("minutes", "code"), [(-1, 0), (0, 0), (43200, 0), (43201, 1), (-2, 1)])
def test_the_time_that_lite_topics_live_has_bounds(
    client: Connection, minutes: int, code: int
) -> None:
    assert create_parent(client, f"p{minutes % 1000}", minutes).code == code


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("lite_sub_model", "Exclusive", 0),
        ("lite_sub_model", "exclusive", 1),
        ("lite_sub_client_quota", "-1", 0),
        ("lite_sub_client_quota", "x", 1),
        ("lite_sub_client_max_event_cnt", "9", 1),
        ("lite_sub_reset_offset_exclusive", "TRUE", 0),
        ("lite_sub_reset_offset_exclusive", "yes", 1),
        ("lite_sub_wildcard", "anything", 0),
    ],
)
def test_group_attributes_are_checked(client: Connection, key: str, value: str, code: int) -> None:
    assert create_group(client, "g", **{key: value}).code == code


# -- pops


def test_a_pop_brings_several_lite_topics_in_order_within_each(client: Connection) -> None:
    subscribe(client, "d1", "d2")
    send(client, "d1", b"1a", b"1b")
    send(client, "d2", b"2a")
    send(client, "d3", b"of nobody")
    messages = pop(client)
    assert [(m.lite_topic, m.offset, m.body) for m in messages] == [
        ("d1", 0, b"1a"),
        ("d1", 1, b"1b"),
        ("d2", 0, b"2a"),
    ]
    assert pop(client) == []


def test_the_next_batch_comes_when_all_of_one_is_acknowledged(client: Connection) -> None:
    subscribe(client, "d1")
    send(client, "d1", b"a", b"b")
    first, second = pop(client)
    send(client, "d1", b"c")
    assert pop(client) == []
    assert ack(client, second).code == 0
    assert pop(client) == []
    assert ack(client, first).code == 0
    assert bodies(pop(client)) == [b"c"]


def test_what_is_not_acknowledged_comes_again(world: World, client: Connection) -> None:
    subscribe(client, "d1")
    send(client, "d1", b"a", b"b")
    first, _ = pop(client, invisibleTime=20_000)
    assert ack(client, first).code == 0
    world.clock.advance(19)
    assert pop(client) == []
    world.clock.advance(2)
    (again,) = pop(client)
    assert (again.body, again.attempt) == (b"b", 1)


def test_a_full_batch_leaves_the_rest_for_the_next_pop(client: Connection) -> None:
    subscribe(client, "d1", "d2")
    send(client, "d1", *[b"%d" % n for n in range(40)])
    send(client, "d2", b"x")
    messages = pop(client)
    assert len(messages) == 32
    assert bodies(pop(client)) == [b"x"]
    for message in messages:
        ack(client, message)
    assert bodies(pop(client)) == [b"%d" % n for n in range(32, 40)]


def test_a_waiting_pop_is_woken_by_a_message(world: World, client: Connection) -> None:
    subscribe(client, "d1")
    client.send(POP_LITE, pop_fields(pollTime=10_000))
    assert client.received() == []
    send(world.connect(), "d1", b"now")
    world.clock.advance(0)
    (answer,) = client.received()
    assert bodies(got(answer)) == [b"now"]


def test_a_waiting_pop_ends_in_time(world: World, client: Connection) -> None:
    subscribe(client, "d1")
    client.send(POP_LITE, pop_fields(pollTime=10_000, bornTime=world.clock.now_ms()))
    world.clock.advance(10)
    (answer,) = client.received()
    assert answer.code == 210
    assert answer.ext["reviveQid"] == "999"


def test_waiting_pops_are_let_go_when_the_broker_stops(world: World, client: Connection) -> None:
    client.send(POP_LITE, pop_fields(pollTime=10_000))
    world.broker.dismiss()
    (answer,) = client.received()
    assert answer.code == 2


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"maxMsgNum": 33}, 29),
        ({"topic": "nowhere"}, 17),
        ({"topic": "ordinary"}, 29),
        ({"consumerGroup": "unbound"}, 29),
        ({"consumerGroup": "closed"}, 16),
        ({"bornTime": 1}, 210),
    ],
)
def test_pops_that_cannot_be(client: Connection, fields: dict[str, Any], code: int) -> None:
    client.produce("ordinary")
    client.call(200, body=b'{"groupName":"unbound"}')
    client.call(200, body=b'{"groupName":"closed","consumeEnable":false}')
    assert client.call(POP_LITE, pop_fields(**fields)).code == code


# -- acknowledgements


def test_acknowledgements_that_cannot_be(client: Connection) -> None:
    subscribe(client, "d1")
    send(client, "d1", b"a", b"b")
    first, second = pop(client)
    create_group(client, "stranger")
    client.call(200, body=b'{"groupName":"unbound"}')
    assert ack(client, first, consumerGroup="unbound").code == 29
    assert ack(client, first, offset=3).code == 208
    assert ack(client, first, queueId=1).code == 29
    assert ack(client, first, extraInfo=first.handle.replace(" 999 ", " 3 ")).code == 29
    assert ack(client, first, offset=2).code == 13
    assert ack(client, first, topic="nowhere").code == 17
    assert ack(client, first, extraInfo="rubbish").code == 1
    for message in (first, first, second):
        assert ack(client, message).code == 0
    assert ack(client, first).code == 0, "older than what is committed"


def test_an_acknowledgement_of_an_earlier_pop_changes_nothing(
    world: World, client: Connection
) -> None:
    subscribe(client, "d1")
    send(client, "d1", b"a", b"b")
    late, _ = pop(client, invisibleTime=10_000)
    world.clock.advance(11)
    assert len(pop(client)) == 2
    assert ack(client, late).code == 0
    assert world.core.offsets.find(queue_of("d1"), GROUP, 0) == 0


def test_after_a_restart_nothing_that_was_not_acknowledged_is_skipped(tmp_path: Path) -> None:
    world = lite_world(tmp_path)
    client = world.connect()
    subscribe(client, "d1")
    send(client, "d1", b"a", b"b", b"c")
    first, _, third = pop(client)
    ack(client, first)
    world.stop()
    world = lite_world(tmp_path, clock=world.clock)
    client = world.connect()
    assert ack(client, third).code == 0
    subscribe(client, "d1", action="COMPLETE_ADD")
    assert bodies(pop(client)) == [b"b", b"c"]
    world.stop()


def test_invisible_time_can_be_changed_and_suspended(world: World, client: Connection) -> None:
    subscribe(client, "d1")
    send(client, "d1", b"a")
    (first,) = pop(client, invisibleTime=10_000)
    answer = change(client, first, 30_000)
    assert answer.ext["invisibleTime"] == "30000"
    world.clock.advance(25)
    assert pop(client) == []
    world.clock.advance(6)
    (second,) = pop(client)
    assert second.attempt == 1
    assert change(client, second, 5_000, suspend=True).code == 0
    world.clock.advance(6)
    (third,) = pop(client)
    assert third.attempt == 1, "a suspended attempt does not count"
    assert change(client, third, 0).code == 0
    assert [m.attempt for m in pop(client)] == [2]
    assert ack(client, third).code == 0
    unknown = change(client, third, 0)
    assert unknown.code == 0
