"""Keeping the name servers informed: at the start, on changes, every 30 s (cluster.md 1.2)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from firearrow.broker.topics import Topics
from firearrow.codec import lenient_json
from firearrow.codec.hashes import body_crc
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.network import Network, Peer, Session
from firearrow.model.topic import DataVersion, Topic
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession

log = logging.getLogger(__name__)

REGISTER_BROKER: Final = 103
UNREGISTER_BROKER: Final = 104
CALL_TIMEOUT_S: Final = 24.0  # ``registerBrokerTimeoutMills``
UNREGISTER_TIMEOUT_S: Final = 3.0
PERIOD_MS_MIN, PERIOD_MS_MAX = 10_000, 60_000


class RegistrationSettings(Protocol):
    broker_cluster_name: str
    broker_name: str
    broker_id: int
    broker_permission: int
    register_name_server_period: int


class NameServerLink(Protocol):
    """One name server, over a connection or in this process."""

    def register(self, topics: dict[str, Topic], version: DataVersion) -> None: ...

    def unregister(self, done: Callable[[], None]) -> None: ...


class RemoteNameServer:
    """A name server at the other end of one lasting connection."""

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
        self._session: RemotingSession | None = None
        self._connecting = False
        self._waiting: list[Callable[[RemotingSession], None]] = []
        self._down = False  # said so once

    # -- requests

    def register(self, topics: dict[str, Topic], version: DataVersion) -> None:
        body = registration_body(topics, version)
        ext = {
            **self._identity(),
            "haServerAddr": self._ha_address,
            "enableActingMaster": "false",
            "compressed": "false",
            "bodyCrc32": str(body_crc(body)),
        }
        self._with_session(
            lambda session: session.call(
                REGISTER_BROKER, ext, body, CALL_TIMEOUT_S, self._registered
            )
        )

    def unregister(self, done: Callable[[], None]) -> None:
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

    def _identity(self) -> dict[str, str]:
        return {
            "brokerName": self._settings.broker_name,
            "brokerAddr": self._broker_address,
            "clusterName": self._settings.broker_cluster_name,
            "brokerId": str(self._settings.broker_id),
        }

    def _registered(self, header: Header | None, body: bytes) -> None:
        if header is None:
            self._say_down("it does not answer")
        elif header.code != codes.SUCCESS:
            log.error("name server %s refuses this broker: %s", self.address, header.remark)
        else:
            if self._down:
                log.warning("name server %s is back", self.address)
            self._down = False
            if body:
                table = lenient_json.loads(body).get("table") or {}
                self._order_topics(list(table))

    # -- the connection

    def _with_session(self, use: Callable[[RemotingSession], None]) -> None:
        if self._session is not None and not self._session.closed:
            use(self._session)
            return
        self._waiting = [use]  # what waited longer is older
        if not self._connecting:
            self._connecting = True
            self._network.connect(self._host, self._port, self._connected, self._failed)

    def _connected(self, peer: Peer) -> Session:
        self._connecting = False
        session = RemotingSession(peer, Dispatcher({}), self._clock)
        self._session = session
        waiting, self._waiting = self._waiting, []
        for use in waiting:
            self._clock.call_soon(use, session)
        return session

    def _failed(self, reason: str) -> None:
        self._connecting = False
        self._waiting.clear()
        self._say_down(reason)

    def _say_down(self, reason: str) -> None:
        if not self._down:
            log.warning(
                "name server %s cannot be reached (%s); clients that ask it do not find this "
                "broker. It is tried again every %d s; check namesrvAddr",
                self.address,
                reason,
                self._settings.register_name_server_period // 1000,
            )
        self._down = True


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
        self._tick()

    def _tick(self) -> None:
        if not self._running:
            return
        self.register_all()
        period_ms = self._settings.register_name_server_period
        self._clock.call_later(min(max(period_ms, PERIOD_MS_MIN), PERIOD_MS_MAX) / 1000, self._tick)

    def register_all(self) -> None:
        """Say everything to everybody."""
        self._register(self._topics.table)

    def _changed(self, topics: list[Topic]) -> None:
        """Only what changed: a name server keeps the topics that it is not told of."""
        if self._running and topics:
            self._register({topic.name: topic for topic in topics})

    def _register(self, topics: dict[str, Topic]) -> None:
        permitted = self._permitted(topics)
        for link in self._links:
            link.register(permitted, self._topics.version)

    def _permitted(self, topics: dict[str, Topic]) -> dict[str, Topic]:
        """A broker that may not be read or written takes that from all its topics."""
        permission = self._settings.broker_permission
        if permission & 6 == 6:
            return dict(topics)
        return {
            name: msgspec.structs.replace(topic, perm=topic.perm & (permission | 1))
            for name, topic in topics.items()
        }

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


def registration_body(topics: dict[str, Topic], version: DataVersion) -> bytes:
    """``RegisterBrokerBody`` as Java 5 writes it."""
    return bodies.encode(
        {
            "filterServerList": [],
            "topicConfigSerializeWrapper": {
                "dataVersion": version,
                "mappingDataVersion": DataVersion(),
                "topicConfigTable": topics,
                "topicQueueMappingDetailMap": {},
                "topicQueueMappingInfoMap": {},
            },
        }
    )
