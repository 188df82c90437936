"""What the broker tells of itself and of its clients, and what can be changed while it runs."""

from __future__ import annotations

import json

import pytest
from tests.support.brokers import Answered, Connection, World, properties_of

from firearrow.model import codes
from firearrow.protocol.remoting.command import Reply
from firearrow.protocol.remoting.headers import encode_reply

# -- settings


def settings_of(client: Connection) -> dict[str, str]:
    answer = client.call(26)
    assert answer.code == codes.SUCCESS
    return dict(line.split("=", 1) for line in answer.body.decode().splitlines())


def test_settings_are_shown_and_have_a_version(client: Connection) -> None:
    shown = settings_of(client)
    assert (shown["brokerName"], shown["fileReservedTime"]) == ("broker-a", "72")
    assert shown["autoCreateTopicEnable"] == "true"
    assert list(shown) == sorted(shown)
    assert json.loads(client.call(26).ext["version"])["counter"] == 0


# -- runtime


def runtime(client: Connection) -> dict[str, str]:
    table: dict[str, str] = client.call(28).json()["table"]
    return table


def test_runtime_information_has_what_tools_read(world: World, client: Connection) -> None:
    world.clock.advance(3600 + 60 + 1)
    client.produce("T", b"12345")
    table = runtime(client)
    assert all(isinstance(value, str) for value in table.values())
    assert table["runtime"] == "[ 0 days, 1 hours, 1 minutes, 1 seconds ]"
    assert table["msgPutTotalTodayNow"] == "1"
    assert table["brokerActive"] == "true"
    for key in ("putTps", "getTransferredTps", "getFoundTps", "getMissTps", "getTotalTps"):
        assert len([float(rate) for rate in table[key].split(" ")]) == 3
    assert int(table["commitLogMaxOffset"]) > 0
    assert float(table["commitLogDiskRatio"]) <= 1


def test_rates_rise_with_the_traffic(world: World, client: Connection) -> None:
    for _ in range(30):
        client.produce("T")
        client.pull("T")
        world.clock.advance(1)
    table = runtime(client)
    assert 0.5 < float(table["putTps"].split(" ")[0]) < 2
    assert float(table["getTransferredTps"].split(" ")[0]) > 0


def stats(client: Connection, name: str, key: str) -> Answered:
    return client.call(315, {"statsName": name, "statsKey": key})


def test_counters_of_a_topic(world: World, client: Connection) -> None:
    for _ in range(12):
        client.produce("T")
        world.clock.advance(10)
    minute = stats(client, "TOPIC_PUT_NUMS", "T").json()["statsMinute"]
    assert 5 <= minute["sum"] <= 7
    assert 0.05 < minute["tps"] < 0.2
    day = stats(client, "TOPIC_PUT_NUMS", "T").json()["statsDay"]
    assert day["sum"] >= 11
    missing = stats(client, "TOPIC_PUT_NUMS", "nowhere")
    assert missing.code == codes.SYSTEM_ERROR
    assert missing.header.remark == "The stats <TOPIC_PUT_NUMS> <nowhere> not exist"
    assert client.call(315, {"statsName": "x"}).code == codes.SYSTEM_ERROR


def test_a_master_alone_says_so(client: Connection) -> None:
    client.produce("T")
    body = client.call(907).json()
    assert (body["master"], body["inSyncSlaveNums"]) == (True, 0)
    assert body["masterCommitLogMaxOffset"] > 0


def test_delay_offsets_are_given_to_whoever_copies_them(client: Connection) -> None:
    assert "offsetTable" in client.call(45).json()


# -- clients


def test_connections_of_consumers_and_producers(world: World, client: Connection) -> None:
    other = world.connect()
    other.heartbeat("G", {"T": "*"}, client_id="me", producers=["P"])
    connection = {
        "clientAddr": f"127.0.0.1:{other.peer.remote[1]}",
        "clientId": "me",
        "language": "JAVA",
        "version": 479,
    }
    consumers = client.call(203, {"consumerGroup": "G"}).json()
    assert consumers["connectionSet"] == [connection]
    assert consumers["consumeFromWhere"] == "CONSUME_FROM_LAST_OFFSET"
    assert consumers["subscriptionTable"]["T"]["subString"] == "*"
    assert client.call(204, {"producerGroup": "P"}).json() == {"connectionSet": [connection]}
    assert client.call(328).json()["data"]["P"][0]["clientId"] == "me"
    missing = client.call(203, {"consumerGroup": "nobody"})
    assert missing.code == codes.CONSUMER_NOT_ONLINE
    assert client.call(204, {"producerGroup": "nobody"}).code == codes.SYSTEM_ERROR


def ask_running_info(world: World) -> tuple[Connection, Connection, int]:
    consumer, operator = world.connect(), world.connect()
    consumer.heartbeat("G", {"T": "*"}, client_id="me")
    consumer.received()
    fields = {"consumerGroup": "G", "clientId": "me", "jstackEnable": "true"}
    return consumer, operator, operator.send(307, fields)


def test_a_question_that_only_a_client_can_answer_is_passed_on(world: World) -> None:
    consumer, operator, opaque = ask_running_info(world)
    (question,) = [f for f in consumer.received() if f.code == 307]
    assert question.ext["jstackEnable"] == "true"
    assert operator.received() == []
    consumer.session.receive(encode_reply(question.header.opaque, Reply(body=b'{"jstack":""}')))
    (answer,) = operator.received()
    assert (answer.header.opaque, answer.code, answer.body) == (opaque, 0, b'{"jstack":""}')


def test_a_client_that_does_not_answer_is_said(world: World) -> None:
    _, operator, _ = ask_running_info(world)
    world.clock.advance(11)
    (answer,) = operator.received()
    assert answer.code == codes.CONSUME_MSG_TIMEOUT


def test_a_client_that_leaves_is_said(world: World) -> None:
    consumer, operator, _ = ask_running_info(world)
    consumer.drop()
    (answer,) = operator.received()
    assert answer.code == codes.CONSUME_MSG_TIMEOUT


@pytest.mark.parametrize("code", [307, 309])
def test_a_client_that_is_not_there_is_said(client: Connection, code: int) -> None:
    answer = client.call(code, {"consumerGroup": "G", "clientId": "me"})
    assert answer.code == codes.SYSTEM_ERROR
    assert answer.header.remark == "The Consumer <G> <me> not online"


def test_an_old_client_is_not_asked(world: World, client: Connection) -> None:
    old = world.connect()
    body = b'{"clientID":"me","consumerDataSet":[{"groupName":"G","subscriptionDataSet":[]}]}'
    old.call(34, body=body, version=61)
    answer = client.call(307, {"consumerGroup": "G", "clientId": "me"})
    assert answer.code == codes.SYSTEM_ERROR
    assert "too low to finish" in (answer.header.remark or "")


def test_a_message_is_given_to_one_client_to_consume(world: World, client: Connection) -> None:
    message_id = client.produce("T", b"again").ext["msgId"]
    consumer = world.connect()
    consumer.heartbeat("G", {"T": "*"}, client_id="me")
    consumer.received()
    fields = {"consumerGroup": "G", "clientId": "me", "msgId": message_id}
    client.send(309, fields)
    (order,) = [f for f in consumer.received() if f.code == 309]
    (record,) = order.records()
    assert (record.body, record.topic) == (b"again", "T")
    assert properties_of(record)
    assert order.ext["brokerName"] == "broker-a"
    for wrong in ("x", "7F00000100002A9F00000000000FFFFF", ""):
        answer = client.call(309, {**fields, "msgId": wrong}) if wrong else None
        assert answer is None or answer.code == codes.SYSTEM_ERROR


def test_the_state_of_a_group_is_put_together_from_its_clients(world: World) -> None:
    operator = world.connect()
    members = [world.connect() for _ in range(2)]
    for number, member in enumerate(members):
        member.heartbeat("G", {"T": "*"}, client_id=f"c{number}")
        member.received()
    members[0].received()
    operator.send(223, {"topic": "T", "group": "G"})
    queue = b'{"brokerName":"broker-a","queueId":0,"topic":"T"}'
    for member in members:
        (question,) = [f for f in member.received() if f.code == 221]
        body = b'{"messageQueueTable":{' + queue + b":7}}"
        member.session.receive(encode_reply(question.header.opaque, Reply(body=body)))
    (answer,) = operator.received()
    table = b'{"c0":{' + queue + b':7},"c1":{' + queue + b":7}}"
    assert answer.body == b'{"consumerTable":' + table + b"}"
    assert operator.call(223, {"topic": "T", "group": "nobody"}).code == codes.SYSTEM_ERROR
