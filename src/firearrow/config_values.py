"""What a setting's text may be: numbers and their bounds, addresses, the texts of some keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from msgspec import Meta

FLUSH_TYPES: Final = ("ASYNC_FLUSH", "SYNC_FLUSH")

# What numbers may be; a plain `int` must not be negative.
Port = Annotated[int, Meta(ge=0, le=65535)]
BrokerPort = Annotated[int, Meta(ge=3, le=65534)]  # the fast port is this minus 2, HA plus 1
Percent = Annotated[int, Meta(ge=1, le=100)]
Positive = Annotated[int, Meta(ge=1)]
Permission = Annotated[int, Meta(ge=0, le=7)]


class ConfigError(ValueError):
    """A setting that cannot be; the text names file, line, key and what is allowed."""


_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}").fullmatch
_HOURS: Final = re.compile(r"([01]?\d|2[0-3])(;([01]?\d|2[0-3]))*").fullmatch
_HOST: Final = re.compile(
    r"[^\s:;/\[\]]+|\[?[0-9a-fA-F.]*:[0-9a-fA-F.]*:[0-9a-fA-F:.]*\]?"
).fullmatch
_LEVELS: Final = re.compile(r"\s*\d{1,9}[smhd](\s+\d{1,9}[smhd])*\s*").fullmatch


def parse_addresses(text: str) -> list[tuple[str, int]]:
    """Hosts and ports of ``host:port;host:port``; IPv6 addresses stand in brackets.

    Raises:
        ConfigError: a part that is neither.
    """
    found = []
    for part in filter(None, map(str.strip, text.split(";"))):
        host, separator, port = part.rpartition(":")
        if not separator or not host or not _HOST(host):
            raise ConfigError(f"{part} is not an address; write host:port;host:port")
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ConfigError(f"{part}: the port must be 1 to 65535")
        found.append((host.strip("[]"), int(port)))
    return found


def _addresses(text: str) -> str:
    try:
        parse_addresses(text)
    except ConfigError as error:
        return str(error)
    return ""


def _one_of(*allowed: str) -> Callable[[str], str]:
    return lambda text: "" if text in allowed else f"must be one of {', '.join(allowed)}"


def _matching(match: Callable[[str], object], what: str) -> Callable[[str], str]:
    return lambda text: "" if match(text) else what


def _role(text: str) -> str:
    if text == "SLAVE":
        return "replication is not served yet; ASYNC_MASTER runs the broker without it"
    return _one_of("ASYNC_MASTER", "SYNC_MASTER")(text)


def _alone(broker_id: int) -> str:
    if broker_id == 0:
        return ""
    return "must be 0: a slave would copy its master, and replication is not served yet"


_named = _matching(str.strip, "must not be empty")
_host = _matching(lambda text: not text or _HOST(text), "must be a host or an address alone")

# What the value of a key must be beside its type: each gives a complaint, or nothing.
CHECKS: Final[dict[str, Callable[[Any], str]]] = {
    "flushDiskType": _one_of(*FLUSH_TYPES),
    "brokerRole": _role,
    "brokerId": _alone,
    "defaultMessageRequestMode": _one_of("PULL", "POP"),
    "brokerName": _named,
    "brokerClusterName": _named,
    "bindAddress": _host,
    "brokerIP1": _host,
    "brokerIP2": _host,
    "namesrvAddr": _addresses,
    "deleteWhen": _matching(_HOURS, "must be hours of the day, such as 04 or 04;16"),
    "messageDelayLevel": _matching(_LEVELS, "must be times such as 10s 5m 2h 1d"),
}


def value_of(kind: Any, text: str) -> Any:
    """The value of a text for a type of this page.

    Raises:
        ConfigError: there is none; the text says what would be one.
    """
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError("must be true or false")
        return text.lower() == "true"
    if not _NUMBER(text):
        raise ConfigError("must be a whole number")
    value = int(text)
    bounds = getattr(kind, "__metadata__", (Meta(ge=0),))[0]
    lowest, highest = 0 if bounds.ge is None else bounds.ge, bounds.le
    if highest is not None and not lowest <= value <= highest:
        raise ConfigError(f"must be {lowest} to {highest}")
    if value < lowest:
        raise ConfigError(f"must be at least {lowest}")
    return value
