"""Receipt handles: which message of which pop; clients take them as they are (``ReceiptHandle``).

The text is the broker's own handle (``POP_CK``), the commit log offset and, where it has one, the
message's lite topic: not every client tells it when it acknowledges.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from firearrow.features.pop.handles import (
    Handle,
    HandleError,
    parse_handle,
    stored_topic,
)
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.proxy.refusal import Refusal

_FIELDS = 9
POPS_KNOWN_MAX: Final = 1024


class Receipt(NamedTuple):
    """A popped message. ``physical_offset`` is -1 when the text does not say it."""

    handle: Handle
    physical_offset: int
    lite_topic: str = ""

    @property
    def key(self) -> tuple[str, str, int, int]:
        """The same for every handle of one message in one queue."""
        handle = self.handle
        return handle.broker_name, handle.retry_flag, handle.queue_id, handle.offset

    def text(self) -> str:
        text = f"{self.handle.text()} {self.physical_offset}"
        return f"{text} {self.lite_topic}" if self.lite_topic else text

    def visible_ms(self) -> int:
        """When the message becomes visible again."""
        return self.handle.pop_ms + self.handle.invisible_ms

    def topic(self, topic: str, group: str) -> str:
        """The topic that the message was read from.

        Raises:
            Refusal: the handle is of no topic.
        """
        try:
            return stored_topic(topic, group, self.handle.retry_flag)
        except HandleError as error:
            raise Refusal(v2.INVALID_RECEIPT_HANDLE, str(error)) from None


def parse_receipt(text: str) -> Receipt:
    """Read a handle.

    Raises:
        Refusal: it cannot be read.
    """
    # What messages of one pop and queue have in common is read once.
    pieces = text.rsplit(" ", 2)
    if len(pieces) == 3:
        common, offset, physical = pieces
        known = _common(common)
        if known is not None and _plain(offset) and _plain(physical):
            return Receipt(Handle(*known, int(offset)), int(physical))
    fields = text.split(" ")
    try:
        if len(fields) < _FIELDS - 1:
            raise HandleError(f"the receipt handle has {len(fields)} fields, not {_FIELDS}")
        handle = parse_handle(text)
        physical_offset = int(fields[_FIELDS - 1]) if len(fields) >= _FIELDS else -1
    except ValueError as error:
        raise Refusal(v2.INVALID_RECEIPT_HANDLE, str(error)) from None
    return Receipt(handle, physical_offset, fields[_FIELDS] if len(fields) > _FIELDS else "")


def _plain(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) < 19


@lru_cache(maxsize=POPS_KNOWN_MAX)
def _common(text: str) -> tuple[int, int, int, int, str, str, int] | None:
    """A handle up to its queue; ``None`` where it is anything else."""
    if text.count(" ") != _FIELDS - 3:
        return None
    try:
        handle = parse_handle(text)
    except HandleError:
        return None
    return (
        handle.start_offset,
        handle.pop_ms,
        handle.invisible_ms,
        handle.revive_queue,
        handle.retry_flag,
        handle.broker_name,
        handle.queue_id,
    )


def unexpired(receipt: Receipt, now_ms: int) -> None:
    """Refuse a handle whose message is visible again.

    Raises:
        Refusal: INVALID_RECEIPT_HANDLE.
    """
    if receipt.visible_ms() <= now_ms:
        raise Refusal(v2.INVALID_RECEIPT_HANDLE, "receipt handle is expired")
