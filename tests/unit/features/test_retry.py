"""Messages that consumers give back (behaviour.md 5.4)."""

from __future__ import annotations

import pytest
from tests.support.brokers import Connection, World, properties_of

from firearrow.model import codes
from firearrow.model.group import Group


def produce(client: Connection) -> int:
    """Send one message; its physical offset."""
    return int(client.produce("orders", b"work", properties="TAGS\x01a\x02").ext["msgId"][16:], 16)


def send_back(client: Connection, offset: int, level: int = 0, **more: object) -> int:
    fields = {"offset": offset, "group": "group", "delayLevel": level, **more}
    return client.call(36, fields).code


def retry_offset(client: Connection, count: int = 1) -> int:
    """Physical offset of the newest message in the retry queue."""
    records = client.pull("%RETRY%group").records()
    assert len(records) == count
    return records[-1].physical_offset


def test_a_returned_message_comes_again_after_its_level(world: World, client: Connection) -> None:
    offset = produce(client)
    assert send_back(client, offset) == codes.SUCCESS
    world.clock.advance(9.9)
    assert world.store.max_offset("%RETRY%group", 0) == 0
    world.clock.advance(0.2)
    (record,) = client.pull("%RETRY%group").records()
    properties = properties_of(record)
    (first,) = client.pull("orders").records()
    assert record.body == b"work"
    assert record.reconsume_times == 1
    assert properties["RETRY_TOPIC"] == "orders"
    assert properties["TAGS"] == "a"
    assert properties["UNIQ_KEY"] == properties_of(first)["UNIQ_KEY"]
    assert properties["ORIGIN_MESSAGE_ID"] == f"7F00000100002A9F{offset:016X}"
    assert record.physical_offset != offset  # so it has an offset message id of its own
    assert record.born_timestamp == first.born_timestamp


def test_a_level_of_the_consumers_choice(world: World, client: Connection) -> None:
    send_back(client, produce(client), level=1)
    world.clock.advance(0.9)
    assert world.store.max_offset("%RETRY%group", 0) == 0
    world.clock.advance(0.2)
    assert retry_offset(client) > 0


@pytest.mark.parametrize(
    ("tries", "seconds"), [(0, 10), (1, 30), (2, 60), (13, 1800), (14, 3600), (15, 7200)]
)
def test_each_try_waits_longer_than_the_one_before(
    world: World, client: Connection, tries: int, seconds: int
) -> None:
    client.heartbeat("group", {"orders": "*"})  # makes the retry topic, with one queue
    client.produce("%RETRY%group", b"work", reconsume_times=tries)
    assert send_back(client, retry_offset(client)) == codes.SUCCESS
    world.clock.advance(seconds - 0.1)
    assert world.store.max_offset("%RETRY%group", 0) == 1
    world.clock.advance(0.2)
    assert world.store.max_offset("%RETRY%group", 0) == 2


def test_the_policy_for_5x_clients_changes_no_level(world: World, client: Connection) -> None:
    policy = {"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": [100, 100, 100]}}
    world.core.groups.update(Group(name="group", retry_policy=policy))
    send_back(client, produce(client))
    world.clock.advance(9.9)
    assert world.store.max_offset("%RETRY%group", 0) == 0
    world.clock.advance(0.2)
    assert world.store.max_offset("%RETRY%group", 0) == 1


def test_a_message_that_two_give_back_comes_again_for_each(
    world: World, client: Connection
) -> None:
    """As in RocketMQ: a member that lost its queue, and the one that has it now."""
    offset = produce(client)
    assert send_back(world.connect(), offset, level=2) == codes.SUCCESS
    assert send_back(world.connect(), offset, level=1) == codes.SUCCESS
    world.clock.advance(1.1)
    (first,) = client.pull("%RETRY%group").records()
    assert send_back(client, first.physical_offset, level=1) == codes.SUCCESS
    world.clock.advance(5)
    times = [record.reconsume_times for record in client.pull("%RETRY%group").records()]
    assert times == [1, 2, 1]


def test_a_group_that_is_deleted_meanwhile_leaves_what_it_gave_back(
    world: World, client: Connection
) -> None:
    send_back(client, produce(client), level=1)
    assert client.call(207, {"groupName": "group", "cleanOffset": "true"}).code == codes.SUCCESS
    world.clock.advance(1.1)
    assert retry_offset(client) > 0  # whoever makes the group again finds it


def test_used_up_tries_end_in_the_dead_letters(world: World, client: Connection) -> None:
    world.core.groups.update(Group(name="group", retry_max_times=2))
    offset = produce(client)
    for tries in (1, 2):
        send_back(client, offset, level=1)
        world.clock.advance(1.1)
        offset = retry_offset(client, tries)
    send_back(client, offset, level=1)
    (dead,) = client.pull("%DLQ%group").records()
    assert (dead.body, dead.reconsume_times) == (b"work", 3)
    assert world.core.topics.table["%DLQ%group"].perm == 6
    assert properties_of(dead)["RETRY_TOPIC"] == "orders"


def test_a_negative_level_goes_straight_to_the_dead_letters(
    world: World, client: Connection
) -> None:
    send_back(client, produce(client), level=-1)
    assert len(client.pull("%DLQ%group").records()) == 1


def test_the_clients_maximum_counts_before_the_groups(world: World, client: Connection) -> None:
    send_back(client, produce(client), maxReconsumeTimes=0)
    assert len(client.pull("%DLQ%group").records()) == 1


def test_a_group_without_retry_queues_drops_what_comes_back(
    world: World, client: Connection
) -> None:
    world.core.groups.update(Group(name="group", retry_queues=0))
    assert send_back(client, produce(client), level=1) == codes.SUCCESS
    world.clock.advance(5)
    assert world.store.max_offset("%RETRY%group", 0) == 0


def test_what_cannot_be_given_back(world: World, client: Connection) -> None:
    offset = produce(client)
    assert send_back(client, offset + 1) == codes.SYSTEM_ERROR
    assert send_back(client, 1 << 60) == codes.SYSTEM_ERROR
    assert send_back(client, -1) == codes.SYSTEM_ERROR
    world.settings.broker_permission = 4
    assert send_back(client, offset) == codes.NO_PERMISSION
    world.settings.broker_permission = 6
    world.settings.auto_create_subscription_group = False
    world.core.groups.delete("group")
    assert send_back(client, offset) == codes.SUBSCRIPTION_GROUP_NOT_EXIST


def test_a_client_may_put_a_message_into_the_retry_topic_itself(
    world: World, client: Connection
) -> None:
    properties = "DELAY\x013\x02RETRY_TOPIC\x01orders\x02"
    answer = client.produce(
        "%RETRY%group", b"work", properties=properties, reconsume_times=1, max_reconsume_times=1
    )
    assert answer.code == codes.SUCCESS  # > and not >=: one try more than by send-back
    world.clock.advance(10.1)
    assert retry_offset(client) > 0
    answer = client.produce(
        "%RETRY%group", b"work", properties=properties, reconsume_times=2, max_reconsume_times=1
    )
    assert answer.code == codes.SUCCESS
    assert len(client.pull("%DLQ%group").records()) == 1


def test_an_ordered_consumer_that_gives_up_goes_to_the_dead_letters(
    world: World, client: Connection
) -> None:
    world.core.locks.lock("group", "one", [("orders", "broker-a", 0)])
    client.produce("%RETRY%group", b"work", properties="DELAY\x013\x02")
    assert len(client.pull("%DLQ%group").records()) == 1
