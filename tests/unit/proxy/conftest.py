"""The proxy over a real broker on a virtual clock, both ways that it may reach it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.brokers import World
from tests.support.cluster import Cluster
from tests.support.grpc import GrpcWorld

from firearrow.config import BrokerSettings


@pytest.fixture(params=["the broker's own", "alone"])
def either_way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GrpcWorld]:
    """A proxy in the broker's process, and one that reaches it over a network."""
    if request.param == "alone":
        cluster = Cluster(tmp_path)
        cluster.grpc.create_topic("orders")
        yield cluster.grpc
        cluster.stop()
        return
    settings = BrokerSettings()
    settings.recall_message_enable = True
    world = World(tmp_path, settings)
    grpc = GrpcWorld(world)
    grpc.create_topic("orders")
    yield grpc
    grpc.proxy.stop()
    world.stop()
