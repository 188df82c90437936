"""How many messages go through the proxy."""

from __future__ import annotations

from collections import deque
from typing import Final

from firearrow.model.clock import Clock

SAMPLE_S: Final = 10.0
WINDOW_S: Final = 60.0  # what a rate is the mean of, or less after a start


class Flow:
    """Counts of messages: ``taken`` from producers, and ``given`` to consumers."""

    def __init__(self, clock: Clock) -> None:
        self.taken = self.given = 0
        self._clock = clock
        self._samples = deque([(clock.monotonic(), 0, 0)], maxlen=round(WINDOW_S / SAMPLE_S))
        self._running = False

    def start(self) -> None:
        self._running = True
        self._clock.call_later(SAMPLE_S, self._sample)

    def stop(self) -> None:
        self._running = False

    def _sample(self) -> None:
        if self._running:
            self._samples.append((self._clock.monotonic(), self.taken, self.given))
            self._clock.call_later(SAMPLE_S, self._sample)

    def per_second(self) -> tuple[float, float]:
        """Messages taken and given in a second."""
        since_s, taken, given = self._samples[0]
        seconds = max(1.0, self._clock.monotonic() - since_s)
        return (self.taken - taken) / seconds, (self.given - given) / seconds
