"""A producer's messages that are alike: what is known of the first ones changes nothing for the
others, whether the broker is in the proxy's process or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import World
from tests.support.cluster import Cluster
from tests.support.grpc import Client, GrpcWorld, message

from firearrow.codec.record import Record
from firearrow.config import BrokerSettings
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc

NORMAL: dict[str, Any] = {"born_host": "host", "message_type": v2.NORMAL}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[GrpcWorld]:
    """A proxy in the broker's process."""
    world = World(tmp_path / "here")
    grpc = GrpcWorld(world)
    grpc.create_topic("orders")
    yield grpc
    grpc.proxy.stop()
    world.stop()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[GrpcWorld]:
    cluster = Cluster(tmp_path / "elsewhere")
    cluster.grpc.create_topic("orders")
    yield cluster.grpc
    cluster.stop()


@pytest.fixture(params=["here", "elsewhere"])
def grpc(request: pytest.FixtureRequest) -> GrpcWorld:
    found: GrpcWorld = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


def send(client: Client, number: int, body: bytes = b"hello", **system: Any) -> Any:
    """Message ``number``: with an id and a time of birth of its own."""
    made = message("orders", body, **{"message_id": f"ID{number:04d}", **NORMAL, **system})
    made.system_properties.born_timestamp.seconds += number
    made.system_properties.born_timestamp.nanos = number * 1_000_000 + 5
    return client.call("SendMessage", rpc.SendMessageRequest(messages=[made]))


def records(grpc: GrpcWorld) -> list[Record]:
    return grpc.world.connect().pull("orders").records()


def test_each_is_stored_as_the_first_was(grpc: GrpcWorld, client: Client) -> None:
    for number in range(6):
        response = send(client, number, b"body %d" % number, tag="blue", properties={"mine": "x"})
        assert response.status.code == v2.OK
        (entry,) = response.entries
        assert (entry.message_id, entry.transaction_id) == (f"ID{number:04d}",) * 2
        assert (entry.status.code, entry.offset) == (v2.OK, number)
    found = records(grpc)
    born_ms = [1_700_000_000_000 + 1001 * number for number in range(6)]
    assert [record.body for record in found] == [b"body %d" % number for number in range(6)]
    assert [record.born_timestamp for record in found] == born_ms
    common = {
        record.properties.replace(b"ID%04d" % number, b"").replace(b"%d" % born_ms[number], b"")
        for number, record in enumerate(found)
    }
    assert len(common) == 1
    assert len({(record.sys_flag, record.born_host, record.flag) for record in found}) == 1
    stats = grpc.world.core.stats
    assert stats.put == 6


def test_each_is_checked(here: GrpcWorld) -> None:
    client = here.connect()
    for number in range(4):
        send(client, number)
    assert send(client, 4, b"").status.code == v2.MESSAGE_BODY_EMPTY
    here.world.settings.max_message_size = 100
    assert send(client, 5, bytes(101)).status.code == v2.MESSAGE_BODY_TOO_LARGE
    for identity in ("ID\x0100", "ID\x0200", "      "):
        assert send(client, 6, message_id=identity).status.code == v2.ILLEGAL_MESSAGE_ID
    assert len(records(here)) == 4


def test_a_caller_without_an_id(grpc: GrpcWorld, client: Client) -> None:
    for number in range(4):
        send(client, number)
    client.metadata = {}
    assert send(client, 4).status.code == v2.CLIENT_ID_REQUIRED


def test_a_topic_that_is_deleted_or_becomes_another(here: GrpcWorld) -> None:
    client = here.connect()
    for number in range(4):
        send(client, number)
    broker = here.world.connect()
    assert broker.call(215, {"topic": "orders"}).code == 0
    here.world.clock.advance(60)
    assert send(client, 4).status.code == v2.TOPIC_NOT_FOUND
    here.create_topic("orders", kind="FIFO")
    here.world.clock.advance(60)
    assert send(client, 5).status.code == v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE


def test_messages_of_a_group_stay_in_one_queue(grpc: GrpcWorld, client: Client) -> None:
    broker = grpc.world.connect()
    assert broker.call(215, {"topic": "orders"}).code == 0
    grpc.create_topic("orders", kind="FIFO", queues=4)
    grpc.world.clock.advance(60)
    for number in range(8):
        send(client, number, message_group="one", message_type=v2.FIFO)
    sizes = [len(broker.pull("orders", queue).records()) for queue in range(4)]
    assert sorted(sizes) == [0, 0, 0, 8]


def test_what_a_room_wants_to_see_it_sees(grpc: GrpcWorld, client: Client) -> None:
    broker = grpc.world.connect()
    assert broker.call(215, {"topic": "orders"}).code == 0
    grpc.create_topic("orders", kind="TRANSACTION")
    grpc.world.clock.advance(60)
    for number in range(4):
        response = send(client, number, message_type=v2.TRANSACTION)
        assert response.entries[0].transaction_id != f"ID{number:04d}"
    assert records(grpc) == []  # half messages are elsewhere


def test_a_group_commit_is_waited_for(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.flush_disk_type = "SYNC_FLUSH"
    world = World(tmp_path, settings)
    grpc = GrpcWorld(world)
    grpc.create_topic("orders")
    client = grpc.connect()
    for number in range(5):
        assert send(client, number).status.code == v2.OK
        assert world.store.flushed_offset() == world.store.commit_log_range()[1]
    grpc.proxy.stop()
    world.stop()


def test_a_store_that_takes_nothing(here: GrpcWorld) -> None:
    client = here.connect()
    for number in range(4):
        send(client, number)
    here.world.store.refuse("test", "the disk is full")
    response = send(client, 4)
    assert response.status.code == response.entries[0].status.code == v2.INTERNAL_SERVER_ERROR
    assert "the disk is full" in response.status.message
    here.world.store.refuse("test", "")
    assert send(client, 5).status.code == v2.OK


def test_a_disk_that_fails(
    here: GrpcWorld,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = here.connect()

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    for number in range(4):
        send(client, number)
    with monkeypatch.context() as patch:
        patch.setattr(here.world.store, "append_at", fail)
        response = send(client, 4)
    assert response.status.code == response.entries[0].status.code == v2.INTERNAL_SERVER_ERROR
    assert "check the disk" in caplog.text
    assert send(client, 5).status.code == v2.OK
