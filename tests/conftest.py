"""Fixtures that every part of the suite uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.brokers import Connection, World
from tests.support.grpc import GrpcWorld

# Time on a busy machine says nothing about the code.
hypothesis.settings.register_profile("firearrow", deadline=None)
hypothesis.settings.load_profile("firearrow")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A broker on a virtual clock."""
    world = World(tmp_path / "store")
    yield world
    world.stop()


@pytest.fixture
def client(world: World) -> Connection:
    """A client of that broker."""
    return world.connect()


@pytest.fixture
def grpc(tmp_path: Path) -> Iterator[GrpcWorld]:
    """A broker with its gRPC proxy and the topic ``orders``."""
    world = World(tmp_path)
    grpc = GrpcWorld(world)
    grpc.create_topic("orders")
    yield grpc
    grpc.proxy.stop()
    world.stop()
