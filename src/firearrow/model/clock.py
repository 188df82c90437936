"""Time as a parameter: the same code runs on the real clock and on one that a test moves."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A pending call; cancelling twice, or after it ran, is harmless."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What a room may know of time."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch. It may jump: not for timeouts."""

    def monotonic(self) -> float:
        """Seconds that only grow."""

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call on the loop after ``delay_s`` seconds."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object:
        """Call on the loop after what runs now has returned."""


class _VirtualTimer:
    __slots__ = ("args", "callback", "cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    """A clock that stands still until a test moves it; timers run in order of their due time."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = start_ms
        self._elapsed_s = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _VirtualTimer]] = []

    def now_ms(self) -> int:
        return self._start_ms + round(self._elapsed_s * 1000)

    def monotonic(self) -> float:
        return self._elapsed_s

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = _VirtualTimer(callback, args)
        due = self._elapsed_s + max(0.0, delay_s)
        heapq.heappush(self._timers, (due, next(self._order), timer))
        return timer

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Timer:
        return self.call_later(0.0, callback, *args)

    def advance(self, seconds: float = 0.0) -> None:
        """Move time forward and run everything that falls due, in order."""
        target = self._elapsed_s + seconds
        while self._timers and self._timers[0][0] <= target + 1e-9:
            due, _, timer = heapq.heappop(self._timers)
            self._elapsed_s = max(self._elapsed_s, due)
            if not timer.cancelled:
                timer.callback(*timer.args)
        self._elapsed_s = target

    def jump_wall_clock(self, milliseconds: int) -> None:
        """Shift the wall clock only, as an operator or NTP would."""
        self._start_ms += milliseconds


def is_cleaning_hour(delete_when: str, now_ms: int) -> bool:
    """Whether the local hour is one of ``deleteWhen`` (hours separated by semicolons)."""
    hour = time.localtime(now_ms / 1000).tm_hour
    return any(part.strip().isdigit() and int(part) == hour for part in delete_when.split(";"))
