"""When the tables in ``config/`` reach the disk: what another broker finds after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.brokers import World

from firearrow.store.configfiles import ConfigUnreadable

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


def test_a_large_table_is_saved_in_steps_while_it_changes(tmp_path: Path) -> None:
    world = World(tmp_path)
    offsets = world.core.offsets
    for number in range(20_000):
        offsets.commit(f"topic{number}", "group", 0, 1)
    offsets.save()
    steps = 0
    while not (tmp_path / "config" / "consumerOffset.json").exists():
        offsets.commit(f"meanwhile{steps}", "group", 0, 1)
        offsets.delete(f"topic{19_999 - steps}", "group")
        world.clock.advance(0)
        steps += 1
        assert steps < 100
    world.stop()
    again = World(tmp_path)
    known = again.core.offsets
    assert known.find("topic0", "group", 0) == 1
    assert known.find("meanwhile0", "group", 0) == 1
    assert known.find("topic19999", "group", 0) is None
    again.stop()


def test_what_is_noted_while_a_large_table_is_saved_survives_a_kill(tmp_path: Path) -> None:
    world = World(tmp_path)
    offsets = world.core.offsets
    for number in range(20_000):
        offsets.commit(f"topic{number}", "group", 0, 1)
    world.background.eager = False
    noted = [f"topic{number}" for number in range(0, 20_000, 1999)]

    def note() -> None:
        for topic in noted:
            offsets.commit_noted(topic, "group", 0, 7)

    offsets.save()
    world.clock.call_soon(note)  # between two steps
    world.clock.advance(0)
    world.background.run()
    world.store.disk.unlock()  # as if the process had been killed
    again = World(tmp_path)
    assert {again.core.offsets.find(topic, "group", 0) for topic in noted} == {7}
    assert again.core.offsets.find("topic5", "group", 0) == 1
    again.stop()


@pytest.mark.parametrize("content", ["[1, 2]", "7", '"text"', '{"topicConfig'])
def test_what_is_no_table_stops_the_start_and_says_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config" / "topics.json"
    World(tmp_path).stop()
    path.write_text(content)
    path.with_name("topics.json.bak").unlink(missing_ok=True)
    with pytest.raises(ConfigUnreadable, match=r"topics\.json is unreadable.*repair it, or remove"):
        World(tmp_path)
    assert path.read_text() == content


def test_the_copy_of_a_table_takes_its_place(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.connect().produce("kept")
    world.stop()
    path = tmp_path / "config" / "topics.json"
    path.with_name("topics.json.bak").write_bytes(path.read_bytes())
    path.write_text("[]")
    again = World(tmp_path)
    assert "kept" in again.core.topics.table
    again.stop()
