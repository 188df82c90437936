"""How much to measure, and the rounds in which two servers take turns."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.generator import Load
from bench.servers import Ports

SHAPES: Mapping[str, dict[str, int]] = {
    "1x1": {"connections": 1, "inflight": 1},
    "32x1": {"connections": 32, "inflight": 1},
    "8x64": {"connections": 8, "inflight": 64},
}
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
    ratio is only as good as what both sides had in common."""
    loads: list[list[Load]] = [[] for _ in runners]
    for turn in range(rounds):
        order = list(enumerate(runners))
        for index, runner in order if turn % 2 == 0 else reversed(order):
            loads[index].append(runner())
    return loads
