"""Work that the kernel may block on (flush, create, delete): off the loop, results back on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Background(Protocol):
    """Runs blocking calls elsewhere, in order of submission."""

    def submit(
        self, work: Callable[[], T], done: Callable[[T | None, OSError | None], None]
    ) -> None:
        """Run ``work``; then, on the loop, ``done(result, None)`` or ``done(None, error)``."""

    def finish(self) -> None:
        """Wait for all submitted work, and deliver its results before returning (blocks)."""


class InlineBackground:
    """For tests and tools: work waits until ``run`` is called, or runs at once when ``eager``."""

    def __init__(self, *, eager: bool = True) -> None:
        self.eager = eager
        self._jobs: deque[Callable[[], None]] = deque()

    def submit(
        self, work: Callable[[], T], done: Callable[[T | None, OSError | None], None]
    ) -> None:
        def job() -> None:
            try:
                result = work()
            except OSError as error:
                done(None, error)
            else:
                done(result, None)

        self._jobs.append(job)
        if self.eager and len(self._jobs) == 1:
            self.run()

    def run(self) -> None:
        """Run everything that waits, and what that submits."""
        while self._jobs:
            self._jobs[0]()
            self._jobs.popleft()

    def finish(self) -> None:
        self.run()
