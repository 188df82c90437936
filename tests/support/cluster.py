"""Name servers, brokers and a proxy in front of them, on a network without sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firearrow.assembly import assemble_remote_proxy
from firearrow.broker.registration import Registrar, RemoteNameServer
from firearrow.codec.addresses import join_address
from firearrow.config import BrokerSettings
from firearrow.model.clock import VirtualClock
from firearrow.protocol.remoting.session import RemotingSession
from firearrow.proxy.remote.backend import RemoteBackend
from tests.support.brokers import World
from tests.support.grpc import GrpcWorld
from tests.support.namesrv import NameServerWorld
from tests.support.network import VirtualNetwork

NAME_SERVERS = (("10.0.0.1", 9876), ("10.0.0.2", 9876))


class Member:
    """A broker that can end and start again; its store lasts."""

    def __init__(self, cluster: Cluster, root: Path, name: str, address: tuple[str, int]) -> None:
        self._cluster = cluster
        self._root = root
        self.name = name
        self.address = address
        self.running = False
        self.start()

    def start(self) -> None:
        cluster, settings = self._cluster, BrokerSettings()
        settings.recall_message_enable = settings.enable_property_filter = True
        for name, value in cluster.broker_settings.items():
            setattr(settings, name, value)
        self.world = World(
            self._root, settings, clock=cluster.clock, name=self.name, address=self.address
        )
        core = self.world.core
        address = join_address(*self.address)
        links = [
            RemoteNameServer(
                join_address(*name_server),
                settings,
                (address, address),
                cluster.network,
                cluster.clock,
                core.topics.mark_ordered,
            )
            for name_server in NAME_SERVERS
        ]
        self._registrar = Registrar(settings, core.topics, cluster.clock, list(links))
        core.cluster_queues.source = self._registrar.queues_of
        core.siblings.connect(cluster.network, self._registrar.masters_of)
        world = self.world
        cluster.network.serve(
            self.address,
            lambda peer: RemotingSession(
                peer, world.dispatcher, cluster.clock, world.session_closed
            ),
        )
        self._registrar.start()
        self.running = True
        cluster.clock.advance()

    def stop(self) -> None:
        """As a crash: the name servers do not hear of it."""
        self.running = False
        self._registrar.stop(lambda: None)  # no timer goes on; what it says is not sent
        self._cluster.network.stop(self.address)
        self.world.stop()


class Cluster:
    """All of it. ``name_servers`` are running; ``brokers`` too."""

    def __init__(self, root: Path, brokers: int = 1, **broker_settings: Any) -> None:
        self.broker_settings = broker_settings
        self.clock = VirtualClock()
        self.network = VirtualNetwork(self.clock)
        self.name_servers = [self.name_server(index) for index in range(len(NAME_SERVERS))]
        self.brokers = [
            Member(self, root / name, f"broker-{name}", ("127.0.0.1", 10911 + 100 * index))
            for index, name in enumerate("abcd"[:brokers])
        ]
        self._backends: list[RemoteBackend] = []
        self.grpc = self.another_proxy()
        self.backend = self._backends[0]

    def another_proxy(self) -> GrpcWorld:
        """Beside the first one, which is ``grpc``."""
        settings = BrokerSettings()
        settings.namesrv_addr = ";".join(join_address(*address) for address in NAME_SERVERS)
        proxy, backend = assemble_remote_proxy(settings, self.network, self.clock)
        backend.start()
        self._backends.append(backend)
        self.clock.advance()
        return GrpcWorld(self.brokers[0].world, proxy)

    def name_server(self, index: int) -> NameServerWorld:
        """Start one, in the place of whatever was there."""
        world = NameServerWorld(self.clock)
        self.network.serve(
            NAME_SERVERS[index],
            lambda peer: RemotingSession(
                peer, world.dispatcher, self.clock, world.server.session_closed
            ),
        )
        return world

    def create_topic(self, name: str, kind: str = "NORMAL", queues: int = 1) -> None:
        """On every broker."""
        for member in self.brokers:
            GrpcWorld.create_topic_on(member.world, name, kind, queues)
        self.clock.advance()

    def stop(self) -> None:
        self.grpc.proxy.stop()
        for backend in self._backends:
            backend.stop()
        self.clock.advance()
        for member in self.brokers:
            if member.running:
                member.stop()
