"""The bodies and headers of pop requests and answers, as clients read and write them."""

from __future__ import annotations

import binascii
from typing import Any, Final

import msgspec

from firearrow.codec import lenient_json
from firearrow.features.pop import copies
from firearrow.features.pop.handles import (
    NORMAL,
    Handle,
    HandleError,
    offsets_entry,
    order_counts,
    stored_topic,
)
from firearrow.features.pop.popping import Part, Pop, Popped
from firearrow.protocol.remoting.command import LANGUAGE, VERSION
from firearrow.protocol.remoting.headers import frame
from firearrow.store import api

FOUND: Final = api.FOUND
NOTHING: Final = api.NO_MESSAGE_IN_QUEUE
# More bits than a check point can have messages apart: a longer set is cut there.
BITS_MAX: Final = 65536


def boolean(value: bool) -> str:
    return "true" if value else "false"


def times(popped: Popped) -> dict[str, str]:
    """The ext fields of an answer without messages; Java unboxes all of them."""
    return {
        "invisibleTime": str(popped.invisible_ms),
        "popTime": str(popped.pop_ms),
        "restNum": str(popped.rest),
        "reviveQid": str(popped.revive_queue),
    }


def found(opaque: int, popped: Popped, wanted: Pop, broker_name: str | None) -> bytes:
    """The frame of an answer with messages, in Java's order of fields. Messages of retry topics go
    out under the topic that was asked for; with no ``broker_name``, under their own."""
    starts, offsets, counts, bodies = [], [], [], []
    for part in popped.parts:
        flag = part.retry_flag
        starts.append(f"{flag} {part.queue_id} {part.start_offset}")
        offsets.append(offsets_entry(flag, part.queue_id, part.offsets))
        if wanted.order:
            counts.append(order_counts(flag, part.queue_id, len(part.offsets), part.consumed))
        bodies.append(_records(popped, part, wanted, broker_name))
    order = f'"orderCountInfo":"{";".join(counts)}",' if wanted.order else ""
    header = (
        f'{{"code":0,"extFields":{{"invisibleTime":"{popped.invisible_ms}",'
        f'"msgOffsetInfo":"{";".join(offsets)}",{order}"popTime":"{popped.pop_ms}",'
        f'"restNum":"{popped.rest}","reviveQid":"{popped.revive_queue}",'
        f'"startOffsetInfo":"{";".join(starts)}"}},"flag":1,"language":"{LANGUAGE}",'
        f'"opaque":{opaque},"remark":"{FOUND}","version":{VERSION}}}'
    )
    return frame(header.encode(), bodies[0] if len(bodies) == 1 else b"".join(bodies))


def _records(popped: Popped, part: Part, wanted: Pop, broker_name: str | None) -> bytes:
    if part.retry_flag == NORMAL or broker_name is None or part.topic == wanted.topic.name:
        return part.records
    return copies.as_original(popped, part, wanted.topic.name, broker_name)


class BatchPart(msgspec.Struct, frozen=True):
    """Acknowledged messages of one check point."""

    topic: str  # the stored one
    group: str
    offsets: list[int]
    handle: Handle


_SHORT: Final = {
    "consumerGroup": "c",
    "topic": "t",
    "retry": "r",
    "startOffset": "so",
    "queueId": "q",
    "reviveQueueId": "rq",
    "popTime": "pt",
    "invisibleTime": "it",
    "bitSet": "b",
}


class _BatchAck(msgspec.Struct):
    group: str = msgspec.field(name="c")
    topic: str = msgspec.field(name="t")
    retry_flag: str = msgspec.field(name="r")
    start_offset: int = msgspec.field(name="so")
    queue_id: int = msgspec.field(name="q")
    revive_queue: int = msgspec.field(name="rq")
    pop_ms: int = msgspec.field(name="pt")
    invisible_ms: int = msgspec.field(name="it")
    bits: str = msgspec.field(name="b")


def read_batch(body: bytes) -> list[BatchPart]:
    """The body of BATCH_ACK_MESSAGE; empty when it acknowledges nothing.

    Raises:
        ValueError: it cannot be read.
    """
    if not body:
        return []
    data = lenient_json.loads(body)
    if not isinstance(data, dict):
        raise ValueError("no JSON object")
    items = data.get("acks")
    if not isinstance(items, list):
        return []
    broker_name = data.get("brokerName")
    return [_part(item, broker_name if isinstance(broker_name, str) else "") for item in items]


def _part(item: Any, broker_name: str) -> BatchPart:
    if not isinstance(item, dict):
        raise ValueError("an acknowledgement is no JSON object")
    short = {_SHORT.get(key, key): value for key, value in item.items()}
    try:
        ack = msgspec.convert(short, _BatchAck, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    handle = Handle(
        ack.start_offset,
        ack.pop_ms,
        ack.invisible_ms,
        ack.revive_queue,
        ack.retry_flag,
        broker_name,
        ack.queue_id,
    )
    try:
        topic = stored_topic(ack.topic, ack.group, ack.retry_flag)
    except HandleError as error:
        raise ValueError(str(error)) from None
    return BatchPart(topic, ack.group, _set_bits(ack.bits, ack.start_offset), handle)


def _set_bits(text: str, start: int) -> list[int]:
    """Offsets of the bits that are set in a Java BitSet: lowest bit of the first byte first."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True) if text else b""
    except (binascii.Error, ValueError):
        raise ValueError("the set of bits is no Base64") from None
    return [
        start + position * 8 + bit
        for position, byte in enumerate(data[: BITS_MAX // 8])
        if byte
        for bit in range(8)
        if byte >> bit & 1
    ]
