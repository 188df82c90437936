"""A broker put together: its store, its core and every feature room. The one place that names the
rooms; the server and the tests build the same broker through it."""

from __future__ import annotations

from typing import Final

import msgspec

from firearrow.broker.broker import Broker, Core
from firearrow.broker.topics import TOPICS_FILE, read_note, read_table, saved_batch_rule
from firearrow.config import BrokerSettings, as_properties
from firearrow.config_values import parse_addresses
from firearrow.features.compaction import CompactionRoom
from firearrow.features.dedup import DedupRoom
from firearrow.features.delay import DelayRoom, DueTimes, parse_levels
from firearrow.features.filter.room import FilterRoom
from firearrow.features.lite.room import LiteRoom
from firearrow.features.pop.order import Orders
from firearrow.features.pop.room import PopRoom
from firearrow.features.pop.waiting import Waiting
from firearrow.features.redrive import RedriveRoom
from firearrow.features.reply import ReplyRoom
from firearrow.features.retry import RetryRoom
from firearrow.features.static_topics.room import StaticTopicRoom
from firearrow.features.time_to_live import TimeToLiveRoom
from firearrow.features.timer.due import precision_ms
from firearrow.features.timer.room import TimerRoom
from firearrow.features.topic_retention import TopicRetentionRoom
from firearrow.features.transaction import TransactionRoom
from firearrow.model import names
from firearrow.model.background import Background
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.model.network import Network
from firearrow.model.topic import Topic
from firearrow.proxy.local import LocalBackend
from firearrow.proxy.remote.backend import RemoteBackend
from firearrow.proxy.service import Proxy
from firearrow.store.api import BatchRule
from firearrow.store.compaction.store import CompactionStore
from firearrow.store.disk import Disk
from firearrow.store.filestore import FileStore
from firearrow.store.recovery import open_store
from firearrow.store.settings import StoreSettings
from firearrow.store.timerfiles import TimerFiles

STORE_SETTINGS: Final = frozenset(
    field.name for field in msgspec.structs.fields(StoreSettings) if field.name != "store_host"
)


def open_broker_store(
    root: str, settings: BrokerSettings, disk: Disk, clock: Clock, background: Background
) -> FileStore:
    """Open the store with the rules that the rooms have for their own topics.

    Raises:
        LevelError: ``messageDelayLevel`` cannot be read.
        StoreLocked, WrongFileSize, OSError: as ``open_store``.
        CompactionDamaged: as ``CompactionStore.load``.
        ConfigUnreadable: as ``Store.load_config``.
    """
    store_settings = StoreSettings(**{name: getattr(settings, name) for name in STORE_SETTINGS})
    due_times = DueTimes(parse_levels(settings.message_delay_level))
    tags_rules = {names.SCHEDULE_TOPIC: due_times}

    def batch_rule(store: FileStore) -> BatchRule:
        return saved_batch_rule(
            store.configs.peek(TOPICS_FILE, read_table), store.config_notes(TOPICS_FILE, read_note)
        )

    store = open_store(root, store_settings, disk, clock, background, tags_rules, batch_rule)
    if settings.enable_compaction:
        try:
            store.compaction = CompactionStore(store)
            store.compaction.load()
        except BaseException:
            disk.unlock()
            raise
    return store


def assemble(
    settings: BrokerSettings, store: FileStore, clock: Clock, address: tuple[str, int]
) -> Broker:
    """A loaded broker that answers at ``address``; neither it nor the store is started."""
    core = Core(settings, store, clock, address)
    store.settings.store_host = core.store_host
    core.load()
    core.properties = lambda: as_properties(settings)
    filters = core.filters = FilterRoom(settings, store, clock)
    retry = RetryRoom(
        settings, store, core.writer, core.topics, core.groups, core.locks, core.stats
    )
    delay = DelayRoom(settings, DueTimes(parse_levels(settings.message_delay_level)), store, clock)
    core.delay_progress = delay.progress_by_level
    files = TimerFiles(store.disk, store.root, store.background, precision_ms(settings))
    timer = TimerRoom(settings, store, files, core.writer, core.topics, clock, core.stats)
    core.timer_state = timer.state
    transaction = TransactionRoom(
        settings,
        store,
        core.writer,
        core.topics,
        core.offsets,
        core.members,
        clock,
        core.store_host,
    )
    reply = ReplyRoom(
        settings, core.writer, core.topics, core.members, clock, core.stats, core.store_host
    )
    pop = PopRoom(settings, core, timer)
    orders = Orders(store, core.topics, core.groups, clock, kept=False)
    lite = LiteRoom(settings, core, pop.offsets, orders, Waiting(settings, clock))
    pop.lite = lite
    redrive = RedriveRoom(store, core.topics, core.offsets)
    retention = TopicRetentionRoom(settings, store, core.topics, clock)
    dedup = DedupRoom(settings, store, core.writer, core.topics, clock)
    lifetime = TimeToLiveRoom(store, core.topics, clock)
    static = StaticTopicRoom(settings, core)
    # What looks at a message's topic comes before what takes the message aside, and a half message
    # is not delayed: its commit is.
    first = [lite, dedup, lifetime, retry, transaction, delay, timer]
    compaction = [] if store.compaction is None else [CompactionRoom(store.compaction, core.topics)]
    others = [pop, reply, redrive, filters, retention, static, *compaction]
    return Broker(core, retry, [*first, *others])


class _ProxysBroker:
    """What the proxy must know of the broker in its process."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def address(self) -> tuple[str, int]:
        return self._core.address

    @property
    def broker_name(self) -> str:
        return self._core.settings.broker_name

    def topic(self, name: str) -> Topic | None:
        return self._core.topics.table.get(name)

    def group(self, name: str) -> Group | None:
        return self._core.groups.table.get(name)


def assemble_proxy(settings: BrokerSettings, broker: Broker, clock: Clock) -> Proxy:
    """A proxy over a broker of the same process; not started."""
    view = _ProxysBroker(broker.core)
    backend = LocalBackend(
        view, broker.local_routes(), broker.session_closed, clock, broker.direct_sends()
    )
    return Proxy(settings, backend, clock)


def assemble_remote_proxy(
    settings: BrokerSettings, network: Network, clock: Clock
) -> tuple[Proxy, RemoteBackend]:
    """A proxy over the brokers that the name servers of ``settings`` know; nothing is started."""
    backend = RemoteBackend(parse_addresses(settings.namesrv_addr), network, clock)
    return Proxy(settings, backend, clock), backend
