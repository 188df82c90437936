"""Recall handles: what a producer keeps to take a timed message back (``RecallMessageHandle``).

URL-safe Base64 of "v1 <topic> <broker name> <slot + 1, ms> <unique key>"
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

TOMBSTONE_TAG: Final = "_RECALL_TAG_"
DELETE_KEY: Final = "TIMER_DEL_UNIQKEY"


class Handle(NamedTuple):
    """``deliver_ms`` is in the tick of the message that is to be taken back."""

    topic: str
    broker_name: str
    deliver_ms: str
    unique_key: str


class HandleError(ValueError):
    """The text is no handle; the words are RocketMQ's."""


def encode_handle(handle: Handle) -> str:
    return base64.urlsafe_b64encode(" ".join(("v1", *handle)).encode()).decode()


def decode_handle(text: str) -> Handle:
    """Read a handle.

    Raises:
        HandleError: it is empty, no Base64, or has other parts.
    """
    if not text:
        raise HandleError("recall handle is invalid")
    try:
        plain = base64.b64decode(text.encode().ljust(-(-len(text) // 4) * 4, b"="), b"-_", True)
        parts = plain.decode().split(" ")
    except (binascii.Error, UnicodeError, ValueError):
        raise HandleError("recall handle is invalid") from None
    if len(parts) < 5 or parts[0] != "v1":
        raise HandleError("recall handle is invalid")
    return Handle(*parts[1:5])


def delete_key(topic: str, unique_key: str) -> str:
    """What a tombstone names its message by (``TimerMessageStore.buildDeleteKey``)."""
    return f"{topic}+{unique_key}"
