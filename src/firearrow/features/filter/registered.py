"""The expressions that groups subscribe with, as ``ConsumerFilterManager`` keeps them.

A group has at most one for each topic. A newer version of the subscription replaces it, or takes it
away when it cannot be read: pulls then fail and the consumer hears of its mistake. When the group
leaves, its expression stays, marked dead, for a day. All of it is in ``consumerFilter.json``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from firearrow.broker.subscription import TAG, Compile, ExpressionError, Subscription
from firearrow.codec import tables
from firearrow.codec.hashes import murmur3_128_low

log = logging.getLogger(__name__)

DEAD_SINCE_LOAD_MS: Final = 30_000  # a file's groups count as dead since then, until they are back

# RocketMQ's bloom filter with its defaults (``expectConsumerNumUseFilter`` 32,
# ``maxErrorRateOfBloomFilter`` 20). A Java broker forgets the whole file when they do not fit.
BLOOM_BITS: Final = 112
BLOOM_HASHES: Final = 3

_encode = msgspec.json.Encoder().encode


class Bloom(msgspec.Struct, rename="camel", frozen=True):
    """Which bits a group's messages set in the consume queue's extension, which we do not write."""

    bit_num: int
    bit_pos: list[int]


class GroupFilter(msgspec.Struct, rename="camel"):
    """One group's expression for one topic (``ConsumerFilterData``)."""

    topic: str
    consumer_group: str
    expression: str
    expression_type: str
    client_version: int = 0
    born_time: int = 0
    dead_time: int = 0  # 0: alive
    bloom_filter_data: Bloom | None = None

    @property
    def dead(self) -> bool:
        return self.dead_time >= self.born_time


class TopicFilters(msgspec.Struct, rename="camel"):
    """The expressions of one topic, by group (``FilterDataMapByTopic``)."""

    group_filter_data: dict[str, Any] | None = None  # each is a GroupFilter, or left out


class FiltersTable(msgspec.Struct, rename="camel"):
    """``consumerFilter.json``."""

    filter_data_by_topic: dict[str, TopicFilters | None] | None = None


def bloom_of(group: str, topic: str) -> Bloom:
    """``BloomFilter.generate``: several hashes made of two."""
    value = murmur3_128_low(f"{group}#{topic}".encode())
    first, second = value & 0xFFFFFFFF, value >> 32
    positions = []
    for n in range(1, BLOOM_HASHES + 1):
        combined = (first + n * second) & 0xFFFFFFFF
        if combined & 0x80000000:
            combined ^= 0xFFFFFFFF
        positions.append(combined % BLOOM_BITS)
    return Bloom(BLOOM_BITS, positions)


class RegisteredFilters:
    """All groups' expressions. ``changed`` is set by every change that the file must have."""

    def __init__(self, compile_: Compile) -> None:
        self._compile = compile_
        # group -> topic -> what was registered, and the subscription that pulls read with
        self._groups: dict[str, dict[str, tuple[GroupFilter, Subscription]]] = {}
        self.changed = False

    def find(self, topic: str, group: str) -> Subscription | None:
        found = self._groups.get(group, {}).get(topic)
        return None if found is None else found[1]

    def register(self, group: str, wanted: Iterable[Subscription], now_ms: int) -> None:
        """A heartbeat: these topics, with tags or expressions, and no others."""
        topics = set()
        for subscription in wanted:
            topics.add(subscription.topic)
            if subscription.expression_type != TAG and subscription.expression:
                self._register(group, subscription, now_ms)
        for topic, (filtering, _) in self._groups.get(group, {}).items():
            if topic not in topics:
                self._bury(filtering, now_ms)

    def _register(self, group: str, wanted: Subscription, now_ms: int) -> None:
        old = self._groups.get(group, {}).get(wanted.topic)
        if old is None:
            self._add(group, wanted, now_ms)
            return
        known, _ = old
        if wanted.version < known.client_version:
            return
        if wanted.version == known.client_version:
            self._revive(known)
        elif (known.expression, known.expression_type) != (
            wanted.expression,
            wanted.expression_type,
        ):
            self._remove(known)
            self._add(group, wanted, now_ms)
        else:
            known.client_version = wanted.version
            self._groups[group][wanted.topic] = (known, _ready(old[1], wanted.version))
            self._revive(known)
            self.changed = True

    def _add(self, group: str, wanted: Subscription, now_ms: int) -> None:
        filtering = GroupFilter(
            wanted.topic,
            group,
            wanted.expression,
            wanted.expression_type,
            wanted.version,
            now_ms,
            0,
            bloom_of(group, wanted.topic),
        )
        self._put(filtering)

    def _put(self, filtering: GroupFilter) -> None:
        topic, group = filtering.topic, filtering.consumer_group
        try:
            match = self._compile(filtering.expression_type, filtering.expression)
        except ExpressionError as error:
            log.warning(
                "group %s gets nothing of topic %s: its expression %r cannot be read: %s",
                group,
                topic,
                filtering.expression,
                error,
            )
            return
        subscription = Subscription(
            topic,
            filtering.expression,
            filtering.client_version,
            filtering.expression_type,
            match=match,
        )
        self._groups.setdefault(group, {})[topic] = (filtering, subscription)
        self.changed = True

    def _revive(self, filtering: GroupFilter) -> None:
        if filtering.dead_time:
            filtering.dead_time = 0
            self.changed = True

    def _bury(self, filtering: GroupFilter, now_ms: int) -> None:
        if not filtering.dead_time:
            filtering.dead_time = now_ms
            self.changed = True

    def _remove(self, filtering: GroupFilter) -> None:
        topics = self._groups[filtering.consumer_group]
        del topics[filtering.topic]
        if not topics:
            del self._groups[filtering.consumer_group]
        self.changed = True

    def left(self, group: str, now_ms: int) -> None:
        """The group's last member is gone."""
        for filtering, _ in self._groups.get(group, {}).values():
            self._bury(filtering, now_ms)

    def clean(self, dead_before_ms: int) -> None:
        """Forget what has been dead since before then."""
        for filtering in list(self._all()):
            if filtering.dead_time and filtering.dead_time <= dead_before_ms:
                self._remove(filtering)

    def _all(self) -> Iterator[GroupFilter]:
        for topics in self._groups.values():
            for filtering, _ in topics.values():
                yield filtering

    # -- consumerFilter.json

    def load(self, saved: FiltersTable, now_ms: int) -> None:
        """Take over a file's content. What cannot be read is left out: a group's next heartbeat
        brings its expressions."""
        for topic, by_topic in (saved.filter_data_by_topic or {}).items():
            for group, found in ((by_topic and by_topic.group_filter_data) or {}).items():
                try:
                    self._load(tables.read(found, GroupFilter), now_ms)
                except ValueError as error:
                    log.error(
                        "the expression of group %s for topic %s in consumerFilter.json is "
                        "unreadable (%s): the group gets nothing until its consumers send it "
                        "again, with a heartbeat",
                        *(group, topic, error),
                    )
        self.changed = False

    def _load(self, filtering: GroupFilter, now_ms: int) -> None:
        if not filtering.dead_time:
            filtering.dead_time = max(now_ms - DEAD_SINCE_LOAD_MS, filtering.born_time)
        filtering.bloom_filter_data = bloom_of(filtering.consumer_group, filtering.topic)
        self._put(filtering)

    def chunks(self) -> Iterator[bytes]:
        """The file's content, in pieces."""
        by_topic: dict[str, list[GroupFilter]] = {}
        for filtering in self._all():
            by_topic.setdefault(filtering.topic, []).append(filtering)
        yield b'{"filterDataByTopic":{'
        separator = b""
        for topic, filters in by_topic.items():
            groups = {f.consumer_group: {**msgspec.to_builtins(f), "dead": f.dead} for f in filters}
            yield separator + _encode(topic) + b":"
            yield _encode({"groupFilterData": groups, "topic": topic})
            separator = b","
        yield b"}}"


def _ready(subscription: Subscription, version: int) -> Subscription:
    return msgspec.structs.replace(subscription, version=version)
