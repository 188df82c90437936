"""Keeping the name servers informed: at the start, on changes, every 30 s (cluster.md 1.2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

import msgspec

from firearrow.broker.cluster_queues import BrokerQueues, Found
from firearrow.broker.topics import Topics
from firearrow.codec import lenient_json
from firearrow.codec.hashes import body_crc
from firearrow.model import codes
from firearrow.model.clock import Clock, Timer
from firearrow.model.network import Network, Peer, Session
from firearrow.model.topic import DataVersion, Topic
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession

log = logging.getLogger(__name__)

REGISTER_BROKER: Final = 103
UNREGISTER_BROKER: Final = 104
GET_ROUTEINFO_BY_TOPIC: Final = 105
CALL_TIMEOUT_S: Final = 24.0  # ``registerBrokerTimeoutMills``
UNREGISTER_TIMEOUT_S: Final = 3.0
ROUTE_TIMEOUT_S: Final = 2.0  # the clients that ask for it wait 3 s
PERIOD_MS_MIN, PERIOD_MS_MAX = 10_000, 60_000
RECONNECT_S: Final = 3.0
# About 2 MB: a frame has at most 16 MiB. Java's name server takes parts as well.
TOPICS_PER_REQUEST: Final = 10_000


class RegistrationSettings(Protocol):
    broker_cluster_name: str
    broker_name: str
    broker_id: int
    broker_permission: int
    register_name_server_period: int


class Announcement(NamedTuple):
    """What a name server is told: some topics, or all, and which of them are static."""

    topics: dict[str, Topic]
    version: DataVersion
    mappings: dict[str, msgspec.Raw]  # ``TopicQueueMappingInfo`` by topic

    def parts(self) -> Iterator[Announcement]:
        """The same in requests of a bounded size; an empty one is one."""
        names = list(self.topics)
        for start in range(0, max(len(names), 1), TOPICS_PER_REQUEST):
            topics = {name: self.topics[name] for name in names[start : start + TOPICS_PER_REQUEST]}
            # A name server takes changes only with a version that it does not know yet.
            timestamp = self.version.timestamp + start
            version = msgspec.structs.replace(self.version, timestamp=timestamp)
            mappings = {name: info for name, info in self.mappings.items() if name in topics}
            yield Announcement(topics, version, mappings)


Everything = Callable[[], Announcement]
MastersFound = Callable[[dict[str, str] | None], None]  # broker name -> its master's address


class NameServerLink(Protocol):
    """One name server, over a connection or in this process."""

    def start(self, everything: Everything) -> None:
        """Register now. ``everything`` tells all topics, whenever they are needed again."""

    def register(self, said: Announcement) -> None:
        """Tell some topics, or all."""

    def queues_of(self, topic: str, found: Found) -> None:
        """Ask for the brokers of a topic; ``None`` when the name server has no answer."""

    def masters_of(self, topic: str, found: MastersFound) -> None:
        """Ask where the masters of a topic's brokers are; ``None`` as above."""

    def unregister(self, done: Callable[[], None]) -> None: ...


class RemoteNameServer:
    """A name server at the other end of one lasting connection.

    A new connection always begins with everything: behind it may be a name server that was
    started anew and knows nothing, or has dropped this broker.
    """

    def __init__(
        self,
        address: str,
        settings: RegistrationSettings,
        identity: tuple[str, str],
        network: Network,
        clock: Clock,
        order_topics: Callable[[list[str]], None],
    ) -> None:
        self.address = address
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._settings = settings
        self._broker_address, self._ha_address = identity
        self._network = network
        self._clock = clock
        self._order_topics = order_topics
        self._everything: Everything = lambda: Announcement({}, DataVersion(), {})
        self._session: RemotingSession | None = None
        self._connecting = False
        self._retry: Timer | None = None
        self._stopped = False
        self._down = False  # said so once
        self._greeted = False  # this connection has registered

    def start(self, everything: Everything) -> None:
        self._everything = everything
        self._connect()

    # -- requests

    def register(self, said: Announcement) -> None:
        if self._session is None or self._session.closed:
            self._connect()  # and then everything
        else:
            self._send(said, whole=False)

    def _send_everything(self) -> None:
        self._send(self._everything(), whole=True)

    def _send(self, said: Announcement, *, whole: bool) -> None:
        for part in said.parts():
            self._send_part(registration_body(part), whole)

    def _send_part(self, body: bytes, whole: bool) -> None:
        session = self._session
        if session is None or session.closed:
            return
        ext = {
            **self._identity(),
            "haServerAddr": self._ha_address,
            "enableActingMaster": "false",
            "compressed": "false",
            "bodyCrc32": str(body_crc(body)),
        }

        def done(header: Header | None, answer: bytes) -> None:
            self._registered(session, header, answer, whole)

        session.call(REGISTER_BROKER, ext, body, CALL_TIMEOUT_S, done)

    def unregister(self, done: Callable[[], None]) -> None:
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
        if self._session is None or self._session.closed:
            done()
            return
        self._session.call(
            UNREGISTER_BROKER,
            self._identity(),
            b"",
            UNREGISTER_TIMEOUT_S,
            lambda header, body: done(),
        )

    def queues_of(self, topic: str, found: Found) -> None:
        self._route(topic, lambda route: found(None if route is None else route.shares()))

    def masters_of(self, topic: str, found: MastersFound) -> None:
        self._route(topic, lambda route: found(None if route is None else route.masters()))

    def _route(self, topic: str, found: Callable[[_Route | None], None]) -> None:
        session = self._session
        if session is None or session.closed:
            found(None)
            return

        def done(header: Header | None, body: bytes) -> None:
            found(_route(body) if header is not None and header.code == codes.SUCCESS else None)

        session.call(GET_ROUTEINFO_BY_TOPIC, {"topic": topic}, b"", ROUTE_TIMEOUT_S, done)

    def _identity(self) -> dict[str, str]:
        return {
            "brokerName": self._settings.broker_name,
            "brokerAddr": self._broker_address,
            "clusterName": self._settings.broker_cluster_name,
            "brokerId": str(self._settings.broker_id),
        }

    def _registered(
        self, session: RemotingSession, header: Header | None, body: bytes, whole: bool
    ) -> None:
        if self._stopped:
            return
        if header is None:
            if not session.closed:
                session.close("the name server does not answer")
            self._say_down("it does not answer")
        elif header.code != codes.SUCCESS:
            if whole:
                log.error(
                    "name server %s refuses this broker (%s): clients that ask it do not find the "
                    "broker. See its log, and brokerName, brokerClusterName and brokerId here",
                    self.address,
                    header.remark,
                )
            else:
                self._send_everything()  # it has dropped this broker meanwhile
        else:
            if not self._greeted:
                log.log(
                    logging.WARNING if self._down else logging.INFO,
                    "registered with name server %s as %s",
                    self.address,
                    self._broker_address,
                )
            self._greeted, self._down = True, False
            if body:
                self._order_topics(_ordered(body))

    # -- the connection

    def _connect(self) -> None:
        if self._connecting or self._retry is not None or self._stopped:
            return
        self._connecting = True
        self._network.connect(self._host, self._port, self._connected, self._failed)

    def _connected(self, peer: Peer) -> Session:
        self._connecting = False
        self._greeted = False
        session = RemotingSession(peer, Dispatcher({}), self._clock, self._lost)
        self._session = session
        self._clock.call_soon(self._send_everything)
        return session

    def _failed(self, reason: str) -> None:
        self._connecting = False
        self._say_down(reason)
        self._connect_later()

    def _lost(self, session: RemotingSession) -> None:
        if not self._stopped:
            self._say_down("the connection is lost")
            self._connect_later()

    def _connect_later(self) -> None:
        if self._retry is None and not self._stopped:
            self._retry = self._clock.call_later(RECONNECT_S, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._connect()

    def _say_down(self, reason: str) -> None:
        if not self._down:
            log.warning(
                "name server %s cannot be reached (%s); clients that ask it may not find this "
                "broker. It is tried again every %g s; check namesrvAddr",
                self.address,
                reason,
                RECONNECT_S,
            )
        self._down = True


def _ordered(body: bytes) -> list[str]:
    """The topics of ORDER_TOPIC_CONFIG; what cannot be read names none."""
    try:
        return list(msgspec.convert(lenient_json.loads(body), _KvTable).table)
    except ValueError as error:
        log.warning(
            "a name server answers with an order configuration (ORDER_TOPIC_CONFIG) that cannot be "
            "read: %s. It counts as empty; see what namesrvAddr points to",
            error,
        )
        return []


class _QueueData(msgspec.Struct):
    broker_name: str = msgspec.field(name="brokerName")
    perm: int = 0
    read_queues: int = msgspec.field(default=0, name="readQueueNums")
    write_queues: int = msgspec.field(default=0, name="writeQueueNums")


class _BrokerData(msgspec.Struct):
    broker_name: str = msgspec.field(name="brokerName")
    addresses: dict[str, str] = msgspec.field(default_factory=dict, name="brokerAddrs")


class _Route(msgspec.Struct):
    """``TopicRouteData``."""

    queues: list[_QueueData] = msgspec.field(default_factory=list, name="queueDatas")
    brokers: list[_BrokerData] = msgspec.field(default_factory=list, name="brokerDatas")

    def shares(self) -> list[BrokerQueues]:
        return [
            BrokerQueues(q.broker_name, q.read_queues, q.perm, q.write_queues) for q in self.queues
        ]

    def masters(self) -> dict[str, str]:
        return {b.broker_name: b.addresses["0"] for b in self.brokers if "0" in b.addresses}


def _route(body: bytes) -> _Route | None:
    """``None`` when it cannot be read."""
    try:
        return msgspec.convert(lenient_json.loads(body), _Route)
    except ValueError as error:
        log.warning(
            "a name server answers with a route that cannot be read: %s. The one before goes on to "
            "count; see what namesrvAddr points to",
            error,
        )
        return None


class _KvTable(msgspec.Struct):
    table: dict[str, str] = {}


class Registrar:
    """Registers one broker with all its name servers."""

    def __init__(
        self,
        settings: RegistrationSettings,
        topics: Topics,
        clock: Clock,
        links: list[NameServerLink],
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._clock = clock
        self._links = links
        self._running = False

    def start(self) -> None:
        """Register now, on every change, and from time to time."""
        self._running = True
        self._topics.changed = self._changed
        for link in self._links:
            link.start(self._everything)
        self._schedule()

    def _everything(self) -> Announcement:
        return self._announcement(self._topics.table)

    def _tick(self) -> None:
        if self._running:
            self.register_all()
            self._schedule()

    def _schedule(self) -> None:
        period_ms = self._settings.register_name_server_period
        self._clock.call_later(min(max(period_ms, PERIOD_MS_MIN), PERIOD_MS_MAX) / 1000, self._tick)

    def register_all(self) -> None:
        """Say everything to everybody."""
        self._register(self._topics.table)

    def permission_changed(self) -> None:
        """``brokerPermission`` is another one: every topic looks different now."""
        self._topics.touch()
        self.register_all()

    def _changed(self, topics: list[Topic]) -> None:
        """Only what changed: a name server keeps the topics that it is not told of."""
        if self._running and topics:
            self._register({topic.name: topic for topic in topics})

    def _register(self, topics: dict[str, Topic]) -> None:
        said = self._announcement(topics)
        for link in self._links:
            link.register(said)

    def _announcement(self, topics: dict[str, Topic]) -> Announcement:
        static = self._topics.logical.items()
        mappings = {name: logical.info for name, logical in static if name in topics}
        return Announcement(self._permitted(topics), self._topics.version, mappings)

    def _permitted(self, topics: dict[str, Topic]) -> dict[str, Topic]:
        """A broker that may not be read or written takes that from all its topics."""
        permission = self._settings.broker_permission
        if permission & 6 == 6:
            return dict(topics)
        return {
            name: msgspec.structs.replace(topic, perm=topic.perm & (permission | 1))
            for name, topic in topics.items()
        }

    def queues_of(self, topic: str, found: Found) -> None:
        """Ask one name server after the other for the brokers of a topic."""
        links = iter(self._links)

        def ask(answer: list[BrokerQueues] | None = None) -> None:
            link = next(links, None) if answer is None else None
            if link is None:
                found(answer)
            else:
                link.queues_of(topic, ask)

        ask()

    def masters_of(self, topic: str, found: MastersFound) -> None:
        """Ask one name server after the other where the masters of a topic's brokers are."""
        links = iter(self._links)

        def ask(answer: dict[str, str] | None = None) -> None:
            link = next(links, None) if answer is None else None
            if link is None:
                found(answer)
            else:
                link.masters_of(topic, ask)

        ask()

    def stop(self, done: Callable[[], None]) -> None:
        """Unregister everywhere, then call ``done``."""
        self._running = False
        remaining = len(self._links)
        if not remaining:
            done()
            return

        def one() -> None:
            nonlocal remaining
            remaining -= 1
            if not remaining:
                done()

        for link in self._links:
            link.unregister(one)


def registration_body(said: Announcement) -> bytes:
    """``RegisterBrokerBody`` as Java 5 writes it."""
    return bodies.encode(
        {
            "filterServerList": [],
            "topicConfigSerializeWrapper": {
                "dataVersion": said.version,
                "mappingDataVersion": DataVersion(),
                "topicConfigTable": said.topics,
                "topicQueueMappingDetailMap": {},
                "topicQueueMappingInfoMap": said.mappings,
            },
        }
    )
