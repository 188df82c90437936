"""Check points and acknowledgements as records of the revive topic (``PopCheckPoint``, ``AckMsg``).

Bodies are compact JSON with one- and two-letter keys; the tag says which it is, and
TIMER_DELIVER_MS when it must be in the revive topic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from firearrow.codec import lenient_json
from firearrow.codec.numbers import whole_number
from firearrow.codec.properties import find_property
from firearrow.codec.record import Record
from firearrow.model.message import Message
from firearrow.store.api import Put

CHECK_POINT_TAG: Final = b"ck"
ACK_TAG: Final = b"ack"
BATCH_ACK_TAG: Final = b"bAck"
# A check point is there this much before its acknowledgements (``ackTimeInterval``).
AHEAD_MS: Final = 1000
COUNT_MAX: Final = 127  # a byte
NEVER_IN_WHEEL: Final = b"9223372036854775807"  # the timer took it in after its time

_encode = msgspec.json.Encoder().encode
Key = tuple[str, str, int, int, int, str]  # topic, group, queue, start offset, pop time, broker


class CheckPoint(msgspec.Struct, gc=False, kw_only=True):
    """Messages of one queue that a group popped together. Keys in the order that Java writes."""

    bit_map: int = msgspec.field(default=0, name="bm")  # always 0 as written
    broker_name: str = msgspec.field(default="", name="bn")
    group: str | None = msgspec.field(name="c")
    distances: list[int] | None = msgspec.field(default=None, name="d")  # offsets - start_offset
    invisible_ms: int = msgspec.field(name="it")
    count: int = msgspec.field(name="n")
    pop_ms: int = msgspec.field(name="pt")
    queue_id: int = msgspec.field(name="q")
    written_revive_ms: int = msgspec.field(default=0, name="reviveTime")
    revive_offset: int = msgspec.field(default=0, name="ro")
    re_puts: str | msgspec.UnsetType | None = msgspec.field(default=msgspec.UNSET, name="rp")
    start_offset: int = msgspec.field(name="so")
    topic: str | None = msgspec.field(name="t")  # the retry topic, if read there

    @property
    def revive_ms(self) -> int:
        return self.pop_ms + self.invisible_ms

    @property
    def offsets(self) -> list[int]:
        """Queue offsets of the messages; old brokers wrote no distances."""
        if not self.distances:
            return list(
                range(self.start_offset, self.start_offset + min(max(0, self.count), COUNT_MAX))
            )
        return [self.start_offset + distance for distance in self.distances[: max(0, self.count)]]

    @property
    def re_put_times(self) -> int:
        try:
            return int(self.re_puts) if self.re_puts else 0
        except ValueError:
            return 127

    def key(self, own_name: str) -> Key:
        """What an acknowledgement has in common with its check point."""
        return (
            self.topic or "",
            self.group or "",
            self.queue_id,
            self.start_offset,
            self.pop_ms,
            self.broker_name or own_name,
        )


class Acknowledgement(msgspec.Struct, gc=False, kw_only=True):
    """Messages of one check point that were consumed; keys in the order that Java writes."""

    offset: int = msgspec.field(default=-1, name="ao")  # -1 in a batch
    offsets: list[int] | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="aol")
    broker_name: str | None = msgspec.field(default=None, name="bn")
    group: str = msgspec.field(name="c")
    pop_ms: int = msgspec.field(name="pt")
    queue_id: int = msgspec.field(name="q")
    start_offset: int = msgspec.field(name="so")
    topic: str = msgspec.field(name="t")

    def all_offsets(self) -> list[int]:
        return [self.offset] if isinstance(self.offsets, msgspec.UnsetType) else self.offsets

    def key(self, own_name: str) -> Key:
        return (
            self.topic,
            self.group,
            self.queue_id,
            self.start_offset,
            self.pop_ms,
            (self.broker_name or "").strip() or own_name,
        )


class ReviveTopic:
    """Writes into the revive topic. ``put_at(message, ms)`` stores what must come there then;
    ``host`` is this broker's packed address."""

    def __init__(self, put_at: Callable[[Message, int], Put], name: str, host: bytes) -> None:
        self._put_at = put_at
        self.name = name
        self._host = host

    def check_point(self, point: CheckPoint, queue_id: int, now_ms: int) -> Put:
        """Store a check point."""
        point.written_revive_ms = point.revive_ms
        identity = (
            f"{point.topic}@{point.queue_id}@{point.start_offset}@{point.group}@{point.pop_ms}"
            f"@{point.broker_name}@ck"
        )
        return self._put(point, queue_id, "ck", identity, point.revive_ms - AHEAD_MS, now_ms)

    def acknowledgement(
        self, ack: Acknowledgement, queue_id: int, revive_ms: int, now_ms: int
    ) -> Put:
        """Store an acknowledgement, single or batch; its check point ends at ``revive_ms``."""
        identity = (
            f"{ack.topic}@{ack.queue_id}@{ack.offset}@{ack.group}@{ack.pop_ms}@{ack.broker_name}"
            "@ack"
        )
        tag = "ack" if ack.offsets is msgspec.UNSET else "bAck"
        return self._put(ack, queue_id, tag, identity, revive_ms, now_ms)

    def _put(
        self, body: Any, queue_id: int, tag: str, identity: str, deliver_ms: int, now_ms: int
    ) -> Put:
        properties = (
            f"TAGS\x01{tag}\x02TIMER_DELIVER_MS\x01{deliver_ms}\x02UNIQ_KEY\x01{identity}\x02"
        ).encode()
        message = Message(self.name, queue_id, _encode(body), properties, now_ms, self._host)
        return self._put_at(message, deliver_ms)


# -- reading

_check_point = msgspec.json.Decoder(CheckPoint, strict=False).decode
_acknowledgement = msgspec.json.Decoder(Acknowledgement, strict=False).decode
_LONG_NAMES: Final = {
    "ackOffset": "ao",
    "ackOffsetList": "aol",
    "brokerName": "bn",
    "cId": "c",
    "cid": "c",
    "consumerGroup": "c",
    "popTime": "pt",
    "queueId": "q",
    "startOffset": "so",
    "topic": "t",
}


def read(record: Record) -> CheckPoint | Acknowledgement | None:
    """What a record of the revive topic says; ``None`` for a tag that is neither.

    Raises:
        ValueError: the body cannot be read.
    """
    tag = find_property(record.properties, b"TAGS")
    if tag == CHECK_POINT_TAG:
        point = _read(record.body, _check_point, CheckPoint)
        assert isinstance(point, CheckPoint)
        return point
    if tag in (ACK_TAG, BATCH_ACK_TAG):
        ack = _read(record.body, _acknowledgement, Acknowledgement)
        assert isinstance(ack, Acknowledgement)
        return ack
    return None


def _read(body: bytes, decode: Any, shape: type[Any]) -> Any:
    try:
        return decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        loose = lenient_json.loads(body)  # long names, or fastjson's dialect
        if not isinstance(loose, dict):
            raise ValueError("no JSON object") from None
        short = {_LONG_NAMES.get(name, name): value for name, value in loose.items()}
        try:
            return msgspec.convert(short, shape, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None


def came_through_the_wheel(record: Record) -> bool:
    """Whether the timer delivered the record in its turn: after all that was due before it. One
    that was due already when it was written overtakes others that the timer still holds."""
    taken_in = find_property(record.properties, b"TIMER_ENQUEUE_MS")
    return taken_in is not None and taken_in != NEVER_IN_WHEEL


def deliver_ms(record: Record) -> int:
    """When the record was due in the revive topic; 0 without the property."""
    value = find_property(record.properties, b"TIMER_DELIVER_MS") or b""
    return whole_number(value.decode("utf-8", "replace")) or 0
