"""The real clock, the real background thread, and the event loop they belong to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import uvloop

from firearrow.model.clock import Timer

log = logging.getLogger(__name__)

T = TypeVar("T")
_Job = Callable[[], Callable[[], None]]  # runs on the thread; gives what to call on the loop


# How long the loop or the background thread may keep the interpreter (the GIL) while the other one
# waits for it. With the 5 ms of Python a flush began and ended late while the loop was busy.
SWITCH_INTERVAL_S: Final = 1e-4


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program on uvloop until ``main`` returns."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def hand_over_quickly() -> None:
    """For a process in which somebody waits for what the background thread does."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


class LoopClock:
    """``model.clock.Clock`` over the running loop."""

    __slots__ = ("_loop", "call_soon", "monotonic")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self.monotonic: Callable[[], float] = self._loop.time
        self.call_soon: Callable[..., object] = self._loop.call_soon

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
        return self._loop.call_later(delay_s, callback, *args)


class Wakefulness:
    """Keeps the loop from sleeping for a moment after it has answered what it read.

    A client that sends one request after the other sends the next one some 30 us after an answer.
    To put the processor to sleep and wake it costs more than that: without sleeping such a client
    gets half as many answers again. When nothing comes for ``AWAKE_S`` the loop sleeps as ever.
    """

    AWAKE_S: Final = 40e-6

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._until_s = 0.0
        self._awake = False

    def extend(self) -> None:
        """Something was read, and its answer is written if there is one."""
        self._until_s = time.monotonic() + self.AWAKE_S
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        if time.monotonic() < self._until_s:
            self._loop.call_soon(self._look)  # so that the loop polls its sockets, and comes back
        else:
            self._awake = False


class ThreadBackground:
    """``model.background.Background`` with one thread, so work keeps its order.

    The thread starts with the first job. All results that are ready at once cost one wake-up of
    the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._finished: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(
        self, work: Callable[[], T], done: Callable[[T | None, OSError | None], None]
    ) -> None:
        """Run ``work`` on the thread; after ``close``, run it here."""

        def job() -> Callable[[], None]:
            try:
                result = work()
            except OSError as caught:
                error = caught
            except Exception as unforeseen:  # whoever waits must hear of it all the same
                log.exception("background work failed; this is a defect, please report it")
                error = OSError(f"{type(unforeseen).__name__}: {unforeseen}")
            else:
                return lambda: done(result, None)
            return lambda: done(None, error)

        if self._closed:
            self._finish(job())
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="background", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def finish(self) -> None:
        """Wait for all submitted work, and deliver its results before returning. What is submitted
        meanwhile is waited for too."""
        while self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
            self._deliver()

    def close(self) -> None:
        """As ``finish``; what is submitted later runs at once, in the caller."""
        self.finish()
        self._closed = True
        self._deliver()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._finish(job())

    def _finish(self, call: Callable[[], None]) -> None:
        self._finished.append(call)
        if len(self._finished) > 1:
            return  # delivered by the wake-up of the one before it
        with contextlib.suppress(RuntimeError):  # the loop is closed; `close` delivers
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        while self._finished:
            call = self._finished.popleft()
            try:
                call()
            except Exception:
                log.exception(
                    "the end of background work failed; this is a defect, please report it"
                )
