"""Records of the timer topic: what is read of them, and the messages that they become again."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Final, NamedTuple

from firearrow.codec.hashes import java_hash
from firearrow.codec.numbers import INT32_MAX, whole_number
from firearrow.codec.properties import format_properties, parse_properties
from firearrow.codec.record import Record, RecordError, decode_record
from firearrow.model.message import Message, stored_again

log = logging.getLogger(__name__)

END_BYTES_MAX: Final = 512  # of what is remembered
_OUT_MARK: Final = b"\x02TIMER_OUT_MS\x01"


class Timing(NamedTuple):
    """When a message comes, and where to. ``out_ms`` is ``None`` when it does not say."""

    out_ms: int | None
    topic: str
    topic_hash: int


def timing(properties: bytes) -> Timing:
    """Read of properties what the timer wrote. It stands at their end, where it is mostly the same
    as that of the message before."""
    end = properties[properties.rfind(_OUT_MARK) + 1 :]
    if len(end) <= END_BYTES_MAX:
        found = _known_timing(end)
        if found.topic:
            return found
    return _read_timing(properties)


def _read_timing(properties: bytes) -> Timing:
    values = parse_properties(properties)
    topic = values.get("REAL_TOPIC", "")
    return Timing(whole_number(values.get("TIMER_OUT_MS", "")), topic, java_hash(topic))


_known_timing = lru_cache(maxsize=1024)(_read_timing)


def readable(data: bytes | None, physical_offset: int) -> Record | None:
    """``None`` for a record that retention removed, or that is damaged."""
    try:
        return decode_record(data) if data is not None else None
    except RecordError as error:
        log.error(
            "the timed message at %d of the commit log is unreadable (%s) and not delivered; check "
            "the disk",
            physical_offset,
            error,
        )
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
    return stored_again(record, topic, number, format_properties(properties))
