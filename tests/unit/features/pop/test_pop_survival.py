"""Popped messages across kills, restarts and clocks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.support.brokers import Connection, World, properties_of, send_fields
from tests.support.pop_worlds import REVIVE, drain, in_memory, killed
from tests.support.popping import (
    ACK,
    GROUP,
    POP,
    TOPIC,
    Got,
    ack,
    ack_fields,
    batch_ack,
    bodies,
    change,
    got,
    pop,
    pop_fields,
    produce,
)

from firearrow.codec.record import decode_record, split_records
from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.model.clock import VirtualClock
from firearrow.model.message import Message
from firearrow.store.api import PutStatus


def test_a_kill_loses_no_open_message_and_brings_back_none_that_is_over() -> None:
    world = in_memory()
    client = world.connect()
    produce(client, *(b"%d" % n for n in range(20)))
    messages = pop(client)
    for message in messages[:5]:
        ack(client, message)
    batch_ack(client, messages[5:10])
    change(client, messages[10], 30_000)
    again = killed(world)
    client = again.connect()
    assert pop(client) == []  # nobody gets what somebody has
    again.clock.advance(8)
    assert pop(client) == []
    found = drain(again, client, 60)
    assert sorted(bodies(found)) == sorted(b"%d" % n for n in range(10, 20))
    assert all(message.record.reconsume_times == 1 for message in found)
    again.stop()


@pytest.mark.parametrize("seed", range(6))
def test_kills_at_any_time(seed: int) -> None:
    """A random consumer with kills in between: everything comes, in its time, and what is
    acknowledged is over."""
    chance = random.Random(seed)
    world = in_memory()
    client = world.connect()
    open_until: dict[bytes, int] = {}
    over: set[bytes] = set()
    mine: dict[bytes, Got] = {}
    produce(client, b"0")
    sent = 1
    for _ in range(60):
        action = chance.random()
        if action < 0.3:
            produce(client, b"%d" % sent, queue_id=chance.randrange(2))
            sent += 1
        elif action < 0.6:
            for message in pop(client, invisibleTime=5000, maxMsgNums=chance.randint(1, 8)):
                now = world.clock.now_ms()
                assert message.body not in over, "acknowledged, and came again"
                assert open_until.get(message.body, 0) <= now, "two owners at a time"
                open_until[message.body] = now + 5000
                mine[message.body] = message
        elif action < 0.8 and mine:
            message = mine.pop(chance.choice(list(mine)))
            if world.clock.now_ms() < open_until[message.body]:
                assert ack(client, message).code == codes.SUCCESS
                over.add(message.body)
        elif action < 0.9:
            world.clock.advance(chance.choice((0.1, 1, 4)))
        else:
            world = killed(world)
            client = world.connect()
    rest = {message.body for message in drain(world, client, 30)}
    world.stop()
    assert rest.isdisjoint(over)
    assert rest | over == {b"%d" % n for n in range(sent)}


def test_what_was_acknowledged_stays_over_while_the_timer_is_behind() -> None:
    """After a kill the timer delivers acknowledgements late. What is due at once overtakes them in
    the revive queue, and says nothing about them."""
    world = in_memory(BrokerSettings(revive_queue_num=1))
    client = world.connect()
    produce(client, *(b"%d" % n for n in range(40)))
    messages = [message for _ in range(40) for message in pop(client, maxMsgNums=1)]
    for message in messages:
        ack(client, message)
    world.clock.advance(9.5)  # the check points are in the revive queue, the others not yet
    world.clock.jump_wall_clock(30_000)
    again = killed(world)
    client = again.connect()
    produce(client, b"new")
    (new,) = pop(client)
    change(client, new, 0)
    assert bodies(drain(again, client, 60)) == [b"new"]
    again.stop()


def test_with_synchronous_flush_acknowledgements_are_waited_for(tmp_path: Path) -> None:
    """What the timer delivered can be read when it is flushed, and counts until then."""
    world = World(tmp_path, BrokerSettings(flush_disk_type="SYNC_FLUSH", revive_queue_num=1))
    client = world.connect()
    for code, fields in ((310, send_fields(TOPIC)), (POP, pop_fields())):
        client.send(code, fields)
        world.clock.advance(0)
        (answer,) = client.received()
    (message,) = got(answer)
    client.send(ACK, ack_fields(message))
    world.clock.advance(9.5)  # the check point is there, the acknowledgement is not due yet
    world.background.eager = False
    world.clock.advance(4)
    world.background.run()
    world.background.eager = True
    world.clock.advance(10)
    assert world.store.max_offset(f"%RETRY%{GROUP}_{TOPIC}", 0) == 0
    world.stop()


def test_offsets_of_a_topic_that_was_deleted_do_not_come_back_with_a_kill() -> None:
    world = in_memory()
    client = world.connect()
    produce(client, *(b"%d" % n for n in range(10)))
    pop(client)
    client.call(215, {"topic": TOPIC})
    world = killed(world)
    fields = {"topic": TOPIC, "consumerGroup": GROUP, "queueId": 0, "setZeroIfNotFound": "false"}
    assert world.connect().call(14, fields).code == codes.QUERY_NOT_FOUND
    world.stop()


def test_a_restart_in_the_middle_of_everything(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    produce(client, *(b"%d" % n for n in range(4)))
    messages = pop(client)
    ack(client, messages[0])
    world.stop()
    world.clock.advance(60)
    world = World(tmp_path, clock=world.clock)
    client = world.connect()
    ack(client, messages[1])  # its handle still counts, a moment before it is given again
    assert sorted(bodies(drain(world, client, 20))) == [b"2", b"3"]
    world.stop()


def test_what_was_revived_is_not_revived_again_after_a_kill() -> None:
    world = in_memory()
    client = world.connect()
    produce(client, *(b"%d" % n for n in range(10)))
    pop(client)
    world.clock.advance(14)
    assert world.store.max_offset(f"%RETRY%{GROUP}_{TOPIC}", 0) == 10
    again = killed(world)
    again.clock.advance(30)
    assert again.store.max_offset(f"%RETRY%{GROUP}_{TOPIC}", 0) == 10
    again.stop()


def test_what_the_timer_delivers_again_after_it_was_revived_is_not_revived_again() -> None:
    """On a machine that is slow to save, the timer goes back further after a kill than to what is
    open: it delivers check points again that this broker has settled already."""
    world = in_memory()
    client = world.connect()
    produce(client, *(b"%d" % n for n in range(10)))
    pop(client)
    acknowledged = pop_one_more(world, client)
    again = killed(world)
    client = again.connect()
    again.clock.advance(14)
    retry = f"%RETRY%{GROUP}_{TOPIC}"
    assert again.store.max_offset(retry, 0) == 10
    deliver_again(again)
    again.clock.advance(20)
    assert again.store.max_offset(retry, 0) == 10
    assert acknowledged not in bodies(drain(again, client, 20))
    again.stop()


def pop_one_more(world: World, client: Connection) -> bytes:
    """A message that is acknowledged at once."""
    produce(client, b"one more")
    (message,) = pop(client)
    ack(client, message)
    return message.body


def deliver_again(world: World) -> None:
    """Store the check points in the revive topic once more, as the timer does."""
    for queue_id in range(world.settings.revive_queue_num):
        read = world.store.read(REVIVE, queue_id, 0, 32)
        for data in split_records(read.records):
            record = decode_record(data)
            if properties_of(record)["TAGS"] == "ck":
                again = Message(
                    *(record.topic, record.queue_id, record.body, record.properties),
                    *(record.born_timestamp, record.born_host),
                )
                assert world.store.append(again).status is PutStatus.OK


def test_what_was_revived_is_remembered_across_the_files_of_its_queue() -> None:
    small = {
        "mapped_file_size_consume_queue": 200,  # ten entries
        "flush_interval_consume_queue": 50,
        "flush_consume_queue_thorough_interval": 50,
    }
    world = in_memory(BrokerSettings(revive_queue_num=1), **small)
    client = world.connect()
    produce(client, *(b"%d" % n for n in range(40)))
    for _ in range(40):
        pop(client, maxMsgNums=1)
    world.clock.jump_wall_clock(60_000)
    for _ in range(2):  # the second broker's timer delivers once more what the first's did
        world = killed(world, **small)
        world.clock.advance(0.4)
    world.clock.advance(30)
    assert world.store.max_offset(REVIVE, 0) == 80
    assert world.store.max_offset(f"%RETRY%{GROUP}_{TOPIC}", 0) == 40
    world.stop()


def test_with_synchronous_flush_what_is_answered_is_on_disk(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.flush_disk_type = "SYNC_FLUSH"
    world = World(tmp_path, settings)
    client = world.connect()
    client.send(310, {"a": "p", "b": TOPIC, "c": "TBW102", "d": 4, "e": 0, "f": 0, "g": 1, "h": 0})
    world.clock.advance(0)
    client.received()
    world.background.eager = False
    client.send(POP, pop_fields())
    world.clock.advance(0)
    assert client.received() == []
    other = world.connect()
    assert pop(other) == []  # it has an owner, though nobody knows yet
    assert world.core.offsets.find(TOPIC, GROUP, 0) == 0
    world.background.run()
    world.clock.advance(0)
    (answer,) = client.received()
    assert answer.code == 0
    assert world.core.offsets.find(TOPIC, GROUP, 0) == 1
    world.background.eager = True
    world.stop()


def test_a_kill_before_the_answer_of_a_pop_hands_nothing_out_twice(tmp_path: Path) -> None:
    """The check point is in the log, its flush was not done: it counts."""
    world = World(tmp_path, BrokerSettings(flush_disk_type="SYNC_FLUSH"))
    client = world.connect()
    client.send(310, send_fields(TOPIC))
    world.clock.advance(0)
    world.background.eager = False
    client.send(POP, pop_fields())
    world.clock.advance(0)
    world.store.disk.unlock()  # the process is gone
    world = World(tmp_path, clock=VirtualClock(world.clock.now_ms()))
    client = world.connect()
    assert pop(client) == []
    assert len(drain(world, client, 60)) == 1
    world.stop()


def test_a_kill_between_the_flushes_of_two_pops_hands_nothing_out_twice(tmp_path: Path) -> None:
    """The first flush lets the offset move on, but not back from what the second pop noted."""
    world = World(tmp_path, BrokerSettings(flush_disk_type="SYNC_FLUSH"))
    client, other = world.connect(), world.connect()
    for _ in range(2):
        client.send(310, send_fields(TOPIC))
    world.clock.advance(0)
    world.background.eager = False
    client.send(POP, pop_fields(maxMsgNums=1))
    world.clock.advance(0)  # its flush begins
    other.send(POP, pop_fields(maxMsgNums=1))
    world.background.run()
    assert len(client.received()) == 3
    assert other.received() == []
    world.store.disk.unlock()  # the process is gone
    world = World(tmp_path, clock=VirtualClock(world.clock.now_ms()))
    client = world.connect()
    assert pop(client) == []
    assert len(drain(world, client, 60)) == 2
    world.stop()


def test_a_pop_whose_check_point_is_lost_with_the_power_is_none(tmp_path: Path) -> None:
    """Its note is on the disk, and must not count: nobody would give the message again."""
    world = World(tmp_path, BrokerSettings(flush_disk_type="SYNC_FLUSH"))
    client = world.connect()
    client.send(310, send_fields(TOPIC))
    world.clock.advance(0)
    end = world.store.commit_log_range()[1]
    world.background.eager = False
    client.send(POP, pop_fields())
    world.clock.advance(0)
    world.store.disk.unlock()
    with (tmp_path / "commitlog" / f"{0:020d}").open("r+b") as log:
        log.seek(end)
        log.write(bytes(4096))
    for _ in range(2):  # and not later either, when the log has grown
        world = World(tmp_path, clock=VirtualClock(world.clock.now_ms()))
        client = world.connect()
        assert world.core.offsets.find(TOPIC, GROUP, 0) == 0
        produce(client, bytes(4096), topic="other")
        world.store.disk.unlock()


def popped_and_given_again(root: Path, clients: int = 3) -> tuple[World, int]:
    """Messages were popped and given again, in a flush that is not done; where the log ended before
    that."""
    world = World(root, BrokerSettings(flush_disk_type="SYNC_FLUSH", revive_queue_num=1))
    client = world.connect()
    for _ in range(2 * clients):
        client.send(310, send_fields(TOPIC))
    world.clock.advance(0)
    for _ in range(clients):  # a check point each, of two messages
        world.connect().send(POP, pop_fields(maxMsgNums=2))
        world.clock.advance(0)
    world.clock.advance(11)  # the check points can be read, and are not due yet
    end = world.store.commit_log_range()[1]
    world.background.eager = False
    world.clock.advance(3)
    assert world.store.commit_log_range()[1] > end
    return world, end


def test_a_kill_before_the_flush_of_what_was_given_again_gives_nothing_twice(
    tmp_path: Path,
) -> None:
    world, _ = popped_and_given_again(tmp_path)
    world.store.disk.unlock()  # the process is gone
    world = World(tmp_path, clock=VirtualClock(world.clock.now_ms()))
    world.clock.advance(30)
    assert world.store.max_offset(f"%RETRY%{GROUP}_{TOPIC}", 0) == 6
    world.stop()


def test_what_was_given_again_and_lost_with_the_power_is_given_again(tmp_path: Path) -> None:
    world, end = popped_and_given_again(tmp_path)
    world.store.disk.unlock()
    with (tmp_path / "commitlog" / f"{0:020d}").open("r+b") as log:
        log.seek(end)
        log.write(bytes(65536))
    world = World(tmp_path, clock=VirtualClock(world.clock.now_ms()))
    world.clock.advance(30)
    assert len(drain(world, world.connect(), 30)) == 6
    world.stop()


def test_a_kill_while_the_store_refuses_settles_nothing() -> None:
    world = in_memory(BrokerSettings(revive_queue_num=1))
    client = world.connect()
    produce(client, b"m")
    pop(client)
    world.clock.advance(11)
    world.store.refuse("disk", "the disk is full")
    world.clock.advance(9)
    world.store.refuse("disk", "")
    produce(client, bytes(1000), topic="other")  # the log grows, but not with the copy
    again = killed(world)
    assert bodies(drain(again, again.connect(), 30)) == [b"m"]
    again.stop()


def test_a_full_disk_while_messages_come_again(client: Connection, world: World) -> None:
    produce(client, *(b"%d" % n for n in range(5)))
    pop(client)
    world.store.refuse("disk", "the disk is full")
    world.clock.advance(20)
    world.store.refuse("disk", "")
    world.clock.advance(3)
    assert bodies(pop(client)) == [b"%d" % n for n in range(5)]
    world.clock.advance(8)
    assert pop(client) == []


def test_what_cannot_be_copied_now_is_tried_again_later(client: Connection, world: World) -> None:
    produce(client, b"small", b"large" * 100)
    pop(client)
    world.settings.max_message_size = world.store.settings.max_message_size = 300
    world.clock.advance(14)
    (small,) = pop(client)
    ack(client, small)
    world.settings.max_message_size = world.store.settings.max_message_size = 3000
    world.clock.advance(5)
    assert pop(client) == []
    world.clock.advance(10)  # 10 s after the first try
    assert bodies(pop(client)) == [b"large" * 100]


def test_what_could_not_be_copied_before_a_kill_is_tried_again() -> None:
    world = in_memory()
    client = world.connect()
    produce(client, b"large" * 100)
    pop(client)
    world.settings.max_message_size = world.store.settings.max_message_size = 300
    world.clock.advance(14)
    world.settings.max_message_size = 3000
    again = killed(world)
    again.clock.advance(20)
    assert bodies(pop(again.connect())) == [b"large" * 100]
    again.stop()
