"""Pulls that wait for a message (behaviour.md 2.6).

A parked pull is an entry in a list under its (topic, queue id): no task, future or timer of its
own. It leaves when a message that it wants arrives, at its deadline (one timer for all,
deadlines in buckets of a second), or at a periodic look when messages came that it does not want,
so that its offset moves on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from firearrow.model.clock import Clock
from firearrow.protocol.remoting.command import Request
from firearrow.store.api import RecordMatch

BUCKET_S: Final = 1.0
PASSED_BY_S: Final = 5.0  # as RocketMQ's periodic check

Resume = Callable[[Request[Any]], None]
RecordAt = Callable[[int], bytes | None]  # physical offset -> the whole record


class Parked:
    """One waiting pull."""

    __slots__ = ("done", "key", "match", "offset", "passed_by", "request", "tags_codes")

    def __init__(
        self,
        key: tuple[str, int],
        request: Request[Any],
        offset: int,
        tags_codes: frozenset[int] | None,
        match: RecordMatch | None,
    ) -> None:
        self.key = key
        self.match = match
        self.request = request
        self.offset = offset
        self.tags_codes = tags_codes
        self.done = False
        self.passed_by = False


class LongPoll:
    """All parked pulls of a broker."""

    def __init__(self, clock: Clock, resume: Resume, record: RecordAt) -> None:
        self._clock = clock
        self._record = record
        self._resume = resume
        self._waiting: dict[tuple[str, int], list[Parked]] = {}
        self._deadlines: dict[int, list[Parked]] = {}
        self._passed_by: list[Parked] = []
        self._ready: list[Parked] = []
        self._ticking = False
        self._last_bucket = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def park(
        self,
        topic: str,
        queue_id: int,
        request: Request[Any],
        offset: int,
        tags_codes: frozenset[int] | None,
        match: RecordMatch | None,
        wait_s: float,
    ) -> None:
        """Hold the request for at most ``wait_s`` seconds (up to a second more), or until a message
        comes whose tags are wanted and whose record ``match`` takes."""
        key = (topic, queue_id)
        parked = Parked(key, request, offset, tags_codes, match)
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = [parked]
        else:
            waiting.append(parked)
        bucket = int(self._clock.monotonic() + max(0.0, wait_s)) + 1
        self._deadlines.setdefault(bucket, []).append(parked)
        if not self._ticking:
            self._ticking = True
            self._last_bucket = int(self._clock.monotonic())
            self._clock.call_later(BUCKET_S, self._tick)

    def arrived(
        self, topic: str, queue_id: int, next_offset: int, tags_code: int, phy: int, size: int
    ) -> None:
        """A message became readable: let those go that want it, after what runs now."""
        if not self._waiting:
            return
        waiting = self._waiting.get((topic, queue_id))
        if waiting is None:
            return
        kept = []
        for parked in waiting:
            if (parked.tags_codes is None or _as_int32(tags_code) in parked.tags_codes) and (
                parked.match is None or self._matches(parked.match, phy)
            ):
                parked.done = True
                if not self._ready:
                    self._clock.call_soon(self._resume_ready)
                self._ready.append(parked)
                continue
            if not parked.passed_by:
                parked.passed_by = True
                if not self._passed_by:
                    self._clock.call_later(PASSED_BY_S, self._resume_passed_by)
                self._passed_by.append(parked)
            kept.append(parked)
        if kept:
            self._waiting[topic, queue_id] = kept
        else:
            del self._waiting[topic, queue_id]

    def release(self, topic: str) -> None:
        """Let all that wait for a topic look again, after what runs now."""
        for key in [key for key in self._waiting if key[0] == topic]:
            for parked in self._waiting[key]:
                self._clock.call_soon(self._release, parked)

    def take_all(self) -> list[Request[Any]]:
        """Every request that waits; none does afterwards."""
        taken = self._ready
        for waiting in self._waiting.values():
            taken += waiting
        self._ready = []
        self._waiting.clear()
        for parked in taken:
            parked.done = True
        return [parked.request for parked in taken if not parked.request.peer.closed]

    def _matches(self, match: RecordMatch, phy: int) -> bool:
        record = self._record(phy)
        return record is not None and match(record)

    def _resume_ready(self) -> None:
        ready, self._ready = self._ready, []
        for parked in ready:
            self._go(parked)

    def _resume_passed_by(self) -> None:
        passed_by, self._passed_by = self._passed_by, []
        for parked in passed_by:
            self._release(parked)

    def _tick(self) -> None:
        now = int(self._clock.monotonic())
        for bucket in range(self._last_bucket + 1, now + 1):
            for parked in self._deadlines.pop(bucket, ()):
                self._release(parked)
        self._last_bucket = now
        if self._deadlines:
            self._clock.call_later(BUCKET_S, self._tick)
        else:
            self._ticking = False

    def _release(self, parked: Parked) -> None:
        if parked.done:
            return
        parked.done = True
        waiting = self._waiting[parked.key]
        waiting.remove(parked)
        if not waiting:
            del self._waiting[parked.key]
        self._go(parked)

    def _go(self, parked: Parked) -> None:
        if not parked.request.peer.closed:
            self._resume(parked.request)


def _as_int32(value: int) -> int:
    """The low 32 bits as Java compares them."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
