"""gRPC calls as values: what a method's handler gets, and how it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

OK: Final = 0
CANCELLED: Final = 1
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16


class Message(Protocol):
    """A protobuf message."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802


class Call(Protocol):
    """One call, as its handler sees it. Everything after ``end``, or after the caller left, is
    ignored."""

    @property
    def remote(self) -> tuple[str, int]: ...

    @property
    def local(self) -> tuple[str, int]:
        """The address that the client reached us by."""

    @property
    def metadata(self) -> dict[str, str]:
        """Lower-case names; the last of several values."""

    deadline_s: float | None  # on the monotonic clock
    ended: bool
    cancelled: Callable[[], None] | None  # called once when the caller leaves early

    def field(self, name: str) -> str:
        """A field of the metadata; empty when it is not there."""

    def send(self, *messages: Message | bytes) -> None:
        """Write messages of the response; bytes are encoded already."""

    def end(self, code: int = OK, text: str = "") -> None:
        """End the response with a gRPC status."""

    def answer(self, message: Message | bytes) -> None:
        """The one message of a unary response, and its end; bytes are encoded already."""


class Inbox(Protocol):
    """The other half of a bidirectional call."""

    def received(self, message: Any) -> None: ...

    def half_closed(self) -> None:
        """The caller sends nothing more."""


class Method(NamedTuple):
    """One row of a service. ``handler(call, request)``, or for a bidirectional method
    ``begin(call)``; exactly one of the two is set."""

    parse: Callable[[bytes], Any]
    handler: Callable[[Call, Any], None] | None = None
    begin: Callable[[Call], Inbox] | None = None


_UNITS_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
TIMEOUT_DIGITS_MAX: Final = 8
TIMEOUTS_KNOWN_MAX: Final = 1024
_timeouts: dict[bytes, float] = {}


def parse_timeout(text: str) -> float | None:
    """Seconds of a ``grpc-timeout`` header; ``None`` when it is none."""
    digits, unit = text[:-1], text[-1:]
    if unit not in _UNITS_S or len(digits) > TIMEOUT_DIGITS_MAX:
        return None
    if not (digits.isascii() and digits.isdecimal()):
        return None
    return int(digits) * _UNITS_S[unit]


def known_timeout(raw: bytes) -> float | None:
    """As ``parse_timeout``, remembered: many clients have only few."""
    timeout_s = _timeouts.get(raw)
    if timeout_s is None:
        timeout_s = parse_timeout(raw.decode("latin-1"))
        if timeout_s is not None:
            if len(_timeouts) >= TIMEOUTS_KNOWN_MAX:
                _timeouts.clear()
            _timeouts[raw] = timeout_s
    return timeout_s
