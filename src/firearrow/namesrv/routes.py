"""The route table: which brokers have which topics. A pure machine: time and registrations come
in, tables and notices come out (cluster.md 1).

Everything is in memory: brokers say it all again every 30 seconds. A broker is alive as long as its
connection lives and it spoke within its time-out. Topics belong to broker names, not addresses: a
master's registration brings them, a slave's only keeps its address alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from firearrow.model.topic import PERM_READ, PERM_WRITE, DataVersion, Topic

HEARTBEAT_TIMEOUT_MS: Final = 120_000
MASTER_ID: Final = 0


class QueueData(msgspec.Struct, frozen=True):
    """The queues of one topic on one broker name; JSON keys in Java's order."""

    broker_name: str = msgspec.field(name="brokerName")
    perm: int
    read_queues: int = msgspec.field(name="readQueueNums")
    sys_flag: int = msgspec.field(name="topicSysFlag")
    write_queues: int = msgspec.field(name="writeQueueNums")


class Registration(NamedTuple):
    """What a broker says of itself."""

    cluster: str
    name: str
    broker_id: int
    address: str
    ha_address: str = ""
    timeout_ms: int | None = None
    acting_master: bool | None = None  # None: an old broker, whose slaves never carry topics
    zone: str | None = None


class Registered(NamedTuple):
    """What a registering broker learns: for slaves, where the master is."""

    master_address: str | None = None
    master_ha_address: str | None = None


class MinIdChange(NamedTuple):
    """The lowest broker id of a name is another one now; these addresses want to know."""

    targets: tuple[str, ...]
    min_id: int
    min_address: str
    offline_address: str | None
    ha_address: str | None


class BrokerSet(msgspec.Struct):
    """All brokers of one name."""

    cluster: str
    name: str
    addresses: dict[int, str]
    acting_master: bool = False
    zone: str | None = None


class Alive(msgspec.Struct):
    """When a broker spoke last, and on which connection."""

    seen_ms: int
    timeout_ms: int
    version: DataVersion
    connection: object
    ha_address: str
    name: str


class RouteTable:
    """The tables of one name server. Times are milliseconds of one steady clock."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[str, QueueData]] = {}  # topic -> broker name -> queues
        self.brokers: dict[str, BrokerSet] = {}
        self.clusters: dict[str, set[str]] = {}
        self.alive: dict[tuple[str, str], Alive] = {}  # (cluster, address)
        self.filter_servers: dict[tuple[str, str], list[str]] = {}
        self.mappings: dict[str, dict[str, Any]] = {}  # static topics: topic -> broker -> info
        self.delete_missing_topics = False
        self.changes: list[MinIdChange] = []  # for the service to send and clear

    # -- registering

    def register(
        self,
        broker: Registration,
        topics: Mapping[str, Topic] | None,
        version: DataVersion,
        connection: object,
        now_ms: int,
        filter_servers: list[str] | None = None,
        mappings: Mapping[str, Any] | None = None,
    ) -> Registered | None:
        """Take over a registration; ``None`` when it is refused (cluster.md 1.2)."""
        brokers = self.brokers.get(broker.name)
        first = brokers is None
        whole = topics is None or len(topics) != 1
        if not whole and (brokers is None or broker.broker_id not in brokers.addresses):
            return None  # a broker's first registration is a whole one
        if brokers is None:
            brokers = self.brokers[broker.name] = BrokerSet(broker.cluster, broker.name, {})
        self._set_cluster(brokers, broker.cluster)
        brokers.acting_master = bool(broker.acting_master)
        brokers.zone = broker.zone
        previous_min = min(brokers.addresses, default=0)
        # An address has one id: after a switch of roles the old one goes.
        for broker_id, address in list(brokers.addresses.items()):
            if address == broker.address and broker_id != broker.broker_id:
                del brokers.addresses[broker_id]
        old_address = brokers.addresses.get(broker.broker_id)
        if old_address is not None and old_address != broker.address:
            rival = self.alive.get((broker.cluster, old_address))
            if rival is not None and rival.version.state_version > version.state_version:
                self.alive.pop((broker.cluster, broker.address), None)
                return Registered()  # a stale master may not take the place of the new one
        brokers.addresses[broker.broker_id] = broker.address
        first = first or old_address is None
        self._take_topics(broker, brokers, topics, version, first, mappings)
        self._take_liveness(broker, version, connection, now_ms, filter_servers)
        if broker.broker_id < previous_min:
            self._note_min_change(brokers, offline=None, ha_address=broker.ha_address)
        return self._master_of(broker, brokers)

    def _set_cluster(self, brokers: BrokerSet, cluster: str) -> None:
        if brokers.cluster != cluster:
            self._leave_cluster(brokers)
            brokers.cluster = cluster
        self.clusters.setdefault(cluster, set()).add(brokers.name)

    def _leave_cluster(self, brokers: BrokerSet) -> None:
        names = self.clusters.get(brokers.cluster, set())
        names.discard(brokers.name)
        if not names:
            self.clusters.pop(brokers.cluster, None)

    def _take_topics(
        self,
        broker: Registration,
        brokers: BrokerSet,
        topics: Mapping[str, Topic] | None,
        version: DataVersion,
        first: bool,
        mappings: Mapping[str, Any] | None,
    ) -> None:
        prime = (
            broker.acting_master is not None
            and broker.broker_id != MASTER_ID
            and broker.broker_id == min(brokers.addresses)
        )
        if topics is None or (broker.broker_id != MASTER_ID and not prime):
            return
        known = self.alive.get((broker.cluster, broker.address))
        changed = first or known is None or known.version != version
        if self.delete_missing_topics and not mappings:
            self._drop_missing(broker.name, topics)
        acting = prime and brokers.acting_master
        for topic in topics.values():
            of_topic = self.queues.get(topic.name)
            if of_topic is None:
                of_topic = self.queues[topic.name] = {}
            if changed or broker.name not in of_topic:
                of_topic[broker.name] = QueueData(
                    broker.name,
                    topic.perm & ~PERM_WRITE if acting else topic.perm,
                    topic.read_queues,
                    topic.sys_flag,
                    topic.write_queues,
                )
        for name, info in (mappings or {}).items():
            self.mappings.setdefault(name, {})[broker.name] = info

    def _drop_missing(self, name: str, topics: Mapping[str, Topic]) -> None:
        for topic in [t for t, q in self.queues.items() if name in q and t not in topics]:
            self._drop_queues(topic, name)

    def _take_liveness(
        self,
        broker: Registration,
        version: DataVersion,
        connection: object,
        now_ms: int,
        filter_servers: list[str] | None,
    ) -> None:
        key = (broker.cluster, broker.address)
        self.alive[key] = Alive(
            now_ms,
            broker.timeout_ms or HEARTBEAT_TIMEOUT_MS,
            version,
            connection,
            broker.ha_address,
            broker.name,
        )
        if filter_servers:
            self.filter_servers[key] = filter_servers
        elif filter_servers is not None:
            self.filter_servers.pop(key, None)

    def _master_of(self, broker: Registration, brokers: BrokerSet) -> Registered:
        address = brokers.addresses.get(MASTER_ID)
        if broker.broker_id == MASTER_ID or address is None:
            return Registered()
        master = self.alive.get((broker.cluster, address))
        return Registered(address, master.ha_address) if master else Registered()

    def set_queues(self, topic: str, queues: Iterable[QueueData]) -> None:
        """REGISTER_TOPIC_IN_NAMESRV: ignored when a broker name is unknown."""
        wanted = list(queues)
        if wanted and all(data.broker_name in self.brokers for data in wanted):
            of_topic = self.queues.setdefault(topic, {})
            for data in wanted:
                of_topic[data.broker_name] = data

    # -- liveness

    def version_of(self, cluster: str, address: str) -> DataVersion | None:
        known = self.alive.get((cluster, address))
        return known.version if known else None

    def heard(self, cluster: str, address: str, now_ms: int) -> None:
        """A known broker spoke."""
        known = self.alive.get((cluster, address))
        if known is not None:
            known.seen_ms = now_ms

    def expired(self, now_ms: int) -> list[tuple[str, str, Alive]]:
        """(cluster, address, entry) of brokers that were silent for too long."""
        return [
            (cluster, address, entry)
            for (cluster, address), entry in self.alive.items()
            if entry.seen_ms + entry.timeout_ms < now_ms
        ]

    def of_connection(self, connection: object) -> list[tuple[str, str, str]]:
        """(cluster, address, broker name) of what was registered over a connection."""
        return [
            (cluster, address, entry.name)
            for (cluster, address), entry in self.alive.items()
            if entry.connection is connection
        ]

    # -- unregistering

    def unregister(self, cluster: str, name: str, address: str) -> None:
        """Forget a broker; its topics too when nobody of its name is left."""
        entry = self.alive.pop((cluster, address), None)
        self.filter_servers.pop((cluster, address), None)
        brokers = self.brokers.get(name)
        if brokers is None:
            return
        had_min = brokers.addresses and brokers.addresses.get(min(brokers.addresses)) == address
        for broker_id, known in list(brokers.addresses.items()):
            if known == address:
                del brokers.addresses[broker_id]
        if not brokers.addresses:
            self._drop_name(name)
            return
        if brokers.acting_master:
            if MASTER_ID not in brokers.addresses:
                self._set_perm(name, lambda perm: perm & ~PERM_WRITE)
            if had_min:
                ha_address = entry.ha_address if entry else None
                self._note_min_change(brokers, offline=address, ha_address=ha_address)

    def _drop_name(self, name: str) -> None:
        self._leave_cluster(self.brokers.pop(name))
        for topic in [topic for topic, queues in self.queues.items() if name in queues]:
            self._drop_queues(topic, name)

    def _drop_queues(self, topic: str, name: str) -> None:
        queues = self.queues[topic]
        queues.pop(name, None)
        self.mappings.get(topic, {}).pop(name, None)
        if not queues:
            del self.queues[topic]
            self.mappings.pop(topic, None)

    def _note_min_change(
        self, brokers: BrokerSet, *, offline: str | None, ha_address: str | None
    ) -> None:
        lowest = min(brokers.addresses)
        joined = offline is None
        targets = tuple(
            address
            for broker_id, address in brokers.addresses.items()
            if not joined or broker_id != lowest or len(brokers.addresses) == 1
        )
        self.changes.append(
            MinIdChange(
                targets,
                lowest,
                brokers.addresses[lowest],
                offline,
                ha_address if joined else None,
            )
        )

    # -- operators

    def wipe_write_permission(self, name: str) -> int:
        """Clear the write bit of every topic of a broker; how many topics it has."""
        return self._set_perm(name, lambda perm: perm & ~PERM_WRITE)

    def add_write_permission(self, name: str) -> int:
        """Make every topic of a broker readable and writable, and nothing else."""
        return self._set_perm(name, lambda _: PERM_READ | PERM_WRITE)

    def _set_perm(self, name: str, change: Any) -> int:
        count = 0
        for queues in self.queues.values():
            data = queues.get(name)
            if data is not None:
                queues[name] = msgspec.structs.replace(data, perm=change(data.perm))
                count += 1
        return count

    def delete_topic(self, topic: str, cluster: str | None) -> None:
        """Forget a topic, everywhere or in one cluster; an unknown one is no error."""
        if cluster is None:
            self.queues.pop(topic, None)
            self.mappings.pop(topic, None)
            return
        for name in self.clusters.get(cluster, ()):
            if name in self.queues.get(topic, {}):
                self._drop_queues(topic, name)

    # -- questions

    def brokers_of(self, topic: str) -> list[BrokerSet]:
        return [self.brokers[n] for n in self.queues.get(topic, {}) if n in self.brokers]

    def topics_of_cluster(self, cluster: str) -> list[str]:
        names = self.clusters.get(cluster, set())
        return [topic for topic, queues in self.queues.items() if not names.isdisjoint(queues)]

    def topics_with_flag(self, wanted: int, unwanted: int = 0) -> list[str]:
        """Topics whose system flag has one bit and not another (decided on the first broker)."""
        found = []
        for topic, queues in self.queues.items():
            flag = next(iter(queues.values())).sys_flag
            if flag & wanted and not flag & unwanted:
                found.append(topic)
        return found
