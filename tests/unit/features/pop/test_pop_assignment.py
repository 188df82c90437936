"""Queues shared out by the broker, and the mode in which a group consumes a topic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import Answered, Connection, World

from firearrow.broker.cluster_queues import BrokerQueues, Found
from firearrow.model import codes
from firearrow.model.topic import Topic

QUERY, SET = 400, 401
GROUP, TOPIC = "group", "orders"

Queues = list[tuple[str, int]]


@pytest.fixture(autouse=True)
def topic(world: World) -> None:
    world.core.topics.create(Topic(name=TOPIC, read_queues=8, write_queues=8))


def member(world: World, client_id: str, **more: Any) -> Connection:
    client = world.connect()
    client.heartbeat(GROUP, {TOPIC: "*"}, client_id=client_id, **more)
    return client


def body(client_id: str = "c1", **more: Any) -> dict[str, Any]:
    return {
        "clientId": client_id,
        "consumerGroup": GROUP,
        "messageModel": "CLUSTERING",
        "strategyName": "AVG",
        "topic": TOPIC,
    } | more


def query(client: Connection, client_id: str = "c1", **more: Any) -> Answered:
    return client.call(QUERY, body=msgspec.json.encode(body(client_id, **more)))


def assigned(answer: Answered) -> tuple[set[str], Queues]:
    """The modes and the queues of an answer."""
    assert answer.code == 0
    items = answer.json()["messageQueueAssignments"]
    assert all(item["messageQueue"]["topic"] == TOPIC for item in items)
    queues = [(i["messageQueue"]["brokerName"], i["messageQueue"]["queueId"]) for i in items]
    return {item["mode"] for item in items}, queues


def set_mode(client: Connection, **more: Any) -> Answered:
    mode = {"consumerGroup": GROUP, "mode": "POP", "popShareQueueNum": 0, "topic": TOPIC}
    return client.call(SET, body=msgspec.json.encode(mode | more))


def test_members_pull_their_share(world: World) -> None:
    clients = [member(world, f"c{n}") for n in range(3)]
    shares = [assigned(query(clients[n], f"c{n}")) for n in range(3)]
    assert [modes for modes, _ in shares] == [{"PULL"}] * 3
    assert [[q for _, q in queues] for _, queues in shares] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    shares = [assigned(query(clients[n], f"c{n}", strategyName="AVG_BY_CIRCLE")) for n in range(3)]
    assert [[q for _, q in queues] for _, queues in shares] == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_more_members_than_queues(world: World) -> None:
    world.core.topics.create(Topic(name=TOPIC, read_queues=2, write_queues=2))
    clients = [member(world, f"c{n}") for n in range(3)]
    shares = [assigned(query(clients[n], f"c{n}"))[1] for n in range(3)]
    assert shares == [[("broker-a", 0)], [("broker-a", 1)], []]


def test_members_that_pop_take_all_queues(world: World) -> None:
    clients = [member(world, f"c{n}") for n in range(2)]
    assert set_mode(clients[0]).code == 0
    for share in (0, -1, 1, 7):
        set_mode(clients[0], popShareQueueNum=share)
        for n in range(2):
            assert assigned(query(clients[n], f"c{n}")) == ({"POP"}, [("broker-a", -1)])


def test_members_that_pop_and_share_some(world: World) -> None:
    clients = [member(world, f"c{n}") for n in range(4)]
    set_mode(clients[0], popShareQueueNum=1)
    shares = [sorted(q for _, q in assigned(query(clients[n], f"c{n}"))[1]) for n in range(4)]
    assert shares == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [0, 1, 6, 7]]
    world.core.topics.create(Topic(name=TOPIC, read_queues=2, write_queues=2))
    shares = [[q for _, q in assigned(query(clients[n], f"c{n}"))[1]] for n in range(4)]
    assert shares == [[0], [1], [0], [1]]


def test_broadcasting_and_a_switched_off_balancer_give_everything(world: World) -> None:
    client = member(world, "c1")
    member(world, "c2")
    everything = [("broker-a", n) for n in range(8)]
    assert assigned(query(client, messageModel="BROADCASTING"))[1] == everything
    world.settings.server_load_balancer_enable = False
    assert assigned(query(client))[1] == everything


def test_no_answer_changes_nothing(world: World, client: Connection) -> None:
    answer = query(client)
    assert (answer.code, answer.body) == (0, b"{}")  # nobody is online
    client = member(world, "c1")
    answer = query(client, strategyName="X")
    assert (answer.code, answer.body) == (0, b"{}")
    assert query(client, topic="nowhere").body == b"{}"
    assert assigned(query(client, "stranger"))[1] == []


def test_retry_topics_are_pulled(world: World) -> None:
    world.settings.default_message_request_mode = "POP"
    client = member(world, "c1")
    assert assigned(query(client))[0] == {"POP"}
    answer = query(client, topic=f"%RETRY%{GROUP}")
    assert {item["mode"] for item in answer.json()["messageQueueAssignments"]} == {"PULL"}


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"topic":1}', b'{"topic":"t"}'])
def test_bodies_that_are_none(client: Connection, data: bytes) -> None:
    assert client.call(QUERY, body=data).code == codes.SYSTEM_ERROR
    assert client.call(SET, body=data).code == codes.SYSTEM_ERROR


def test_modes_that_cannot_be_set(world: World, client: Connection) -> None:
    assert set_mode(client, mode="PUSH").code == codes.SYSTEM_ERROR
    assert set_mode(client, topic=f"%RETRY%{GROUP}").code == codes.NO_PERMISSION
    assert set_mode(client, topic="nowhere").code == codes.TOPIC_NOT_EXIST
    world.settings.auto_create_subscription_group = False
    assert set_mode(client, consumerGroup="other").code == codes.SUBSCRIPTION_GROUP_NOT_EXIST
    assert query(client, messageModel="HEARSAY").code == codes.SYSTEM_ERROR


def test_modes_are_kept_as_a_java_broker_keeps_them(tmp_path: Path) -> None:
    world = World(tmp_path / "kept")
    world.core.topics.create(Topic(name=TOPIC, read_queues=8, write_queues=8))
    set_mode(world.connect(), popShareQueueNum=3)
    world.stop()
    file = tmp_path / "kept/config/messageRequestMode.json"
    mode = {"consumerGroup": GROUP, "mode": "POP", "popShareQueueNum": 3, "topic": TOPIC}
    assert json.loads(file.read_text()) == {"messageRequestModeMap": {TOPIC: {GROUP: mode}}}
    world = World(tmp_path / "kept", clock=world.clock)
    client = member(world, "c1")
    assert assigned(query(client))[0] == {"POP"}
    world.stop()


# -- several brokers


class NameServers:
    """Answers when it is told to."""

    def __init__(self, world: World) -> None:
        self.asked: list[tuple[str, Found]] = []
        world.core.cluster_queues.source = lambda topic, found: self.asked.append((topic, found))

    def answer(self, *brokers: tuple[str, int]) -> None:
        asked, self.asked = self.asked, []
        for _, found in asked:
            found([BrokerQueues(name, queues, 6) for name, queues in brokers] or None)


def test_queues_of_other_brokers_are_shared_out_too(world: World) -> None:
    name_servers = NameServers(world)
    client = member(world, "c1")
    client.received()
    opaque = client.send(QUERY, body=msgspec.json.encode(body()))
    assert client.received() == []
    name_servers.answer(("broker-a", 1), ("broker-b", 2))
    (answer,) = client.received()
    assert answer.header.opaque == opaque
    own = [("broker-a", n) for n in range(8)]  # what this broker knows better
    assert assigned(answer)[1] == [*own, ("broker-b", 0), ("broker-b", 1)]
    set_mode(client)
    assert assigned(query(client))[1] == [("broker-a", -1), ("broker-b", -1)]


def test_an_answer_of_a_name_server_is_used_while_the_next_is_asked_for(world: World) -> None:
    name_servers = NameServers(world)
    client = member(world, "c1")
    client.send(QUERY, body=msgspec.json.encode(body()))
    name_servers.answer(("broker-b", 1))
    world.clock.advance(31)
    assert len(assigned(query(client))[1]) == 9
    assert len(name_servers.asked) == 1
    name_servers.answer(("broker-b", 3))
    assert len(assigned(query(client))[1]) == 11
    assert name_servers.asked == []


def test_name_servers_that_do_not_answer_leave_this_broker(world: World) -> None:
    name_servers = NameServers(world)
    client = member(world, "c1")
    client.received()
    client.send(QUERY, body=msgspec.json.encode(body()))
    name_servers.answer()
    (answer,) = client.received()
    assert len(assigned(answer)[1]) == 8
