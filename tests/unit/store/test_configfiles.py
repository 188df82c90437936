"""When the tables in ``config/`` reach the disk: what another broker finds after a kill."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.brokers import World

SYNC_S = 0.015  # of a slow disk


def test_a_slow_disk_does_not_keep_new_topics_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    world.clock.advance(1)
    world.background.eager = False
    for name in ("first", "second"):
        client.produce(name)
        world.clock.advance(SYNC_S)
        world.background.run()
    for _ in range(2):
        world.clock.advance(0.05)
        world.background.run()
    known = json.loads((tmp_path / "config" / "topics.json").read_bytes())["topicConfigTable"]
    assert {"first", "second"} <= known.keys()
    world.background.eager = True
    world.stop()
