"""The broker: its parts put together, and the table of requests that they answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from firearrow.broker.admin.clients import ClientAdmin, ClientAdminSettings
from firearrow.broker.admin.consumption import ConsumptionAdmin
from firearrow.broker.admin.groups import GroupAdmin
from firearrow.broker.admin.reset import ResetAdmin, ResetSettings
from firearrow.broker.admin.runtime import RuntimeAdmin, Update
from firearrow.broker.admin.topics import TopicAdmin, TopicAdminSettings
from firearrow.broker.client_requests import ClientRequests, ClientSettings
from firearrow.broker.cluster_queues import ClusterQueues, ClusterSettings
from firearrow.broker.direct import DirectSends
from firearrow.broker.filters import Filters, NoFilters
from firearrow.broker.groups import Groups, GroupSettings
from firearrow.broker.long_poll import LongPoll
from firearrow.broker.members import Members, MemberSettings
from firearrow.broker.offset_requests import OffsetRequests
from firearrow.broker.offsets import ConsumerOffsets, OffsetSettings
from firearrow.broker.pull import Puller, PullSettings
from firearrow.broker.queries import Queries, QuerySettings
from firearrow.broker.queue_locks import QueueLocks
from firearrow.broker.rooms import Room
from firearrow.broker.send import RetryRules, Sender, SendSettings
from firearrow.broker.siblings import Siblings
from firearrow.broker.stats import BrokerStats
from firearrow.broker.topics import Topics, TopicSettings
from firearrow.broker.writer import Writer
from firearrow.codec.addresses import pack_address
from firearrow.model.clock import Clock
from firearrow.protocol.remoting.command import Caller, Handler
from firearrow.protocol.remoting.requests import REQUESTS
from firearrow.protocol.remoting.session import Route
from firearrow.store.api import Store

# What the fast port does not serve (behaviour.md 0.4): everything that may take long.
NOT_ON_FAST_PORT: Final = frozenset({11, 361, 200050, 200052, 200054, 200055, 200070})


class Settings(
    ClientAdminSettings,
    ResetSettings,
    TopicAdminSettings,
    ClientSettings,
    ClusterSettings,
    GroupSettings,
    MemberSettings,
    OffsetSettings,
    PullSettings,
    QuerySettings,
    SendSettings,
    TopicSettings,
    Protocol,
):
    """Every setting that a part of the broker reads."""


class Core:
    """State and services that the broker's requests and the feature rooms share."""

    def __init__(self, settings: Settings, store: Store, clock: Clock, address: tuple[str, int]):
        self.settings = settings
        self.store = store
        self.clock = clock
        self.address = address
        self.store_host = pack_address(*address)
        self.stats = BrokerStats(clock, settings.broker_cluster_name)
        self.topics = Topics(settings, store, clock)
        self.groups = Groups(settings, store, clock)
        self.offsets = ConsumerOffsets(settings, store, clock)
        self.members = Members(settings, clock)
        self.locks = QueueLocks(clock)
        self.writer = Writer(store)
        self.cluster_queues = ClusterQueues(settings, self.topics, clock)
        self.siblings = Siblings(clock)
        self.filters: Filters = NoFilters()

        # What the composition root connects: the settings as texts, and the delay room's progress.
        self.properties: Callable[[], dict[str, Any]] = dict
        self.update: Update = dict
        self.delay_progress: Callable[[], Mapping[int, tuple[int, int]]] = dict
        self.timer_state: Callable[[], Mapping[str, str]] = dict
        self.grpc_state: Callable[[], Mapping[str, str]] = dict  # of the proxy in this process

    def load(self) -> None:
        """Read the tables from the store."""
        self.topics.load()
        self.groups.load()
        self.offsets.load()


class Broker:
    """Answers requests. Made of a loaded core, the retry room's rules and all feature rooms."""

    def __init__(self, core: Core, retry: RetryRules, rooms: Iterable[Room]) -> None:
        self.core = core
        self._rooms = tuple(rooms)
        core.writer.use(self._rooms)
        core.members.wants_notice = self._wants_notice
        core.members.registered = core.filters.registered
        core.members.left = core.filters.left
        self.puller = Puller(
            core.settings,
            core.store,
            core.topics,
            core.groups,
            core.members,
            core.offsets,
            core.filters,
            core.clock,
            core.stats,
        )
        self._sender = Sender(
            core.settings,
            core.store,
            core.writer,
            core.topics,
            core.clock,
            core.stats,
            core.store_host,
            os.getpid(),
            retry,
        )
        core.store.on_arrival(self.long_poll.arrived)
        core.topics.remapped = self.long_poll.release

    @property
    def long_poll(self) -> LongPoll:
        return self.puller.long_poll

    def _wants_notice(self, name: str) -> bool:
        group = self.core.groups.table.get(name)
        return group is None or group.notify_consumer_ids_changed

    def routes(self) -> dict[int, Route]:
        """Everything the main port serves."""
        core = self.core
        clients = ClientRequests(
            core.settings, core.topics, core.groups, core.members, core.locks, core.filters
        )
        offsets = OffsetRequests(core.store, core.topics, core.groups, core.offsets)
        queries = Queries(core.settings, core.store, core.members)
        handlers: dict[int, Handler] = {
            10: self._sender.handle,
            310: self._sender.handle,
            320: self._sender.handle,
            11: self.puller.handle,
            361: self.puller.handle,
            14: offsets.query,
            15: offsets.update,
            29: offsets.search,
            30: offsets.max_offset,
            31: offsets.min_offset,
            32: offsets.earliest,
            12: queries.query,
            33: queries.view,
            321: queries.consume_queue,
            34: clients.heart_beat,
            35: clients.unregister,
            38: clients.consumer_list,
            41: clients.lock,
            42: clients.unlock,
            46: clients.check_config,
        }
        routes = table(handlers)
        routes.update(table(self._admin_handlers()))
        for room in self._rooms:
            routes.update(room.routes())
        for room in self._rooms:
            routes.update(room.before(routes))
        return routes

    def local_routes(self) -> dict[int, Route]:
        """What the main port serves, for callers in this process."""
        sender = self._sender.in_process()
        return {**self.routes(), **table({310: sender.handle})}

    def direct_sends(self) -> DirectSends:
        """For callers in this process."""
        core = self.core
        parts = core.settings, core.store, core.writer, core.topics, core.stats
        return DirectSends(*parts, self._sender)

    def _admin_handlers(self) -> dict[int, Handler]:
        core = self.core
        address = f"{core.address[0]}:{core.address[1]}"
        attributes = {
            key: attribute
            for room in self._rooms
            for key, attribute in room.topic_attributes.items()
        }
        topics = TopicAdmin(
            core.settings, core.topics, core.offsets, core.store, address, attributes
        )
        groups = GroupAdmin(core.groups, core.offsets)
        consumption = ConsumptionAdmin(
            core.settings,
            core.store,
            core.topics,
            core.groups,
            core.members,
            core.offsets,
            core.stats,
            address,
        )
        clients = ClientAdmin(core.settings, core.store, core.groups, core.members)
        reset = ResetAdmin(
            core.settings, core.store, core.topics, core.groups, core.members, core.offsets
        )
        runtime = RuntimeAdmin(
            core.store,
            core.stats,
            core.clock,
            core.properties,
            core.update,
            core.delay_progress,
            lambda: {**core.timer_state(), **core.grpc_state()},
        )
        return {
            17: topics.create,
            18: topics.create_list,
            21: topics.get_all,
            25: runtime.update_config,
            26: runtime.get_config,
            28: runtime.info,
            43: consumption.all_offsets,
            45: runtime.delay_offsets,
            200: groups.update,
            201: groups.get_all,
            202: topics.stats,
            203: clients.consumers,
            204: clients.producers,
            207: groups.delete,
            208: consumption.consume_stats,
            215: topics.delete,
            222: reset.reset,
            223: clients.status,
            225: groups.update_list,
            300: consumption.groups_of,
            303: consumption.time_span,
            305: topics.system_topics,
            306: topics.nothing,
            307: clients.running_info,
            308: consumption.correction,
            309: clients.consume_directly,
            314: consumption.clone,
            315: runtime.broker_stats,
            316: topics.clean_unused,
            317: consumption.broker_consume_stats,
            328: clients.all_producers,
            329: topics.delete_expired,
            343: consumption.topics_of,
            345: consumption.subscription,
            351: topics.get,
            352: groups.get,
            353: groups.forbid,
            907: runtime.ha_status,
        }

    def fast_routes(self) -> dict[int, Route]:
        """What the fast port serves."""
        return {code: r for code, r in self.routes().items() if code not in NOT_ON_FAST_PORT}

    def session_closed(self, caller: Caller) -> None:
        """A connection is gone."""
        self.core.members.disconnected(caller)

    def start(self) -> None:
        """Begin the periodic work."""
        core = self.core
        core.stats.start()
        core.offsets.start()
        core.members.start()
        for room in self._rooms:
            room.start()

    def dismiss(self) -> None:
        """Answer whoever waits, before the connections close."""
        self.puller.dismiss()
        for room in self._rooms:
            room.dismiss()

    def stop(self) -> None:
        """Save what must survive. The store is closed by who opened it."""
        for room in self._rooms:
            room.stop()
        self.core.siblings.close()
        self.core.offsets.save()


def table(handlers: dict[int, Handler]) -> dict[int, Route]:
    """Handlers by code, with the name and fields of each code."""
    return {code: Route(*_named(code), handler) for code, handler in handlers.items()}


def _named(code: int) -> tuple[str, type[Any]]:
    return REQUESTS[code]
