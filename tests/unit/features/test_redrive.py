"""Dead letters that an operator sends back."""

from __future__ import annotations

from pathlib import Path

from tests.support.brokers import Answered, Connection, World, properties_of

from firearrow.model import codes

DEAD = "%DLQ%group"


def bury(client: Connection, count: int, properties: str = "TAGS\x01a\x02") -> None:
    """Send messages that become dead letters at once."""
    for number in range(count):
        sent = client.produce("orders", b"%d" % number, queue_id=1, properties=properties)
        offset = int(sent.ext["msgId"][16:], 16)
        back = {"offset": offset, "group": "group", "delayLevel": -1}
        assert client.call(36, back).code == codes.SUCCESS


def redrive(client: Connection, **more: object) -> Answered:
    return client.call(7100, {"group": "group", **more})


def counts(answer: Answered) -> tuple[int, int, int]:
    assert answer.code == codes.SUCCESS, answer.header.remark
    moved, skipped, remaining = (answer.ext[k] for k in ("moved", "skipped", "remaining"))
    return int(moved), int(skipped), int(remaining)


def arrived(world: World, client: Connection, topic: str) -> list[bytes]:
    return [
        record.body
        for queue_id in range(4)
        for record in client.pull(topic, queue_id=queue_id).records()
    ]


def test_dead_letters_go_back_to_their_topic(world: World, client: Connection) -> None:
    bury(client, 3, "TAGS\x01a\x02UNIQ_KEY\x01K\x02")
    before = arrived(world, client, "orders")
    assert counts(redrive(client)) == (3, 0, 0)
    after = arrived(world, client, "orders")
    assert sorted(after) == sorted([*before, b"0", b"1", b"2"])
    (first,) = client.pull("orders", queue_id=0).records()
    properties = properties_of(first)
    assert (first.body, first.reconsume_times) == (b"0", 0)
    assert (properties["TAGS"], properties["UNIQ_KEY"]) == ("a", "K")
    assert "RETRY_TOPIC" not in properties
    assert "DELAY" not in properties
    assert len(client.pull(DEAD).records()) == 3  # until retention


def test_to_the_group_alone(world: World, client: Connection) -> None:
    bury(client, 2)
    before = arrived(world, client, "orders")
    assert counts(redrive(client, to="group")) == (2, 0, 0)
    assert arrived(world, client, "orders") == before
    records = client.pull("%RETRY%group").records()
    assert [r.body for r in records] == [b"0", b"1"]
    assert [properties_of(r)["RETRY_TOPIC"] for r in records] == ["orders"] * 2
    assert [r.reconsume_times for r in records] == [0, 0]


def test_each_is_sent_back_once_step_by_step(world: World, client: Connection) -> None:
    bury(client, 5)
    assert counts(redrive(client, maxMessages=0)) == (0, 0, 5)
    assert counts(redrive(client, maxMessages=2)) == (2, 0, 3)
    assert counts(redrive(client)) == (3, 0, 0)
    assert counts(redrive(client)) == (0, 0, 0)
    bury(client, 1)
    assert counts(redrive(client)) == (1, 0, 0)


def test_a_restart_remembers_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    bury(client, 2)
    assert counts(redrive(client)) == (2, 0, 0)
    world.stop()
    world = World(tmp_path, clock=world.clock)
    assert counts(redrive(world.connect())) == (0, 0, 0)
    world.stop()


def test_what_cannot_go_back_is_left_and_said(world: World, client: Connection) -> None:
    bury(client, 1)
    world.core.topics.delete("orders")
    assert counts(redrive(client)) == (0, 1, 0)


def test_a_committed_transaction_goes_back_as_an_ordinary_message(
    world: World, client: Connection
) -> None:
    properties = "UNIQ_KEY\x01A\x02TRAN_MSG\x01true\x02PGROUP\x01payers\x02"
    half = client.produce("orders", b"pay", queue_id=2, properties=properties)
    phy = int(half.ext["msgId"][16:], 16)
    end = {"producerGroup": "payers", "tranStateTableOffset": 0, "commitLogOffset": phy}
    assert client.call(37, {**end, "commitOrRollback": 8, "msgId": "A"}).code == codes.SUCCESS
    (record,) = client.pull("orders", queue_id=2).records()
    back = {"offset": record.physical_offset, "group": "group", "delayLevel": -1}
    assert client.call(36, back).code == codes.SUCCESS
    assert counts(redrive(client)) == (1, 0, 0)
    (again,) = client.pull("orders", queue_id=0).records()
    assert (again.body, again.sys_flag) == (b"pay", 0)


def test_wrong_requests(world: World, client: Connection) -> None:
    assert redrive(client).code == codes.TOPIC_NOT_EXIST
    bury(client, 1)
    assert redrive(client, to="moon").code == codes.INVALID_PARAMETER


def test_a_full_disk_stops_and_loses_nothing(world: World, client: Connection) -> None:
    bury(client, 2)
    world.store.refuse("test", "the disk is full")
    answer = redrive(client)
    assert answer.code == codes.SYSTEM_ERROR
    assert "disk is full" in (answer.header.remark or "")
    world.store.refuse("test", "")
    assert counts(redrive(client)) == (2, 0, 0)
