"""The life of lite topics: made by a first message, gone when none came for long enough
(``LiteLifecycleManager``).

All light queues are looked at now and then, some thousand in one go, so that nothing else waits.
What is kept of all of them is a count for each parent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Protocol

from firearrow.broker.groups import Groups
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.topics import Topics
from firearrow.features.lite import rules
from firearrow.features.lite.popping import Orders
from firearrow.features.lite.registry import Registry
from firearrow.model import names
from firearrow.model.clock import Clock
from firearrow.store.api import Store

log = logging.getLogger(__name__)

QUEUES_PER_STEP: Final = 200  # looked at in one go; a millisecond or two
TOOLS_GROUP: Final = "TOOLS_CONSUMER"


class LifetimeSettings(Protocol):
    lite_ttl_check_interval: int
    min_lite_ttl: int


class Lifetime:
    """Counts lite topics and deletes those that are over."""

    def __init__(
        self,
        settings: LifetimeSettings,
        store: Store,
        topics: Topics,
        groups: Groups,
        offsets: ConsumerOffsets,
        orders: Orders,
        registry: Registry,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics
        self._groups = groups
        self._offsets = offsets
        self._orders = orders
        self._registry = registry
        self._clock = clock
        self._started_s = 0.0
        self._running = False
        self._sweeping = False
        self._deleted = 0
        self.light_queues = 0
        self.by_parent: dict[str, int] = {}
        self._parents: set[str] = set()  # topics that were LITE when last heard of

    def start(self) -> None:
        self._running = True
        self._started_s = self._clock.monotonic()
        self.light_queues = 0
        self.by_parent.clear()
        for queue, _ in self._store.queues():
            if queue.startswith(names.LMQ_PREFIX) and self._store.max_offset(queue, 0) > 0:
                self._count(queue, 1)
        self._topics.attribute_listeners.append(self._attributes_changed)
        for topic in self._topics.attributed:
            self._attributes_changed(topic)
        self._clock.call_later(self._settings.lite_ttl_check_interval / 1000, self._tick)

    def stop(self) -> None:
        self._running = False

    # -- count

    def arrived(
        self, topic: str, queue_id: int, next_offset: int, tags_code: int, phy: int, size: int
    ) -> None:
        """A light queue has a new message."""
        if next_offset == 1:
            self._count(topic, 1)

    def _count(self, queue: str, by: int) -> None:
        self.light_queues += by
        parts = names.lite_parts(queue)
        if parts is not None:
            left = self.by_parent.get(parts[0], 0) + by
            if left:
                self.by_parent[parts[0]] = left
            else:
                self.by_parent.pop(parts[0], None)

    # -- the end of lite topics

    def _tick(self) -> None:
        if not self._running:
            return
        age_ms = (self._clock.monotonic() - self._started_s) * 1000
        if age_ms >= self._settings.min_lite_ttl:  # who renews its topics must have had the time
            self._orders.forget_old()
            self._sweep()
        self._clock.call_later(self._settings.lite_ttl_check_interval / 1000, self._tick)

    def _sweep(self) -> None:
        lives_ms = {
            topic.name: rules.expiration_minutes(topic) * 60_000
            for topic in self._topics.attributed.values()
            if rules.is_parent(topic) and rules.expiration_minutes(topic) > 0
        }
        if lives_ms and not self._sweeping:
            self._sweeping = True
            self._deleted = 0
            self._step(self._store.queues(), lambda parent, queue: self._over(lives_ms, queue))

    def _over(self, lives_ms: dict[str, int], queue: str) -> bool:
        parts = names.lite_parts(queue)
        life_ms = lives_ms.get(parts[0]) if parts else None
        high = self._store.max_offset(queue, 0)
        if life_ms is None or not high:
            return False
        idle_ms = self._clock.now_ms() - self._store.store_time(queue, 0, high - 1)
        return idle_ms >= self._settings.min_lite_ttl and idle_ms > life_ms

    def _step(
        self, queues: Iterator[tuple[str, int]], unwanted: Callable[[str, str], bool]
    ) -> None:
        """Look at some queues, and at the rest when others have had their turn."""
        if not self._running:
            return
        looked = 0
        for queue, _ in islice(queues, QUEUES_PER_STEP):
            looked += 1
            parts = names.lite_parts(queue)
            if parts is not None and unwanted(parts[0], queue):
                self._delete(parts[0], queue)
        if looked == QUEUES_PER_STEP:
            self._clock.call_soon(self._step, queues, unwanted)
            return
        self._sweeping = False
        if self._deleted:
            log.info("deleted %d lite topics that are over", self._deleted)

    def _delete(self, parent: str, queue: str) -> None:
        if self._store.max_offset(queue, 0):
            self._count(queue, -1)
        for group in self._groups_of(parent):
            self._offsets.delete(queue, group)
            self._orders.clear((queue, group, 0))
        self._offsets.delete(queue, TOOLS_GROUP)
        self._registry.remove_queue(queue)
        self._store.delete_topic(queue)
        self._deleted += 1

    def _groups_of(self, parent: str) -> list[str]:
        table = self._groups.table
        return [name for name, group in table.items() if rules.parent_of(group) == parent]

    # -- the end of a parent

    def _attributes_changed(self, name: str) -> None:
        topic = self._topics.attributed.get(name)
        if rules.is_parent(topic):
            self._parents.add(name)
        elif name in self._parents:
            self._parents.discard(name)
            self._clock.call_soon(self._delete_all_of, name)

    def _delete_all_of(self, parent: str) -> None:
        """With a parent its lite topics go; one that only changed its type keeps them."""
        if parent not in self._topics.table and self.by_parent.get(parent):
            self._deleted = 0
            self._step(self._store.queues(), lambda of, queue: of == parent)
