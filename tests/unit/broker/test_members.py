"""Who is online, who hears of it, and who owns a queue (behaviour.md 3.9, 4.6)."""

from __future__ import annotations

import msgspec
import pytest
from tests.support.brokers import Connection, World

from firearrow.model import codes

NOTIFY = 40


def notices(client: Connection) -> list[str]:
    return [f.ext["consumerGroup"] for f in client.received() if f.code == NOTIFY]


def members(client: Connection, group: str = "group") -> list[str]:
    answer = client.call(38, {"consumerGroup": group})
    return answer.json()["consumerIdList"] if answer.code == 0 else []


def test_a_new_member_is_announced_to_all(world: World) -> None:
    one, two = world.connect(), world.connect()
    one.heartbeat("group", {"orders": "*"}, client_id="one")
    one.received()
    two.heartbeat("group", {"orders": "*"}, client_id="two")
    assert notices(one) == ["group"]
    assert members(one) == ["one", "two"]


def test_a_heartbeat_that_says_nothing_new_is_not_announced(client: Connection) -> None:
    client.heartbeat("group", {"orders": "*"})
    client.received()
    answer = client.heartbeat("group", {"orders": "*"})
    assert answer.ext["IS_SUPPORT_HEART_BEAT_V2"] == "true"
    assert notices(client) == []


def test_a_cut_connection_leaves_its_groups_at_once(world: World) -> None:
    one, two = world.connect(), world.connect()
    one.heartbeat("group", {"orders": "*"}, client_id="one")
    two.heartbeat("group", {"orders": "*"}, client_id="two")
    one.received()
    two.drop()
    assert notices(one) == ["group"]
    assert members(one) == ["one"]


def test_a_silent_member_is_put_out(world: World) -> None:
    one, two = world.connect(), world.connect()
    one.heartbeat("group", {"orders": "*"}, client_id="one")
    two.heartbeat("group", {"orders": "*"}, client_id="two")
    world.clock.advance(60)
    two.heartbeat("group", {"orders": "*"}, client_id="two")
    world.clock.advance(71)
    assert one.peer.closed
    assert members(two) == ["two"]


def test_unregistering_is_announced(world: World) -> None:
    one, two = world.connect(), world.connect()
    one.heartbeat("group", {"orders": "*"}, client_id="one")
    two.heartbeat("group", {"orders": "*"}, client_id="two")
    one.received()
    two.call(35, {"clientID": "two", "consumerGroup": "group", "producerGroup": ""})
    assert notices(one) == ["group"]
    assert members(one) == ["one"]


def test_broadcast_members_do_not_share_and_are_not_told(world: World) -> None:
    one, two = world.connect(), world.connect()
    one.heartbeat("group", {"orders": "*"}, client_id="one", model="BROADCASTING")
    one.received()
    two.heartbeat("group", {"orders": "*"}, client_id="two", model="BROADCASTING")
    assert notices(one) == []


def test_a_group_without_members_has_no_list(client: Connection) -> None:
    assert client.call(38, {"consumerGroup": "nobody"}).code == codes.SYSTEM_ERROR


def test_a_heartbeat_makes_the_retry_topic(world: World, client: Connection) -> None:
    client.heartbeat("group", {"orders": "*"})
    topic = world.core.topics.table["%RETRY%group"]
    assert (topic.write_queues, topic.perm) == (1, 6)


def test_without_auto_creation_a_group_is_left_out(world: World, client: Connection) -> None:
    world.settings.auto_create_subscription_group = False
    assert client.heartbeat("group", {"orders": "*"}).code == codes.SUCCESS
    assert "group" not in world.core.groups.table
    assert members(client) == []


def test_the_last_subscription_counts(world: World) -> None:
    one, two = world.connect(), world.connect()
    one.produce("one")
    one.heartbeat("group", {"one": "*"}, client_id="one")
    two.heartbeat("group", {"two": "*"}, client_id="two")
    answer = one.pull("one", expression=None)
    assert answer.code == codes.SUBSCRIPTION_NOT_EXIST


def test_the_words_of_every_language(world: World, client: Connection) -> None:
    """C++ sends ordinals and leaves sets out, Go sends tag codes as strings."""
    cpp = {
        "clientID": "cpp",
        "consumerDataSet": [
            {
                "groupName": "cpp-group",
                "consumeType": 1,
                "messageModel": 0,
                "consumeFromWhere": 4,
                "subscriptionDataSet": [{"topic": "t", "subString": "a", "codeSet": ["97"]}],
            }
        ],
    }
    assert client.call(34, body=msgspec.json.encode(cpp), language="CPP").code == 0
    group = world.core.members.consumers["cpp-group"]
    assert group.consume_type == "CONSUME_PASSIVELY"
    assert group.message_model == "BROADCASTING"
    assert group.consume_from == "CONSUME_FROM_FIRST_OFFSET"
    assert group.subscriptions["t"].codes == frozenset({97})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"clientID":5}', b"\xff\xfe"])
def test_a_broken_heartbeat_is_an_answer(client: Connection, body: bytes) -> None:
    assert client.call(34, body=body).code == codes.SYSTEM_ERROR


def test_heartbeat_v2_keeps_the_subscription(world: World, client: Connection) -> None:
    def beat(fingerprint: int, *, without: bool) -> str:
        data = {
            "groupName": "group",
            "subscriptionDataSet": [] if without else [{"topic": "t", "subString": "*"}],
        }
        body = {
            "clientID": "c",
            "heartbeatFingerprint": fingerprint,
            "withoutSub": without,
            "consumerDataSet": [data],
        }
        return client.call(34, body=msgspec.json.encode(body)).ext["IS_SUB_CHANGE"]

    beat(7, without=False)
    assert beat(7, without=True) == "false"
    assert "t" in world.core.members.consumers["group"].subscriptions
    assert beat(8, without=True) == "true"


# -- queue locks


def lock(client: Connection, client_id: str, *queues: int, code: int = 41) -> list[int]:
    body = {
        "clientId": client_id,
        "consumerGroup": "group",
        "mqSet": [{"brokerName": "broker-a", "queueId": q, "topic": "t"} for q in queues],
    }
    answer = client.call(code, body=msgspec.json.encode(body))
    assert answer.code == codes.SUCCESS
    return [q["queueId"] for q in answer.json()["lockOKMQSet"]] if code == 41 else []


def test_a_queue_has_one_owner(client: Connection) -> None:
    assert lock(client, "one", 0) == [0]
    assert lock(client, "two", 0, 1) == [1]
    assert lock(client, "one", 0) == [0]


def test_a_lock_that_is_not_renewed_goes_to_the_next(world: World, client: Connection) -> None:
    lock(client, "one", 0)
    world.clock.advance(59)
    assert lock(client, "two", 0) == []
    world.clock.advance(2)
    assert lock(client, "two", 0) == [0]


def test_only_the_owner_unlocks(client: Connection) -> None:
    lock(client, "one", 0)
    lock(client, "two", 0, code=42)
    assert lock(client, "two", 0) == []
    lock(client, "one", 0, code=42)
    assert lock(client, "two", 0) == [0]
