"""How much to measure, and the rounds in which two servers take turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.generator import Load
from bench.servers import Ports

SHAPES: Mapping[str, dict[str, int]] = {
    "1x1": {"connections": 1, "inflight": 1},
    "32x1": {"connections": 32, "inflight": 1},
    "8x64": {"connections": 8, "inflight": 64},
}
REST_SECONDS_MAX = 8.0
REST_LOOK_S = 0.25
REST_TICKS_MAX = 4  # in that time, of 25 a processor
ROUND_WARM_UP_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long."""

    ports: Ports
    rounds: int
    seconds: float  # of one round
    java_warm_up_s: float
    scale: float = 1.0  # of everything that is counted rather than timed

    @property
    def server_core(self) -> str | None:
        """For runs with the server on one core and the generator on another."""
        return "0" if (os.cpu_count() or 1) > 1 else None

    @property
    def generator_core(self) -> str | None:
        return "1" if (os.cpu_count() or 1) > 1 else None

    def count(self, number: int) -> int:
        return max(1, round(number * self.scale))

    def send(self, shape: str, size: int, **more: Any) -> dict[str, Any]:
        """Options of the generator for one round of sends."""
        timing = {"seconds": self.seconds, "warmup": ROUND_WARM_UP_S}
        return {**SHAPES[shape], **timing, "size": size, **more}


def in_turns(rounds: int, runners: Sequence[Callable[[], Load]]) -> list[list[Load]]:
    """Run each in every round, the first one last in every second round: machines drift, and a
    ratio is only as good as what both sides had in common. In between the machine comes to rest: a
    server that still indexes and flushes what it took would slow the other one down."""
    loads: list[list[Load]] = [[] for _ in runners]
    for turn in range(rounds):
        order = list(enumerate(runners))
        for index, runner in order if turn % 2 == 0 else reversed(order):
            loads[index].append(runner())
            _rest()
    return loads


def _rest() -> None:
    """Until the machine does next to nothing, as far as it can be seen."""
    deadline = time.monotonic() + REST_SECONDS_MAX
    before = _busy_ticks()
    while time.monotonic() < deadline:
        time.sleep(REST_LOOK_S)
        after = _busy_ticks()
        if after is None or before is None or after - before <= REST_TICKS_MAX:
            return
        before = after


def _busy_ticks() -> int | None:
    """Hundredths of a second that processors worked, since the start (Linux)."""
    try:
        with Path("/proc/stat").open() as file:
            user, nice, system = file.readline().split()[1:4]
    except OSError:
        return None
    return int(user) + int(nice) + int(system)
