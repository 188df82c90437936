"""Requests and replies as values (remoting.md 1.2).

A request is decoded straight into ``Request[F]``: ``F`` is the struct of the code's ext fields, so
that a handler reads typed attributes. A reply is a small value; the session encodes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

# What we say we are: RocketMQ 5.5.0. Clients compare it (remoting.md 1.6): a push consumer refuses
# SQL92 filters below 232, and a name server reads a registration body by it.
VERSION: Final = 513
VERSION_NAME: Final = "V5_5_0"
LANGUAGE: Final = "PYTHON"

FLAG_RESPONSE: Final = 1
FLAG_ONE_WAY: Final = 2

F = TypeVar("F")


class Caller(Protocol):
    """The connection a request came over, as handlers see it: who it is, and calls back to it."""

    remote: tuple[str, int]
    remote_packed: bytes  # as a record stores it: address + i4 port
    local: tuple[str, int]

    @property
    def closed(self) -> bool: ...

    def send(self, data: bytes) -> None:
        """Write whole frames, mostly one."""

    def close(self, reason: str) -> None: ...

    def notify(self, code: int, ext: dict[str, str] | None, body: bytes = b"") -> None:
        """Send a one-way request."""

    def call(
        self,
        code: int,
        ext: dict[str, str] | None,
        body: bytes,
        timeout_s: float,
        done: Callable[[Any, bytes], None],
    ) -> None:
        """Send a request; ``done(header, body)``, or ``done(None, b"")`` when no answer came."""


class Fields(msgspec.Struct, rename="camel", gc=False):
    """Base of the ext fields of a request code: snake case here, camel case on the wire."""


class NoFields(Fields):
    """A request without ext fields."""


class Request(msgspec.Struct, Generic[F], gc=False):
    """One decoded request. ``peer`` and ``body`` are filled in by the session after decoding."""

    code: int
    flag: int = 0
    opaque: int = 0
    version: int = 0
    language: Any = "JAVA"  # a name; an ordinal in binary headers
    fields: F = msgspec.field(default=None, name="extFields")  # type: ignore[assignment]
    body: bytes = msgspec.field(default=b"", name="-body")
    peer: Caller = msgspec.field(default=None, name="-peer")  # type: ignore[assignment]
    header: bytes = msgspec.field(default=b"", name="-header")  # as received, to read it again

    @property
    def one_way(self) -> bool:
        return bool(self.flag & FLAG_ONE_WAY)


class Reply(msgspec.Struct, gc=False):
    """What a handler answers. Ext values are strings: C++ and Go read nothing else."""

    code: int = 0
    remark: str | None = None
    ext: dict[str, str] | None = None
    body: bytes = b""


# ``bytes``: a whole encoded frame; ``None``: answered later by ``answer`` (or never, when one-way).
Answer = Reply | bytes | None
Handler = Callable[[Request[Any]], Answer]
