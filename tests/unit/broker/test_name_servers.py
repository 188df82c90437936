"""A broker and its name servers, over connections that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import World
from tests.support.namesrv import NameServerWorld
from tests.support.network import VirtualNetwork

from firearrow.broker import registration
from firearrow.broker.registration import Registrar, RemoteNameServer
from firearrow.model import codes
from firearrow.model.clock import VirtualClock
from firearrow.model.topic import Topic
from firearrow.protocol.remoting.command import Reply
from firearrow.protocol.remoting.requests import REQUESTS
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession, Route

HOSTS = ("10.0.0.1", "10.0.0.2")
PORT = 9876


class Cluster:
    """One broker, two places for name servers."""

    def __init__(self, root: Path) -> None:
        self.clock = VirtualClock()
        self.network = VirtualNetwork(self.clock)
        self.broker = World(root, clock=self.clock)
        core = self.broker.core
        links = [
            RemoteNameServer(
                f"{host}:{PORT}",
                self.broker.settings,
                ("127.0.0.1:10911", "127.0.0.1:10912"),
                self.network,
                self.clock,
                core.topics.mark_ordered,
            )
            for host in HOSTS
        ]
        self.topics = core.topics
        self.registrar = Registrar(self.broker.settings, core.topics, self.clock, list(links))

    def name_server(self, host: str = HOSTS[0], **settings: Any) -> NameServerWorld:
        """Start one, in the place of whatever was there."""
        world = NameServerWorld(self.clock, **settings)
        self.network.serve(
            (host, PORT),
            lambda peer: RemotingSession(
                peer, world.dispatcher, self.clock, world.server.session_closed
            ),
        )
        return world

    def stop(self, host: str = HOSTS[0]) -> None:
        self.network.stop((host, PORT))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "store")
    yield cluster
    cluster.broker.stop()


def test_everything_is_registered_at_once_with_every_name_server(cluster: Cluster) -> None:
    servers = [cluster.name_server(host) for host in HOSTS]
    cluster.topics.create(Topic(name="Before"))
    cluster.registrar.start()
    cluster.clock.advance()
    for server in servers:
        assert server.brokers_of("Before") == {"broker-a": {"0": "127.0.0.1:10911"}}
        assert server.topics() == set(cluster.topics.table)
        assert "rmq_sys_SYNC_BROKER_MEMBER_broker-a" in server.topics()


def test_a_new_topic_is_known_at_once_and_a_changed_one_changes(cluster: Cluster) -> None:
    server = cluster.name_server()
    cluster.registrar.start()
    cluster.clock.advance()
    cluster.topics.create(Topic(name="New"))
    cluster.clock.advance()
    assert server.perm("New", "broker-a") == 6
    cluster.topics.create(Topic(name="New", perm=4))
    cluster.clock.advance()
    assert server.perm("New", "broker-a") == 4


def test_a_client_that_sends_to_a_new_topic_makes_its_route(cluster: Cluster) -> None:
    server = cluster.name_server()
    cluster.registrar.start()
    cluster.clock.advance()
    cluster.broker.connect().produce("BySending")
    cluster.clock.advance()
    assert server.brokers_of("BySending")


def test_one_name_server_that_is_down_is_no_trouble_and_is_found_when_it_comes(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    first = cluster.name_server(HOSTS[0])
    cluster.registrar.start()
    cluster.clock.advance(60)
    assert first.brokers_of("TBW102")
    said = [r.getMessage() for r in caplog.records if HOSTS[1] in r.getMessage()]
    assert len(said) == 1, "it is said once"
    assert said[0].startswith("name server 10.0.0.2:9876 cannot be reached")
    second = cluster.name_server(HOSTS[1])
    cluster.clock.advance(registration.RECONNECT_S)
    assert second.brokers_of("TBW102")
    assert "registered with name server 10.0.0.2:9876" in caplog.records[-1].getMessage()


def test_a_name_server_that_started_anew_gets_everything(cluster: Cluster) -> None:
    """Even when the first thing to tell it would be one new topic."""
    cluster.name_server()
    cluster.topics.create(Topic(name="Old"))
    cluster.registrar.start()
    cluster.clock.advance()
    cluster.stop()
    cluster.clock.advance()
    anew = cluster.name_server()
    cluster.topics.create(Topic(name="New"))
    cluster.clock.advance(registration.RECONNECT_S)
    assert anew.topics() == set(cluster.topics.table)


def test_a_name_server_that_dropped_this_broker_gets_everything_again(cluster: Cluster) -> None:
    server = cluster.name_server()
    cluster.registrar.start()
    cluster.clock.advance()
    server.server.unregister("DefaultCluster", "broker-a", "127.0.0.1:10911")
    cluster.topics.create(Topic(name="New"))
    cluster.clock.advance()
    assert server.topics() == set(cluster.topics.table)


def test_the_broker_stays_known_for_hours(cluster: Cluster) -> None:
    server = cluster.name_server()
    cluster.registrar.start()
    for _ in range(60):
        cluster.clock.advance(60)
        assert server.brokers_of("TBW102")
    assert cluster.network.attempts <= 1 + 3600 / registration.RECONNECT_S + 1


def test_a_name_server_that_hangs_is_left_and_tried_again(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.name_server()
    cluster.registrar.start()
    cluster.clock.advance()
    hanging = cluster.network.accepted[-1]
    hanging.deaf = True
    cluster.clock.advance(30 + registration.CALL_TIMEOUT_S)
    assert hanging.closed
    assert hanging.other.close_reason == "the name server does not answer"
    cluster.clock.advance(registration.RECONNECT_S)
    assert not cluster.network.accepted[-1].closed


def test_a_permission_of_the_whole_broker_is_seen_at_once(cluster: Cluster) -> None:
    server = cluster.name_server()
    cluster.topics.create(Topic(name="T"))
    cluster.registrar.start()
    cluster.clock.advance()
    cluster.broker.settings.broker_permission = 4
    cluster.registrar.permission_changed()
    cluster.clock.advance()
    assert server.perm("T", "broker-a") == 4
    assert server.perm("TBW102", "broker-a") == 5, "the template stays one"
    cluster.broker.settings.broker_permission = 6
    cluster.registrar.permission_changed()
    cluster.clock.advance()
    assert server.perm("T", "broker-a") == 6


def test_topics_that_do_not_fit_one_frame_are_told_in_parts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "TOPICS_PER_REQUEST", 7)
    server = cluster.name_server()
    cluster.topics.create_all([Topic(name=f"T{n}") for n in range(30)])
    cluster.registrar.start()
    cluster.clock.advance()
    assert server.topics() == set(cluster.topics.table)
    cluster.topics.create_all([Topic(name=f"T{n}", perm=4) for n in range(30)])
    cluster.clock.advance()
    assert [server.perm(f"T{n}", "broker-a") for n in range(30)] == [4] * 30


def test_ordered_topics_are_marked_as_the_name_server_says(cluster: Cluster) -> None:
    server = cluster.name_server()
    server.kv.put("ORDER_TOPIC_CONFIG", "T", "broker-a:8")
    cluster.topics.create_all([Topic(name="T"), Topic(name="U")])
    cluster.registrar.start()
    cluster.clock.advance(1)
    assert (cluster.topics.table["T"].order, cluster.topics.table["U"].order) == (True, False)


def answering(cluster: Cluster, reply: Reply) -> None:
    """A name server that answers every registration alike."""
    routes = {103: Route(*REQUESTS[103], lambda request: reply)}
    cluster.network.serve(
        (HOSTS[0], PORT),
        lambda peer: RemotingSession(peer, Dispatcher(routes), cluster.clock),
    )


@pytest.mark.parametrize("body", [b"[]", b"7", b'{"table":[]}', b"\xff", b"{"])
def test_an_answer_that_cannot_be_read_ends_nothing(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    answering(cluster, Reply(body=body))
    cluster.registrar.start()
    cluster.clock.advance(1)
    assert "an order configuration (ORDER_TOPIC_CONFIG) that cannot be read" in caplog.text
    assert not cluster.network.accepted[-1].closed


def test_a_refused_broker_is_said(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    answering(cluster, Reply(codes.SYSTEM_ERROR, "not you"))
    cluster.registrar.start()
    cluster.clock.advance(1)
    assert (
        "name server 10.0.0.1:9876 refuses this broker (not you): clients that ask it do not"
        in caplog.text
    )


def test_a_stopped_broker_is_unregistered_everywhere_and_does_not_come_back(
    cluster: Cluster,
) -> None:
    servers = [cluster.name_server(host) for host in HOSTS]
    cluster.registrar.start()
    cluster.clock.advance()
    gone: list[bool] = []
    cluster.registrar.stop(lambda: gone.append(True))
    cluster.clock.advance()
    assert gone == [True]
    assert [server.topics() for server in servers] == [set(), set()]
    cluster.clock.advance(120)
    assert [server.topics() for server in servers] == [set(), set()]


def test_a_stopping_broker_does_not_wait_for_a_dead_name_server(cluster: Cluster) -> None:
    cluster.name_server(HOSTS[0])
    cluster.registrar.start()
    cluster.clock.advance()
    cluster.network.accepted[-1].deaf = True
    gone: list[bool] = []
    cluster.registrar.stop(lambda: gone.append(True))
    cluster.clock.advance(registration.UNREGISTER_TIMEOUT_S)
    assert gone == [True]
