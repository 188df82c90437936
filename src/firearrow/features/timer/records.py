"""Records of the timer topic: what is read of them, and the messages that they become again."""

from __future__ import annotations

import logging
from functools import lru_cache

from firearrow.codec.hashes import java_hash
from firearrow.codec.numbers import INT32_MAX, whole_number
from firearrow.codec.properties import format_properties
from firearrow.codec.record import Record, RecordError, decode_record
from firearrow.model.message import Message

log = logging.getLogger(__name__)


@lru_cache(maxsize=1024)
def real_topic(name: bytes | None) -> tuple[str, int]:
    """The topic that a message comes to, and its hash."""
    topic = (name or b"").decode("utf-8", "replace")
    return topic, java_hash(topic)


@lru_cache(maxsize=1024)
def time_of(text: bytes | None) -> int | None:
    """What TIMER_OUT_MS says, where it says anything: mostly the same as the one before."""
    return whole_number((text or b"").decode("utf-8", "replace"))


def readable(data: bytes | None, physical_offset: int) -> Record | None:
    """``None`` for a record that retention removed, or that is damaged."""
    try:
        return decode_record(data) if data is not None else None
    except RecordError as error:
        log.error("a timed message at %d is unreadable and left out: %s", physical_offset, error)
        return None


def message_again(
    record: Record, properties: dict[str, str], enqueue_ms: str, now_ms: int, rolls: bool
) -> Message | None:
    """For its real topic, or for another round; ``None`` without a destination."""
    properties["TIMER_ENQUEUE_MS"] = enqueue_ms
    properties["TIMER_DEQUEUE_MS"] = str(now_ms)
    topic, queue_id = record.topic, str(record.queue_id)
    if rolls:
        times = whole_number(properties.get("TIMER_ROLL_TIMES", "0"), INT32_MAX)
        properties["TIMER_ROLL_TIMES"] = str((times or 0) + 1)
    else:
        topic, queue_id = properties.get("REAL_TOPIC", ""), properties.get("REAL_QID", "")
    number = whole_number(queue_id, INT32_MAX)
    if not topic or number is None or number < 0:
        return None
    # Java keeps REAL_* in what it stores, and consumers may look at them.
    return Message(
        topic=topic,
        queue_id=number,
        body=record.body,
        properties=format_properties(properties),
        born_timestamp=record.born_timestamp,
        born_host=record.born_host,
        store_host=record.store_host,
        flag=record.flag,
        sys_flag=record.sys_flag,
        reconsume_times=record.reconsume_times,
    )
