"""Messages of a group in order, through a proxy in front of two brokers, while consumers come and
go."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cluster import Cluster
from tests.support.grpc import Client, Stream

from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc

KEYS = 24
PER_KEY = 20
INVISIBLE_S = 10
PATIENCE_S = 600.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, brokers=2)
    group = json.dumps({"groupName": "group", "consumeMessageOrderly": True}).encode()
    for member in cluster.brokers:
        assert member.world.connect().call(200, body=group).code == 0
    cluster.create_topic("orders", "FIFO", queues=3)
    yield cluster
    cluster.stop()


class Reader:
    """A simple consumer: it waits at every broker, writes down what comes, then acknowledges it."""

    def __init__(self, cluster: Cluster, name: str, journal: list[tuple[str, str, int]]) -> None:
        self._client = cluster.grpc.connect(name)
        self._brokers = [member.name for member in cluster.brokers]
        self._waiting: dict[str, Stream] = {}
        self._journal = journal
        self.name = name

    def step(self) -> list[v2.Message]:
        """What has come by now."""
        self._client.wire.exchange()
        came = []
        for broker in self._brokers:
            stream = self._waiting.pop(broker, None) or self._receive(broker)
            if stream.ended:
                came += self._client.delivered(stream)
            else:
                self._waiting[broker] = stream
        return came

    def consume(self, messages: list[v2.Message]) -> None:
        for message in messages:
            key, number = message.body.decode().split()
            self._journal.append((self.name, key, int(number)))
            assert self._client.ack(message).status.code == v2.OK

    def leave(self) -> None:
        self._client.wire.session.disconnected()

    def _receive(self, broker: str) -> Stream:
        request = rpc.ReceiveMessageRequest(batch_size=5)
        request.group.name = "group"
        request.message_queue.topic.name = "orders"
        request.message_queue.broker.name = broker
        request.invisible_duration.seconds = INVISIBLE_S
        request.long_polling_timeout.seconds = 5
        return self._client.start("ReceiveMessage", request, timeout="20S")


def produce(client: Client, number: int) -> None:
    for key in range(KEYS):
        body = b"%d %d" % (key, number)
        sent = client.produce("orders", body, message_group=f"key-{key}", message_type=v2.FIFO)
        assert sent.status.code == v2.OK


def inversions(journal: list[tuple[str, str, int]]) -> int:
    """How often a message came before one that must come before it, or twice."""
    newest: dict[str, int] = {}
    wrong = 0
    for _, key, number in journal:
        wrong += number != newest.get(key, -1) + 1
        newest[key] = max(number, newest.get(key, -1))
    return wrong


@pytest.mark.parametrize("seed", range(2))
def test_each_groups_messages_come_in_order_while_consumers_join_and_leave(
    cluster: Cluster, seed: int
) -> None:
    chance = random.Random(seed)
    journal: list[tuple[str, str, int]] = []
    numbers = itertools.count()
    readers = [Reader(cluster, f"reader-{next(numbers)}", journal) for _ in range(2)]
    producer, sent, left = cluster.grpc.connect("producer"), 0, 0
    end_s = cluster.clock.monotonic() + PATIENCE_S
    while len(journal) < KEYS * PER_KEY and cluster.clock.monotonic() < end_s:
        if sent < PER_KEY:
            produce(producer, sent)
            sent += 1
        reader = chance.choice(readers)
        came = reader.step()
        if came and len(readers) > 1 and chance.random() < 0.3:
            readers.remove(reader)  # it never looks at what it got
            reader.leave()
            left += 1
        else:
            reader.consume(came)
        if len(readers) < 4 and chance.random() < 0.2:
            readers.append(Reader(cluster, f"reader-{next(numbers)}", journal))
        cluster.clock.advance(0.2)
    assert len(journal) == KEYS * PER_KEY
    assert inversions(journal) == 0
    assert left >= 2
    assert len({name for name, *_ in journal}) > 2
    for member in cluster.brokers:  # both had a share
        assert sum(member.world.store.max_offset("orders", queue) for queue in range(3)) > 0
