"""What pop requests are refused for, with which code, and what garbage does."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import Connection, World
from tests.support.popping import (
    ACK,
    BATCH_ACK,
    CHANGE,
    GROUP,
    NOTIFICATION,
    PEEK,
    POLLING_INFO,
    POP,
    TOPIC,
    Got,
    ack,
    bodies,
    change,
    pop,
    pop_fields,
    produce,
)

from firearrow.model import codes
from firearrow.model.group import Group
from firearrow.model.topic import Topic


def code(client: Connection, **more: Any) -> int:
    return client.call(POP, pop_fields(**more)).code


@pytest.fixture
def message(client: Connection) -> Got:
    """One popped message."""
    produce(client, b"work")
    (message,) = pop(client)
    return message


# -- POP_MESSAGE


def test_an_empty_topic_without_waiting(client: Connection, world: World) -> None:
    world.core.topics.create(Topic(name=TOPIC))
    answer = client.call(POP, pop_fields())
    assert answer.code == codes.POLLING_TIMEOUT
    assert answer.header.remark == "NO_MESSAGE_IN_QUEUE"
    assert {"popTime", "invisibleTime", "reviveQid", "restNum"} <= answer.ext.keys()


def test_what_a_pop_is_refused_for(client: Connection, world: World) -> None:
    produce(client, b"work")
    now = world.clock.now_ms()
    assert code(client, bornTime=now - 2000, pollTime=1000) == codes.POLLING_TIMEOUT
    assert code(client, maxMsgNums=33) == codes.INVALID_PARAMETER
    assert code(client, topic="nowhere") == codes.TOPIC_NOT_EXIST
    assert code(client, queueId=4) == codes.INVALID_PARAMETER
    assert code(client, exp="||") == codes.SUBSCRIPTION_PARSE_FAILED
    world.settings.timer_wheel_enable = False
    assert code(client) == codes.SYSTEM_ERROR
    world.settings.timer_wheel_enable = True
    world.settings.broker_permission = 2
    assert code(client) == codes.NO_PERMISSION
    world.settings.broker_permission = 6
    world.core.groups.update(Group(name=GROUP, consume_enable=False))
    assert code(client) == codes.NO_PERMISSION
    world.core.groups.delete(GROUP)
    world.settings.auto_create_subscription_group = False
    assert code(client) == codes.SUBSCRIPTION_GROUP_NOT_EXIST
    world.settings.auto_create_subscription_group = True
    world.core.topics.create(Topic(name=TOPIC, perm=2, read_queues=4))
    assert code(client) == codes.NO_PERMISSION
    world.core.topics.create(Topic(name=TOPIC, perm=6, read_queues=4))
    assert code(client) == codes.SUCCESS


def test_an_invisible_time_that_the_timer_cannot_keep(client: Connection, world: World) -> None:
    produce(client, b"work")
    days = 4 * 24 * 3600 * 1000
    answer = client.call(POP, pop_fields(invisibleTime=days))
    assert answer.code == codes.INVALID_PARAMETER
    assert "check point" in (answer.header.remark or "")
    assert bodies(pop(client)) == [b"work"]  # nothing was taken


def test_a_store_that_takes_nothing_hands_nothing_out(client: Connection, world: World) -> None:
    produce(client, b"work")
    world.store.refuse("disk", "the disk is full")
    assert code(client) == codes.SERVICE_NOT_AVAILABLE
    world.store.refuse("disk", "")
    assert bodies(pop(client)) == [b"work"]


@pytest.mark.parametrize("field", ["queueId", "maxMsgNums", "invisibleTime", "topic"])
def test_fields_that_are_missing_or_no_numbers(client: Connection, field: str) -> None:
    produce(client, b"work")
    fields = pop_fields()
    del fields[field]
    assert client.call(POP, fields).code == codes.SYSTEM_ERROR
    if field != "topic":
        assert code(client, **{field: "x1"}) == codes.SYSTEM_ERROR
    assert bodies(pop(client)) == [b"work"]


def test_strange_numbers(client: Connection) -> None:
    produce(client, b"work")
    assert code(client, maxMsgNums=-5) == codes.POLLING_TIMEOUT
    assert code(client, maxMsgNums=0) == codes.POLLING_TIMEOUT
    assert code(client, invisibleTime=2**62) == codes.INVALID_PARAMETER
    assert code(client, pollTime=-1000) == codes.POLLING_TIMEOUT  # it is too old
    assert bodies(pop(client, queueId=-7, pollTime=-1)) == [b"work"]


def test_where_a_new_group_starts(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(100)))
    assert bodies(pop(client, consumerGroup="first"))[0] == b"0"
    # Young queues are consumed from their beginning whatever the client prefers.
    assert bodies(pop(client, consumerGroup="hot", initMode=1))[0] == b"0"
    world.settings.init_pop_offset_by_check_msg_in_mem = False
    assert bodies(pop(client, consumerGroup="last", initMode=1)) == [b"99"]


def test_a_new_group_of_a_cold_queue_starts_at_its_last_message(tmp_path: Path) -> None:
    world = World(tmp_path / "store", access_message_in_memory_max_ratio=0)
    client = world.connect()
    produce(client, *(b"%d" % n for n in range(100)))
    assert bodies(pop(client, consumerGroup="last", initMode=1)) == [b"99"]
    assert bodies(pop(client, consumerGroup="first", initMode=0))[0] == b"0"
    world.stop()


def test_an_offset_that_the_queue_does_not_have(client: Connection, world: World) -> None:
    produce(client, b"one", b"two")
    world.core.offsets.commit(TOPIC, GROUP, 0, 500)
    assert pop(client) == []
    produce(client, b"three")
    assert bodies(pop(client)) == [b"three"]


# -- acknowledgements


def test_what_an_acknowledgement_is_refused_for(client: Connection, message: Got) -> None:
    assert ack(client, message, topic="nowhere").code == codes.TOPIC_NOT_EXIST
    assert ack(client, message, queueId=99).code == codes.MESSAGE_ILLEGAL
    assert ack(client, message, queueId=-1).code == codes.MESSAGE_ILLEGAL
    assert ack(client, message, offset=2).code == codes.NO_MESSAGE
    assert ack(client, message, offset=-1).code == codes.NO_MESSAGE
    assert ack(client, message, offset=1).code == codes.SUCCESS  # the maximum still counts
    assert change(client, message, 1000, offset=1).code == codes.NO_MESSAGE
    assert change(client, message, 1000, queueId=99).code == codes.MESSAGE_ILLEGAL
    assert change(client, message, 1000, topic="nowhere").code == codes.TOPIC_NOT_EXIST


@pytest.mark.parametrize(
    "handle",
    [
        "",
        "garbage",
        "1 2 3",
        "0 1 2 x 0 broker-a 0 0",
        "0 1.5 2 3 0 broker-a 0 0",
        "0 99999999999999999999 2 3 0 broker-a 0 0",
        "\u0661 1 2 3 0 broker-a 0 0",
        "1_0 1 2 3 0 broker-a 0 0",
        " " * 2000,
    ],
)
def test_handles_that_are_none(client: Connection, world: World, message: Got, handle: str) -> None:
    message.handle = handle
    assert ack(client, message).code == codes.SYSTEM_ERROR
    assert change(client, message, 1000).code == codes.SYSTEM_ERROR


@pytest.mark.parametrize("revive_queue", [-1, 8, 12345, 2**31 - 1])
def test_handles_of_revive_queues_that_are_none_make_none(
    client: Connection, world: World, message: Got, revive_queue: int
) -> None:
    queues = set(world.store.queues())
    fields = message.handle.split(" ")
    fields[3] = str(revive_queue)
    message.handle = " ".join(fields)
    assert ack(client, message).code == codes.SUCCESS  # as RocketMQ; it matches nothing
    assert change(client, message, 1000).code == codes.SYSTEM_ERROR
    assert set(world.store.queues()) == queues


def test_handles_of_old_clients_have_seven_fields(
    client: Connection, world: World, message: Got
) -> None:
    message.handle = message.handle.rpartition(" ")[0]
    assert ack(client, message).code == codes.SUCCESS
    world.clock.advance(30)
    assert pop(client) == []


def test_an_acknowledgement_that_cannot_be_stored_is_no_success(
    client: Connection, world: World, message: Got
) -> None:
    world.store.refuse("disk", "the disk is full")
    assert ack(client, message).code == codes.SERVICE_NOT_AVAILABLE
    assert change(client, message, 1000).code == codes.SYSTEM_ERROR
    world.store.refuse("disk", "")
    assert ack(client, message).code == codes.SUCCESS


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", codes.NO_MESSAGE),
        (b"{}", codes.NO_MESSAGE),
        (b'{"acks":[]}', codes.NO_MESSAGE),
        (b"[]", codes.SYSTEM_ERROR),
        (b"\xff\x00", codes.SYSTEM_ERROR),
        (b'{"acks":[1]}', codes.SYSTEM_ERROR),
        (b'{"acks":[{"c":"g"}]}', codes.SYSTEM_ERROR),
    ],
)
def test_batches_that_are_none(client: Connection, body: bytes, expected: int) -> None:
    assert client.call(BATCH_ACK, body=body).code == expected


PART = {"b": "AQ==", "c": GROUP, "it": 1, "pt": 1, "q": 0, "r": "0", "rq": 1, "so": 0, "t": TOPIC}


@pytest.mark.parametrize(
    ("change_of", "expected"),
    [
        ({}, codes.SUCCESS),
        ({"t": "nowhere"}, codes.SUCCESS),  # unknown topics and queues are passed over
        ({"q": 99}, codes.SUCCESS),
        ({"q": -1}, codes.SUCCESS),
        ({"so": 10**15}, codes.SUCCESS),
        ({"rq": 77}, codes.SUCCESS),
        ({"b": ""}, codes.SUCCESS),
        ({"b": "?"}, codes.SYSTEM_ERROR),
        ({"r": "7"}, codes.SYSTEM_ERROR),
        ({"so": "x"}, codes.SYSTEM_ERROR),
    ],
)
def test_parts_of_batches(
    client: Connection, world: World, message: Got, change_of: dict[str, Any], expected: int
) -> None:
    queues = set(world.store.queues())
    body = msgspec.json.encode({"acks": [PART | change_of], "brokerName": "broker-a"})
    assert client.call(BATCH_ACK, body=body).code == expected
    assert len(set(world.store.queues()) - queues) <= 1  # a revive queue at most


def test_long_names_in_batches(client: Connection, world: World, message: Got) -> None:
    start, popped, invisible, revive = message.handle.split(" ")[:4]
    part = {
        "bitSet": "AQ==",
        "consumerGroup": GROUP,
        "invisibleTime": int(invisible),
        "popTime": int(popped),
        "queueId": 0,
        "retry": "0",
        "reviveQueueId": int(revive),
        "startOffset": int(start),
        "topic": TOPIC,
    }
    body = msgspec.json.encode({"acks": [part], "brokerName": "broker-a"})
    assert client.call(BATCH_ACK, body=body).code == codes.SUCCESS
    world.clock.advance(30)
    assert pop(client) == []


def test_a_huge_set_of_bits_is_cut(client: Connection, world: World, message: Got) -> None:
    bits = base64.b64encode(b"\xff" * 1_000_000).decode()
    body = msgspec.json.encode({"acks": [PART | {"b": bits}], "brokerName": "broker-a"})
    assert client.call(BATCH_ACK, body=body).code == codes.SUCCESS


def test_garbage_in_the_revive_topic_stops_nothing(client: Connection, world: World) -> None:
    revive = "rmq_sys_REVIVE_LOG_DefaultCluster"
    bad = [b"", b"{", b"\xff", b"[]", b"{}", b'{"c":1}', b'{"t":null,"c":null,"so":0,"n":127}']
    nested = b"[" * 5000
    huge = b'{"c":"g","t":"orders","it":0,"n":99999999,"pt":0,"q":0,"so":0,"bn":"b"}'
    for queue_id in range(8):
        for body in [*bad, nested, huge]:
            for tag in ("ck", "ack", "bAck", "other"):
                client.produce(revive, body, queue_id, properties=f"TAGS\x01{tag}\x02")
    produce(client, b"work")
    pop(client)
    world.clock.advance(20)
    assert bodies(pop(client)) == [b"work"]


# -- looking


def test_peeking_takes_nothing(client: Connection, world: World) -> None:
    produce(client, b"one", b"two")
    fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": -1, "maxMsgNums": 1}
    for _ in range(2):
        answer = client.call(PEEK, fields)
        assert answer.code == codes.SUCCESS
        assert [record.body for record in answer.records()] == [b"one"]
    assert bodies(pop(client)) == [b"one", b"two"]
    answer = client.call(PEEK, fields)
    assert answer.code == codes.PULL_NOT_FOUND
    world.clock.advance(20)
    answer = client.call(PEEK, fields | {"maxMsgNums": 32})  # the retry topic is looked at too
    assert [record.body for record in answer.records()] == [b"one", b"two"]


@pytest.mark.parametrize("request_code", [PEEK, NOTIFICATION, POLLING_INFO])
def test_what_looking_is_refused_for(client: Connection, world: World, request_code: int) -> None:
    produce(client, b"work")
    fields = {
        "consumerGroup": GROUP,
        "topic": TOPIC,
        "queueId": 0,
        "maxMsgNums": 1,
        "pollTime": 0,
        "bornTime": 0,
    }

    def code_of(**more: Any) -> int:
        return client.call(request_code, fields | more).code

    assert code_of() == codes.SUCCESS
    assert code_of(topic="nowhere") == codes.TOPIC_NOT_EXIST
    assert code_of(queueId=4) == codes.INVALID_PARAMETER
    assert code_of(queueId="x") == codes.SYSTEM_ERROR
    world.settings.broker_permission = 2
    assert code_of() == codes.NO_PERMISSION
    world.settings.broker_permission = 6
    world.core.groups.update(Group(name=GROUP, consume_enable=False))
    assert code_of() == codes.NO_PERMISSION
    world.core.groups.delete(GROUP)
    world.settings.auto_create_subscription_group = False
    assert code_of() == codes.SUBSCRIPTION_GROUP_NOT_EXIST


def test_the_main_port_alone_serves_what_may_wait(world: World) -> None:
    fast = world.broker.fast_routes()
    assert not {POP, PEEK, NOTIFICATION, POLLING_INFO} & fast.keys()
    assert {ACK, BATCH_ACK, CHANGE} <= fast.keys()
