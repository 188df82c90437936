"""Transactions: visible when the producer says so, or never; over restarts, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.brokers import Answered, Connection, World, properties_of
from tests.support.transactions import (
    COMMIT,
    HALF,
    OP,
    PROPERTIES,
    ROLLBACK,
    UNKNOWN,
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
from firearrow.model.clock import VirtualClock
from firearrow.model.message import Message
from firearrow.model.topic import Topic
from firearrow.store.api import PutStatus

# -- the half message and its end


def test_a_half_message_is_invisible(world: World, client: Connection) -> None:
    sent = send_half(world, client)
    assert sent.code == codes.SUCCESS
    assert (sent.ext["queueId"], sent.ext["queueOffset"]) == ("1", "0")
    assert sent.ext["transactionId"] == "A1"
    assert arrived(client) == []
    (half,) = client.pull(HALF).records()
    assert half.sys_flag == 0
    assert half.queue_id == 0
    properties = properties_of(half)
    assert properties["REAL_TOPIC"] == "orders"
    assert properties["REAL_QID"] == "1"
    assert properties["__transactionId__"] == "A1"
    assert (properties["TRAN_MSG"], properties["PGROUP"]) == ("true", "payers")


def test_a_commit_makes_it_visible_once(world: World, client: Connection) -> None:
    sent = send_half(world, client)
    assert end(client, sent, COMMIT).code == codes.SUCCESS
    (record,) = arrived(client)
    (half,) = client.pull(HALF).records()
    assert (record.body, record.flag, record.sys_flag) == (b"pay", 7, COMMIT)
    assert (record.topic, record.queue_id, record.queue_offset) == ("orders", 1, 0)
    assert record.prepared_offset == half.physical_offset
    assert record.born_timestamp == half.born_timestamp
    assert properties_of(record)["UNIQ_KEY"] == "A1"
    assert properties_of(record)["TAGS"] == "paid"
    # As a Java broker stores it: its clients look for a transaction id only where TRAN_MSG is.
    assert properties_of(record)["TRAN_MSG"] == "true"
    world.clock.advance(300)
    assert len(arrived(client)) == 1


def test_a_waiting_consumer_is_woken_by_the_commit(world: World, client: Connection) -> None:
    sent = send_half(world, client)
    consumer = world.connect()
    consumer.send(11, {**_pull_fields(), "suspendTimeoutMillis": 15000, "sysFlag": 6})
    assert consumer.received() == []
    end(client, sent, COMMIT)
    world.clock.advance(0)
    (answer,) = consumer.received()
    assert [r.body for r in answer.records()] == [b"pay"]


def _pull_fields() -> dict[str, Any]:
    return {
        "consumerGroup": "group",
        "topic": "orders",
        "queueId": 1,
        "queueOffset": 0,
        "maxMsgNums": 32,
        "commitOffset": 0,
        "subscription": "*",
        "subVersion": 0,
    }


def test_a_rollback_is_never_visible_and_nobody_is_asked(world: World) -> None:
    client = producer(world)
    sent = send_half(world, client)
    assert end(client, sent, ROLLBACK).code == codes.SUCCESS
    ((*checks,),) = keep_alive(world, 120, client)
    assert checks == []
    assert arrived(client) == []


def test_unknown_is_not_answered_and_changes_nothing(world: World, client: Connection) -> None:
    sent = send_half(world, client)
    client.send(37, end_fields(sent, UNKNOWN))
    client.send(37, end_fields(sent, 4))
    assert client.received() == []
    assert arrived(client) == []
    assert end(client, sent, COMMIT).code == codes.SUCCESS


def test_an_end_one_way_is_not_answered(world: World, client: Connection) -> None:
    sent = send_half(world, client)
    client.send(37, end_fields(sent, COMMIT), one_way=True)
    assert client.received() == []
    assert bodies(client) == [b"pay"]


def test_an_end_must_fit_the_half_message(world: World, client: Connection) -> None:
    sent = send_half(world, client)
    plain = client.produce("orders", b"plain", properties="PGROUP\x01payers\x02")
    wrong = [
        end(client, sent, COMMIT, producerGroup="others"),
        end(client, sent, COMMIT, tranStateTableOffset=1),
        end(client, sent, COMMIT, commitLogOffset=12345),
        end(client, sent, COMMIT, commitLogOffset=-1),
        end(client, sent, ROLLBACK, producerGroup="others"),
        end(client, plain, COMMIT),
    ]
    assert {answer.code for answer in wrong} == {codes.SYSTEM_ERROR}
    assert all(answer.header.remark for answer in wrong)
    assert arrived(client) == []


def test_a_second_commit_stores_it_again_as_in_rocketmq(world: World, client: Connection) -> None:
    sent = send_half(world, client)
    end(client, sent, COMMIT)
    end(client, sent, COMMIT)
    assert bodies(client) == [b"pay", b"pay"]


def test_transactions_can_be_forbidden(world: World, client: Connection) -> None:
    world.settings.reject_transaction_message = True
    assert send_half(world, client).code == codes.NO_PERMISSION
    assert client.produce("orders", b"plain").code == codes.SUCCESS


def test_a_batch_carries_no_half_messages(world: World, client: Connection) -> None:
    fields = {
        "a": "payers",
        "b": "orders",
        "c": "TBW102",
        "d": 4,
        "e": 1,
        "f": 4,
        "g": 0,
        "h": 0,
        "i": "",
        "m": "true",
    }
    item = bytes.fromhex("0000001600000000000000000000000000000000" + "0000")
    assert client.call(320, fields, item).code == codes.MESSAGE_ILLEGAL


def test_a_delay_counts_from_the_commit(world: World, client: Connection) -> None:
    sent = send_half(world, client, more="DELAY\x012\x02")
    world.clock.advance(10)
    assert client.pull("SCHEDULE_TOPIC_XXXX", queue_id=1).records() == []
    end(client, sent, COMMIT)
    world.clock.advance(4.9)
    assert arrived(client) == []
    world.clock.advance(0.2)
    assert bodies(client) == [b"pay"]


def test_a_time_counts_from_the_commit(world: World, client: Connection) -> None:
    sent = send_half(world, client, more="TIMER_DELAY_SEC\x0110\x02")
    world.clock.advance(20)
    end(client, sent, COMMIT)
    world.clock.advance(8)
    assert arrived(client) == []
    world.clock.advance(4)
    assert bodies(client) == [b"pay"]


def test_a_committed_message_that_is_given_back_is_retried(
    world: World, client: Connection
) -> None:
    end(client, send_half(world, client), COMMIT)
    (record,) = arrived(client)
    back = {"offset": record.physical_offset, "group": "group", "delayLevel": 1}
    assert client.call(36, back).code == codes.SUCCESS
    world.clock.advance(1.1)
    (again,) = client.pull("%RETRY%group").records()
    assert (again.body, again.reconsume_times) == (b"pay", 1)
    assert client.call(36, {**back, "delayLevel": -1}).code == codes.SUCCESS
    assert len(client.pull("%DLQ%group").records()) == 1


def test_its_keys_are_found_under_the_topic_after_the_commit(
    world: World, client: Connection
) -> None:
    sent = send_half(world, client, more="KEYS\x01k1\x02")
    query = {
        "topic": "orders",
        "key": "k1",
        "maxNum": 10,
        "beginTimestamp": 0,
        "endTimestamp": world.clock.now_ms() + 1000,
    }

    def found() -> Answered:
        client.received()
        client.send(12, query)
        world.clock.advance(1)
        return client.received()[0]

    assert found().code == codes.QUERY_NOT_FOUND
    end(client, sent, COMMIT)
    assert len(found().records()) == 1


# -- op messages


def test_marks_are_written_together_after_the_interval(world: World, client: Connection) -> None:
    for number in range(3):
        sent = send_half(world, client)
        client.send(37, end_fields(sent, (COMMIT, ROLLBACK)[number % 2]), one_way=True)
    world.clock.advance(2.9)
    assert op_bodies(client) == []
    world.clock.advance(0.2)
    (op,) = client.pull(OP).records()
    assert op.body == b"0,1,2,"
    assert properties_of(op)["TAGS"] == "d"


def test_marks_are_written_when_there_are_enough(world: World, client: Connection) -> None:
    world.settings.transaction_op_msg_max_size = 10
    for _ in range(12):
        client.send(37, end_fields(send_half(world, client), ROLLBACK), one_way=True)
    assert op_bodies(client) == [b"0,1,2,3,4,", b"5,6,7,8,9,"]


def test_an_answered_end_is_marked_at_once(world: World, client: Connection) -> None:
    end(client, send_half(world, client), ROLLBACK)
    assert op_bodies(client) == [b"0,"]


# -- restarts


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = producer(world)
    halves = [send_half(world, client, body=body) for body in (b"a", b"b", b"c", b"d")]
    client.send(37, end_fields(halves[0], COMMIT), one_way=True)
    client.send(37, end_fields(halves[1], ROLLBACK), one_way=True)
    world.stop()
    world = World(tmp_path, clock=world.clock)
    client = producer(world)
    assert end(client, halves[2], COMMIT).code == codes.SUCCESS
    (checks,) = keep_alive(world, 35, client)
    assert [decode_record(c.body).body for c in checks] == [b"d"]
    assert bodies(client) == [b"a", b"c"]
    world.stop()
    world = World(tmp_path, clock=world.clock)
    client = producer(world)
    (checks,) = keep_alive(world, 35, client)
    assert [decode_record(c.body).body for c in checks] == [b"d"]
    assert properties_of(decode_record(checks[0].body))["TRANSACTION_CHECK_TIMES"] == "2"
    world.stop()


def test_op_messages_of_4_9_are_understood(world: World) -> None:
    client = producer(world)
    for _ in range(2):
        send_half(world, client)
    one_offset = Message(OP, 0, b"0", b"TAGS\x01d\x02", 0, bytes(8))  # and no comma
    assert world.store.append(one_offset).status is PutStatus.OK
    (checks,) = keep_alive(world, 31, client)
    assert len(checks) == 1


def test_a_full_disk_keeps_the_transaction_open(world: World) -> None:
    client = producer(world)
    sent = send_half(world, client)
    world.store.refuse("test", "the disk is full")
    assert end(client, sent, COMMIT).code == codes.SERVICE_NOT_AVAILABLE
    assert end(client, sent, ROLLBACK).code == codes.SUCCESS
    assert keep_alive(world, 61, client) == [[]]
    world.store.refuse("test", "")
    assert keep_alive(world, 61, client) == [[]]
    assert arrived(client) == []


def test_with_sync_flush_an_end_is_known_before_it_is_readable(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.flush_disk_type = "SYNC_FLUSH"
    world = World(tmp_path, settings)
    client = producer(world)
    sent = client.send(310, {**_half_fields(world)}, b"pay")
    world.clock.advance(0)
    (answer,) = [f for f in client.received() if f.header.opaque == sent]
    client.send(37, end_fields(answer, COMMIT), one_way=True)
    assert keep_alive(world, 65, client) == [[]]
    assert bodies(client) == [b"pay"]
    world.stop()


def _half_fields(world: World) -> dict[str, Any]:
    return {
        "a": "payers",
        "b": "orders",
        "c": "TBW102",
        "d": 4,
        "e": 1,
        "f": 4,
        "g": world.clock.now_ms(),
        "h": 0,
        "i": PROPERTIES,
    }


def test_a_topic_that_stores_once_delivers_a_commit_once(world: World, client: Connection) -> None:
    attributes = {"dedup.window.ms": "60000"}
    world.core.topics.create(Topic(name="orders", attributes=attributes))
    sent = send_half(world, client)
    assert end(client, sent, COMMIT).code == codes.SUCCESS
    assert bodies(client) == [b"pay"]
    assert end(client, sent, COMMIT).code == codes.SUCCESS
    assert bodies(client) == [b"pay"]


def test_without_transactions_no_progress_of_theirs_is_shown(
    world: World, client: Connection
) -> None:
    """As mqadmin's topicList -c of a fresh Java broker, which names no group for these topics."""
    world.clock.advance(200)
    for topic in (HALF, OP):
        assert client.call(300, {"topic": topic}).json()["groupList"] == []
    end(client, send_half(world, client), COMMIT)
    world.clock.advance(200)
    assert client.call(300, {"topic": HALF}).json()["groupList"] == ["CID_RMQ_SYS_TRANS"]


def counts(root: Path) -> dict[str, int]:
    saved = json.loads((root / "config" / "transactionMetrics").read_bytes())
    assert saved["dataVersion"].keys() == {"counter", "stateVersion", "timestamp"}
    table = saved["transactionCount"]
    assert all(entry.keys() == {"count", "timeStamp"} for entry in table.values())
    return {topic: entry["count"] for topic, entry in table.items()}


def test_waiting_half_messages_are_counted_for_whoever_opens_the_store_next(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "store")
    client = world.connect()
    sent = [send_half(world, client) for _ in range(4)]
    send_half(world, client, b="others")
    end(client, sent[0], COMMIT)
    end(client, sent[1], ROLLBACK)
    world.clock.advance(11)
    assert counts(tmp_path / "store") == {"orders": 2, "others": 1}
    end(client, sent[2], COMMIT)
    world.stop()
    assert counts(tmp_path / "store") == {"orders": 1, "others": 1}

    settings = BrokerSettings()
    settings.transaction_check_max = 1
    world = World(tmp_path / "store", settings, clock=VirtualClock(world.clock.now_ms()))
    world.clock.advance(100)  # what is left is asked about once, then given up
    assert counts(tmp_path / "store") == {"orders": 0, "others": 0}
    world.stop()


def test_a_table_of_counts_that_makes_no_sense_is_begun_anew(tmp_path: Path) -> None:
    config = tmp_path / "store" / "config"
    config.mkdir(parents=True)
    (config / "transactionMetrics").write_text('{"transactionCount":{"orders":"many"}}')
    world = World(tmp_path / "store")
    send_half(world, world.connect())
    world.stop()
    assert counts(tmp_path / "store") == {"orders": 1}
