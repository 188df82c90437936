"""Silent producers of half messages are asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.brokers import World, properties_of
from tests.support.transactions import (
    COMMIT,
    GIVEN_UP,
    HALF,
    OP,
    ROLLBACK,
    answer_check,
    arrived,
    bodies,
    end,
    end_fields,
    keep_alive,
    op_bodies,
    producer,
    send_half,
)

from firearrow.codec.record import decode_record
from firearrow.config import BrokerSettings
from firearrow.model import codes


def test_a_silent_producer_is_asked(world: World) -> None:
    client = producer(world)
    sent = send_half(world, client)
    (checks,) = keep_alive(world, 31, client)
    (check,) = checks
    assert check.header.flag & 2  # one-way
    assert check.ext["msgId"] == check.ext["transactionId"] == "A1"
    assert check.ext["tranStateTableOffset"] == "1"  # a new half message
    shown = decode_record(check.body)
    assert (shown.topic, shown.queue_id, shown.body) == ("orders", 1, b"pay")
    assert shown.physical_offset == int(check.ext["commitLogOffset"])
    assert check.ext["offsetMsgId"] == f"7F00000100002A9F{shown.physical_offset:016X}"
    assert properties_of(shown)["TRANSACTION_CHECK_TIMES"] == "1"
    assert properties_of(shown)["PGROUP"] == "payers"
    assert sent.ext["msgId"] != check.ext["offsetMsgId"]
    assert arrived(client) == []
    assert answer_check(client, check, COMMIT) == codes.SUCCESS
    assert bodies(client) == [b"pay"]
    assert keep_alive(world, 120, client) == [[]]


def test_what_was_asked_about_is_marked_at_once(world: World) -> None:
    """A Java broker that opens the store of a killed one asks about the copy alone."""
    client = producer(world)
    for _ in range(3):
        send_half(world, client)
    while not any(frame.code == 39 for frame in client.received()):
        client.heartbeat("unused", {}, client_id="p0", producers=["payers"])
        world.clock.advance(0.5)
    assert op_bodies(client) == [b"0,1,2,"]


def test_nobody_is_asked_about_a_young_message(world: World) -> None:
    client = producer(world)
    keep_alive(world, 25, client)
    send_half(world, client)
    assert keep_alive(world, 10, client) == [[]]  # the round at 30 s found it 5 s old
    (checks,) = keep_alive(world, 30, client)
    assert len(checks) == 1


def test_a_message_behind_a_young_one_waits_and_is_asked_about(world: World) -> None:
    client = producer(world)
    keep_alive(world, 25, client)
    young = send_half(world, client)
    finished = send_half(world, client)
    silent = send_half(world, client, body=b"silent")
    end(client, finished, COMMIT)
    keep_alive(world, 10, client)
    end(client, young, COMMIT)
    (checks,) = keep_alive(world, 30, client)
    assert [decode_record(c.body).body for c in checks] == [b"silent"]
    assert silent.code == codes.SUCCESS


def test_another_producer_of_the_group_is_asked(world: World) -> None:
    first = producer(world)
    send_half(world, first)
    first.drop()
    second = producer(world, "producer-2")
    (checks,) = keep_alive(world, 31, second)
    assert len(checks) == 1
    assert answer_check(second, checks[0], ROLLBACK) == codes.SUCCESS
    assert keep_alive(world, 60, second) == [[]]


def test_producers_are_asked_in_turn(world: World) -> None:
    clients = [producer(world, f"p{n}") for n in range(2)]
    for _ in range(6):
        send_half(world, clients[0])
    checks = keep_alive(world, 31, *clients)
    assert [len(c) for c in checks] == [3, 3]


def test_a_producer_that_never_knows_is_asked_no_more_than_the_maximum(
    tmp_path: Path,
) -> None:
    settings = BrokerSettings()
    settings.transaction_check_max = 2
    world = World(tmp_path, settings)
    client = producer(world)
    send_half(world, client)
    (checks,) = keep_alive(world, 200, client)
    assert len(checks) == 2
    assert arrived(client) == []
    (kept,) = client.pull(GIVEN_UP).records()
    assert kept.body == b"pay"
    assert properties_of(kept)["REAL_TOPIC"] == "orders"
    # An operator may have it asked about again.
    message_id = f"7F00000100002A9F{kept.physical_offset:016X}"
    assert client.call(323, {"topic": GIVEN_UP, "msgId": message_id}).code == codes.SUCCESS
    (checks,) = keep_alive(world, 60, client)
    assert answer_check(client, checks[0], COMMIT) == codes.SUCCESS
    assert bodies(client) == [b"pay"]
    assert client.call(323, {"msgId": "zz"}).code == codes.SYSTEM_ERROR
    assert client.call(323, {"msgId": message_id[:-1] + "F"}).code == codes.SYSTEM_ERROR
    world.stop()


def test_without_a_producer_the_rounds_count(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.transaction_check_max = 3
    world = World(tmp_path, settings)
    client = world.connect()
    send_half(world, client)
    world.clock.advance(95)
    assert world.store.max_offset(GIVEN_UP, 0) == 0
    world.clock.advance(30)
    assert world.store.max_offset(GIVEN_UP, 0) == 1
    world.stop()


def test_a_message_older_than_the_retention_is_given_up(world: World) -> None:
    client = producer(world)
    send_half(world, client, g=world.clock.now_ms() - 73 * 3_600_000)
    assert keep_alive(world, 31, client) == [[]]
    assert world.store.max_offset(GIVEN_UP, 0) == 1


def test_a_producers_own_immunity_time(world: World) -> None:
    client = producer(world)
    sent = send_half(world, client, more="CHECK_IMMUNITY_TIME_IN_SECONDS\x0140\x02")
    assert keep_alive(world, 35, client) == [[]]
    (moved,) = client.pull(HALF, offset=1).records()
    assert properties_of(moved)["TRAN_PREPARED_QUEUE_OFFSET"] == "0"
    assert "TRANSACTION_CHECK_TIMES" not in properties_of(moved)
    (checks,) = keep_alive(world, 30, client)
    assert len(checks) == 1
    assert end(client, sent, COMMIT).code == codes.ILLEGAL_OPERATION
    assert end(client, sent, ROLLBACK).code == codes.ILLEGAL_OPERATION
    assert arrived(client) == []
    assert answer_check(client, checks[0], COMMIT) == codes.SUCCESS
    assert bodies(client) == [b"pay"]


def test_an_end_within_the_immunity_time_ends_its_copy_too(world: World) -> None:
    client = producer(world)
    sent = send_half(world, client, more="CHECK_IMMUNITY_TIME_IN_SECONDS\x0150\x02")
    keep_alive(world, 31, client)
    assert end(client, sent, COMMIT).code == codes.SUCCESS
    assert keep_alive(world, 200, client) == [[]]
    assert bodies(client) == [b"pay"]


@pytest.mark.parametrize("text", ["x", "-1"])
def test_an_unreadable_immunity_time_is_the_brokers(world: World, text: str) -> None:
    client = producer(world)
    send_half(world, client, more=f"CHECK_IMMUNITY_TIME_IN_SECONDS\x01{text}\x02")
    (checks,) = keep_alive(world, 31, client)
    assert len(checks) == 1


def test_a_late_end_by_the_first_offsets_stops_the_checks(world: World) -> None:
    client = producer(world)
    sent = send_half(world, client)
    (checks,) = keep_alive(world, 61, client)
    assert len(checks) == 2  # neither answered: the local transaction takes long
    assert end(client, sent, COMMIT).code == codes.SUCCESS
    assert keep_alive(world, 120, client) == [[]]
    assert bodies(client) == [b"pay"]


def test_an_end_during_a_round_is_seen_by_it(world: World) -> None:
    """The round pauses after some checks; what is ended meanwhile is not asked about."""
    client = producer(world)
    sent = [send_half(world, client, body=b"%d" % n) for n in range(100)]
    world.clock.advance(30.005)  # the first 64 are asked about; the round pauses for 10 ms
    early = [f for f in client.received() if f.code == 39]
    assert len(early) == 64
    for half in sent[90:]:
        client.send(37, end_fields(half, ROLLBACK), one_way=True)
    world.clock.advance(1)
    late = [f for f in client.received() if f.code == 39]
    asked = [int(decode_record(f.body).body) for f in early + late]
    assert asked == list(range(90))


def test_many_checks_and_answers(world: World) -> None:
    """Everything ended by answers to checks arrives once; the rest never; the state is empty."""
    client = producer(world)
    for number in range(700):
        send_half(world, client, body=b"%d" % number)
    (checks,) = keep_alive(world, 31, client)
    assert len(checks) == 700
    for check in checks:
        number = int(decode_record(check.body).body)
        answer_check(client, check, COMMIT if number % 3 else ROLLBACK)
    assert keep_alive(world, 70, client) == [[]]
    got: list[int] = []
    while more := client.pull("orders", queue_id=1, offset=len(got)).records():
        got += [int(r.body) for r in more]
    assert got == [n for n in range(700) if n % 3]
    offsets = world.core.offsets
    assert offsets.find(HALF, "CID_RMQ_SYS_TRANS", 0) == world.store.max_offset(HALF, 0)
    assert offsets.find(OP, "CID_RMQ_SYS_TRANS", 0) == world.store.max_offset(OP, 0)
