"""Messages delivered at an arbitrary time, and recalled ones, as clients notice them."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import Connection, World, properties_of, send_fields

from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.model.clock import VirtualClock

DAY_S = 86_400
START_MS = 1_700_000_000_000  # of the virtual clock: a whole second


def timed(client: Connection, topic: str = "orders", body: bytes = b"x", **properties: Any) -> Any:
    text = "".join(f"{name}\x01{value}\x02" for name, value in properties.items())
    return client.produce(topic, body, properties=text)


def bodies(client: Connection, topic: str = "orders") -> list[bytes]:
    return [record.body for record in client.pull(topic).records()]


def recalling() -> BrokerSettings:
    settings = BrokerSettings()
    settings.recall_message_enable = True
    return settings


def test_it_is_there_after_its_time_and_not_before(world: World, client: Connection) -> None:
    assert timed(client, TIMER_DELAY_MS=1500).code == codes.SUCCESS
    world.clock.advance(1.499)
    assert bodies(client) == []
    world.clock.advance(1.0)
    assert bodies(client) == [b"x"]


@pytest.mark.parametrize("offset_ms", [1, 500, 999, 1000, 1001, 1999, 2000])
def test_never_early_and_at_most_a_tick_late(
    world: World, client: Connection, offset_ms: int
) -> None:
    timed(client, TIMER_DELIVER_MS=START_MS + offset_ms)
    while not bodies(client):
        world.clock.advance(0.001)
    assert offset_ms <= world.clock.now_ms() - START_MS <= offset_ms + 1000


def test_what_arrives_looks_as_from_a_java_broker(world: World, client: Connection) -> None:
    sent = timed(client, TAGS="a", UNIQ_KEY="K1", TIMER_DELAY_SEC=3, mine="1")
    assert sent.ext["queueOffset"] == "0"
    world.clock.advance(5)
    (record,) = client.pull("orders").records()
    properties = properties_of(record)
    assert record.topic == "orders"
    assert properties["TIMER_OUT_MS"] == str(START_MS + 2000)
    assert properties["TIMER_ENQUEUE_MS"] == str(START_MS)
    assert int(properties["TIMER_DEQUEUE_MS"]) >= START_MS + 3000
    assert properties["TIMER_DELAY_SEC"] == "3"
    assert properties["mine"] == "1"
    assert properties["UNIQ_KEY"] == "K1"
    assert (properties["REAL_TOPIC"], properties["REAL_QID"]) == ("orders", "0")
    assert "WAIT" not in properties


def test_seconds_go_before_milliseconds_and_both_before_a_time(
    world: World, client: Connection
) -> None:
    timed(client, TIMER_DELAY_SEC=1, TIMER_DELAY_MS=60_000, TIMER_DELIVER_MS=START_MS + 90_000)
    world.clock.advance(2)
    assert bodies(client) == [b"x"]


def test_a_delay_level_goes_before_everything(world: World, client: Connection) -> None:
    timed(client, DELAY=1, TIMER_DELAY_SEC=60)
    world.clock.advance(1.1)
    (record,) = client.pull("orders").records()
    assert "TIMER_DELAY_SEC" not in properties_of(record)


def test_a_time_in_the_past_is_now(client: Connection) -> None:
    answer = timed(client, TIMER_DELIVER_MS=START_MS - 1)
    assert answer.code == codes.SUCCESS
    assert "recallHandle" not in answer.ext
    assert bodies(client) == [b"x"]


@pytest.mark.parametrize(
    "properties",
    [
        {"TIMER_DELAY_SEC": 3 * DAY_S + 1},
        {"TIMER_DELIVER_MS": "abc"},
        {"TIMER_DELAY_MS": "1.5"},
        {"TIMER_DELAY_SEC": "9" * 30},
        {"TIMER_DELAY_SEC": "99999999999999999999"},
    ],
)
def test_times_that_cannot_be_are_refused(client: Connection, properties: dict[str, Any]) -> None:
    answer = timed(client, **properties)
    assert answer.code == codes.MESSAGE_ILLEGAL
    assert "WHEEL_TIMER_MSG_ILLEGAL" in (answer.header.remark or "")


def test_without_the_wheel_timed_messages_are_refused(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.timer_wheel_enable = False
    world = World(tmp_path, settings)
    assert timed(world.connect(), TIMER_DELAY_SEC=5).code == codes.SYSTEM_ERROR
    world.stop()


def test_a_store_without_timed_messages_has_no_timer_files(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.connect().produce("orders")
    world.clock.advance(5)
    world.stop()
    names = {path.name for path in tmp_path.rglob("*")}
    assert names.isdisjoint({"timerwheel", "timerlog", "timercheck"})


def test_those_of_one_tick_arrive_in_the_order_in_which_they_were_sent(
    world: World, client: Connection
) -> None:
    for number in range(20):
        timed(client, body=b"%d" % number, TIMER_DELAY_SEC=2)
    world.clock.advance(4)
    assert bodies(client) == [b"%d" % number for number in range(20)]


def test_they_survive_a_clean_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    timed(world.connect(), TIMER_DELAY_SEC=10)
    world.clock.advance(2)
    world.stop()
    world = World(tmp_path, clock=VirtualClock(START_MS + 5000))
    client = world.connect()
    assert bodies(client) == []
    world.clock.advance(6)
    assert bodies(client) == [b"x"]
    world.clock.advance(60)
    world.stop()
    world = World(tmp_path, clock=VirtualClock(START_MS + 100_000))
    world.clock.advance(10)
    assert bodies(world.connect()) == [b"x"]
    world.stop()


def test_what_fell_due_while_the_broker_was_down_arrives_at_the_start(tmp_path: Path) -> None:
    world = World(tmp_path)
    timed(world.connect(), TIMER_DELAY_SEC=10)
    world.clock.advance(1)
    world.stop()
    world = World(tmp_path, clock=VirtualClock(START_MS + 30 * 60_000))
    world.clock.advance(0.1)
    assert bodies(world.connect()) == [b"x"]
    world.stop()


@pytest.mark.parametrize("lost", ["", "timerwheel", "timerlog", "config/timercheck"])
def test_they_survive_a_crash_and_lost_files(tmp_path: Path, lost: str) -> None:
    world = World(tmp_path)
    client = world.connect()
    timed(client, body=b"one", TIMER_DELAY_SEC=10)
    timed(client, body=b"two", TIMER_DELAY_SEC=12)
    world.clock.advance(0)
    world.store.disk.unlock()  # the process is gone
    if lost == "timerlog":
        (tmp_path / "timerlog" / f"{0:020d}").unlink()
        (tmp_path / "timerwheel").unlink()
    elif lost:
        (tmp_path / lost).unlink(missing_ok=True)
    world = World(tmp_path, clock=VirtualClock(START_MS + 5000))
    client = world.connect()
    world.clock.advance(1)
    assert bodies(client) == []
    world.clock.advance(5)
    assert bodies(client) == [b"one"]
    world.clock.advance(2)
    assert bodies(client) == [b"one", b"two"]
    world.stop()


def test_a_wheel_that_points_behind_the_log_is_mended(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    timed(client, body=b"one", TIMER_DELAY_SEC=10)
    timed(client, body=b"two", TIMER_DELAY_SEC=10)
    world.clock.advance(0)
    world.store.disk.unlock()
    with (tmp_path / "timerlog" / f"{0:020d}").open("r+b") as file:
        file.seek(52)  # the second unit never reached the disk
        file.write(bytes(52))
    world = World(tmp_path, clock=VirtualClock(START_MS + 1000))
    world.clock.advance(15)
    assert sorted(bodies(world.connect())) == [b"one", b"two"]
    world.stop()


def test_further_than_the_window_they_roll(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.timer_roll_window_slot = 10
    world = World(tmp_path, settings)
    client = world.connect()
    timed(client, TIMER_DELAY_SEC=35)
    world.clock.advance(34.9)
    assert bodies(client) == []
    world.clock.advance(1.2)
    (record,) = client.pull("orders").records()
    assert int(properties_of(record)["TIMER_ROLL_TIMES"]) >= 2
    world.stop()


def test_a_clock_that_jumps_ahead_delivers_and_one_that_jumps_back_waits(
    world: World, client: Connection
) -> None:
    timed(client, body=b"a", TIMER_DELAY_SEC=3600)
    world.clock.advance(1)
    world.clock.jump_wall_clock(3600_000)
    world.clock.advance(1.5)
    assert bodies(client) == [b"a"]
    world.clock.jump_wall_clock(-3600_000)
    timed(client, body=b"b", TIMER_DELAY_SEC=5)
    world.clock.advance(10)
    assert b"b" in bodies(client)


def test_a_full_disk_delays_delivery_but_loses_nothing(
    world: World, client: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    timed(client, TIMER_DELAY_SEC=2)
    world.store.refuse("test", "the disk is full")
    world.clock.advance(5)
    assert bodies(client) == []
    world.store.refuse("test", "")
    world.clock.advance(1)
    assert bodies(client) == [b"x"]


def test_units_and_slots_are_rocketmqs_to_the_byte(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    timed(client, UNIQ_KEY="A", TIMER_DELAY_SEC=5)
    timed(client, UNIQ_KEY="B", TIMER_DELAY_SEC=5)
    world.clock.advance(1.5)
    (entry,) = world.store.entries("rmq_sys_wheel_timer", 0, 1, 1)
    world.stop()
    log_file = tmp_path / "timerlog" / f"{0:020d}"
    assert log_file.stat().st_size == 104_857_600
    unit = struct.unpack(">iqiqiqiiq", log_file.read_bytes()[52:104])
    hash_of = -1008770331  # "orders".hashCode()
    assert unit == (52, 0, 1, START_MS, 4000, entry.physical_offset, entry.size, hash_of, 0)
    wheel = (tmp_path / "timerwheel").read_bytes()
    assert len(wheel) == 38_707_200
    number = (START_MS + 4000) // 1000
    at = number % 1_209_600 * 32
    assert struct.unpack(">qqqi", wheel[at : at + 28]) == (number, 0, 52, 2)
    check = (tmp_path / "config" / "timercheck").read_bytes()
    assert len(check) == 4096
    assert struct.unpack_from(">qqqq", check) == (START_MS + 1000, 104, 2, 2)


# -- recall


def recall(client: Connection, handle: str, topic: str = "orders") -> Any:
    return client.call(370, {"topic": topic, "recallHandle": handle, "producerGroup": "p"})


def test_a_recalled_message_never_arrives(tmp_path: Path) -> None:
    world = World(tmp_path, recalling())
    client = world.connect()
    sent = timed(client, UNIQ_KEY="K1", TIMER_DELAY_SEC=10)
    timed(client, body=b"other", UNIQ_KEY="K2", TIMER_DELAY_SEC=10)
    plain = f"v1 orders broker-a {START_MS + 9001} K1"
    assert base64.urlsafe_b64decode(sent.ext["recallHandle"]).decode() == plain
    world.clock.advance(3)
    answer = recall(client, sent.ext["recallHandle"])
    assert (answer.code, answer.ext["msgId"]) == (codes.SUCCESS, "K1")
    world.clock.advance(20)
    assert bodies(client) == [b"other"]
    assert world.core.timer_state()["timerCongestNum"] == "0"
    world.stop()


@pytest.mark.parametrize("taken_in", [True, False])
def test_a_recall_counts_even_if_a_kill_follows_and_the_time_passes(
    tmp_path: Path, taken_in: bool
) -> None:
    """The kill comes before the wheel has the recall, or even its message."""
    world = World(tmp_path, recalling())
    client = world.connect()
    if taken_in:
        timed(client, body=b"earlier", TIMER_DELAY_SEC=3)
        world.clock.advance(0.5)
    handle = timed(client, UNIQ_KEY="K1", TIMER_DELAY_SEC=4).ext["recallHandle"]
    if taken_in:
        world.clock.advance(0.5)
    assert recall(client, handle).code == codes.SUCCESS
    timed(client, body=b"other", UNIQ_KEY="K2", TIMER_DELAY_SEC=4)
    world.store.disk.unlock()  # the process is gone
    world = World(tmp_path, recalling(), clock=VirtualClock(START_MS + 8000))
    world.clock.advance(3)
    assert bodies(world.connect()) == [b"earlier", b"other"][not taken_in :]
    assert world.core.timer_state()["timerCongestNum"] == "0"
    world.stop()


def test_after_delivery_it_is_too_late(tmp_path: Path) -> None:
    world = World(tmp_path, recalling())
    client = world.connect()
    handle = timed(client, UNIQ_KEY="K1", TIMER_DELAY_SEC=2).ext["recallHandle"]
    world.clock.advance(5)
    assert recall(client, handle).code == codes.ILLEGAL_OPERATION
    assert bodies(client) == [b"x"]
    world.stop()


def test_recall_is_forbidden_unless_it_is_enabled(client: Connection) -> None:
    handle = timed(client, TIMER_DELAY_SEC=9).ext["recallHandle"]
    assert recall(client, handle).code == codes.NO_PERMISSION


@pytest.mark.parametrize(
    ("plain", "code"),
    [
        (f"v1 orders broker-b {START_MS + 9001} K", codes.ILLEGAL_OPERATION),
        (f"v1 other broker-a {START_MS + 9001} K", codes.ILLEGAL_OPERATION),
        (f"v2 orders broker-a {START_MS + 9001} K", codes.ILLEGAL_OPERATION),
        ("v1 orders broker-a soon K", codes.ILLEGAL_OPERATION),
        (f"v1 orders broker-a {START_MS + 4 * DAY_S * 1000} K", codes.ILLEGAL_OPERATION),
        ("v1", codes.ILLEGAL_OPERATION),
        ("", codes.ILLEGAL_OPERATION),
    ],
)
def test_other_handles_are_refused(tmp_path: Path, plain: str, code: int) -> None:
    world = World(tmp_path, recalling())
    client = world.connect()
    client.produce("orders")
    assert recall(client, base64.urlsafe_b64encode(plain.encode()).decode()).code == code
    assert recall(client, "***").code == codes.ILLEGAL_OPERATION
    assert recall(client, "djE=", "nowhere").code == codes.TOPIC_NOT_EXIST
    world.stop()


def test_sync_flush_answers_with_the_handle_too(tmp_path: Path) -> None:
    settings = recalling()
    settings.flush_disk_type = "SYNC_FLUSH"
    world = World(tmp_path, settings)
    client = world.connect()
    client.send(310, send_fields("orders", properties="UNIQ_KEY\x01K\x02TIMER_DELAY_SEC\x019\x02"))
    world.clock.advance(0)
    (answer,) = client.received()
    assert answer.ext["recallHandle"]
    world.stop()


@pytest.mark.parametrize(
    "hostile",
    [
        {"TIMER_OUT_MS": "--5"},
        {"TIMER_OUT_MS": "²"},
        {"TIMER_OUT_MS": "9" * 5000},
        {"TIMER_OUT_MS": "9" * 19, "REAL_TOPIC": "orders", "REAL_QID": "0"},
        {"TIMER_OUT_MS": "1", "REAL_TOPIC": "orders", "REAL_QID": "²"},
        {"TIMER_OUT_MS": "1", "REAL_TOPIC": "orders", "REAL_QID": "9" * 12},
        {"TIMER_OUT_MS": "1", "REAL_TOPIC": "x" * 300, "REAL_QID": "0"},
    ],
)
def test_what_a_client_puts_into_the_timers_own_topic_stops_nobody(
    world: World, client: Connection, hostile: dict[str, Any]
) -> None:
    timed(client, "rmq_sys_wheel_timer", **hostile)
    timed(client, body=b"good", TIMER_DELAY_SEC=2)
    world.clock.advance(5)
    assert b"good" in bodies(client)


def test_a_recall_of_a_time_that_is_no_number(tmp_path: Path) -> None:
    world = World(tmp_path, recalling())
    client = world.connect()
    client.produce("orders")
    for time in ("²", "9" * 5000):
        plain = f"v1 orders broker-a {time} K"
        answer = recall(client, base64.urlsafe_b64encode(plain.encode()).decode())
        assert answer.code == codes.ILLEGAL_OPERATION
    world.stop()
