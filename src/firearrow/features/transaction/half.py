"""A transaction message in each of its forms, as pure functions (``TransactionalMessageBridge``).

A half message is the producer's message in the half topic, its destination in properties. It
becomes the final message (commit), a copy of itself at the end of the half queue (asked about), or
a message of the topic of those that were given up.
"""

from __future__ import annotations

from typing import Final

import msgspec

from firearrow.codec.numbers import INT32_MAX, whole_number
from firearrow.codec.properties import format_properties, parse_properties
from firearrow.codec.record import Record
from firearrow.codec.sysflags import (
    SYS_TRANSACTION_COMMIT,
    SYS_TRANSACTION_MASK,
)
from firearrow.model import names
from firearrow.model.message import Message

HALF_QUEUE: Final = 0  # one queue a broker, for all topics

PREPARED: Final = "TRAN_MSG"
REAL_TOPIC: Final = "REAL_TOPIC"
REAL_QUEUE: Final = "REAL_QID"
PRODUCER_GROUP: Final = "PGROUP"
UNIQUE_KEY: Final = "UNIQ_KEY"
TRANSACTION_ID: Final = "__transactionId__"
CHECK_TIMES: Final = "TRANSACTION_CHECK_TIMES"
IMMUNITY: Final = "CHECK_IMMUNITY_TIME_IN_SECONDS"
# On a copy that was made within the immunity time: the offset that the producer knows.
FIRST_OFFSET: Final = "TRAN_PREPARED_QUEUE_OFFSET"


def is_half(message: Message, properties: dict[str, str]) -> bool:
    """Whether a producer's message starts a transaction. Committed ones carry the mark too, and so
    do their copies in a retry topic."""
    if properties.get(PREPARED, "").lower() != "true":
        return False
    if message.sys_flag & SYS_TRANSACTION_MASK == SYS_TRANSACTION_COMMIT:
        return False
    return not (message.reconsume_times > 0 and _integer(properties.get("DELAY"), 0) > 0)


def half_of(message: Message, properties: dict[str, str]) -> Message:
    """The half message of a producer's message; ``properties`` are its own, and changed."""
    unique_key = properties.get(UNIQUE_KEY)
    if unique_key:
        properties[TRANSACTION_ID] = unique_key
    properties[REAL_TOPIC] = message.topic
    properties[REAL_QUEUE] = str(message.queue_id)
    return msgspec.structs.replace(
        message,
        topic=names.TRANS_HALF_TOPIC,
        queue_id=HALF_QUEUE,
        properties=format_properties(properties),
        sys_flag=message.sys_flag & ~SYS_TRANSACTION_MASK,
    )


class Half(msgspec.Struct, gc=False):
    """A half message read back."""

    record: Record
    properties: dict[str, str]
    topic: str  # the real one
    queue_id: int

    @property
    def offset(self) -> int:
        return self.record.queue_offset

    @property
    def group(self) -> str:
        return self.properties.get(PRODUCER_GROUP, "")

    @property
    def checks(self) -> int:
        """How often a producer was asked about it; -1 for an unreadable count, as in Java."""
        return _integer(self.properties.get(CHECK_TIMES, "0"), -1)


def read_half(record: Record) -> Half | None:
    """``None`` when it is no message of the half topic."""
    return read_any(record) if record.topic == names.TRANS_HALF_TOPIC else None


def read_any(record: Record) -> Half | None:
    """A half message, also one that was given up; ``None`` when it has no destination."""
    properties = parse_properties(record.properties)
    topic, queue_id = properties.get(REAL_TOPIC), properties.get(REAL_QUEUE, "")
    number = whole_number(queue_id, INT32_MAX)
    if topic is None or number is None or number < 0:
        return None
    return Half(record, properties, topic, number)


def final_of(half: Half) -> Message:
    """The message that consumers see. Its property text is the half's: consumers take the
    transaction id from a message whose TRAN_MSG is true."""
    message = _copy(half, half.topic, half.queue_id, half.record.properties)
    message.sys_flag = message.sys_flag & ~SYS_TRANSACTION_MASK | SYS_TRANSACTION_COMMIT
    message.prepared_offset = half.record.physical_offset
    return message


def asked_copy(half: Half) -> Message:
    """The copy whose offsets the producer is told when it is asked."""
    properties = {**half.properties, CHECK_TIMES: str(half.checks + 1)}
    return _copy(half, names.TRANS_HALF_TOPIC, HALF_QUEUE, format_properties(properties))


def immune_copy(half: Half) -> Message:
    """A copy of a message that nobody may be asked about yet: it makes way for those behind it."""
    properties = {**half.properties}
    properties.setdefault(FIRST_OFFSET, str(half.offset))
    return _copy(half, names.TRANS_HALF_TOPIC, HALF_QUEUE, format_properties(properties))


def resumed_copy(half: Half) -> Message:
    """A copy that is asked about from the beginning."""
    properties = {**half.properties, CHECK_TIMES: "0"}
    return _copy(half, names.TRANS_HALF_TOPIC, HALF_QUEUE, format_properties(properties))


def given_up(half: Half) -> Message:
    """The message as it is kept for operators, never delivered."""
    return _copy(half, names.TRANS_CHECK_MAX_TIME_TOPIC, 0, half.record.properties)


def _copy(half: Half, topic: str, queue_id: int, properties: bytes) -> Message:
    record = half.record
    return Message(
        topic=topic,
        queue_id=queue_id,
        body=record.body,
        properties=properties,
        born_timestamp=record.born_timestamp,
        born_host=record.born_host,
        flag=record.flag,
        sys_flag=record.sys_flag,
        reconsume_times=record.reconsume_times,
    )


def immunity_ms(half: Half, timeout_ms: int) -> int | None:
    """How long after its birth nobody is asked about it; ``None`` when the producer does not say.
    An unreadable number of seconds, or -1, is the broker's own time-out."""
    text = half.properties.get(IMMUNITY)
    if text is None:
        return None
    seconds = _integer(text, -1)
    return timeout_ms if seconds == -1 else seconds * 1000


def ended_too_late(half: Half, now_ms: int, timeout_ms: int) -> bool:
    """After the producer's own immunity time only the answer to a check counts."""
    immune = immunity_ms(half, timeout_ms)
    if immune is None:
        return False
    return now_ms - half.record.born_timestamp > max(immune, timeout_ms)


def _integer(text: str | None, otherwise: int) -> int:
    number = whole_number(text or "", INT32_MAX)
    return otherwise if number is None else number
