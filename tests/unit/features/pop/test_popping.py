"""Popping, acknowledging, coming again: what a consumer in pop mode sees."""

from __future__ import annotations

import pytest
from tests.support.brokers import Connection, World, properties_of
from tests.support.popping import (
    GROUP,
    POP,
    TOPIC,
    ack,
    batch_ack,
    bodies,
    change,
    pop,
    pop_fields,
    produce,
    until_redelivered,
)

from firearrow.model import codes


def test_a_popped_message_is_nobody_elses(client: Connection, world: World) -> None:
    produce(client, b"one", b"two", b"three")
    assert bodies(pop(client)) == [b"one", b"two", b"three"]
    assert pop(client) == []
    world.clock.advance(9)
    assert pop(client) == []


def test_what_is_acknowledged_never_comes_again(client: Connection, world: World) -> None:
    produce(client, b"one", b"two")
    for message in pop(client):
        assert ack(client, message).code == codes.SUCCESS
    world.clock.advance(30)
    assert pop(client) == []
    assert f"%RETRY%{GROUP}_{TOPIC}" not in world.core.topics.table


def test_what_is_not_acknowledged_comes_again(client: Connection, world: World) -> None:
    produce(client, b"work", properties="TAGS\x01a\x02KEYS\x01k\x02")
    (first,) = pop(client)
    assert 10 <= until_redelivered(world, client) <= 16
    (again,) = pop(client)
    assert again.body == b"work"
    assert again.record.topic == TOPIC
    assert again.record.reconsume_times == 1
    assert again.record.born_timestamp == first.record.born_timestamp
    before, after = properties_of(first.record), properties_of(again.record)
    assert after["1ST_POP_TIME"] == first.handle.split(" ")[1]
    assert after["POP_CK"].split(" ")[4] == "1"
    assert before.items() <= after.items()
    retry = world.core.topics.table[f"%RETRY%{GROUP}_{TOPIC}"]
    assert (retry.read_queues, retry.write_queues, retry.perm) == (1, 1, 6)


def test_it_comes_again_and_again_until_it_is_acknowledged(
    client: Connection, world: World
) -> None:
    produce(client, b"work")
    pop(client)
    for tries in (1, 2, 3):
        until_redelivered(world, client)
        (message,) = pop(client)
        assert message.record.reconsume_times == tries
        assert message.stored_topic == f"%RETRY%{GROUP}_{TOPIC}"
    assert ack(client, message).code == codes.SUCCESS
    world.clock.advance(60)
    assert pop(client) == []


def test_only_the_open_part_of_a_batch_comes_again(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(10)))
    messages = pop(client)
    for message in messages[::2]:
        ack(client, message)
    until_redelivered(world, client)
    assert bodies(pop(client)) == [b"1", b"3", b"5", b"7", b"9"]


def test_a_batch_of_acknowledgements(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(20)))
    messages = pop(client)
    assert batch_ack(client, [messages[n] for n in (0, 3, 9, 11)]).code == codes.SUCCESS
    until_redelivered(world, client)
    open_ones = [b"%d" % n for n in range(20) if n not in (0, 3, 9, 11)]
    again = pop(client)
    assert bodies(again) == open_ones
    assert batch_ack(client, again).code == codes.SUCCESS
    world.clock.advance(60)
    assert pop(client) == []


def test_a_longer_invisible_time(client: Connection, world: World) -> None:
    produce(client, b"work")
    (message,) = pop(client)
    old_handle = message.handle
    world.clock.advance(5)
    answer = change(client, message, 30_000)
    assert answer.code == codes.SUCCESS
    assert answer.ext["invisibleTime"] == "30000"
    message_with_old_handle = message.handle
    message.handle, message_with_old_handle = old_handle, message.handle
    assert ack(client, message).code == codes.SUCCESS  # matches nothing any more
    assert 30 <= until_redelivered(world, client) <= 36
    (again,) = pop(client)
    assert again.record.reconsume_times == 1
    message.handle = message_with_old_handle


def test_the_new_handle_acknowledges(client: Connection, world: World) -> None:
    produce(client, b"work")
    (message,) = pop(client)
    change(client, message, 20_000)
    assert ack(client, message).code == codes.SUCCESS
    world.clock.advance(60)
    assert pop(client) == []


def test_a_message_that_is_given_back_comes_at_once(client: Connection, world: World) -> None:
    produce(client, b"work")
    (message,) = pop(client, invisibleTime=60_000)
    change(client, message, 0)
    assert until_redelivered(world, client) <= 4
    (again,) = pop(client)
    ack(client, again)
    world.clock.advance(120)
    assert pop(client) == []


def test_giving_one_back_in_the_millisecond_of_its_pop_loses_no_other(
    client: Connection, world: World
) -> None:
    produce(client, *(b"%d" % n for n in range(8)))
    messages = pop(client)
    change(client, messages[0], 0)  # the virtual clock stands still
    until_redelivered(world, client)
    assert bodies(pop(client)) == [b"0"]
    world.clock.advance(10)
    seen = set()
    for _ in range(3):
        seen |= set(bodies(pop(client)))
        world.clock.advance(5)
    assert seen == {b"%d" % n for n in range(8)}


def test_twice_and_late_acknowledgements_are_no_errors(client: Connection, world: World) -> None:
    produce(client, b"work")
    (message,) = pop(client)
    assert ack(client, message).code == codes.SUCCESS
    assert ack(client, message).code == codes.SUCCESS
    produce(client, b"more")
    (message,) = pop(client)
    until_redelivered(world, client)
    assert ack(client, message).code == codes.SUCCESS
    assert bodies(pop(client)) == [b"more"]


def test_all_queues_of_a_topic(client: Connection) -> None:
    for queue_id in range(4):
        produce(client, b"%d" % queue_id, queue_id=queue_id)
    assert sorted(bodies(pop(client))) == [b"0", b"1", b"2", b"3"]


def test_one_queue_of_a_topic(client: Connection) -> None:
    for queue_id in range(4):
        produce(client, b"%d" % queue_id, queue_id=queue_id)
    assert bodies(pop(client, queueId=2)) == [b"2"]
    assert pop(client, queueId=2) == []


def test_no_more_than_asked_for(client: Connection) -> None:
    for queue_id in range(4):
        produce(client, b"a", b"b", b"c", queue_id=queue_id)
    assert len(pop(client, maxMsgNums=5)) == 5
    assert len(pop(client, maxMsgNums=32)) == 7


def test_two_groups_get_everything_each(client: Connection) -> None:
    produce(client, b"one", b"two")
    assert bodies(pop(client)) == [b"one", b"two"]
    assert bodies(pop(client, consumerGroup="other")) == [b"one", b"two"]


@pytest.mark.parametrize("v1_too", [True, False])
def test_retry_topics_of_the_second_kind(client: Connection, world: World, v1_too: bool) -> None:
    world.settings.enable_retry_topic_v2 = True
    world.settings.retrieve_message_from_pop_retry_topic_v1 = v1_too
    produce(client, b"work")
    pop(client)
    until_redelivered(world, client)
    retry = f"%RETRY%{GROUP}+{TOPIC}"
    assert world.store.max_offset(retry, 0) == 1
    again = pop(client)
    assert (again[0].stored_topic, again[0].record.topic) == (retry, TOPIC)
    ack(client, again[0])
    world.clock.advance(60)
    assert world.store.max_offset(retry, 0) == 1


def test_after_a_change_of_kind_both_are_read_out(client: Connection, world: World) -> None:
    produce(client, b"one", b"two")
    pop(client, maxMsgNums=1)
    pop(client, maxMsgNums=1, invisibleTime=30_000)
    for v2 in (False, True):
        world.settings.enable_retry_topic_v2 = v2
        world.clock.advance(17)
    for v2 in (True, False):
        world.settings.enable_retry_topic_v2 = v2
        first, second = pop(client), pop(client)  # one kind in one answer
        assert {m.stored_topic for m in first + second} == {
            f"%RETRY%{GROUP}_{TOPIC}",
            f"%RETRY%{GROUP}+{TOPIC}",
        }
        assert len(first) == len(second) == 1
        for message in first + second:
            change(client, message, 0)
        world.clock.advance(4)


def test_the_retry_topics_own_name_where_it_is_wanted(client: Connection, world: World) -> None:
    world.settings.pop_response_return_actual_retry_topic = True
    produce(client, b"work")
    pop(client)
    until_redelivered(world, client)
    answer = client.call(POP, pop_fields())
    (record,) = answer.records()
    assert record.topic == f"%RETRY%{GROUP}_{TOPIC}"
    assert "POP_CK" not in properties_of(record)
