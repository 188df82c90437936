"""Delay levels: nothing early, nothing lost, in order within a level (behaviour.md 6.1)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.support.brokers import Connection, World, properties_of

from firearrow.config import BrokerSettings
from firearrow.features.delay import LevelError, parse_levels

SCHEDULE = "SCHEDULE_TOPIC_XXXX"


def send(client: Connection, level: int, body: bytes = b"later") -> None:
    assert client.produce("orders", body, queue_id=2, properties=f"DELAY\x01{level}\x02").code == 0


def arrived(client: Connection) -> list[bytes]:
    return [r.body for r in client.pull("orders", queue_id=2).records()]


def test_a_delayed_message_arrives_when_it_is_due(world: World, client: Connection) -> None:
    send(client, 2)
    world.clock.advance(4.9)
    assert arrived(client) == []
    world.clock.advance(0.2)
    (record,) = client.pull("orders", queue_id=2).records()
    assert record.body == b"later"
    kept = properties_of(record)  # as Java leaves them
    assert (kept["REAL_TOPIC"], kept["DELAY"]) == ("orders", "2")


def test_the_first_level_is_a_second(world: World, client: Connection) -> None:
    send(client, 1)
    world.clock.advance(0.9)
    assert arrived(client) == []
    world.clock.advance(0.3)
    assert arrived(client) == [b"later"]


def test_the_answer_names_the_queue_that_was_asked_for(client: Connection) -> None:
    answer = client.produce("orders", queue_id=2, properties="DELAY\x015\x02")
    assert (answer.ext["queueId"], answer.ext["queueOffset"]) == ("2", "0")


def test_levels_do_not_wait_for_each_other(world: World, client: Connection) -> None:
    send(client, 3, b"ten")
    send(client, 1, b"one")
    send(client, 2, b"five")
    world.clock.advance(6)
    assert arrived(client) == [b"one", b"five"]
    world.clock.advance(5)
    assert arrived(client) == [b"one", b"five", b"ten"]


def test_a_level_above_the_last_is_the_last(world: World, client: Connection) -> None:
    send(client, 99)
    assert world.store.max_offset(SCHEDULE, 17) == 1


@pytest.mark.parametrize("level", ["0", "-1", "x", ""])
def test_no_level_is_no_delay(client: Connection, level: str) -> None:
    client.produce("orders", b"now", queue_id=2, properties=f"DELAY\x01{level}\x02")
    assert arrived(client) == [b"now"]


def test_many_due_at_once_all_arrive_in_order(world: World, client: Connection) -> None:
    bodies = [b"%d" % n for n in range(1000)]
    for body in bodies:
        send(client, 1, body)
    world.clock.advance(2)
    got: list[bytes] = []
    while more := client.pull("orders", queue_id=2, offset=len(got)).records():
        got += [r.body for r in more]
    assert got == bodies


def test_progress_survives_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    send(client, 1, b"before")
    world.clock.advance(2)
    send(client, 2, b"after")
    world.stop()
    world = World(tmp_path, clock=world.clock)
    client = world.connect()
    assert arrived(client) == [b"before"]
    world.clock.advance(5.1)
    assert arrived(client) == [b"before", b"after"]
    world.stop()


def test_what_fell_due_while_the_broker_was_down_arrives_at_the_start(tmp_path: Path) -> None:
    world = World(tmp_path)
    send(world.connect(), 1)
    world.stop()
    world.clock.advance(60)
    world = World(tmp_path, clock=world.clock)
    world.clock.advance(0)
    assert arrived(world.connect()) == [b"later"]
    world.stop()


def test_a_clock_that_jumps_back_does_not_hold_messages_for_ever(
    world: World, client: Connection
) -> None:
    send(client, 1)
    world.clock.jump_wall_clock(-3_600_000)
    world.clock.advance(2)
    assert arrived(client) == [b"later"]


def test_levels_can_be_changed(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.message_delay_level = "2s 1m"
    world = World(tmp_path, settings)
    client = world.connect()
    send(client, 1)
    world.clock.advance(1.9)
    assert arrived(client) == []
    world.clock.advance(0.2)
    assert arrived(client) == [b"later"]
    world.stop()


def test_what_waits_when_levels_change_waits_no_longer_than_its_level_does_now(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    client = world.connect()
    send(client, 2, b"five")
    send(client, 3, b"ten")
    world.stop()
    settings = BrokerSettings()
    settings.message_delay_level = "1s 1h 2s"
    world = World(tmp_path, settings, clock=world.clock)
    client = world.connect()
    world.clock.advance(0.1)
    assert arrived(client) == [b"ten"]  # due in ten seconds, which its level no longer has
    world.clock.advance(5)
    assert arrived(client) == [b"ten", b"five"]  # and not an hour later
    world.stop()


def test_progress_is_saved_as_a_java_broker_does(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    for level in (1, 1, 2):
        send(client, level)
    world.clock.advance(11)
    saved = msgspec.json.decode((tmp_path / "config/delayOffset.json").read_bytes())
    assert saved["offsetTable"] == {"1": 2, "2": 1}
    assert saved["dataVersion"].keys() == {"counter", "stateVersion", "timestamp"}
    world.stop()


@pytest.mark.parametrize("text", ["5", "5x", "s", "1s -5s", "1,5s"])
def test_a_wrong_level_table_is_refused_with_the_part(text: str) -> None:
    with pytest.raises(LevelError, match=text.split()[-1]):
        parse_levels(text)
