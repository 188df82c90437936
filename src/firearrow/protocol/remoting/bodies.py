"""JSON bodies in the exact shapes that clients of every version read (remoting.md section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

_encode = msgspec.json.Encoder().encode

# Clients from this version on (4.9.4) read quoted integer keys; older Go clients only bare ones.
STANDARD_JSON_SINCE: Final = 401


def encode(value: Any) -> bytes:
    """Compact standard JSON."""
    return _encode(value)


def broker_addresses(addresses: Mapping[int, str], *, quoted: bool) -> bytes:
    """``{"0":"host:port"}``, or with bare keys. No blanks: Go cuts the text by position."""
    quote = b'"' if quoted else b""
    return (
        b"{"
        + b",".join(
            quote + str(broker_id).encode() + quote + b":" + _encode(address)
            for broker_id, address in sorted(addresses.items())
        )
        + b"}"
    )


def queue_key(broker: str, queue_id: int, topic: str) -> bytes:
    """A ``MessageQueue`` as a map key: the object itself, which fastjson reads and Go cuts out."""
    return _encode({"brokerName": broker, "queueId": queue_id, "topic": topic})


def queue_map(entries: Iterable[tuple[bytes, Any]]) -> bytes:
    """A map keyed by queues: ``{{...}:value,{...}:value}``."""
    return b"{" + b",".join(key + b":" + _encode(value) for key, value in entries) + b"}"


def int_map(entries: Mapping[int, Any]) -> bytes:
    """A map with numbers as keys, as fastjson writes it: ``{0:value,1:value}``."""
    return (
        b"{" + b",".join(b"%d:%s" % (key, _encode(entries[key])) for key in sorted(entries)) + b"}"
    )


def topic_list(topics: Iterable[str], broker_address: str | None = None) -> bytes:
    """``TopicList``."""
    body: dict[str, Any] = {}
    if broker_address:
        body["brokerAddr"] = broker_address
    body["topicList"] = list(topics)
    return _encode(body)


def kv_table(table: Mapping[str, str]) -> bytes:
    """``KVTable``."""
    return _encode({"table": dict(table)})


def properties_text(properties: Mapping[str, Any]) -> bytes:
    """Java properties as configuration requests carry them: ``key=value`` lines."""
    return "".join(f"{key}={_property(value)}\n" for key, value in properties.items()).encode()


def _property(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def parse_properties_text(data: bytes) -> dict[str, str]:
    """The reverse; comments and lines without a key are left out."""
    found = {}
    for line in data.decode("utf-8", "replace").splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and key.strip() and not key.startswith("#"):
            found[key.strip()] = value.strip()
    return found
