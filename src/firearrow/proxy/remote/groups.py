"""Consumer groups' configuration, as the brokers have it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from firearrow.codec import lenient_json
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy.backend import Channel
from firearrow.proxy.remote.brokers import Brokers

log = logging.getLogger(__name__)

GET_SUBSCRIPTIONGROUP_CONFIG: Final = 352
CALL_S: Final = 2.0
REFRESH_S: Final = 20.0  # ``subscriptionGroupConfigCacheRefreshSeconds``
EXPIRE_S: Final = 300.0  # too old to be given at once
ABSENT_S: Final = 1.0  # a group may be made at any time
GROUPS_MAX: Final = 20_000  # ``subscriptionGroupConfigCacheMaxNum``

Found = Callable[[Group | None], None]


class _Entry:
    __slots__ = ("group", "loaded_s", "waiting")

    def __init__(self) -> None:
        self.group: Group | None = None
        self.loaded_s: float | None = None
        self.waiting: list[Found] | None = None


class GroupTable:
    """Groups by name; what is known is given at once and renewed behind it."""

    def __init__(self, brokers: Brokers, channel: Channel, clock: Clock) -> None:
        self._brokers = brokers
        self._channel = channel
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def find(self, name: str, found: Found) -> None:
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry()
            while len(self._entries) > GROUPS_MAX:
                del self._entries[next(iter(self._entries))]
        age_s = self._clock.monotonic() - (entry.loaded_s or 0.0)
        patience_s = EXPIRE_S if entry.group is not None else ABSENT_S
        if entry.loaded_s is None or age_s > patience_s:
            self._load(name, entry, found)
            return
        if age_s > REFRESH_S and entry.waiting is None:
            self._load(name, entry, lambda group: None)
        found(entry.group)

    def _load(self, name: str, entry: _Entry, found: Found) -> None:
        if entry.waiting is not None:
            entry.waiting.append(found)
            return
        entry.waiting = [found]
        self._brokers.names(lambda names: self._ask(name, entry, iter(names)))

    def _ask(self, name: str, entry: _Entry, brokers: Iterator[str]) -> None:
        """One broker after the other, until one has the group: clusters may share name servers."""
        broker = next(brokers, None)
        if broker is None:
            self._loaded(entry)
            return

        def answered(header: Header | None, body: bytes) -> None:
            if header is not None and header.code == codes.SUCCESS:
                entry.group = _decode(body)
                self._loaded(entry)
            else:
                if header is not None and header.code != codes.NO_ANSWER:
                    entry.group = None
                self._ask(name, entry, brokers)

        self._channel.call(
            broker, GET_SUBSCRIPTIONGROUP_CONFIG, {"group": name}, b"", CALL_S, answered
        )

    def _loaded(self, entry: _Entry) -> None:
        entry.loaded_s = self._clock.monotonic()
        waiting, entry.waiting = entry.waiting or [], None
        for found in waiting:
            found(entry.group)


def _decode(body: bytes) -> Group | None:
    try:
        data: Any = lenient_json.loads(body)
        known = {key: value for key, value in data.items() if value is not None}
        return msgspec.convert(known, Group, strict=False)
    except (ValueError, AttributeError) as error:
        log.warning(
            "a broker answers with a group configuration that cannot be read: %s; see what is at "
            "the addresses that the name servers list",
            error,
        )
        return None
