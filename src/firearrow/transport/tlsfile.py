"""RocketMQ's file of TLS settings (``tls.config.file``, read there by ``TlsHelper``)."""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar

from firearrow import config_file
from firearrow.codec.java_properties import Property
from firearrow.config_values import ConfigError
from firearrow.transport.tls import ClientAuth, TlsMode, TlsPolicy

E = TypeVar("E", bound=Enum)

# Whoever shows a certificate is checked here, whatever authClient says; what this process connects
# to it speaks plain with.
WITHOUT_EFFECT: Final = re.compile(r"tls\.client\..*|tls\.server\.authClient")


def read(path: str) -> tuple[TlsPolicy, list[str]]:
    """The policy of a file, and warnings about keys that are not known.

    Raises:
        ConfigError: it cannot be read, or has a value that its key cannot have.
    """
    found: dict[str, Any] = {}

    def take(setting: Property) -> bool:
        if setting.key not in _KEYS:
            return False
        name, kind = _KEYS[setting.key]
        found[name] = kind(setting.value)
        return True

    warnings = config_file.take_all(config_file.read(path), path, take, [*_KEYS], WITHOUT_EFFECT)
    return dataclasses.replace(TlsPolicy(), **found), warnings


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError(f"{text} must be true or false")
    return text.lower() == "true"


def _mode(text: str) -> TlsMode:
    return _one_of(TlsMode, text)


def _client_auth(text: str) -> ClientAuth:
    return _one_of(ClientAuth, text)


def _one_of(kind: type[E], text: str) -> E:
    try:
        return kind(text.lower())
    except ValueError:
        allowed = ", ".join(str(member.value) for member in kind)
        raise ConfigError(f"{text} must be one of {allowed}") from None


# Key -> field of TlsPolicy, and what makes its value.
_KEYS: Final[dict[str, tuple[str, Any]]] = {
    "tls.server.mode": ("mode", _mode),
    "tls.test.mode.enable": ("test_certificate", _boolean),
    "tls.server.certPath": ("certificate", _path),
    "tls.server.keyPath": ("key", _path),
    "tls.server.keyPassword": ("key_password", str),
    "tls.server.need.client.auth": ("client_auth", _client_auth),
    "tls.server.trustCertPath": ("trust", _path),
}
