"""A broker with light queues, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.brokers import Connection, World
from tests.support.lite import lite_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = lite_world(tmp_path)
    yield world
    world.stop()


@pytest.fixture
def client(world: World) -> Connection:
    return world.connect()
