"""Lite topics as a proxy, or a test of RocketMQ's own, uses them over remoting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from firearrow.config import BrokerSettings
from firearrow.model.clock import VirtualClock
from tests.support.brokers import Answered, Connection, World, properties_of
from tests.support.popping import Caller

POP_LITE, SUBSCRIBE, NOTIFY = 200070, 200071, 200073
BROKER_INFO, PARENT_INFO, TOPIC_INFO, CLIENT_INFO, GROUP_INFO, DISPATCH = range(200074, 200080)
ACK, CHANGE = 200051, 200053
PARENT, GROUP = "devices", "readers"


class Got(msgspec.Struct):
    """A popped message."""

    body: bytes
    lite_topic: str
    offset: int
    handle: str
    attempt: int  # how often it was handed out before


def lite_world(root: Path, clock: VirtualClock | None = None, **settings: Any) -> World:
    """A broker with a parent topic and a group that is bound to it."""
    config = BrokerSettings()
    config.enable_lmq = config.enable_multi_dispatch = True
    for name, value in settings.items():
        setattr(config, name, value)
    world = World(root, config, clock=clock)
    client = world.connect()
    create_parent(client)
    create_group(client)
    return world


def create_parent(client: Caller, name: str = PARENT, minutes: int = -1) -> Answered:
    fields = {
        "topic": name,
        "defaultTopic": "TBW102",
        "readQueueNums": 4,
        "writeQueueNums": 4,
        "perm": 6,
        "topicFilterType": "SINGLE_TAG",
        "attributes": f"+message.type=LITE,+lite.topic.expiration={minutes}",
    }
    return client.call(17, fields)


def create_group(client: Caller, name: str = GROUP, **attributes: str) -> Answered:
    wanted = {"lite.bind.topic": PARENT, **{k.replace("_", "."): v for k, v in attributes.items()}}
    body = {"groupName": name, "attributes": {f"+{k}": v for k, v in wanted.items()}}
    return client.call(200, body=msgspec.json.encode(body))


def send(client: Connection, lite_topic: str, *bodies: bytes, topic: str = PARENT) -> None:
    for body in bodies:
        properties = f"UNIQ_KEY\x01{body.decode()}\x02__LITE_TOPIC\x01{lite_topic}\x02"
        assert client.produce(topic, body, properties=properties).code == 0


def subscribe(
    client: Caller,
    *lite_topics: str,
    client_id: str = "c1",
    action: str = "PARTIAL_ADD",
    **more: Any,
) -> Answered:
    return client.call(SUBSCRIBE, body=change_of(client_id, *lite_topics, action=action, **more))


def change_of(
    client_id: str,
    *lite_topics: str,
    action: str,
    option: tuple[str, int] | None = None,
    group: str = GROUP,
    topic: str = PARENT,
) -> bytes:
    """The body of one change of a client's subscriptions."""
    change: dict[str, Any] = {
        "action": action,
        "clientId": client_id,
        "group": group,
        "topic": topic,
        "liteTopicSet": list(lite_topics),
        "version": 0,
    }
    if option is not None:
        change["offsetOption"] = {"type": option[0], "value": option[1]}
    return msgspec.json.encode({"subscriptionSet": [change]})


def pop_fields(client_id: str = "c1", **more: Any) -> dict[str, Any]:
    fields = {
        "clientId": client_id,
        "consumerGroup": GROUP,
        "topic": PARENT,
        "maxMsgNum": 32,
        "invisibleTime": 60_000,
        "pollTime": 0,
        "bornTime": 0,
    }
    return fields | more


def pop(client: Caller, client_id: str = "c1", **more: Any) -> list[Got]:
    """Pop without waiting; empty when there was nothing."""
    return got(client.call(POP_LITE, pop_fields(client_id, **more)))


def got(answer: Answered) -> list[Got]:
    """The messages of an answer with their handles, made as RocketMQ's client makes them."""
    if answer.code != 0:
        assert answer.code == 210, answer
        return []
    ext = answer.ext
    attempts = ext["orderCountInfo"].split(";")
    records = answer.records()
    assert len(attempts) == len(records)
    found = []
    for record, attempt in zip(records, attempts, strict=True):
        properties = properties_of(record)
        lite_topic = properties["__LITE_TOPIC"]
        assert properties["INNER_MULTI_DISPATCH"] == f"%LMQ%${record.topic}${lite_topic}"
        offset = int(properties["INNER_MULTI_QUEUE_OFFSET"])
        handle = (
            f"0 {ext['popTime']} {ext['invisibleTime']} {ext['reviveQid']} 0 broker-a 0 {offset}"
        )
        found.append(Got(record.body, lite_topic, offset, handle, int(attempt)))
    return found


def ack(client: Caller, message: Got, **more: Any) -> Answered:
    return client.call(ACK, ack_fields(message, **more))


def ack_fields(message: Got, **more: Any) -> dict[str, Any]:
    fields = {
        "consumerGroup": GROUP,
        "topic": PARENT,
        "queueId": 0,
        "extraInfo": message.handle,
        "offset": message.offset,
        "liteTopic": message.lite_topic,
    }
    return fields | more


def change(client: Caller, message: Got, invisible_ms: int, *, suspend: bool = False) -> Answered:
    more = {"invisibleTime": invisible_ms, "suspend": str(suspend).lower()}
    return client.call(CHANGE, ack_fields(message, **more))


def bodies(messages: list[Got]) -> list[bytes]:
    return [message.body for message in messages]


def queue_of(lite_topic: str, parent: str = PARENT) -> str:
    return f"%LMQ%${parent}${lite_topic}"
