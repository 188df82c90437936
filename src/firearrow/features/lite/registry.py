"""Who subscribes to which lite topics: in memory, by client (``LiteSubscriptionRegistry``).

Clients renew their subscriptions every 30 s, so nothing is lost with a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from firearrow.broker.groups import Groups
from firearrow.features.lite import rules
from firearrow.model import names
from firearrow.model.clock import Clock
from firearrow.protocol.remoting.command import Caller
from firearrow.protocol.remoting.lite_requests import NOTIFY_UNSUBSCRIBE_LITE

log = logging.getLogger(__name__)


class RegistrySettings(Protocol):
    max_lite_subscription_count: int


class QuotaError(Exception):
    """There are as many subscriptions as there may be."""


class Subscriber:
    """One client. A client id belongs to the group that it came with first."""

    __slots__ = ("client_id", "group", "peer", "queues", "renewed_s", "topic")

    def __init__(self, client_id: str, group: str, topic: str) -> None:
        self.client_id = client_id
        self.group = group
        self.topic = topic
        self.queues: set[str] = set()
        self.peer: Caller | None = None  # where it, or the proxy before it, is told things
        self.renewed_s = 0.0


def every_queue(topic: str, group: str) -> str:
    """What the clients of a wildcard group subscribe to. No queue has such a name."""
    return f"{topic}@{group}"


# (queue, group, subscriber) to reset an offset, and to tell of a new subscription
Told = Callable[[str, Subscriber], None]


class Registry:
    """All subscriptions."""

    def __init__(self, settings: RegistrySettings, groups: Groups, clock: Clock) -> None:
        self._settings = settings
        self._groups = groups
        self._clock = clock
        self.clients: dict[str, Subscriber] = {}
        self.count = 0  # pairs of a client and a queue
        self._by_queue: dict[str, tuple[Subscriber, ...]] = {}
        self._wildcards: dict[str, set[str]] = {}  # parent -> groups
        # What the room connects: a queue has a subscriber, an offset begins anew, a client is gone.
        self.subscribed: Told = lambda queue, subscriber: None
        self.restarted: Callable[[str, str], None] = lambda queue, group: None
        self.gone: Callable[[Subscriber], None] = lambda subscriber: None

    # -- look

    def subscribers(self, queue: str, group: str | None = None) -> dict[str, list[Subscriber]]:
        """The subscribers of a light queue, by group."""
        found: dict[str, list[Subscriber]] = {}
        for subscriber in self._of_queue(queue):
            if group in (None, subscriber.group):
                found.setdefault(subscriber.group, []).append(subscriber)
        return found

    def _of_queue(self, queue: str) -> Iterator[Subscriber]:
        yield from self._by_queue.get(queue, ())
        if self._wildcards:
            parts = names.lite_parts(queue)
            parent = parts[0] if parts else ""
            for group in self._wildcards.get(parent, ()):
                yield from self._by_queue.get(every_queue(parent, group), ())

    def of_wildcard(self, topic: str, group: str) -> tuple[Subscriber, ...]:
        return self._by_queue.get(every_queue(topic, group), ())

    def wants(self, subscriber: Subscriber, queue: str) -> bool:
        """Whether the client may still get the queue's messages."""
        return queue in subscriber.queues or bool(
            self._wildcards and every_queue(subscriber.topic, subscriber.group) in subscriber.queues
        )

    # -- change

    def renew(self, client_id: str, group: str, topic: str, peer: Caller | None) -> Subscriber:
        """The client, which has been heard of now."""
        subscriber = self.clients.get(client_id)
        if subscriber is None:
            subscriber = self.clients[client_id] = Subscriber(client_id, group, topic)
        subscriber.renewed_s = self._clock.monotonic()
        if peer is not None:
            subscriber.peer = peer
        return subscriber

    def check_quota(self) -> None:
        """Raises:
        QuotaError: no further subscription is allowed.
        """
        if self.count >= self._settings.max_lite_subscription_count:
            raise QuotaError(
                f"lite subscription quota exceeded {self._settings.max_lite_subscription_count}"
            )

    def add(self, subscriber: Subscriber, queue: str) -> None:
        """Subscribe. In an exclusive group others lose the queue."""
        if queue in subscriber.queues:
            return
        subscriber.queues.add(queue)
        self._by_queue[queue] = (*self._by_queue.get(queue, ()), subscriber)
        self.count += 1
        self.subscribed(queue, subscriber)

    def exclude(self, newcomer: Subscriber, queue: str) -> None:
        """Take the queue from every other client of the group, and tell them."""
        group = self._groups.table.get(newcomer.group)
        for other in self._by_queue.get(queue, ()):
            if other is newcomer or other.group != newcomer.group:
                continue
            self._tell_unsubscribed(other, queue)
            self.remove(other, queue, restart=rules.resets_when_excluded(group))
            if not other.queues:
                self.clients.pop(other.client_id, None)

    def remove(self, subscriber: Subscriber, queue: str, *, restart: bool = False) -> None:
        """Unsubscribe; with ``restart`` the group begins at the first message again."""
        if queue not in subscriber.queues:
            return
        subscriber.queues.discard(queue)
        self._take_out(subscriber, queue)
        if restart:
            self.restarted(queue, subscriber.group)

    def _take_out(self, subscriber: Subscriber, queue: str) -> None:
        self.count -= 1
        left = tuple(s for s in self._by_queue.get(queue, ()) if s is not subscriber)
        if left:
            self._by_queue[queue] = left
            return
        self._by_queue.pop(queue, None)
        if queue == every_queue(subscriber.topic, subscriber.group):
            groups = self._wildcards.get(subscriber.topic, set())
            groups.discard(subscriber.group)
            if not groups:
                self._wildcards.pop(subscriber.topic, None)

    def held_by_another(self, subscriber: Subscriber, queue: str) -> bool:
        """Whether another client of an exclusive group has the queue; who asks is told so again:
        it may have missed that it lost it."""
        others = self._by_queue.get(queue, ())
        if queue in subscriber.queues or all(o.group != subscriber.group for o in others):
            return False
        self._tell_unsubscribed(subscriber, queue)
        return True

    def replace(self, subscriber: Subscriber, queues: Iterable[str]) -> None:
        """Make these the client's subscriptions."""
        wanted = set(queues)
        for queue in subscriber.queues - wanted:
            self.remove(subscriber, queue)
        for queue in wanted - subscriber.queues:
            self.add(subscriber, queue)

    def add_wildcard(self, subscriber: Subscriber) -> None:
        """Subscribe to all lite topics of the client's parent, and to nothing else."""
        self._wildcards.setdefault(subscriber.topic, set()).add(subscriber.group)
        self.replace(subscriber, [every_queue(subscriber.topic, subscriber.group)])

    def remove_client(self, client_id: str) -> None:
        subscriber = self.clients.pop(client_id, None)
        if subscriber is None:
            return
        for queue in list(subscriber.queues):
            self.remove(subscriber, queue)
        self.gone(subscriber)

    def remove_queue(self, queue: str) -> None:
        """The lite topic is gone. Its clients are not told: they renew when it comes again."""
        for subscriber in self._by_queue.get(queue, ()):
            self.remove(subscriber, queue)

    def remove_silent(self, timeout_ms: int) -> None:
        """Forget clients that did not renew."""
        oldest_s = self._clock.monotonic() - timeout_ms / 1000
        for subscriber in list(self.clients.values()):
            if subscriber.renewed_s < oldest_s:
                log.info(
                    "lite client %s of group %s is gone: not renewed for %d ms",
                    subscriber.client_id,
                    subscriber.group,
                    timeout_ms,
                )
                self.remove_client(subscriber.client_id)

    def _tell_unsubscribed(self, subscriber: Subscriber, queue: str) -> None:
        parts = names.lite_parts(queue)
        peer = subscriber.peer
        if parts is None or peer is None or peer.closed:
            return
        ext = {
            "clientId": subscriber.client_id,
            "consumerGroup": subscriber.group,
            "liteTopic": parts[1],
        }
        peer.notify(NOTIFY_UNSUBSCRIBE_LITE, ext)
