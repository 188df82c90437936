"""What a producer gets for what it sends (behaviour.md 1.11)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tests.support.brokers import Connection, World, properties_of, send_fields

from firearrow.codec.message_id import parse_offset_message_id
from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.model.topic import Topic

KEYED = "UNIQ_KEY\x017F0000010F2A18B4\x02WAIT\x01true\x02"  # the usual properties go the quick way


def test_a_first_send_makes_the_topic_after_its_template(world: World, client: Connection) -> None:
    assert client.produce("orders").code == codes.SUCCESS
    topic = world.core.topics.table["orders"]
    assert (topic.read_queues, topic.write_queues, topic.perm) == (4, 4, 6)


def test_a_client_gets_no_more_queues_than_the_template_has(
    world: World, client: Connection
) -> None:
    client.produce("orders", queues=20)
    assert world.core.topics.table["orders"].write_queues == 8


def test_without_auto_creation_an_unknown_topic_is_refused(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.auto_create_topic_enable = False
    world = World(tmp_path, settings)
    answer = world.connect().produce("orders")
    assert answer.code == codes.TOPIC_NOT_EXIST
    assert "updateTopic" in (answer.header.remark or "")  # says what to do
    world.stop()


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("bad*topic", codes.INVALID_PARAMETER),
        ("", codes.INVALID_PARAMETER),
        ("t" * 128, codes.INVALID_PARAMETER),
        ("%RETRY%" + "g" * 250, codes.INVALID_PARAMETER),
        ("%RETRY%" + "g" * 200, codes.SUBSCRIPTION_GROUP_NOT_EXIST),
        ("SCHEDULE_TOPIC_XXXX", codes.NO_PERMISSION),
        ("RMQ_SYS_TRANS_HALF_TOPIC", codes.NO_PERMISSION),
    ],
)
def test_names_that_are_refused(client: Connection, topic: str, code: int) -> None:
    answer = client.produce(topic)
    assert answer.code == code
    assert answer.ext["TRACE_ON"] == "true"  # on errors too


def test_a_queue_that_does_not_exist_is_refused(client: Connection) -> None:
    assert client.produce("orders", queue_id=3).code == codes.SUCCESS
    assert client.produce("orders", queue_id=4).code == codes.INVALID_PARAMETER


def test_a_queue_that_can_only_be_read_still_takes_messages(
    world: World, client: Connection
) -> None:
    world.core.topics.create(Topic(name="orders", read_queues=4, write_queues=2))
    assert client.produce("orders", queue_id=3).code == codes.SUCCESS


def test_a_read_only_topic_still_takes_messages(world: World, client: Connection) -> None:
    world.core.topics.create(Topic(name="orders", perm=4))
    assert client.produce("orders").code == codes.SUCCESS


def test_an_ordered_topic_needs_the_broker_to_be_writable(world: World, client: Connection) -> None:
    world.core.topics.create(Topic(name="ordered", order=True))
    world.settings.broker_permission = 4
    assert client.produce("ordered").code == codes.NO_PERMISSION
    assert client.produce("plain").code == codes.SUCCESS


def test_any_queue_means_every_queue(client: Connection) -> None:
    queues = {client.produce("orders", queue_id=-1).ext["queueId"] for _ in range(100)}
    assert queues == {"0", "1", "2", "3"}


def test_the_answer_says_where_the_message_is(world: World, client: Connection) -> None:
    client.produce("orders", b"first")
    answer = client.produce("orders", b"second", properties="KEYS\x01k\x02UNIQ_KEY\x01id-1\x02")
    assert (answer.ext["queueId"], answer.ext["queueOffset"]) == ("0", "1")
    assert answer.ext["transactionId"] == "id-1"
    parsed = parse_offset_message_id(answer.ext["msgId"])
    assert parsed is not None
    address, physical_offset = parsed
    assert address == world.core.address
    (record,) = client.call(33, {"offset": physical_offset}).records()
    assert record.body == b"second"
    assert properties_of(record) == {
        "KEYS": "k",
        "UNIQ_KEY": "id-1",
        "CLUSTER": "DefaultCluster",
        "MSG_REGION": "DefaultRegion",
        "TRACE_ON": "true",
    }


def test_a_message_without_unique_key_gets_one(client: Connection) -> None:
    key = client.produce("orders").ext["transactionId"]
    (record,) = client.pull("orders").records()
    assert len(key) == 32
    assert properties_of(record)["UNIQ_KEY"] == key


def test_properties_without_the_last_separator_are_completed(client: Connection) -> None:
    client.produce("orders", properties="KEYS\x01k\x02TAGS\x01a")
    (record,) = client.pull("orders").records()
    assert properties_of(record)["TAGS"] == "a"


@pytest.mark.parametrize(
    ("tail", "stored"),
    [
        ("", ""),
        ("WAIT\x01true\x02", "WAIT\x01true\x02"),
        ("WAIT\x01true", "WAIT\x01true\x02"),
        ("WAIT\x01true\x02TAGS\x01a\x02", "WAIT\x01true\x02TAGS\x01a\x02"),
        ("KEYS\x01k\x02", "KEYS\x01k\x02"),
        ("TRACE_ON\x01no\x02CLUSTER\x01old\x02colour\x01蓝\x02", "colour\x01蓝\x02"),
    ],
)
def test_equal_properties_after_the_key_are_stored_alike_each_time(
    client: Connection, tail: str, stored: str
) -> None:
    keys = ["id-1", "schlüssel-2", 'id"3']
    for key in keys:
        answer = client.produce("orders", properties=f"UNIQ_KEY\x01{key}\x02{tail}")
        assert answer.ext["transactionId"] == key
    added = "CLUSTER\x01DefaultCluster\x02MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02"
    assert [record.properties.decode() for record in client.pull("orders").records()] == [
        f"UNIQ_KEY\x01{key}\x02{stored}{added}" for key in keys
    ]


def test_keys_ahead_of_the_unique_key_are_stored_as_they_are_each_time(client: Connection) -> None:
    given = [f"KEYS\x01clé {n}\x02UNIQ_KEY\x01id-{n}\x02WAIT\x01true\x02" for n in range(3)]
    given.append("KEYS\x01id-4\x02WAIT\x01true\x02")  # the client gave no unique key
    answers = [client.produce("orders", properties=properties) for properties in given]
    unique = [answer.ext["transactionId"] for answer in answers]
    assert unique[:3] == ["id-0", "id-1", "id-2"]
    given[3] += f"UNIQ_KEY\x01{unique[3]}\x02"
    added = "CLUSTER\x01DefaultCluster\x02MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02"
    records = client.pull("orders").records()
    assert [r.properties.decode() for r in records] == [text + added for text in given]


def test_a_room_sees_every_message_that_is_marked_for_it(client: Connection) -> None:
    client.produce("orders", b"now", properties="UNIQ_KEY\x01a\x02WAIT\x01true\x02")
    for properties in (
        "UNIQ_KEY\x01b\x02DELAY\x011\x02",
        "UNIQ_KEY\x01c\x02DELAY\x011\x02",  # just like the one before
        "DELAY\x011\x02WAIT\x01true\x02",  # ends like the first
    ):
        assert client.produce("orders", b"later", properties=properties).code == codes.SUCCESS
    assert [record.body for record in client.pull("orders").records()] == [b"now"]


def test_the_same_message_twice_is_two_messages(client: Connection) -> None:
    for _ in range(2):
        client.produce("orders", properties="UNIQ_KEY\x01same\x02")
    assert len(client.pull("orders").records()) == 2


@pytest.mark.parametrize(
    ("body", "properties", "code"),
    [
        (bytes(4 * 1024 * 1024), "", codes.SUCCESS),
        (bytes(4 * 1024 * 1024 + 1), "", codes.MESSAGE_ILLEGAL),
        (b"x", "k\x01" + "v" * 32768 + "\x02", codes.MESSAGE_ILLEGAL),
        (b"", "", codes.SUCCESS),
    ],
)
def test_sizes(client: Connection, body: bytes, properties: str, code: int) -> None:
    assert client.produce("orders", body, properties=properties).code == code


def batch(*items: tuple[bytes, bytes]) -> bytes:
    data = b""
    for body, properties in items:
        size = 22 + len(body) + len(properties)
        data += struct.pack(">iiiii", size, 0, 0, 0, len(body)) + body
        data += struct.pack(">h", len(properties)) + properties
    return data


@pytest.mark.parametrize("code", [320, 310])  # C++ sends batches with the code of a single send
def test_a_batch_is_stored_as_its_messages(client: Connection, code: int) -> None:
    client.produce("orders", b"before")
    body = batch(*((b"body-%d" % n, b"UNIQ_KEY\x01id-%d\x02" % n) for n in range(3)))
    answer = client.call(code, send_fields("orders", batch=True), body)
    assert answer.code == codes.SUCCESS
    assert answer.ext["queueOffset"] == "1"
    assert len(answer.ext["msgId"].split(",")) == 3
    records = client.pull("orders", offset=1).records()
    assert [r.body for r in records] == [b"body-0", b"body-1", b"body-2"]
    assert [r.queue_offset for r in records] == [1, 2, 3]


@pytest.mark.parametrize(
    "body", [b"", b"\0\0\0", batch((b"a", b""))[:-1], b"\0\0\0\x17" + bytes(18), bytes(100)]
)
def test_a_broken_batch_is_refused_whole(client: Connection, body: bytes) -> None:
    client.produce("orders")
    answer = client.call(320, send_fields("orders", batch=True), body)
    assert answer.code == codes.MESSAGE_ILLEGAL
    assert client.call(30, {"topic": "orders", "queueId": 0}).ext["offset"] == "1"


def test_a_batch_with_one_message_that_is_too_large_is_refused_whole(
    world: World, client: Connection
) -> None:
    world.settings.max_message_size = 10_000
    world.store.settings.max_message_size = 1000
    client.produce("orders")
    body = batch((b"small", b""), (bytes(2000), b""))
    answer = client.call(320, send_fields("orders", batch=True), body)
    assert answer.code == codes.MESSAGE_ILLEGAL
    assert world.store.max_offset("orders", 0) == 1


def test_a_batch_can_be_neither_delayed_nor_a_retry(client: Connection) -> None:
    body = batch((b"a", b""))
    fields = send_fields("orders", batch=True, properties="DELAY\x011\x02")
    assert client.call(320, fields, body).code == codes.MESSAGE_ILLEGAL
    fields = send_fields("%RETRY%group", batch=True)
    assert client.call(320, fields, body).code == codes.MESSAGE_ILLEGAL


def test_a_one_way_send_is_never_answered(world: World, client: Connection) -> None:
    client.send(310, send_fields("bad*topic"), b"x", one_way=True)
    client.send(310, send_fields("orders"), b"x", one_way=True)
    assert client.received() == []
    assert world.store.max_offset("orders", 0) == 1


def test_a_missing_field_is_an_answer_not_a_broken_connection(client: Connection) -> None:
    answer = client.call(310, {"a": "producers", "b": "orders"}, b"x")
    assert answer.code == codes.SYSTEM_ERROR
    assert "SEND_MESSAGE_V2" in (answer.header.remark or "")
    assert client.produce("orders").code == codes.SUCCESS


def test_with_sync_flush_the_answer_and_the_message_wait_for_the_disk(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.flush_disk_type = "SYNC_FLUSH"
    world = World(tmp_path, settings)
    client = world.connect()
    client.send(310, send_fields("orders"), b"x")
    assert client.received() == []
    assert world.store.max_offset("orders", 0) == 0
    world.clock.advance(0)
    (answer,) = client.received()
    assert answer.code == codes.SUCCESS
    assert world.store.max_offset("orders", 0) == 1
    world.stop()


def test_a_disk_that_does_not_sync_in_time_is_said_and_loses_nothing(tmp_path: Path) -> None:
    settings = BrokerSettings()
    settings.flush_disk_type = "SYNC_FLUSH"
    world = World(tmp_path, settings)
    world.background.eager = False
    client = world.connect()
    client.send(310, send_fields("orders"), b"x")
    world.clock.advance(5.5)
    (answer,) = client.received()
    assert answer.code == codes.FLUSH_DISK_TIMEOUT
    assert answer.ext["queueOffset"] == "0"
    world.background.run()
    assert len(client.pull("orders").records()) == 1
    world.background.eager = True
    world.stop()


def test_with_sync_flush_a_connection_gets_its_answers_in_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, BrokerSettings(flush_disk_type="SYNC_FLUSH"))
    one, other = world.connect(), world.connect()
    writes: list[Connection] = []

    def watch(client: Connection) -> None:
        def send(data: bytes) -> None:
            writes.append(client)
            client.peer.send(data)

        monkeypatch.setattr(client.session, "send", send)

    watch(one)
    watch(other)
    asked = [one.send(310, send_fields("orders")) for _ in range(3)]
    one.send(310, send_fields("orders"), one_way=True)
    other.send(310, send_fields("orders"))
    world.clock.advance(0)
    assert writes == [one, other]
    assert [answer.header.opaque for answer in one.received()] == asked
    assert [answer.ext["queueOffset"] for answer in other.received()] == ["4"]
    world.stop()


def test_an_answer_waits_for_the_flush_of_its_own_message(tmp_path: Path) -> None:
    """One that began before the message came says nothing about it, whoever else it serves."""
    world = World(tmp_path, BrokerSettings(flush_disk_type="SYNC_FLUSH"))
    client = world.connect()
    world.background.eager = False
    first = client.send(310, send_fields("orders"))
    world.clock.advance(0)  # the flush takes what is there
    client.send(310, send_fields("orders"))
    world.clock.advance(0)
    world.background.run()
    assert [answer.header.opaque for answer in client.received()] == [first]
    assert world.store.flushed_offset() < world.store.commit_log_range()[1]
    assert world.store.max_offset("orders", 0) == 1
    world.clock.advance(0)
    world.background.run()
    assert [answer.code for answer in client.received()] == [codes.SUCCESS]
    assert world.store.max_offset("orders", 0) == 2
    world.background.eager = True
    world.stop()


def test_all_that_a_disk_does_not_sync_in_time_have_the_code_that_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, BrokerSettings(flush_disk_type="SYNC_FLUSH"))
    world.background.eager = False
    client = world.connect()
    asked = [client.send(310, send_fields("orders"), b'"code":0,') for _ in range(2)]
    world.clock.advance(5.5)
    answers = client.received()
    assert [answer.code for answer in answers] == [codes.FLUSH_DISK_TIMEOUT] * 2
    assert [answer.header.opaque for answer in answers] == asked
    assert [answer.ext["queueOffset"] for answer in answers] == ["0", "1"]
    world.background.run()
    world.background.eager = True
    world.stop()


@pytest.mark.parametrize("field", ["e", "f", "g", "h", "j"])
@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 1 << 70])
def test_a_number_that_no_record_can_hold_is_refused(
    client: Connection, caplog: pytest.LogCaptureFixture, field: str, value: int
) -> None:
    client.produce("orders")
    answer = client.call(310, {**send_fields("orders"), field: value}, b"x")
    assert answer.code == codes.SYSTEM_ERROR
    assert "SEND_MESSAGE_V2" in (answer.header.remark or "")
    assert not caplog.records
    assert len(client.pull("orders").records()) == 1


def test_a_topic_that_was_deleted_and_made_again_begins_anew(
    world: World, client: Connection
) -> None:
    for _ in range(2):  # the second send of each life goes the quick way
        client.produce("orders", properties=KEYED)
    world.core.topics.delete("orders")
    sent = [client.produce("orders", properties=KEYED) for _ in range(3)]
    assert [answer.ext["queueOffset"] for answer in sent] == ["0", "1", "2"]
    assert len(client.pull("orders").records()) == 3


def test_queues_far_up_take_messages_too(world: World, client: Connection) -> None:
    client.produce("orders")
    world.core.topics.create(Topic(name="orders", read_queues=3000, write_queues=3000))
    for queue_id in (2999, 1023, 1024):
        sent = [client.produce("orders", queue_id=queue_id, properties=KEYED) for _ in range(2)]
        assert [answer.ext["queueOffset"] for answer in sent] == ["0", "1"]
        assert len(client.pull("orders", queue_id).records()) == 2
