"""Receives take turns with everything else.

Consumers that were answered together ask again together. One receive of 32 messages costs as much
as ten acknowledgements, so that all who wait for one would wait for all receives that came at the
same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from firearrow.model.clock import Clock
from firearrow.proxy.clients import Client

RECEIVES_A_TURN: Final = 8  # of the loop: some 2 ms
# What one client asked for together is answered together, which saves both sides most of the
# writes and reads; so many at most.
RECEIVES_TOGETHER_MAX: Final = 32


class Turns:
    """Runs receives in the order in which they came, some in each turn of the loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[Client, Callable[[], None]]] = deque()
        self._done = 0  # in this turn
        self._last: Client | None = None  # of this turn
        self._planned = False

    def take(self, client: Client, receive: Callable[[], None]) -> None:
        """Run ``receive`` now, or in a later turn; it must not raise anything."""
        if self._waiting or not self._may_run(client):
            self._waiting.append((client, receive))
        else:
            self._run(client, receive)
        if not self._planned:
            self._planned = True
            self._clock.call_soon(self._next)

    def _may_run(self, client: Client) -> bool:
        limit = RECEIVES_TOGETHER_MAX if client is self._last else RECEIVES_A_TURN
        return self._done < limit

    def _run(self, client: Client, receive: Callable[[], None]) -> None:
        self._done += 1
        self._last = client
        receive()

    def _next(self) -> None:
        """Another turn has begun."""
        self._planned = False
        self._done, self._last = 0, None
        waiting = self._waiting
        while waiting and self._may_run(waiting[0][0]):
            self._run(*waiting.popleft())
        if self._done:
            self._planned = True
            self._clock.call_soon(self._next)
