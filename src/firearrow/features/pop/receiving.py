"""Popping with patience: a pop that finds nothing waits, and tries again when something comes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import msgspec

from firearrow.broker.subscription import Subscription
from firearrow.features.pop.popping import ILLEGAL, Pop, Popped, Popper
from firearrow.features.pop.waiting import FULL, Interest, Waiting
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.store.api import RecordMatch, Store

log = logging.getLogger(__name__)


STOPPING: Final = "the broker is stopping"


class Received(msgspec.Struct, frozen=True, gc=False):
    """The end of a pop: SUCCESS with messages, or a code that says why there are none."""

    popped: Popped
    code: int
    remark: str = ""


Done = Callable[[Received], None]


class TagInterest(msgspec.Struct, frozen=True):
    """Wants messages whose tag has one of these hashes."""

    codes: frozenset[int]

    def wants(self, tags_code: int, physical_offset: int) -> bool:
        return ((tags_code & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000 in self.codes


class MatchInterest:
    """Wants messages that an expression matches; pops with the same compiled one are equal."""

    __slots__ = ("_match", "_store")

    def __init__(self, match: RecordMatch, store: Store) -> None:
        self._match = match
        self._store = store

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MatchInterest) and other._match is self._match

    def __hash__(self) -> int:
        return hash(self._match)

    def wants(self, tags_code: int, physical_offset: int) -> bool:
        record = self._store.record(physical_offset)
        return record is not None and self._match(record)


class ReceiveSettings(Protocol):
    flush_disk_type: str


class Receiver:
    """Pops that may wait."""

    def __init__(
        self,
        settings: ReceiveSettings,
        store: Store,
        popper: Popper,
        waiting: Waiting,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._popper = popper
        self._waiting = waiting
        self._clock = clock

    def receive(
        self, wanted: Pop, until_ms: int, closed: Callable[[], bool], done: Done
    ) -> Received | None:
        """Pop now, or wait until ``until_ms`` (wall clock, ms; in the past: do not wait).

        Gives what can be said now; ``None`` means that ``done`` is called later, once, unless
        ``closed()`` says that the caller went away. Messages are answered when their check point
        is safe.
        """
        return self._try(wanted, until_ms, closed, done, last=False)

    def _try(
        self,
        wanted: Pop,
        until_ms: int,
        closed: Callable[[], bool],
        done: Done,
        *,
        last: bool,
    ) -> Received | None:
        popped = self._popper.pop(wanted)
        topic, group = wanted.topic.name, wanted.group
        if popped.count:
            if popped.rest > 0:
                self._waiting.wake(topic, group, wanted.queue_id)
            return self._when_safe(Received(popped, codes.SUCCESS), done)
        if popped.refused is not None:
            put = popped.refused
            illegal = put.status in ILLEGAL
            code = codes.INVALID_PARAMETER if illegal else codes.SERVICE_NOT_AVAILABLE
            return Received(popped, code, f"no check point can be stored: {put.reason}")
        again = partial(self._again, wanted, until_ms, closed, done)
        if popped.passed_by and popped.rest > 0 and not last:
            self._clock.call_soon(again, False)  # a long stretch that the filter does not want
            return None
        if last:
            return Received(popped, codes.POLLING_TIMEOUT)
        interest = interest_of(wanted.subscription, self._store)
        held = self._waiting.park(topic, group, wanted.queue_id, until_ms, interest, closed, again)
        if held is None:
            return None
        return Received(popped, codes.POLLING_FULL if held == FULL else codes.POLLING_TIMEOUT)

    def _again(
        self, wanted: Pop, until_ms: int, closed: Callable[[], bool], done: Done, last: bool
    ) -> None:
        if closed():
            self._waiting.wake(wanted.topic.name, wanted.group, wanted.queue_id)
            return
        if self._waiting.stopped:
            done(Received(Popped(0, 0, 0), codes.SYSTEM_BUSY, STOPPING))
            return
        try:
            received = self._try(wanted, until_ms, closed, done, last=last)
        except Exception as error:  # whoever waits must hear of it
            log.error(
                "a waiting pop of topic %s failed, and its client is told; this is a defect, "
                "please report it",
                wanted.topic.name,
                exc_info=error,
            )
            done(Received(Popped(0, 0, 0), codes.SYSTEM_ERROR, f"{type(error).__name__}: {error}"))
            return
        if received is not None:
            done(received)

    def _when_safe(self, received: Received, done: Done) -> Received | None:
        if self._settings.flush_disk_type == "ASYNC_FLUSH" or not received.popped.end:
            return received
        # However late the flush is: the check point is stored, and the client should know.
        self._store.when_durable(received.popped.end, lambda durable: done(received))
        return None


def interest_of(subscription: Subscription, store: Store) -> Interest | None:
    """What arrivals a waiting request should be told of; ``None`` for all."""
    if subscription.match is not None:
        return MatchInterest(subscription.match, store)
    return None if subscription.codes is None else TagInterest(subscription.codes)
