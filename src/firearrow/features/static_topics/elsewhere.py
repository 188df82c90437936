"""Asking other brokers about their parts of a static topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from firearrow.broker.siblings import Siblings
from firearrow.features.static_topics.mapping import Item
from firearrow.model import codes
from firearrow.protocol.remoting.command import Fields, Reply
from firearrow.protocol.remoting.headers import Header


class ForwardSettings(Protocol):
    broker_name: str
    forward_timeout: int


# The answer's ext fields and body; or what to tell the client that waits.
Told = Callable[[int, dict[str, Any], bytes], None]
Failed = Callable[[Reply], None]


class Elsewhere:
    """Requests with ``lo=false``: queue and offset are those of the asked broker's store."""

    def __init__(self, settings: ForwardSettings, siblings: Siblings) -> None:
        self._settings = settings
        self._siblings = siblings

    def is_here(self, item: Item) -> bool:
        return item.bname == self._settings.broker_name

    def ask(
        self,
        broker: str,
        code: int,
        fields: Fields,
        told: Told,
        failed: Failed,
        *expected: int,
        logical: bool = False,
    ) -> None:
        """Ask a broker; ``told(code, ext, body)`` for an answer with one of the ``expected`` codes
        (or 0), ``failed`` else, with what becomes of the request that waits for it. ``logical``:
        as a client does."""

        def answered(header: Header | None, body: bytes, fault: str) -> None:
            if header is None:
                failed(Reply(codes.SYSTEM_ERROR, fault))
            elif header.code != codes.SUCCESS and header.code not in expected:
                remark = f"broker {broker} answers {header.code}: {header.remark}"
                failed(Reply(codes.SYSTEM_ERROR, remark))
            else:
                told(header.code, header.ext or {}, body)

        ext = {**_texts(fields), "lo": str(logical).lower(), "bname": broker}
        timeout_s = self._settings.forward_timeout / 1000
        self._siblings.call(broker, ext["topic"], code, ext, timeout_s, answered)

    def masters_of(self, topic: str, found: Callable[[dict[str, str] | None], None]) -> None:
        self._siblings.masters_of(topic, found)


def offset_in(ext: dict[str, Any]) -> int:
    """The offset that a broker answers; -1 when there is none."""
    value = str(ext.get("offset", ""))
    return int(value) if value.isdigit() else -1


def _texts(fields: Fields) -> dict[str, str]:
    """Ext fields as they stand in a header."""
    values = msgspec.to_builtins(fields)
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in values.items()
        if value is not None
    }
