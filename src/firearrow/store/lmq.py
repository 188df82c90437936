"""Light message queues: one message in its own queue and in others (``LmqDispatch``).

A producer names them in property ``INNER_MULTI_DISPATCH``; the store gives the message the next
offset of each, written into the record as ``INNER_MULTI_QUEUE_OFFSET`` in the same order. So the
log alone tells where it belongs, and recovery puts it there again.
"""

from __future__ import annotations

from typing import Final

from firearrow.codec.properties import find_property
from firearrow.model import names
from firearrow.model.message import Message

DISPATCH: Final = b"INNER_MULTI_DISPATCH"
OFFSETS: Final = b"INNER_MULTI_QUEUE_OFFSET"
DISPATCH_MARK: Final = DISPATCH + b"\x01"
OFFSETS_MARK: Final = OFFSETS + b"\x01"
QUEUE_ID: Final = 0  # of every LMQ
NAME_BYTES_MAX: Final = 255  # it names a directory
OFFSET_DIGITS_MAX: Final = 18

_NEVER: Final = frozenset({names.SCHEDULE_TOPIC, names.TRANS_HALF_TOPIC, names.TRANS_OP_HALF_TOPIC})


def wanted(message: Message) -> list[str]:
    """What the message names, LMQs or not; empty when it is not to be dispatched."""
    if DISPATCH_MARK not in message.properties or not _dispatches(message.topic):
        return []
    text = find_property(message.properties, DISPATCH) or b""
    return text.decode("utf-8", "replace").split(",") if text else []


def _dispatches(topic: str) -> bool:
    return topic not in _NEVER and not topic.startswith(
        (names.RETRY_PREFIX, names.DLQ_PREFIX, names.SYSTEM_TOPIC_PREFIX)
    )


def is_queue(name: str) -> bool:
    """Whether an LMQ can have this name."""
    return (
        name.startswith(names.LMQ_PREFIX)
        and "/" not in name
        and "\0" not in name
        and len(name.encode()) <= NAME_BYTES_MAX
    )


def with_offsets(properties: bytes, offsets: str) -> bytes:
    """The property string with these offsets, instead of those that it may have."""
    properties = without_offsets(properties)
    if properties and properties[-1] != 2:
        properties += b"\x02"
    return properties + OFFSETS_MARK + offsets.encode() + b"\x02"


def without_offsets(properties: bytes) -> bytes:
    """Only the store gives offsets: those that a message brings along are of no dispatch of it."""
    if OFFSETS_MARK not in properties:
        return properties
    pieces = [p for p in properties.split(b"\x02") if p and not p.startswith(OFFSETS_MARK)]
    return b"\x02".join([*pieces, b""])


def places(topic: str, properties: bytes) -> list[tuple[str, int]]:
    """LMQs and offsets of a stored message."""
    if OFFSETS_MARK not in properties or not _dispatches(topic):
        return []
    queues = (find_property(properties, DISPATCH) or b"").decode("utf-8", "replace").split(",")
    offsets = (find_property(properties, OFFSETS) or b"").decode("utf-8", "replace").split(",")
    found = dict(zip(queues, offsets, strict=False))
    return [
        (name, int(offset))
        for name, offset in found.items()
        if is_queue(name) and offset.isascii() and offset.isdigit()
        if len(offset) <= OFFSET_DIGITS_MAX
    ]
