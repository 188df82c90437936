"""Static topics, from outside: two brokers and a name server, moved as mqadmin moves them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.brokers import Answered, Connection, World, pull_fields, send_fields
from tests.support.cluster import Cluster
from tests.support.load import batch_body

from firearrow.codec import lenient_json
from firearrow.model import codes

TOPIC = "logical"
GROUP = "group"
EPOCH = 1_700_000_000_000
MOVED_TO = 20_000  # as mqadmin rounds up


def item(broker: str, queue_id: int, logic_offset: int = 0, gen: int = 0) -> dict[str, Any]:
    return {
        "bname": f"broker-{broker}",
        "endOffset": -1,
        "gen": gen,
        "logicOffset": logic_offset,
        "queueId": queue_id,
        "startOffset": 0,
        "timeOfEnd": -1,
        "timeOfStart": -1,
    }


class Operators:
    """What ``mqadmin updateStaticTopic`` and ``remappingStaticTopic`` send."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.epoch = EPOCH

    def connect(self, broker: str) -> Patient:
        member = next(m for m in self.cluster.brokers if m.name == f"broker-{broker}")
        return Patient(self.cluster, member.world.connect())

    def tell(
        self,
        broker: str,
        queues: dict[int, list[dict[str, Any]]],
        count: int = 2,
        *,
        epoch: int | None = None,
        **more: Any,
    ) -> Answered:
        hosted = ",".join(f"{q}:{json.dumps(items)}" for q, items in queues.items())
        body = (
            f'{{"bname":"broker-{more.pop("bname", broker)}","currIdMap":{{}},"dirty":false,'
            f'"epoch":{self.epoch if epoch is None else epoch},"hostedQueues":{{{hosted}}},'
            f'"scope":"__global__","topic":"{TOPIC}","totalQueues":2}}'
        )
        fields = {
            "topic": TOPIC,
            "defaultTopic": "TBW102",
            "readQueueNums": count,
            "writeQueueNums": count,
            "perm": 6,
            "topicFilterType": "SINGLE_TAG",
            "topicSysFlag": 0,
            "order": "false",
            **more,
        }
        return self.connect(broker).call(513, fields, body.encode())

    def make(self) -> None:
        """Two logical queues on broker a; broker b has none."""
        assert self.tell("a", {0: [item("a", 0)], 1: [item("a", 1)]}).code == 0
        assert self.tell("b", {}, 0).code == 0
        self.cluster.clock.advance(1)

    def move(self, *, decide: bool = True) -> None:
        """Both queues to broker b, in the order of ``MQAdminUtils.remappingStaticTopic``."""
        self.epoch += 1000
        queues = {q: [item("a", q), item("b", q, -1, 1)] for q in (0, 1)}
        assert self.tell("b", queues).code == 0
        assert self.tell("a", queues).code == 0
        if decide:
            self.decide()
        self.cluster.clock.advance(1)

    def decide(self) -> None:
        queues = {q: [item("a", q), item("b", q, MOVED_TO, 1)] for q in (0, 1)}
        assert self.tell("b", queues).code == 0

    def route(self) -> Any:
        return self.cluster.name_servers[0].route(TOPIC)


class Patient:
    """A client that waits for answers which need another broker."""

    def __init__(self, cluster: Cluster, connection: Connection) -> None:
        self._cluster = cluster
        self.connection = connection

    def call(self, code: int, ext: dict[str, Any] | None = None, body: bytes = b"") -> Answered:
        self.connection.received()
        opaque = self.connection.send(code, ext, body)
        for _ in range(50):
            for frame in self.connection.received():
                if frame.header.opaque == opaque and frame.header.flag & 1:
                    return frame
            self._cluster.clock.advance(0.1)
        raise AssertionError(f"no answer to {code}")

    def produce(self, queue_id: int, body: bytes = b"hello", **more: Any) -> Answered:
        return self.call(310, send_fields(TOPIC, queue_id, **more), body)

    def pull(self, offset: int, queue_id: int = 0, **more: Any) -> Answered:
        return self.call(11, pull_fields(TOPIC, queue_id, offset, **more))

    def offset(self, code: int, queue_id: int = 0, **more: Any) -> int:
        answer = self.call(code, {"topic": TOPIC, "queueId": queue_id, **more})
        assert answer.code == 0, answer
        return int(answer.ext["offset"])

    def commit(self, offset: int, queue_id: int = 0) -> None:
        fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": queue_id}
        assert self.call(15, {**fields, "commitOffset": offset}).code == 0

    def committed(self, queue_id: int = 0, **more: Any) -> Answered:
        return self.call(14, {"consumerGroup": GROUP, "topic": TOPIC, "queueId": queue_id, **more})


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 2)
    yield cluster
    cluster.stop()


@pytest.fixture
def operators(cluster: Cluster) -> Operators:
    made = Operators(cluster)
    made.make()
    return made


@pytest.fixture
def a(operators: Operators) -> Patient:
    return operators.connect("a")


@pytest.fixture
def b(operators: Operators) -> Patient:
    return operators.connect("b")


def heard(answer: Answered) -> list[tuple[int, bytes]]:
    """(logical offset, body) as a client reads them."""
    delta = int(answer.ext["offsetDelta"])
    return [(record.queue_offset + delta, record.body) for record in answer.records()]


def test_a_producer_and_a_consumer_go_on_when_the_queues_move(
    operators: Operators, a: Patient, b: Patient
) -> None:
    for n in range(7):
        sent = a.produce(0, b"old %d" % n)
        assert (sent.code, sent.ext["queueId"], sent.ext["queueOffset"]) == (0, "0", str(n))
    operators.move()
    assert a.produce(0).code == codes.NOT_LEADER_FOR_QUEUE
    for n in range(3):
        sent = b.produce(0, b"new %d" % n)
        assert (sent.ext["queueId"], int(sent.ext["queueOffset"])) == ("0", MOVED_TO + n)

    got, offset = [], 0
    while offset < MOVED_TO + 3:
        answer = b.pull(offset)
        assert answer.code in (0, codes.PULL_RETRY_IMMEDIATELY)
        got += heard(answer) if answer.code == 0 else []
        assert int(answer.ext["nextBeginOffset"]) > offset
        offset = int(answer.ext["nextBeginOffset"])
    assert got == [
        *((n, b"old %d" % n) for n in range(7)),
        *((MOVED_TO + n, b"new %d" % n) for n in range(3)),
    ]


def test_name_servers_tell_who_leads(operators: Operators) -> None:
    info = {
        "dirty": False,
        "epoch": EPOCH,
        "scope": "__global__",
        "topic": TOPIC,
        "totalQueues": 2,
    }
    assert operators.route()["topicQueueMappingByBroker"] == {
        "broker-a": {**info, "bname": "broker-a", "currIdMap": {"0": 0, "1": 1}},
        "broker-b": {**info, "bname": "broker-b", "currIdMap": {}},
    }
    operators.move()
    mappings = operators.route()["topicQueueMappingByBroker"]
    assert {name: m["currIdMap"] for name, m in mappings.items()} == {
        "broker-a": {},
        "broker-b": {"0": 0, "1": 1},
    }


def test_a_restart_keeps_the_mapping_and_the_file_is_javas(
    cluster: Cluster, operators: Operators, a: Patient, tmp_path: Path
) -> None:
    operators.move()
    cluster.brokers[0].stop()
    text = (tmp_path / "a/config/topicQueueMapping.json").read_bytes()
    assert b'"hostedQueues":{0:[{"bname":"broker-a","endOffset":-1,"gen":0,' in text
    mapping = lenient_json.loads(text)["topicQueueMappingInfoMap"][TOPIC]
    assert mapping["epoch"] == EPOCH + 1000
    assert mapping["hostedQueues"]["1"] == [item("a", 1), item("b", 1, -1, 1)]
    cluster.brokers[0].start()
    assert operators.connect("a").produce(0).code == codes.NOT_LEADER_FOR_QUEUE


def test_a_file_of_java_is_read(tmp_path: Path) -> None:
    written = {
        "dataVersion": {"counter": 1, "stateVersion": 0, "timestamp": EPOCH},
        "topicQueueMappingInfoMap": {
            TOPIC: {
                "bname": "broker-a",
                "currIdMap": {},
                "dirty": False,
                "epoch": EPOCH,
                "hostedQueues": {5: [item("a", 0)]},
                "scope": "__global__",
                "topic": TOPIC,
                "totalQueues": 9,
            }
        },
    }
    text = json.dumps(written, indent="\t").replace('"5": [', "5:[")
    (tmp_path / "a/config").mkdir(parents=True)
    (tmp_path / "a/config/topicQueueMapping.json").write_text(text)
    cluster = Cluster(tmp_path, 1)
    connection = cluster.brokers[0].world.connect()
    make = {"topic": TOPIC, "readQueueNums": 1, "writeQueueNums": 1, "perm": 6}
    assert connection.call(17, {**make, "topicFilterType": "SINGLE_TAG"}).code == 0
    assert connection.produce(TOPIC, queue_id=5).ext["queueId"] == "5"
    assert connection.produce(TOPIC, queue_id=0).code == codes.NOT_LEADER_FOR_QUEUE
    cluster.stop()


def test_a_negative_queue_is_one_that_is_led_here(operators: Operators, b: Patient) -> None:
    assert b.produce(-1).code == codes.NOT_LEADER_FOR_QUEUE
    operators.move()
    assert {b.produce(-1).ext["queueId"] for _ in range(4)} == {"0", "1"}


def test_a_batch_has_logical_offsets(operators: Operators, b: Patient) -> None:
    operators.move()
    b.produce(1)
    answer = b.call(320, send_fields(TOPIC, 1, batch=True), batch_body([b"x", b"y"]))
    assert (answer.ext["queueId"], answer.ext["queueOffset"]) == ("1", str(MOVED_TO + 1))


def test_an_offset_that_is_too_large_or_too_small_moves(
    cluster: Cluster, operators: Operators, a: Patient, b: Patient
) -> None:
    for _ in range(5):
        a.produce(0)
    answer = a.pull(99)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_OFFSET_MOVED, "5")
    cluster.brokers[0].world.store.raise_min_offset(TOPIC, 0, 2)
    operators.move()
    answer = b.pull(0)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_OFFSET_MOVED, "2")
    answer = b.pull(3000)  # between the items
    assert answer.code == codes.PULL_RETRY_IMMEDIATELY
    assert answer.ext["nextBeginOffset"] == str(MOVED_TO)
    b.produce(0)
    answer = b.pull(MOVED_TO + 50)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (
        codes.PULL_OFFSET_MOVED,
        str(MOVED_TO + 1),
    )


def test_pulls_wait_at_the_leader_and_leave_it_when_it_changes(
    operators: Operators, a: Patient, b: Patient
) -> None:
    opaque = a.connection.send(11, pull_fields(TOPIC, 0, 0, suspend_ms=15_000))
    a.produce(0, b"came")
    operators.cluster.clock.advance(0.1)
    (answer,) = [f for f in a.connection.received() if f.header.opaque == opaque]
    assert heard(answer) == [(0, b"came")]
    opaque = a.connection.send(11, pull_fields(TOPIC, 0, 1, suspend_ms=15_000))
    operators.move()
    (answer,) = [f for f in a.connection.received() if f.header.opaque == opaque]
    assert answer.code == codes.NOT_LEADER_FOR_QUEUE


def test_while_the_offset_is_undecided_nothing_is_skipped(
    operators: Operators, a: Patient, b: Patient
) -> None:
    a.produce(0)
    operators.move(decide=False)
    assert b.produce(0).ext["queueOffset"] == "-1"  # as RocketMQ: it is stored all the same
    answer = b.pull(1)
    assert (answer.code, answer.ext["nextBeginOffset"]) == (codes.PULL_NOT_FOUND, "1")
    assert b.offset(30) == 1
    operators.decide()
    assert b.pull(1).ext["nextBeginOffset"] == str(MOVED_TO)
    assert heard(b.pull(MOVED_TO)) == [(MOVED_TO, b"hello")]


def test_bounds_are_put_together(operators: Operators, a: Patient, b: Patient) -> None:
    for _ in range(5):
        a.produce(0)
    assert (a.offset(31), a.offset(30)) == (0, 5)
    operators.move()
    b.produce(0)
    assert (b.offset(31), b.offset(30)) == (0, MOVED_TO + 1)
    assert a.call(30, {"topic": TOPIC, "queueId": 0}).code == codes.NOT_LEADER_FOR_QUEUE
    assert a.offset(30, lo="false") == 5  # of the queue in its store


def test_a_time_is_found_in_the_item_that_has_it(
    operators: Operators, a: Patient, b: Patient
) -> None:
    clock = operators.cluster.clock
    times = []
    for n in range(4):
        if n == 2:
            operators.move()
        clock.advance(10)
        times.append(clock.now_ms())
        (a if n < 2 else b).produce(0)
    offsets = [0, 1, MOVED_TO, MOVED_TO + 1]

    def search(timestamp: int, boundary: str) -> int:
        return b.offset(29, timestamp=timestamp, boundaryType=boundary)

    assert [search(t, "LOWER") for t in times] == offsets
    assert [search(t - 1, "LOWER") for t in times] == offsets
    assert search(times[3] + 1, "LOWER") == MOVED_TO + 2
    assert [search(t, "UPPER") for t in times] == offsets
    assert search(times[2] - 1, "UPPER") == 1
    assert search(times[0] - 1, "UPPER") == 0
    earliest = b.call(32, {"topic": TOPIC, "queueId": 0})
    assert earliest.ext["timestamp"] == str(times[0])


def test_offsets_of_groups_are_kept_where_the_messages_are(
    operators: Operators, a: Patient, b: Patient
) -> None:
    for member in operators.cluster.brokers:
        member.world.core.groups.find(GROUP)
    for _ in range(5):
        a.produce(0)
    a.commit(3)
    operators.move()
    assert b.committed().ext["offset"] == "3"
    b.commit(4)  # an old one, at broker a
    assert b.committed().ext["offset"] == "4"
    assert a.committed(lo="false").ext["offset"] == "4"
    b.commit(MOVED_TO + 2)
    assert b.committed().ext["offset"] == str(MOVED_TO + 2)
    assert a.committed().code == codes.NOT_LEADER_FOR_QUEUE
    assert b.committed(1).code == codes.QUERY_NOT_FOUND


def test_a_pull_commits_in_terms_of_its_queue(operators: Operators, b: Patient) -> None:
    operators.move()
    for _ in range(4):
        b.produce(0)
    b.pull(MOVED_TO + 2, commit=MOVED_TO + 2)
    assert b.committed().ext["offset"] == str(MOVED_TO + 2)


def test_operators_see_the_mapping(operators: Operators, a: Patient) -> None:
    config = lenient_json.loads(a.call(351, {"topic": TOPIC, "lo": "true"}).body)
    assert config["topicName"] == TOPIC
    assert config["mappingDetail"]["hostedQueues"] == {"0": [item("a", 0)], "1": [item("a", 1)]}
    assert "mappingDetail" not in a.call(351, {"topic": TOPIC}).json()
    every = lenient_json.loads(a.call(21).body)
    assert every["topicQueueMappingDetailMap"][TOPIC]["totalQueues"] == 2
    stats = a.call(202, {"topic": TOPIC})
    assert stats.code == 0
    assert b'"queueId":1' in stats.body


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"epoch": EPOCH - 1}, "small epoch"),
        ({"queues": {0: [item("a", 0)]}}, "equal epoch with null data"),
        ({"queues": {0: [item("a", 1)], 1: [item("a", 0)]}}, "another queue than before"),
        ({"queues": {0: [item("a", 0), item("b", 0, -1, 1)], 1: [item("a", 1)]}}, "new leader"),
        ({"bname": "b"}, "for broker broker-b"),
        ({"queues": {0: [item("a", -1)], 1: [item("a", 1)]}}, "should not be negative"),
    ],
)
def test_a_mapping_against_the_rules_changes_nothing(
    operators: Operators, a: Patient, change: dict[str, Any], remark: str
) -> None:
    queues = change.pop("queues", {0: [item("a", 0)], 1: [item("a", 1)]})
    answer = operators.tell("a", queues, 7, **change)
    assert answer.code == codes.SYSTEM_ERROR
    assert remark in (answer.header.remark or "")
    config = lenient_json.loads(a.call(351, {"topic": TOPIC, "lo": "true"}).body)
    assert (config["writeQueueNums"], config["mappingDetail"]["epoch"]) == (2, EPOCH)


def test_force_replaces_whatever_the_epoch_is(operators: Operators, a: Patient) -> None:
    answer = operators.tell("a", {0: [item("a", 1)]}, epoch=1, force="true")
    assert answer.code == 0
    config = lenient_json.loads(a.call(351, {"topic": TOPIC, "lo": "true"}).body)
    assert config["mappingDetail"]["hostedQueues"] == {"0": [item("a", 1)], "1": [item("a", 1)]}


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b'{"topic":"logical","hostedQueues":7}'])
def test_an_unreadable_mapping_is_refused(operators: Operators, a: Patient, body: bytes) -> None:
    fields = {"topic": TOPIC, "readQueueNums": 1, "writeQueueNums": 1, "perm": 6}
    assert a.call(513, fields, body).code == codes.SYSTEM_ERROR
    assert a.produce(1).code == 0


def test_a_deleted_topic_is_an_ordinary_one_when_made_anew(
    operators: Operators, a: Patient
) -> None:
    operators.move()
    assert a.call(215, {"topic": TOPIC}).code == 0
    make = {"topic": TOPIC, "readQueueNums": 1, "writeQueueNums": 1, "perm": 6}
    assert a.call(17, {**make, "topicFilterType": "SINGLE_TAG"}).code == 0
    assert a.produce(0).code == 0
    assert "offsetDelta" not in a.pull(0).ext


def test_a_broker_that_is_gone_is_named_and_found_again(
    cluster: Cluster, operators: Operators, a: Patient, b: Patient
) -> None:
    a.produce(0)
    operators.move()
    cluster.brokers[0].stop()
    answer = b.pull(0)
    assert answer.code == codes.SYSTEM_ERROR
    assert "broker-a" in (answer.header.remark or "")
    assert b.produce(0).code == 0
    cluster.brokers[0].start()
    cluster.clock.advance(5)
    assert heard(b.pull(0)) == [(0, b"hello")]


def test_an_item_without_messages_is_forgotten_in_the_hour_of_cleaning(
    cluster: Cluster, operators: Operators, a: Patient, b: Patient
) -> None:
    def generations() -> dict[str, list[int]]:
        config = lenient_json.loads(b.call(351, {"topic": TOPIC, "lo": "true"}).body)
        hosted = config["mappingDetail"]["hostedQueues"]
        return {q: [i["gen"] for i in items] for q, items in hosted.items()}

    def wait_in_hours(delete_when: str) -> None:
        for member in cluster.brokers:
            member.world.settings.delete_when = delete_when
        cluster.clock.advance(601)

    a.produce(0)
    a.produce(1)
    operators.move()
    cluster.brokers[0].world.store.raise_min_offset(TOPIC, 0, 1)
    wait_in_hours("")
    assert generations() == {"0": [0, 1], "1": [0, 1]}
    wait_in_hours(";".join(map(str, range(24))))
    assert generations() == {"0": [1], "1": [0, 1]}
    assert b.offset(31) == MOVED_TO


def test_a_kill_does_not_lose_a_mapping(tmp_path: Path) -> None:
    world = World(tmp_path)
    body = msgspec.json.encode(
        {
            "bname": "broker-a",
            "epoch": EPOCH,
            "hostedQueues": {3: [item("a", 0)]},
            "topic": TOPIC,
            "totalQueues": 4,
        }
    )
    fields = {"topic": TOPIC, "readQueueNums": 1, "writeQueueNums": 1, "perm": 6}
    assert world.connect().call(513, fields, body).code == 0
    world.store.disk.unlock()  # as if the process had been killed
    again = World(tmp_path)
    assert again.connect().produce(TOPIC, queue_id=3).ext["queueId"] == "3"
    assert again.connect().produce(TOPIC, queue_id=0).code == codes.NOT_LEADER_FOR_QUEUE
    again.stop()
