"""Ext fields of the requests of POP consumption (``PopMessageRequestHeader`` and its siblings).

Their codes do not fit 16 bits: clients with binary headers send them cut (see ``headers``).
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import field

from firearrow.protocol.remoting.command import Fields, NoFields

POP_MESSAGE: Final = 200050
ACK_MESSAGE: Final = 200051
PEEK_MESSAGE: Final = 200052
CHANGE_MESSAGE_INVISIBLE_TIME: Final = 200053
NOTIFICATION: Final = 200054
POLLING_INFO: Final = 200055
BATCH_ACK_MESSAGE: Final = 200151
QUERY_ASSIGNMENT: Final = 400
SET_MESSAGE_REQUEST_MODE: Final = 401


class PopMessage(Fields):
    """POP_MESSAGE (200050). A negative ``queue_id`` is every queue; times in ms."""

    consumer_group: str
    topic: str
    queue_id: int
    max_messages: int = field(name="maxMsgNums")
    invisible_ms: int = field(name="invisibleTime")
    poll_ms: int = field(name="pollTime")
    born_ms: int = field(default=0, name="bornTime")
    init_mode: int = 0
    expression_type: str | None = field(default=None, name="expType")
    expression: str | None = field(default=None, name="exp")
    order: bool = False
    attempt_id: str | None = None
    # In a request that comes from this process: takes what was popped, in the place of an answer.
    found: Any = field(default=None, name="-found")


class AckMessage(Fields):
    """ACK_MESSAGE (200051). ``topic`` is the one that the message was read from."""

    consumer_group: str
    topic: str
    queue_id: int
    extra_info: str
    offset: int
    lite_topic: str | None = None
    # In a request that comes from this process: the handle as a value, with no ``extra_info``.
    handle: Any = field(default=None, name="-handle")


class ChangeInvisibleTime(Fields):
    """CHANGE_MESSAGE_INVISIBLETIME (200053)."""

    consumer_group: str
    topic: str
    queue_id: int
    extra_info: str
    offset: int
    invisible_ms: int = field(name="invisibleTime")
    lite_topic: str | None = None
    suspend: bool = False  # of a lite topic: this attempt does not count


class PeekMessage(Fields):
    """PEEK_MESSAGE (200052)."""

    consumer_group: str
    topic: str
    queue_id: int
    max_messages: int = field(name="maxMsgNums")


class Notification(Fields):
    """NOTIFICATION (200054)."""

    consumer_group: str
    topic: str
    queue_id: int
    poll_ms: int = field(name="pollTime")
    born_ms: int = field(default=0, name="bornTime")
    order: bool = False
    attempt_id: str | None = None
    expression_type: str | None = field(default=None, name="expType")
    expression: str | None = field(default=None, name="exp")


class PollingInfo(Fields):
    """POLLING_INFO (200055)."""

    consumer_group: str
    topic: str
    queue_id: int


POP_REQUESTS: Final[dict[int, tuple[str, type[Fields]]]] = {
    POP_MESSAGE: ("POP_MESSAGE", PopMessage),
    ACK_MESSAGE: ("ACK_MESSAGE", AckMessage),
    PEEK_MESSAGE: ("PEEK_MESSAGE", PeekMessage),
    CHANGE_MESSAGE_INVISIBLE_TIME: ("CHANGE_MESSAGE_INVISIBLETIME", ChangeInvisibleTime),
    NOTIFICATION: ("NOTIFICATION", Notification),
    POLLING_INFO: ("POLLING_INFO", PollingInfo),
    BATCH_ACK_MESSAGE: ("BATCH_ACK_MESSAGE", NoFields),
    QUERY_ASSIGNMENT: ("QUERY_ASSIGNMENT", NoFields),
    SET_MESSAGE_REQUEST_MODE: ("SET_MESSAGE_REQUEST_MODE", NoFields),
}
