"""Request and reply: the consumer's answer goes to the client that asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import Answered, Connection, World

from firearrow.codec.properties import parse_properties
from firearrow.config import BrokerSettings
from firearrow.model import codes

TOPIC = "DefaultCluster_REPLY_TOPIC"
PROPERTIES = (
    "CORRELATION_ID\x01c-1\x02REPLY_TO_CLIENT\x01asker\x02TTL\x013000\x02MSG_TYPE\x01reply\x02"
)


@pytest.fixture
def asker(world: World) -> Connection:
    """The client that waits for a reply."""
    client = world.connect()
    client.heartbeat("unused", {}, client_id="asker", producers=["askers", "others"])
    client.received()
    return client


def reply(client: Connection, code: int = 324, **more: Any) -> int:
    """Send a reply; its opaque."""
    fields = {
        "producerGroup": "repliers",
        "topic": TOPIC,
        "defaultTopic": "TBW102",
        "defaultTopicQueueNums": 4,
        "queueId": 0,
        "sysFlag": 1,
        "bornTimestamp": 1_700_000_000_000,
        "flag": 3,
        "properties": PROPERTIES,
        "reconsumeTimes": 0,
        "unitMode": "false",
        **more,
    }
    if code == 325:
        short = {"producerGroup": "a", "topic": "b", "queueId": "e", "bornTimestamp": "g"}
        short |= {"sysFlag": "f", "flag": "h", "properties": "i"}
        fields = {short[key]: value for key, value in fields.items() if key in short}
    client.received()
    return client.send(code, fields, b"the reply")


def pushed(asker: Connection) -> Answered:
    (push,) = [frame for frame in asker.received() if frame.code == 326]
    assert not push.header.flag & 3  # a request that wants an answer
    return push


def take(asker: Connection, push: Answered, code: int = 0) -> None:
    """Answer a push as a client does."""
    header = {"code": code, "flag": 1, "opaque": push.header.opaque, "language": "JAVA"}
    data = msgspec.json.encode(header)
    size = len(data).to_bytes(4)
    asker.peer.written += asker.session.receive((len(data) + 4).to_bytes(4) + size + data)


@pytest.mark.parametrize("code", [324, 325])
def test_a_reply_reaches_the_client_that_asked(
    world: World, client: Connection, asker: Connection, code: int
) -> None:
    opaque = reply(client, code)
    assert client.received() == []  # not answered before the push is
    push = pushed(asker)
    assert push.body == b"the reply"
    assert push.ext["topic"] == TOPIC
    assert (push.ext["producerGroup"], push.ext["flag"]) == ("repliers", "3")
    assert (push.ext["sysFlag"], push.ext["bornTimestamp"]) == ("1", "1700000000000")
    assert push.ext["bornHost"] == f"127.0.0.1:{client.peer.remote[1]}"
    assert push.ext["storeHost"] == "127.0.0.1:10911"
    assert push.ext["storeTimestamp"] == str(world.clock.now_ms())
    properties = parse_properties(push.ext["properties"].encode())
    assert properties["CORRELATION_ID"] == "c-1"
    assert properties["PUSH_REPLY_TIME"] == str(world.clock.now_ms())
    take(asker, push)
    (answer,) = client.received()
    assert (answer.code, answer.header.opaque) == (codes.SUCCESS, opaque)
    (stored,) = client.pull(TOPIC).records()
    assert stored.body == b"the reply"
    assert answer.ext["msgId"] == f"7F00000100002A9F{stored.physical_offset:016X}"
    assert (answer.ext["queueId"], answer.ext["queueOffset"]) == ("0", "0")
    assert (answer.ext["MSG_REGION"], answer.ext["TRACE_ON"]) == ("DefaultRegion", "true")


def test_storing_can_be_switched_off(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.store_reply_message_enable = False
    world = World(tmp_path, settings)
    client, asker = world.connect(), world.connect()
    asker.heartbeat("unused", {}, client_id="asker", producers=["askers"])
    asker.received()
    reply(client)
    take(asker, pushed(asker))
    (answer,) = client.received()
    assert answer.code == codes.SUCCESS
    assert (answer.ext["msgId"], answer.ext["queueOffset"]) == ("0", "0")
    assert world.store.max_offset(TOPIC, 0) == 0
    world.stop()


def test_a_client_that_is_gone_or_unknown(world: World, client: Connection) -> None:
    reply(client)
    (answer,) = client.received()
    assert answer.code == codes.SYSTEM_ERROR
    assert "asker" in (answer.header.remark or "")
    reply(client, properties="CORRELATION_ID\x01c-1\x02")
    (answer,) = client.received()
    assert answer.code == codes.SYSTEM_ERROR
    assert "REPLY_TO_CLIENT" in (answer.header.remark or "")


def test_a_client_that_leaves_is_not_found_any_more(
    world: World, client: Connection, asker: Connection
) -> None:
    asker.call(35, {"clientID": "asker", "producerGroup": "others"})
    reply(client)
    take(asker, pushed(asker))  # it still has a producer
    asker.call(35, {"clientID": "asker", "producerGroup": "askers"})
    reply(client)
    assert [a.code for a in client.received()] == [codes.SYSTEM_ERROR]


def test_a_client_that_disconnects_while_it_is_pushed_to(
    client: Connection, asker: Connection
) -> None:
    reply(client)
    asker.drop()
    assert [a.code for a in client.received()] == [codes.SYSTEM_ERROR]


def test_a_client_that_came_back_over_another_connection(
    world: World, client: Connection, asker: Connection
) -> None:
    again = world.connect()
    again.heartbeat("unused", {}, client_id="asker", producers=["askers"])
    again.received()
    asker.drop()
    reply(client)
    take(again, pushed(again))
    assert [a.code for a in client.received()] == [codes.SUCCESS]


def test_a_client_that_refuses_or_says_nothing(
    world: World, client: Connection, asker: Connection
) -> None:
    reply(client)
    take(asker, pushed(asker), code=1)
    assert [a.code for a in client.received()] == [codes.SYSTEM_ERROR]
    reply(client)
    world.clock.advance(9.9)
    assert client.received() == []
    world.clock.advance(0.2)
    assert [a.code for a in client.received()] == [codes.SYSTEM_ERROR]


def test_the_checks_of_a_send(world: World, client: Connection, asker: Connection) -> None:
    def refused(**more: Any) -> int:
        reply(client, **more)
        (answer,) = client.received()
        return answer.code

    assert refused(topic="no such#topic") == codes.INVALID_PARAMETER
    assert refused(queueId=99) == codes.INVALID_PARAMETER
    assert refused(topic="unknown", defaultTopic="none") == codes.TOPIC_NOT_EXIST
    world.settings.start_accept_send_request_time_stamp = world.clock.now_ms() + 1000
    assert refused() == codes.SYSTEM_ERROR
    assert asker.received() == []
