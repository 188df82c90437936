"""A client that pops, as the Java client does it over remoting."""

from __future__ import annotations

import base64
from typing import Any, Protocol

import msgspec

from firearrow.codec.record import Record
from tests.support.brokers import Answered, Connection, World, properties_of

POP, ACK, PEEK, CHANGE, NOTIFICATION, POLLING_INFO, BATCH_ACK = (
    *(200050, 200051, 200052, 200053, 200054, 200055),
    200151,
)
GROUP = "group"
TOPIC = "orders"


class Caller(Protocol):
    """Who asks: a connection to a broker in the test, or to one in another process."""

    def call(self, code: int, ext: dict[str, Any] | None = None, body: bytes = b"") -> Answered: ...


class Got(msgspec.Struct):
    """A popped message and its receipt handle."""

    record: Record
    handle: str
    stored_topic: str

    @property
    def body(self) -> bytes:
        return self.record.body

    @property
    def offset(self) -> int:
        return self.record.queue_offset


def pop_fields(topic: str = TOPIC, **more: Any) -> dict[str, Any]:
    """Ext fields of POP_MESSAGE."""
    fields = {
        "consumerGroup": GROUP,
        "topic": topic,
        "queueId": -1,
        "maxMsgNums": 32,
        "invisibleTime": 10_000,
        "pollTime": 0,
        "bornTime": 0,
        "initMode": 0,
        "order": "false",
    }
    return fields | more


def pop(client: Caller, topic: str = TOPIC, **more: Any) -> list[Got]:
    """Pop without waiting; empty when there was nothing."""
    return got(client.call(POP, pop_fields(topic, **more)))


def got(answer: Answered) -> list[Got]:
    """The messages of an answer with their handles, made as the client makes them."""
    if answer.code != 0:
        assert answer.code == 210, answer
        return []
    ext = answer.ext
    starts = dict(_entry(entry) for entry in ext["startOffsetInfo"].split(";"))
    left = {
        key: [int(offset) for offset in offsets.split(",")]
        for key, offsets in map(_entry, ext["msgOffsetInfo"].split(";"))
    }
    found = []
    for record in answer.records():
        handle = properties_of(record).get("POP_CK")
        if handle is None:
            key = ("0", str(record.queue_id))
            handle = (
                f"{starts[key]} {ext['popTime']} {ext['invisibleTime']} {ext['reviveQid']} "
                f"0 broker-a {record.queue_id} {record.queue_offset}"
            )
        fields = handle.split(" ")
        left[fields[4], fields[6]].remove(record.queue_offset)
        stored = {"0": record.topic, "1": f"%RETRY%{GROUP}_{record.topic}"}.get(
            fields[4], f"%RETRY%{GROUP}+{record.topic}"
        )
        found.append(Got(record, handle, stored))
    assert not any(left.values())
    return found


def _entry(text: str) -> tuple[tuple[str, str], str]:
    flag, queue_id, value = text.split(" ")
    return (flag, queue_id), value


def ack(client: Caller, message: Got, **more: Any) -> Answered:
    return client.call(ACK, ack_fields(message, **more))


def ack_fields(message: Got, **more: Any) -> dict[str, Any]:
    fields = {
        "consumerGroup": GROUP,
        "topic": message.stored_topic,
        "queueId": message.record.queue_id,
        "extraInfo": message.handle,
        "offset": message.offset,
    }
    return fields | more


def change(client: Caller, message: Got, invisible_ms: int, **more: Any) -> Answered:
    """Change the invisible time; the message's handle becomes the new one."""
    answer = client.call(CHANGE, ack_fields(message, invisibleTime=invisible_ms, **more))
    if answer.code == 0:
        fields = message.handle.split(" ")
        ext = answer.ext
        fields[:4] = [
            str(message.offset),
            ext["popTime"],
            ext["invisibleTime"],
            ext["reviveQid"],
        ]
        message.handle = " ".join(fields)
    return answer


def batch_ack(client: Caller, messages: list[Got]) -> Answered:
    """Acknowledge messages of one check point together."""
    fields = messages[0].handle.split(" ")
    bits = 0
    for message in messages:
        bits |= 1 << (message.offset - int(fields[0]))
    data = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    part = {
        "b": base64.b64encode(data).decode(),
        "c": GROUP,
        "it": int(fields[2]),
        "pt": int(fields[1]),
        "q": int(fields[6]),
        "r": fields[4],
        "rq": int(fields[3]),
        "so": int(fields[0]),
        "t": messages[0].record.topic,
    }
    body = {"acks": [part], "brokerName": fields[5]}
    return client.call(BATCH_ACK, body=msgspec.json.encode(body))


def bodies(messages: list[Got]) -> list[bytes]:
    return [message.body for message in messages]


def produce(client: Connection, *texts: bytes, topic: str = TOPIC, **more: Any) -> None:
    for text in texts:
        assert client.produce(topic, text, **more).code == 0


def until_redelivered(world: World, client: Connection, limit_s: int = 60) -> float:
    """Seconds until a pop finds something again, looked for every 0.1 s without taking it."""
    started = world.clock.monotonic()
    while world.clock.monotonic() - started < limit_s:
        world.clock.advance(0.1)
        fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": -1, "maxMsgNums": 1}
        if client.call(PEEK, fields).code == 0:
            return world.clock.monotonic() - started
    raise AssertionError(f"nothing came again in {limit_s} s")
