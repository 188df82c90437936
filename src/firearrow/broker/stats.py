"""Counts and rates: totals, rates over 10, 60 and 600 s, and per-key counters (behaviour.md 20)."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from firearrow.model.clock import Clock

SAMPLE_S: Final = 1.0
SAMPLES: Final = 601  # ten minutes and the one before


class Totals(NamedTuple):
    """Everything counted since the start."""

    at_s: float
    put: int
    found: int  # pulls that found something
    missed: int  # pulls that found nothing
    transferred: int  # messages handed out


class BrokerStats:
    """Plain integers on the hot path; what is shown is computed when asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started_ms = clock.now_ms()
        self.put = 0
        self.put_bytes = 0
        self.refused = 0
        self.found = 0
        self.missed = 0
        self.transferred = 0
        self.by_topic: dict[str, list[int]] = {}  # messages and bytes stored
        self.by_group: dict[tuple[str, str], list[int]] = {}  # messages and bytes handed out
        self.sent_back: dict[tuple[str, str], int] = {}
        self._samples: deque[Totals] = deque(maxlen=SAMPLES)

    def start(self) -> None:
        self._samples.append(self.totals())
        self._clock.call_later(SAMPLE_S, self.start)

    def totals(self) -> Totals:
        return Totals(self._clock.monotonic(), self.put, self.found, self.missed, self.transferred)

    def stored(self, topic: str, count: int, size: int) -> None:
        self.put += count
        self.put_bytes += size
        counters = self.by_topic.get(topic)
        if counters is None:
            counters = self.by_topic[topic] = [0, 0]
        counters[0] += count
        counters[1] += size

    def delivered(self, topic: str, group: str, count: int, size: int) -> None:
        self.found += 1
        self.transferred += count
        counters = self.by_group.get((topic, group))
        if counters is None:
            counters = self.by_group[topic, group] = [0, 0]
        counters[0] += count
        counters[1] += size

    def rates(self) -> dict[str, str]:
        """Three numbers each, over 10, 60 and 600 s, as GET_BROKER_RUNTIME_INFO shows them."""
        now = self.totals()
        spans = [self._since(now, seconds) for seconds in (10, 60, 600)]

        def show(pick: int) -> str:
            return " ".join(
                str((now[pick] - then[pick]) / max(now.at_s - then.at_s, 1e-3)) for then in spans
            )

        total = " ".join(
            str(
                (now.found + now.missed - then.found - then.missed)
                / max(now.at_s - then.at_s, 1e-3)
            )
            for then in spans
        )
        return {
            "putTps": show(1),
            "getFoundTps": show(2),
            "getMissTps": show(3),
            "getTotalTps": total,
            "getTransferredTps": show(4),
        }

    def _since(self, now: Totals, seconds: int) -> Totals:
        for sample in reversed(self._samples):
            if now.at_s - sample.at_s >= seconds:
                return sample
        return self._samples[0] if self._samples else now
