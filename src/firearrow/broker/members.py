"""Who is online: producers and consumers by group, as heartbeats say (behaviour.md 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from firearrow.broker.heartbeat import ConsumerData, Heartbeat
from firearrow.broker.subscription import Subscription
from firearrow.model.clock import Clock
from firearrow.protocol.remoting.command import Caller
from firearrow.protocol.remoting.requests import NOTIFY_CONSUMER_IDS_CHANGED

log = logging.getLogger(__name__)

SCAN_S: Final = 10.0


class MemberSettings(Protocol):
    channel_expired_timeout: int
    notify_consumer_ids_changed_enable: bool


class Client:
    """One client instance in one group, on one connection."""

    __slots__ = ("caller", "client_id", "language", "seen_ms", "seen_s", "version")

    def __init__(self, caller: Caller, client_id: str, language: str, version: int) -> None:
        self.caller = caller
        self.client_id = client_id
        self.language = language
        self.version = version
        self.seen_s = 0.0
        self.seen_ms = 0


class ConsumerGroupMembers:
    """The online side of a consumer group. Type and model are those of the last heartbeat."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clients: dict[Caller, Client] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.consume_type = ""
        self.message_model = ""
        self.consume_from = ""
        self.fingerprint = 0

    @property
    def broadcasting(self) -> bool:
        return self.message_model == "BROADCASTING"

    def client_ids(self) -> list[str]:
        return list(dict.fromkeys(client.client_id for client in self.clients.values()))

    def find_client(self, client_id: str) -> Client | None:
        return next((c for c in self.clients.values() if c.client_id == client_id), None)

    def update(self, data: ConsumerData, *, keep_subscriptions: bool) -> bool:
        """Take over a heartbeat's data; whether topics came or went."""
        self.consume_type = data.consume_type
        self.message_model = data.message_model
        self.consume_from = data.consume_from
        if keep_subscriptions:
            return False
        changed = False
        for new in data.subscriptions:
            old = self.subscriptions.get(new.topic)
            if old is None:
                changed = True
            if old is None or new.version > old.version:
                self.subscriptions[new.topic] = new
        wanted = {subscription.topic for subscription in data.subscriptions}
        for topic in self.subscriptions.keys() - wanted:
            log.info("group %s no longer subscribes to %s", self.name, topic)
            del self.subscriptions[topic]
            changed = True
        return changed


class Members:
    """Every group with somebody online."""

    def __init__(self, settings: MemberSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.consumers: dict[str, ConsumerGroupMembers] = {}
        self.producers: dict[str, dict[Caller, Client]] = {}
        self._producer_of: dict[str, Caller] = {}  # client id -> connection
        # Which groups a connection belongs to, so that its end costs no search.
        self._groups_of: dict[Caller, tuple[set[str], set[str]]] = {}
        self.wants_notice: Callable[[str], bool] = lambda group: True
        # A heartbeat came with subscriptions; a group's last member left.
        self.registered: Callable[[str, list[Subscription]], None] = lambda group, wanted: None
        self.left: Callable[[str], None] = lambda group: None

    def start(self) -> None:
        self._clock.call_later(SCAN_S, self._scan)

    # -- heartbeats

    def register_producer(
        self, group: str, caller: Caller, client_id: str, language: str, version: int
    ) -> None:
        clients = self.producers.setdefault(group, {})
        known = clients.get(caller)
        if known is not None and known.client_id != client_id:
            self._forget_producer(known.client_id, caller)
        self._seen(clients, caller, client_id, language, version)
        self._groups(caller)[0].add(group)
        self._producer_of[client_id] = caller

    def find_producer(self, client_id: str) -> Caller | None:
        """The connection of the producers of one client instance."""
        return self._producer_of.get(client_id)

    def register_consumer(
        self, data: ConsumerData, caller: Caller, heartbeat: Heartbeat, language: str, version: int
    ) -> bool:
        """Register one group of a heartbeat; whether its subscription was new to us."""
        group = self.consumers.get(data.group)
        if group is None:
            group = self.consumers[data.group] = ConsumerGroupMembers(data.group)
        joined = self._seen(group.clients, caller, heartbeat.client_id, language, version)
        self._groups(caller)[1].add(data.group)
        keep = heartbeat.without_subscription
        same_print = not group.fingerprint or group.fingerprint == heartbeat.fingerprint
        if not keep:
            group.fingerprint = heartbeat.fingerprint
            self.registered(data.group, data.subscriptions)
        changed = group.update(data, keep_subscriptions=keep)
        if joined or changed:
            self._notify(group)
        return not heartbeat.fingerprint or not same_print

    def _seen(
        self,
        clients: dict[Caller, Client],
        caller: Caller,
        client_id: str,
        language: str,
        version: int,
    ) -> bool:
        client = clients.get(caller)
        joined = client is None
        if client is None or client.client_id != client_id:
            if client is not None:
                log.warning(
                    "client %s calls itself %s on the same connection now: queues are shared out "
                    "anew. Give each client of a process an instance name of its own",
                    client.client_id,
                    client_id,
                )
            client = clients[caller] = Client(caller, client_id, language, version)
        client.seen_s = self._clock.monotonic()
        client.seen_ms = self._clock.now_ms()
        return joined

    def _groups(self, caller: Caller) -> tuple[set[str], set[str]]:
        groups = self._groups_of.get(caller)
        if groups is None:
            groups = self._groups_of[caller] = (set(), set())
        return groups

    # -- leaving

    def unregister(
        self, caller: Caller, producer_group: str | None, consumer_group: str | None
    ) -> None:
        if producer_group:
            self._leave_producers(producer_group, caller)
        if consumer_group:
            self._leave_consumers(consumer_group, caller)

    def disconnected(self, caller: Caller) -> None:
        """The connection is gone: its clients leave at once, the others hear of it."""
        producers, consumers = self._groups_of.pop(caller, ((), ()))
        for group in list(producers):
            self._leave_producers(group, caller)
        for group in list(consumers):
            self._leave_consumers(group, caller)

    def _leave_producers(self, name: str, caller: Caller) -> None:
        clients = self.producers.get(name, {})
        client = clients.pop(caller, None)
        if client is None:
            return
        if not clients:
            del self.producers[name]
        groups = self._groups_of.get(caller)
        if groups is not None:
            groups[0].discard(name)
        if groups is None or not groups[0]:
            self._forget_producer(client.client_id, caller)

    def _forget_producer(self, client_id: str, caller: Caller) -> None:
        if self._producer_of.get(client_id) is caller:
            del self._producer_of[client_id]

    def _leave_consumers(self, name: str, caller: Caller) -> None:
        group = self.consumers.get(name)
        if group is not None and group.clients.pop(caller, None) is not None:
            if not group.clients:
                del self.consumers[name]
                self.left(name)
            self._notify(group)
        if caller in self._groups_of:
            self._groups_of[caller][1].discard(name)

    def _notify(self, group: ConsumerGroupMembers) -> None:
        if group.broadcasting or not self._settings.notify_consumer_ids_changed_enable:
            return
        if self.wants_notice(group.name):
            for caller in list(group.clients):
                caller.notify(NOTIFY_CONSUMER_IDS_CHANGED, {"consumerGroup": group.name})

    def _scan(self) -> None:
        limit = self._clock.monotonic() - self._settings.channel_expired_timeout / 1000
        expired = {
            caller
            for clients in self._all_clients()
            for caller, client in clients.items()
            if client.seen_s < limit
        }
        for caller in expired:
            caller.close("no heartbeat within channelExpiredTimeout")
            self.disconnected(caller)
        self.start()

    def _all_clients(self) -> Iterator[dict[Caller, Client]]:
        yield from self.producers.values()
        for group in self.consumers.values():
            yield group.clients
