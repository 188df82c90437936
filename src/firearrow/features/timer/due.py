"""When a timed message is due: the properties that say so, and what is refused (``HookUtils``)."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from firearrow.codec.numbers import whole_number
from firearrow.codec.properties import find_property

# In order of precedence: property, what to add to it now, factor to ms.
_DELAY_SEC: Final = b"TIMER_DELAY_SEC"
_DELAY_MS: Final = b"TIMER_DELAY_MS"
_DELIVER_MS: Final = b"TIMER_DELIVER_MS"
MARKS: Final = tuple(name + b"\x01" for name in (_DELAY_SEC, _DELAY_MS, _DELIVER_MS))
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


def due(properties: bytes, now_ms: int, settings: TimerSettings) -> Due:
    """The tick of a message with a timer property, or why it is refused."""
    at_ms = _deliver_ms(properties, now_ms)
    if at_ms is None:
        return Due(0, "its timer property is no whole number")
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


def _deliver_ms(properties: bytes, now_ms: int) -> int | None:
    seconds = find_property(properties, _DELAY_SEC)
    if seconds is not None:
        value = _number(seconds)
        return None if value is None else now_ms + value * 1000
    milliseconds = find_property(properties, _DELAY_MS)
    if milliseconds is not None:
        value = _number(milliseconds)
        return None if value is None else now_ms + value
    return _number(find_property(properties, _DELIVER_MS) or b"")


def _number(text: bytes) -> int | None:
    return whole_number(text.decode("utf-8", "replace"))


def has_delay_level(properties: bytes) -> bool:
    """Whether a delay level goes before every timer property."""
    value = find_property(properties, b"DELAY")
    return value is not None and (_number(value) or 0) > 0
