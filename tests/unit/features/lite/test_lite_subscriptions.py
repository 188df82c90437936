"""Lite subscriptions: their changes, groups that share, exclude or take everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.brokers import Connection, World
from tests.support.lite import (
    GROUP,
    NOTIFY,
    PARENT,
    SUBSCRIBE,
    ack,
    bodies,
    change_of,
    create_group,
    create_parent,
    lite_world,
    pop,
    send,
    subscribe,
)

# -- subscriptions


def test_partial_and_complete_changes(client: Connection) -> None:
    subscribe(client, "d1", "d2")
    subscribe(client, "d1", action="PARTIAL_REMOVE")
    send(client, "d1", b"1")
    send(client, "d2", b"2")
    assert bodies(pop(client)) == [b"2"]
    subscribe(client, "d1", "d3", action="COMPLETE_ADD")
    send(client, "d2", b"2b")
    send(client, "d3", b"3")
    assert sorted(bodies(pop(client))) == [b"1", b"3"]
    subscribe(client, action="COMPLETE_REMOVE")
    send(client, "d3", b"3b")
    assert pop(client) == []


def test_a_subscription_gets_what_is_there_already(client: Connection) -> None:
    send(client, "d1", b"before")
    subscribe(client, "d1")
    assert bodies(pop(client)) == [b"before"]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (("POLICY", 0), [b"0", b"1", b"2", b"3"]),
        (("POLICY", 1), [b"0", b"1", b"2", b"3"]),
        (("POLICY", 2), []),
        (("OFFSET", 3), [b"3"]),
        (("TAIL_N", 2), [b"0", b"1", b"2", b"3"]),
        (("TIMESTAMP", 1), [b"0", b"1", b"2", b"3"]),
    ],
)
def test_where_a_new_subscription_begins(
    client: Connection, option: tuple[str, int], expected: list[bytes]
) -> None:
    send(client, "d1", b"0", b"1", b"2", b"3")
    subscribe(client, "d1", option=option)
    assert bodies(pop(client)) == expected


def test_the_last_messages_again(client: Connection) -> None:
    send(client, "d1", b"0", b"1", b"2")
    subscribe(client, "d1")
    for message in pop(client):
        ack(client, message)
    subscribe(client, "d1", action="PARTIAL_REMOVE")
    subscribe(client, "d1", option=("TAIL_N", 2))
    assert bodies(pop(client)) == [b"1", b"2"]


def test_bodies_that_say_nothing(client: Connection) -> None:
    assert client.call(SUBSCRIBE).code == 604
    assert client.call(SUBSCRIBE, body=b'{"subscriptionSet":[]}').code == 604
    assert client.call(SUBSCRIBE, body=b"rubbish").code == 1
    assert subscribe(client, "d1", client_id=" ").code == 0
    assert subscribe(client, "d1", action="NONSENSE").code == 0
    send(client, "d1", b"x")
    assert pop(client, " ") == []


def test_a_group_that_may_not_consume_may_not_subscribe(client: Connection) -> None:
    client.call(200, body=b'{"groupName":"closed","consumeEnable":false}')
    assert subscribe(client, "d1", group="closed").code == 604
    assert subscribe(client, "d1", group="closed", action="COMPLETE_ADD").code == 604


def test_no_more_subscriptions_than_the_quota(tmp_path: Path) -> None:
    world = lite_world(tmp_path, max_lite_subscription_count=2)
    client = world.connect()
    assert subscribe(client, "d1", "d2").code == 0
    assert subscribe(client, "d3").code == 2018
    subscribe(client, "d2", action="PARTIAL_REMOVE")
    assert subscribe(client, "d3").code == 0
    world.stop()


def test_subscriptions_that_are_not_renewed_end(world: World, client: Connection) -> None:
    subscribe(client, "d1", client_id="old")
    for _ in range(10):
        subscribe(client, "d1", action="COMPLETE_ADD")
        world.clock.advance(30)
    assert list(subscribers_of(client)) == ["c1"]


def subscribers_of(client: Connection) -> list[str]:
    answer = client.call(200076, {"parentTopic": PARENT, "liteTopic": "d1"})
    return [subscriber["clientId"] for subscriber in answer.json()["subscriber"]]


def test_each_group_gets_every_message(client: Connection) -> None:
    create_group(client, "others")
    subscribe(client, "d1")
    subscribe(client, "d1", client_id="c2", group="others")
    send(client, "d1", b"x")
    assert bodies(pop(client)) == [b"x"]
    assert bodies(pop(client, "c2", consumerGroup="others")) == [b"x"]


def test_clients_of_one_group_share_a_lite_topic(client: Connection) -> None:
    subscribe(client, "d1")
    subscribe(client, "d1", client_id="c2")
    found = []
    for number in range(6):
        send(client, "d1", b"%d" % number)
        for name in ("c1", "c2"):
            for message in pop(client, name):
                found.append((name, message.body))
                ack(client, message)
    assert [body for _, body in found] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert {name for name, _ in found} == {"c1", "c2"}


# -- exclusive groups


def test_in_an_exclusive_group_the_newest_subscriber_has_the_lite_topic(
    world: World, client: Connection
) -> None:
    create_group(client, lite_sub_model="Exclusive")
    second = world.connect()
    subscribe(client, "d1", "d2")
    client.received()
    subscribe(second, "d1", client_id="c2")
    (notice,) = client.received()
    assert notice.code == NOTIFY
    assert notice.ext == {"clientId": "c1", "consumerGroup": GROUP, "liteTopic": "d1"}
    send(client, "d1", b"one")
    send(client, "d2", b"two")
    assert bodies(pop(client)) == [b"two"]
    assert bodies(pop(second, "c2")) == [b"one"]


def test_an_event_that_waits_for_an_excluded_client_goes_to_the_new_one(
    world: World, client: Connection
) -> None:
    create_group(client, lite_sub_model="Exclusive")
    subscribe(client, "d1")
    send(client, "d1", b"one")
    second = world.connect()
    subscribe(second, "d1", client_id="c2")
    assert pop(client) == []
    assert bodies(pop(second, "c2")) == [b"one"]


def test_an_excluded_client_cannot_renew_what_it_lost(world: World, client: Connection) -> None:
    create_group(client, lite_sub_model="Exclusive")
    second = world.connect()
    subscribe(client, "d1")
    subscribe(second, "d1", client_id="c2")
    client.received()
    client.send(SUBSCRIBE, body=change_of("c1", "d1", action="COMPLETE_ADD"))
    assert [frame.code for frame in client.received()] == [NOTIFY, 0]
    send(client, "d1", b"one")
    assert pop(client) == []
    assert bodies(pop(second, "c2")) == [b"one"]


def test_a_group_can_begin_anew_when_it_changes_hands_or_unsubscribes(
    world: World, client: Connection
) -> None:
    create_group(
        client,
        lite_sub_model="Exclusive",
        lite_sub_reset_offset_exclusive="true",
        lite_sub_reset_offset_unsubscribe="true",
    )
    subscribe(client, "d1")
    send(client, "d1", b"a", b"b")
    for message in pop(client):
        ack(client, message)
    second = world.connect()
    subscribe(second, "d1", client_id="c2")
    messages = pop(second, "c2")
    assert bodies(messages) == [b"a", b"b"]
    for message in messages:
        ack(second, message)
    subscribe(second, "d1", client_id="c2", action="PARTIAL_REMOVE")
    subscribe(second, "d1", client_id="c2")
    assert bodies(pop(second, "c2")) == [b"a", b"b"]


# -- wildcard groups


def test_a_wildcard_group_gets_every_lite_topic_of_its_parent(
    world: World, client: Connection
) -> None:
    create_group(client, lite_sub_wildcard="true")
    send(client, "before", b"0")
    assert subscribe(client, "d1").code == 604
    assert subscribe(client, action="COMPLETE_ADD").code == 0
    send(client, "d1", b"1")
    create_parent(client, "elsewhere")
    send(client, "d9", b"9", topic="elsewhere")
    world.clock.advance(0)
    assert sorted(bodies(pop(client))) == [b"0", b"1"]
    subscribe(client, action="COMPLETE_REMOVE")
    send(client, "d2", b"2")
    assert pop(client) == []
