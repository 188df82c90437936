"""Pops and notifications that wait."""

from __future__ import annotations

import gc
from typing import Any

from tests.support.brokers import Answered, Connection, World
from tests.support.popping import (
    GROUP,
    NOTIFICATION,
    POLLING_INFO,
    POP,
    TOPIC,
    ack,
    bodies,
    got,
    pop,
    pop_fields,
    produce,
)

from firearrow.features.pop.waiting import Line, Waiter
from firearrow.model import codes
from firearrow.model.topic import Topic

POLL_MS = 15_000


def wait(client: Connection, **more: Any) -> None:
    """Send a pop that waits."""
    client.received()
    client.send(POP, pop_fields(**({"pollTime": POLL_MS} | more)))


def answers(world: World, *clients: Connection) -> list[list[Answered]]:
    world.clock.advance(0)
    return [client.received() for client in clients]


def parked(client: Connection, queue_id: int = -1) -> int:
    fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": queue_id}
    return int(client.call(POLLING_INFO, fields).ext["pollingNum"])


def a_topic(world: World) -> None:
    world.core.topics.create(Topic(name=TOPIC, read_queues=4, write_queues=4))


def test_a_waiting_pop_gets_the_message_that_comes(world: World, client: Connection) -> None:
    a_topic(world)
    wait(client)
    assert answers(world, client) == [[]]
    other = world.connect()
    assert parked(other) == 1
    produce(other, b"news")
    ((answer,),) = answers(world, client)
    assert bodies(got(answer)) == [b"news"]
    assert parked(other) == 0


def test_it_ends_with_its_poll_time(world: World, client: Connection) -> None:
    a_topic(world)
    wait(client)
    world.clock.advance(14.8)
    assert client.received() == []
    world.clock.advance(0.2)
    (answer,) = client.received()
    assert answer.code == codes.POLLING_TIMEOUT


def test_a_client_with_a_clock_ahead_waits_no_longer(world: World, client: Connection) -> None:
    a_topic(world)
    wait(client, bornTime=world.clock.now_ms() + 3_600_000)
    world.clock.advance(15)
    assert [answer.code for answer in client.received()] == [codes.POLLING_TIMEOUT]


def test_one_message_wakes_one_of_many(world: World, client: Connection) -> None:
    a_topic(world)
    others = [world.connect() for _ in range(5)]
    for other in others:
        wait(other)
    produce(client, b"news")
    got_it = [found for found in answers(world, *others) if found]
    assert len(got_it) == 1
    assert parked(client) == 4


def test_many_messages_wake_as_many_as_they_need(world: World, client: Connection) -> None:
    a_topic(world)
    others = [world.connect() for _ in range(5)]
    for other in others:
        wait(other, maxMsgNums=2)
    for n in range(7):  # all in one turn of the loop
        produce(client, b"%d" % n)
    found = [bodies(got(answer)) for (answer,) in filter(None, answers(world, *others))]
    assert found == [[b"0", b"1"], [b"2", b"3"], [b"4", b"5"], [b"6"]]
    assert parked(client) == 1


def test_who_waits_for_one_queue_and_who_for_all(world: World, client: Connection) -> None:
    a_topic(world)
    first, second = world.connect(), world.connect()
    wait(first, queueId=2)
    wait(second, queueId=3)
    produce(client, b"for two", queue_id=2)
    (answer,), nothing = answers(world, first, second)
    assert bodies(got(answer)) == [b"for two"]
    assert nothing == []
    assert parked(client, 3) == 1


def test_a_waiting_pop_hears_only_of_its_tags(world: World, client: Connection) -> None:
    a_topic(world)
    wait(client, exp="A || C", expType="TAG")
    other = world.connect()
    produce(other, b"b", properties="TAGS\x01B\x02")
    assert answers(world, client) == [[]]
    assert parked(other) == 1
    produce(other, b"a", properties="TAGS\x01A\x02")
    ((answer,),) = answers(world, client)
    assert bodies(got(answer)) == [b"a"]


def test_different_filters_of_a_group_do_not_hide_each_other(
    world: World, client: Connection
) -> None:
    a_topic(world)
    first, second = world.connect(), world.connect()
    wait(first, exp="A", expType="TAG")
    wait(second, exp="B", expType="TAG")
    produce(client, b"b", properties="TAGS\x01B\x02")
    nothing, (answer,) = answers(world, first, second)
    assert nothing == []
    assert bodies(got(answer)) == [b"b"]


def test_a_long_stretch_that_nobody_wants_is_passed(world: World, client: Connection) -> None:
    for n in range(2000):
        produce(client, b"b", properties="TAGS\x01B\x02" if n < 1999 else "TAGS\x01A\x02")
    wait(client, exp="A", expType="TAG")
    ((answer,),) = answers(world, client)
    assert len(got(answer)) == 1


def test_a_message_that_comes_again_wakes_too(world: World, client: Connection) -> None:
    produce(client, b"work")
    pop(client)
    for queue_id in (-1, 0):
        wait(client, queueId=queue_id)
        world.clock.advance(13.9)
        ((answer,),) = [client.received()]
        (message,) = got(answer)
        assert message.record.reconsume_times in (1, 2)


def test_it_wakes_where_retry_topics_have_the_second_kind_of_name(
    world: World, client: Connection
) -> None:
    world.settings.enable_retry_topic_v2 = True
    world.settings.retrieve_message_from_pop_retry_topic_v1 = False
    produce(client, b"work")
    pop(client)
    wait(client)
    world.clock.advance(13.9)
    ((answer,),) = [client.received()]
    assert bodies(got(answer)) == [b"work"]


def test_the_turn_of_a_client_that_is_gone_goes_to_the_next(
    world: World, client: Connection
) -> None:
    a_topic(world)
    gone, there = world.connect(), world.connect()
    wait(gone)
    wait(there)
    gone.drop()
    produce(client, b"news")
    ((answer,),) = answers(world, there)
    assert bodies(got(answer)) == [b"news"]


def test_no_more_than_the_limits(world: World, client: Connection) -> None:
    a_topic(world)
    world.settings.pop_polling_size = 2
    world.settings.max_pop_polling_size = 5
    for _ in range(3):  # one more than the limit, as RocketMQ counts
        wait(client)
        assert client.received() == []
    wait(client)
    assert [answer.code for answer in client.received()] == [codes.POLLING_FULL]
    wait(client, queueId=1)
    wait(client, queueId=2)
    assert client.received() == []
    wait(client, queueId=3)
    assert [answer.code for answer in client.received()] == [codes.POLLING_FULL]


def test_nothing_is_left_of_those_who_waited(world: World, client: Connection) -> None:
    a_topic(world)

    def left() -> int:
        gc.collect()
        return sum(isinstance(thing, Line | Waiter) for thing in gc.get_objects())

    before = left()
    for n in range(50):
        wait(client, consumerGroup=f"group-{n}")
    world.clock.advance(20)
    assert left() == before


def test_a_stopping_broker_lets_everybody_go(world: World, client: Connection) -> None:
    a_topic(world)
    wait(client)
    client.send(NOTIFICATION, notify_fields())
    world.broker.dismiss()
    # An error: the client pauses, and does not ask at once again.
    assert [answer.code for answer in client.received()] == [codes.SYSTEM_BUSY] * 2
    wait(client)
    assert [answer.code for answer in client.received()] == [codes.POLLING_TIMEOUT]


# -- notifications


def notify_fields(**more: Any) -> dict[str, Any]:
    fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": -1, "pollTime": POLL_MS}
    return fields | {"bornTime": 0} | more


def test_a_notification_says_that_there_is_something(world: World, client: Connection) -> None:
    produce(client, b"work")
    answer = client.call(NOTIFICATION, notify_fields())
    assert (answer.code, answer.ext) == (0, {"hasMsg": "true", "pollingFull": "false"})
    pop(client)
    assert client.call(NOTIFICATION, notify_fields(pollTime=0)).ext["hasMsg"] == "false"


def test_a_notification_waits_and_takes_nothing(world: World, client: Connection) -> None:
    a_topic(world)
    client.send(NOTIFICATION, notify_fields())
    assert answers(world, client) == [[]]
    other = world.connect()
    produce(other, b"news")
    ((answer,),) = answers(world, client)
    assert answer.ext["hasMsg"] == "true"
    assert bodies(pop(other)) == [b"news"]


def test_a_notification_that_waited_for_nothing(world: World, client: Connection) -> None:
    a_topic(world)
    client.send(NOTIFICATION, notify_fields())
    world.clock.advance(15)
    (answer,) = client.received()
    assert (answer.code, answer.ext["hasMsg"]) == (0, "false")


def test_a_notification_that_has_no_room_to_wait(world: World, client: Connection) -> None:
    a_topic(world)
    world.settings.max_pop_polling_size = 1
    client.send(NOTIFICATION, notify_fields())
    assert client.received() == []
    answer = client.call(NOTIFICATION, notify_fields())
    assert answer.ext == {"hasMsg": "false", "pollingFull": "true"}


def test_a_notification_of_a_message_that_comes_again(world: World, client: Connection) -> None:
    produce(client, b"work")
    pop(client)
    client.send(NOTIFICATION, notify_fields())
    client.received()
    world.clock.advance(14.9)
    (answer,) = client.received()
    assert answer.ext["hasMsg"] == "true"
    (message,) = pop(client)
    assert ack(client, message).code == 0
