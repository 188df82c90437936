"""The texts by which clients name popped messages (``ExtraInfoUtil``): pure strings.

A receipt handle is the property POP_CK: ``startOffset popTime invisibleTime reviveQueue retryFlag
broker queueId [offset]``. Answers list their messages as entries ``retryFlag queueId ...``
separated by semicolons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from firearrow.codec.numbers import whole_number
from firearrow.model import names

ORDER_REVIVE_QUEUE: Final = 999  # marks an ordered pop, which has no check point

NORMAL, RETRY_V1, RETRY_V2 = "0", "1", "2"  # where a message was read


class HandleError(ValueError):
    """The text is no receipt handle; the message says what is wrong with it."""


class Handle(msgspec.Struct, frozen=True, gc=False):
    """A receipt handle. ``offset`` is -1 in handles of old clients."""

    start_offset: int
    pop_ms: int
    invisible_ms: int
    revive_queue: int
    retry_flag: str
    broker_name: str
    queue_id: int = -1
    offset: int = -1

    @property
    def ordered(self) -> bool:
        return self.revive_queue == ORDER_REVIVE_QUEUE

    def text(self) -> str:
        return (
            f"{self.start_offset} {self.pop_ms} {self.invisible_ms} {self.revive_queue} "
            f"{self.retry_flag} {self.broker_name} {self.queue_id} {self.offset}"
        )


def parse_handle(text: str, queue_id: int | None = None) -> Handle:
    """Read a handle; what follows the eighth field is ignored. ``queue_id`` goes before its own,
    which old clients do not write.

    Raises:
        HandleError: fewer than six fields, or text where a number belongs.
    """
    fields = text.split(" ")
    if len(fields) < 6:
        raise HandleError(f"the receipt handle {_shown(text)} has {len(fields)} fields, not 8")
    return Handle(
        _number(text, fields[0]),
        _number(text, fields[1]),
        _number(text, fields[2]),
        _number(text, fields[3]),
        fields[4],
        fields[5],
        queue_id if queue_id is not None else _number(text, fields[6]) if fields[6:] else -1,
        _number(text, fields[7]) if fields[7:] else -1,
    )


def _number(text: str, field: str) -> int:
    if field.isdecimal() and field.isascii() and len(field) < 19:  # nearly always
        return int(field)
    value = whole_number(field)
    if value is None:
        raise HandleError(f"the receipt handle {_shown(text)} has {field[:24]!r} for a number")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:120] + "...")


def retry_flag(topic: str) -> str:
    """Where a message of this stored topic was read, as handles say it."""
    if not topic.startswith(names.RETRY_PREFIX):
        return NORMAL
    return RETRY_V2 if "+" in topic else RETRY_V1


def stored_topic(topic: str, group: str, flag: str) -> str:
    """The topic that a message with this retry flag was read from.

    Raises:
        HandleError: an unknown flag.
    """
    if flag == NORMAL:
        return topic
    if flag in (RETRY_V1, RETRY_V2):
        return names.pop_retry_topic(group, topic, v2=flag == RETRY_V2)
    raise HandleError(f"the retry flag {flag[:24]!r} is none of 0, 1 and 2")


def offsets_entry(flag: str, queue_id: int, offsets: Iterable[int]) -> str:
    """One entry of ``msgOffsetInfo``."""
    return f"{flag} {queue_id} {','.join(map(str, offsets))}"


def order_counts(flag: str, queue_id: int, count: int, consumed: Mapping[int, int]) -> str:
    """``orderCountInfo`` of one queue: how often each message was handed out before.

    ``consumed`` has only offsets with a count above zero. The last entry is for old clients,
    which know one count for the whole queue.
    """
    entries = [f"{flag} qo{queue_id}%{offset} {times}" for offset, times in consumed.items()]
    least = min(consumed.values()) if len(consumed) == count and consumed else 0
    return ";".join([*entries, f"{flag} {queue_id} {least}"])
