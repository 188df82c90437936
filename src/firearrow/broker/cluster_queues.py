"""Which queues a topic has on all brokers, as the name servers say (``TopicRouteInfoManager``).

An answer is kept for ``loadBalancePollNameServerInterval``, and then still used while the next one
is under way. What a topic has on this broker is always known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol

from firearrow.broker.topics import Topics
from firearrow.model.clock import Clock
from firearrow.model.topic import PERM_READ, PERM_WRITE

TOPICS_MAX: Final = 100_000


class BrokerQueues(NamedTuple):
    """A topic's share of one broker."""

    broker_name: str
    read_queues: int
    perm: int
    write_queues: int = 0


Found = Callable[[list[BrokerQueues] | None], None]
Source = Callable[[str, Found], None]


class ClusterSettings(Protocol):
    broker_name: str
    load_balance_poll_name_server_interval: int


class ClusterQueues:
    """A small cache before the name servers. ``source`` asks them; without one there is only this
    broker."""

    def __init__(self, settings: ClusterSettings, topics: Topics, clock: Clock) -> None:
        self._settings = settings
        self._topics = topics
        self._clock = clock
        self.source: Source | None = None
        self._known: dict[str, tuple[float, list[BrokerQueues]]] = {}
        self._asked: dict[str, list[Found]] = {}

    def find(self, topic: str, done: Callable[[list[tuple[str, int]] | None], None]) -> None:
        """Call ``done``, perhaps at once, with every readable (broker name, queue id) in order;
        with ``None`` when nobody knows the topic."""
        self._shares(topic, lambda shares: done(_queues(shares, PERM_READ)))

    def find_writable(self, topic: str, done: Callable[[list[tuple[str, int]]], None]) -> None:
        """The same with every writable queue; empty when nobody knows the topic."""
        self._shares(topic, lambda shares: done(_queues(shares, PERM_WRITE) or []))

    def _shares(self, topic: str, done: Callable[[list[BrokerQueues]], None]) -> None:
        known = self._known.get(topic)
        if known is not None:
            asked_s, brokers = known
            age_ms = (self._clock.monotonic() - asked_s) * 1000
            if age_ms > self._settings.load_balance_poll_name_server_interval:
                self._ask(topic, lambda brokers: None)
            done(self._with_own(topic, brokers))
        elif self.source is None:
            done(self._with_own(topic, []))
        else:
            self._ask(topic, lambda brokers: done(self._with_own(topic, brokers or [])))

    def _ask(self, topic: str, found: Found) -> None:
        waiting = self._asked.get(topic)
        if waiting is not None:
            waiting.append(found)
            return
        self._asked[topic] = [found]
        assert self.source is not None
        self.source(topic, partial(self._answered, topic))

    def _answered(self, topic: str, brokers: list[BrokerQueues] | None) -> None:
        if brokers is None:
            self._known.pop(topic, None)
        else:
            if len(self._known) >= TOPICS_MAX:
                self._known.clear()
            self._known[topic] = (self._clock.monotonic(), brokers)
        for found in self._asked.pop(topic):
            found(brokers)

    def _with_own(self, topic: str, brokers: list[BrokerQueues]) -> list[BrokerQueues]:
        own_name = self._settings.broker_name
        shares = [share for share in brokers if share.broker_name != own_name]
        own = self._topics.table.get(topic)
        if own is not None:
            shares.append(BrokerQueues(own_name, own.read_queues, own.perm, own.write_queues))
        return shares


def _queues(shares: list[BrokerQueues], perm: int) -> list[tuple[str, int]] | None:
    if not shares:
        return None
    return sorted(
        (share.broker_name, queue_id)
        for share in shares
        if share.perm & perm
        for queue_id in range(share.read_queues if perm == PERM_READ else share.write_queues)
    )
