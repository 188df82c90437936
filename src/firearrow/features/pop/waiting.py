"""Pops and notifications that wait for a message (``PopLongPollingService``).

A waiter is an entry in a list under its topic, group and queue (-1 for all queues): no task, future
or timer of its own. An arrival lets one waiter of a list go, not all: it takes up to 32 messages
and, where more remain, lets the next one go. One whose connection is gone passes its turn on.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from firearrow.model import names
from firearrow.model.clock import Clock, Timer

BUCKET_MS: Final = 50  # deadlines that are so close share one timer
EARLY_MS: Final = 50  # answered so long before the client stops waiting
ALL_QUEUES: Final = -1


class Interest(Protocol):
    """Which messages a waiter wants; one object for equal filters."""

    def wants(self, tags_code: int, physical_offset: int) -> bool: ...


class Waiter:
    """One parked request."""

    __slots__ = ("_resume", "closed", "done", "interest", "line")

    def __init__(
        self,
        line: Line,
        interest: Interest | None,
        closed: Callable[[], bool],
        resume: Callable[[bool], None],
    ) -> None:
        self.line = line
        self.interest = interest
        self.closed = closed
        self._resume = resume
        self.done = False

    def finish(self, *, last: bool) -> None:
        """Let the request go on, and keep nothing of it: this object stays until its deadline."""
        resume, self._resume, self.closed = self._resume, _gone, _closed
        resume(last)


def _gone(last: bool) -> None:
    raise AssertionError("a waiter goes on once")


def _closed() -> bool:
    return True


class Line:
    """The waiters of one (topic, group, queue id), oldest first."""

    __slots__ = ("group", "queue_id", "size", "topic", "turn", "waiters")

    def __init__(self, topic: str, group: str, queue_id: int) -> None:
        self.topic = topic
        self.group = group
        self.queue_id = queue_id
        # By filter, so that an arrival looks at each filter once and not at each waiter.
        self.waiters: dict[Interest | None, deque[Waiter]] = {}
        self.size = 0
        self.turn: Waiter | None = None  # about to go: it looks at everything that came before


class WaitSettings(Protocol):
    max_pop_polling_size: int
    pop_polling_size: int
    pop_long_polling_force_notify_interval: int


FULL: Final = "full"
TOO_LATE: Final = "too late"


class Waiting:
    """All parked requests of one kind."""

    def __init__(self, settings: WaitSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._lines: dict[tuple[str, str, int], Line] = {}
        # Stored topic (the topic itself and its retry topics) -> lines to look at.
        self._by_topic: dict[str, dict[tuple[str, int], Line]] = {}
        self._deadlines: dict[int, list[Waiter]] = {}
        self._buckets: list[int] = []  # a heap of the keys of _deadlines
        self._timer: Timer | None = None
        self._timer_bucket = 0
        self._ready: deque[Waiter] = deque()
        self.size = 0
        self.stopped = False

    # -- park

    def park(
        self,
        topic: str,
        group: str,
        queue_id: int,
        until_ms: int,
        interest: Interest | None,
        closed: Callable[[], bool],
        resume: Callable[[bool], None],
    ) -> str | None:
        """Hold a request until ``until_ms`` (wall clock); ``None``, or why it is not held.

        ``resume(last)`` is called once, unless ``closed()`` says that nobody waits any more; with
        ``last`` it must answer whatever it finds.
        """
        if self.size >= self._settings.max_pop_polling_size:
            return FULL
        now_ms = self._clock.now_ms()
        if self.stopped or now_ms > until_ms - EARLY_MS:
            return TOO_LATE
        key = (topic, group, max(queue_id, ALL_QUEUES))
        line = self._lines.get(key)
        if line is None:
            line = self._new_line(key)
        elif line.size > self._settings.pop_polling_size:
            return FULL
        waiter = Waiter(line, interest, closed, resume)
        same = line.waiters.get(interest)
        if same is None:
            same = line.waiters[interest] = deque()
        same.append(waiter)
        line.size += 1
        self.size += 1
        wait_ms = until_ms - EARLY_MS - now_ms
        self._remind(waiter, int(self._clock.monotonic() * 1000) + wait_ms)
        return None

    def waiting(self, topic: str, group: str, queue_id: int) -> int:
        """How many wait for exactly this."""
        line = self._lines.get((topic, group, max(queue_id, ALL_QUEUES)))
        return 0 if line is None else line.size

    def _new_line(self, key: tuple[str, str, int]) -> Line:
        topic, group, queue_id = key
        line = self._lines[key] = Line(topic, group, queue_id)
        for stored in _stored_topics(topic, group):
            self._by_topic.setdefault(stored, {})[group, queue_id] = line
        return line

    def _leave(self, waiter: Waiter) -> None:
        """Take a waiter out of its line; a line without waiters goes."""
        waiter.done = True
        line = waiter.line
        same = line.waiters[waiter.interest]
        if same[0] is waiter:
            same.popleft()
        else:
            same.remove(waiter)
        if not same:
            del line.waiters[waiter.interest]
        line.size -= 1
        self.size -= 1
        if not line.size:
            del self._lines[line.topic, line.group, line.queue_id]
            for stored in _stored_topics(line.topic, line.group):
                lines = self._by_topic[stored]
                del lines[line.group, line.queue_id]
                if not lines:
                    del self._by_topic[stored]

    # -- wake

    def arrived(
        self, topic: str, queue_id: int, next_offset: int, tags_code: int, phy: int, size: int
    ) -> None:
        """A message became readable: one waiter of each line that may want it can go."""
        if not self._by_topic:
            return
        lines = self._by_topic.get(topic)
        if lines is None:
            return
        interval = self._settings.pop_long_polling_force_notify_interval
        forced = interval > 0 and next_offset % interval == 0
        for line in list(lines.values()):
            if line.queue_id in (ALL_QUEUES, queue_id) or line.topic != topic:
                self._offer(line, tags_code, phy, forced=forced)

    def _offer(self, line: Line, tags_code: int, phy: int, *, forced: bool) -> None:
        if line.turn is not None and (forced or _wants(line.turn.interest, tags_code, phy)):
            return
        for interest, waiters in line.waiters.items():
            if forced or _wants(interest, tags_code, phy):
                self._let_go(waiters[0])
                return

    def wake(self, topic: str, group: str, queue_id: int) -> bool:
        """Let the first waiter of exactly this line go, whatever it wants."""
        line = self._lines.get((topic, group, max(queue_id, ALL_QUEUES)))
        if line is None:
            return False
        if line.turn is None:
            oldest = next(iter(line.waiters.values()))[0]
            self._let_go(oldest)
        return True

    def _let_go(self, waiter: Waiter) -> None:
        self._leave(waiter)
        waiter.line.turn = waiter
        if not self._ready:
            self._clock.call_soon(self._go)
        self._ready.append(waiter)

    def _go(self) -> None:
        ready, self._ready = self._ready, deque()
        for waiter in ready:
            line = waiter.line
            if line.turn is waiter:
                line.turn = None
            if waiter.closed():
                self.wake(line.topic, line.group, line.queue_id)
            else:
                waiter.finish(last=False)

    def wake_all(self) -> None:
        """Let everybody go for good: ``stopped`` tells them why."""
        self.stopped = True
        for line in list(self._lines.values()):
            for waiters in list(line.waiters.values()):
                for waiter in list(waiters):
                    self._end(waiter)

    # -- deadlines

    def _remind(self, waiter: Waiter, at_ms: int) -> None:
        bucket = at_ms // BUCKET_MS
        waiters = self._deadlines.get(bucket)
        if waiters is None:
            waiters = self._deadlines[bucket] = []
            heapq.heappush(self._buckets, bucket)
            if self._timer is None or bucket < self._timer_bucket:
                self._wait()
        waiters.append(waiter)

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_bucket = self._buckets[0]
        delay_s = self._timer_bucket * BUCKET_MS / 1000 - self._clock.monotonic()
        self._timer = self._clock.call_later(max(0.0, delay_s), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now_ms = self._clock.monotonic() * 1000
        while self._buckets and self._buckets[0] * BUCKET_MS <= now_ms + 1:
            for waiter in self._deadlines.pop(heapq.heappop(self._buckets)):
                if not waiter.done:
                    self._end(waiter)
        if self._buckets:
            self._wait()

    def _end(self, waiter: Waiter) -> None:
        self._leave(waiter)
        if not waiter.closed():
            waiter.finish(last=True)


def _wants(interest: Interest | None, tags_code: int, phy: int) -> bool:
    return interest is None or interest.wants(tags_code, phy)


def _stored_topics(topic: str, group: str) -> tuple[str, str, str]:
    return (
        topic,
        names.pop_retry_topic(group, topic),
        names.pop_retry_topic(group, topic, v2=True),
    )
