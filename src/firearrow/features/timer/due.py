"""When a timed message is due: the properties that say so, and what is refused (``HookUtils``)."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from firearrow.codec.numbers import whole_number
from firearrow.codec.properties import find_property

# In order of precedence: property, what to add to it now, factor to ms.
_DELAY_SEC: Final = b"TIMER_DELAY_SEC"
_DELAY_MS: Final = b"TIMER_DELAY_MS"
_DELIVER_MS: Final = b"TIMER_DELIVER_MS"
_NAMES: Final = (_DELAY_SEC, _DELAY_MS, _DELIVER_MS)
MARKS: Final = tuple(name + b"\x01" for name in _NAMES)
_MARKED: Final = tuple(zip(_NAMES, MARKS, strict=True))
TIMER_PROPERTIES: Final = ("TIMER_DELAY_SEC", "TIMER_DELAY_MS", "TIMER_DELIVER_MS")
PRECISIONS_MS: Final = (100, 200, 500, 1000)


class TimerSettings(Protocol):
    timer_max_delay_sec: int
    timer_precision_ms: int
    timer_wheel_enable: bool


class Due(NamedTuple):
    """``slot_ms`` is the tick after which the message is delivered; 0: it is due already."""

    slot_ms: int
    refusal: str = ""


def precision_ms(settings: TimerSettings) -> int:
    """One tick; RocketMQ knows four lengths and takes a second for every other."""
    wanted = settings.timer_precision_ms
    return wanted if wanted in PRECISIONS_MS else 1000


def due(properties: bytes, now_ms: int, settings: TimerSettings) -> Due | None:
    """The tick of a message with a timer property, or why it is refused; ``None`` without one."""
    found = _timer_property(properties)
    if found is None:
        return None
    at_ms = _deliver_ms(*found, now_ms)
    if at_ms is None:
        return Due(0, "its timer property is no whole number")
    return due_at(at_ms, now_ms, settings)


def due_at(at_ms: int, now_ms: int, settings: TimerSettings) -> Due:
    """The tick of a message that is timed for ``at_ms``, or why it is refused."""
    if at_ms <= now_ms:
        return Due(0)
    if at_ms - now_ms > settings.timer_max_delay_sec * 1000:
        return Due(
            0,
            f"it is due in {(at_ms - now_ms) // 1000} s, "
            f"timerMaxDelaySec is {settings.timer_max_delay_sec}",
        )
    tick = precision_ms(settings)
    return Due(at_ms - tick if at_ms % tick == 0 else at_ms // tick * tick)


def _timer_property(properties: bytes) -> tuple[bytes, bytes] | None:
    """Name and value of the one that counts."""
    for name, mark in _MARKED:
        if mark in properties:
            value = find_property(properties, name)
            if value is not None:
                return name, value
    return None


def _deliver_ms(name: bytes, value: bytes, now_ms: int) -> int | None:
    number = _number(value)
    if number is None or name == _DELIVER_MS:
        return number
    return now_ms + (number * 1000 if name == _DELAY_SEC else number)


def _number(text: bytes) -> int | None:
    return whole_number(text.decode("utf-8", "replace"))


def has_delay_level(properties: bytes) -> bool:
    """Whether a delay level goes before every timer property."""
    value = find_property(properties, b"DELAY")
    return value is not None and (_number(value) or 0) > 0
