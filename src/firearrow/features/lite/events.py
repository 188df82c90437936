"""Which client looks at which lite topic next (``LiteEventDispatcher``).

A lite topic with messages is an event. It is given to one subscriber of each group, who reads the
topic with its next pop: a pop costs what it reads, not what its client subscribes to. An event is
only a hint. It may be lost with its client (unread for 10 s, gone) and is then given to another; a
client whose events did not fit is looked through again later. So no message waits for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, Protocol

from firearrow.broker.groups import Groups
from firearrow.features.lite import rules
from firearrow.features.lite.registry import Registry, Subscriber
from firearrow.model import names
from firearrow.model.clock import Clock
from firearrow.store.api import Store

log = logging.getLogger(__name__)

UNREAD_MS: Final = 10_000  # so long an event waits for its client
SILENT_MS: Final = 35_000  # a client that has not popped for so long is taken for gone
PASSED_OVER_MS: Final = 10_000  # how long such a client gets events only if nobody else is there
LOW_WATER: Final = 0.2  # of its events: a client with more is not looked through
QUEUES_PER_STEP: Final = 5000  # looked at in one go, about a millisecond


class EventSettings(Protocol):
    max_client_event_count: int
    lite_event_check_interval: int
    lite_event_full_dispatch_delay_time: int
    lite_event_full_dispatch_delay_time_for_wildcard_group: int


class ClientEvents:
    """The events of one client, oldest first."""

    __slots__ = ("accessed_ms", "group", "limit", "queues")

    def __init__(self, group: str, limit: int, now_ms: int) -> None:
        self.group = group
        self.limit = limit
        self.queues: dict[str, None] = {}
        self.accessed_ms = now_ms

    def offer(self, queue: str) -> bool:
        """Add an event; ``False`` when there are too many."""
        if queue not in self.queues:
            if len(self.queues) >= self.limit:
                return False
            self.queues[queue] = None
        return True

    def stuck(self, now_ms: int) -> bool:
        silent_ms = now_ms - self.accessed_ms
        return silent_ms > SILENT_MS or (bool(self.queues) and silent_ms > UNREAD_MS)


class Events:
    """All events. ``wake(client_id)`` is called when a client has one; ``behind(queue, group)``
    tells whether there are messages that the group has not consumed."""

    def __init__(
        self,
        settings: EventSettings,
        store: Store,
        groups: Groups,
        registry: Registry,
        clock: Clock,
        wake: Callable[[str], object],
        behind: Callable[[str, str], bool],
    ) -> None:
        self._settings = settings
        self._store = store
        self._groups = groups
        self._registry = registry
        self._clock = clock
        self._wake = wake
        self._behind = behind
        self.clients: dict[str, ClientEvents] = {}
        self._passed_over: dict[str, int] = {}  # client id -> until when
        self._later: dict[str, int] = {}  # client id -> when to look it through
        self._later_wildcard: dict[str, int] = {}  # the same by group
        self._scanning: set[str] = set()  # wildcard groups that are being looked through
        self._turn = 0
        self._running = False

    # -- give

    def arrived(
        self, topic: str, queue_id: int, next_offset: int, tags_code: int, phy: int, size: int
    ) -> None:
        """A lite topic has a new message."""
        self.dispatch(topic)

    def dispatch(self, queue: str, group: str | None = None, avoid: str = "") -> None:
        """Give the event to one subscriber of each group, or of one. The client ``avoid`` gets it
        only if there is no other."""
        for owner, subscribers in self._registry.subscribers(queue, group).items():
            self._give(queue, owner, subscribers, avoid)

    def _give(self, queue: str, group: str, clients: Sequence[Subscriber], avoid: str) -> bool:
        wildcard = rules.is_wildcard(self._groups.table.get(group))
        for client in self._in_turn(clients, avoid):
            if self._offer(client.client_id, group, queue):
                self._wake(client.client_id)
                return True
            if not wildcard:
                self._look_later(client.client_id)
        if wildcard:
            self._look_later_at_group(group)
        return False

    def _in_turn(self, clients: Sequence[Subscriber], avoid: str) -> Iterator[Subscriber]:
        """Everybody in turn; those that should be passed over, last."""
        if len(clients) == 1:
            yield clients[0]
            return
        self._turn += 1
        start = self._turn % len(clients)
        now_ms = self._clock.now_ms()
        last = []
        for client in (*clients[start:], *clients[:start]):
            if client.client_id == avoid or self._passed_over.get(client.client_id, 0) > now_ms:
                last.append(client)
            else:
                yield client
        yield from last

    def _offer(self, client_id: str, group: str, queue: str) -> bool:
        return self._events_of(client_id, group).offer(queue)

    def _events_of(self, client_id: str, group: str) -> ClientEvents:
        events = self.clients.get(client_id)
        if events is None:
            limit = rules.events_max(
                self._groups.table.get(group), self._settings.max_client_event_count
            )
            events = self.clients[client_id] = ClientEvents(group, limit, self._clock.now_ms())
        return events

    def _look_later(self, client_id: str) -> None:
        delay_ms = self._settings.lite_event_full_dispatch_delay_time
        self._later.setdefault(client_id, self._clock.now_ms() + delay_ms)

    def _look_later_at_group(self, group: str) -> None:
        delay_ms = self._settings.lite_event_full_dispatch_delay_time_for_wildcard_group
        self._later_wildcard.setdefault(group, self._clock.now_ms() + delay_ms)

    # -- take

    def take(self, client_id: str) -> Iterator[str]:
        """The client's events, each gone when it is given; those that come meanwhile are for its
        next pop."""
        events = self.clients.get(client_id)
        if events is None:
            return
        events.accessed_ms = self._clock.now_ms()
        if not events.queues and self._later.pop(client_id, None) is not None:
            self.look_through(client_id)  # there is room for those that did not fit
        for queue in list(events.queues):
            if queue in events.queues:
                del events.queues[queue]
                yield queue

    # -- a subscriber comes or goes

    def subscribed(self, queue: str, subscriber: Subscriber) -> None:
        if names.lite_parts(queue) is None:  # all lite topics of a wildcard group
            self.look_through_group(subscriber.group)
        elif self._store.max_offset(queue, 0) > 0:
            self.dispatch(queue, subscriber.group)

    def gone(self, subscriber: Subscriber) -> None:
        self._later.pop(subscriber.client_id, None)
        self._pass_on(subscriber.client_id)

    def _pass_on(self, client_id: str) -> None:
        events = self.clients.pop(client_id, None)
        for queue in events.queues if events is not None else ():
            self.dispatch(queue, events.group if events else None, avoid=client_id)

    # -- repair

    def start(self) -> None:
        self._running = True
        self._clock.call_later(self._settings.lite_event_check_interval / 1000, self._tick)

    def stop(self) -> None:
        self._running = False

    def _tick(self) -> None:
        if self._running:
            self.scan()
            self.start()

    def scan(self) -> None:
        """Take the events of clients that do not come for them, and look through those whose events
        did not fit."""
        now_ms = self._clock.now_ms()
        self._passed_over = {c: until for c, until in self._passed_over.items() if until > now_ms}
        for client_id, events in list(self.clients.items()):
            if not events.stuck(now_ms):
                continue
            if events.queues:
                log.warning(
                    "lite client %s of group %s does not pop: its %d lite topics go to others",
                    client_id,
                    events.group,
                    len(events.queues),
                )
            self._passed_over[client_id] = now_ms + PASSED_OVER_MS
            self._pass_on(client_id)
        for client_id in [c for c, due in self._later.items() if due <= now_ms]:
            del self._later[client_id]
            self.look_through(client_id)
        for group in [g for g, due in self._later_wildcard.items() if due <= now_ms]:
            del self._later_wildcard[group]
            self.look_through_group(group)

    def look_through(self, client_id: str) -> None:
        """Give a client an event for each of its lite topics that has messages for it."""
        subscriber = self._registry.clients.get(client_id)
        if subscriber is None or not subscriber.queues:
            return
        events = self._events_of(client_id, subscriber.group)
        crowded = len(events.queues) >= LOW_WATER * events.limit
        if crowded or events.stuck(self._clock.now_ms()):
            self._look_later(client_id)
            return
        for queue in subscriber.queues:
            if self._behind(queue, subscriber.group) and not events.offer(queue):
                self._look_later(client_id)
                break
        if events.queues:
            self._wake(client_id)

    def look_through_group(self, group: str) -> None:
        """The same for all clients of a group."""
        config = self._groups.table.get(group)
        parent = rules.parent_of(config)
        if not rules.is_wildcard(config):
            for subscriber in list(self._registry.clients.values()):
                if subscriber.group == group:
                    self.look_through(subscriber.client_id)
        elif parent is not None and group not in self._scanning:
            self._scanning.add(group)
            queues = (topic for topic, _ in self._store.queues())
            self._clock.call_soon(self._step, group, parent, queues)

    def _step(self, group: str, parent: str, queues: Iterator[str]) -> None:
        """Look at some of all queues; the rest when others have had their turn."""
        prefix = names.lite_queue(parent, "")
        for count, queue in enumerate(islice(queues, QUEUES_PER_STEP), 1):
            if queue.startswith(prefix) and self._behind(queue, group):
                clients = self._registry.of_wildcard(parent, group)
                if not clients or not self._give(queue, group, clients, ""):
                    break  # nobody has room; it is tried again later
            if count == QUEUES_PER_STEP:
                self._clock.call_soon(self._step, group, parent, queues)
                return
        self._scanning.discard(group)
