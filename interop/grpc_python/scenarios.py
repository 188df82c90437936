"""Scenarios of RocketMQ 5's Python client; runs in an interpreter of its own, prints one JSON line
a scenario. Arguments: ENDPOINT RUN CLIENT."""

from __future__ import annotations

import json
import os
import queue
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rocketmq import (  # type: ignore[import-not-found]
    ClientConfiguration,
    ConsumeResult,
    Credentials,
    FilterExpression,
    Message,
    MessageListener,
    Producer,
    PushConsumer,
    SimpleConsumer,
    TransactionChecker,
    TransactionResolution,
)

ENDPOINT, RUN, CLIENT = sys.argv[1:4]
PATIENCE_S = 40
INVISIBLE_S = 15


class World:
    """The names of one scenario, and what it opens."""

    def __init__(self, scenario: str) -> None:
        self.topic = f"{RUN}-{re.sub('[^A-Za-z0-9]+', '-', scenario)}"
        self.group = f"group-{self.topic}"
        self.configuration = ClientConfiguration(ENDPOINT, Credentials())

    def producer(self, checker: Any = None) -> Any:
        producer = Producer(self.configuration, (self.topic,), checker)
        producer.startup()
        return producer

    def simple(self, expression: str = "*") -> Any:
        consumer = SimpleConsumer(
            self.configuration, self.group, {self.topic: FilterExpression(expression)}, 10
        )
        consumer.startup()
        return consumer

    def push(self, judge: Callable[[Any], bool] = lambda message: True) -> queue.Queue[Any]:
        inbox: queue.Queue[Any] = queue.Queue()

        class Listener(MessageListener):  # type: ignore[misc]
            def consume(self, message: Any) -> Any:
                inbox.put(message)
                return ConsumeResult.SUCCESS if judge(message) else ConsumeResult.FAILURE

        subscription = {self.topic: FilterExpression()}
        PushConsumer(self.configuration, self.group, Listener(), subscription).startup()
        return inbox

    def message(self, body: bytes, **fields: Any) -> Any:
        message = Message()
        message.topic, message.body = self.topic, body
        for name, value in fields.items():
            setattr(message, name, value)
        return message


def receive(consumer: Any, count: int) -> list[Any]:
    """Receive and acknowledge until ``count`` messages are there."""
    found: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.receive(32, INVISIBLE_S) or ():
            found.append(message)
            consumer.ack(message)
    check(len(found), count)
    return found


def check(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{found!r}, not {wanted!r}")


def normal(world: World) -> str:
    message = world.message(b"hello", tag="red", keys="k1")
    message.add_property("mine", "1")
    receipt = world.producer().send(message)
    (got,) = receive(world.simple(), 1)
    check((got.body, got.tag, got.keys), (b"hello", "red", {"k1"}))
    check(got.properties, {"mine": "1"})
    check(got.message_id, receipt.message_id)
    return ""


def fifo(world: World) -> str:
    producer = world.producer()
    for number in range(20):
        producer.send(world.message(b"%d" % number, message_group="one"))
    check([m.body for m in receive(world.simple(), 20)], [b"%d" % n for n in range(20)])
    return ""


def delayed(world: World) -> str:
    inbox = world.push()
    due = int(time.time()) + 4
    world.producer().send(world.message(b"later", delivery_timestamp=due))
    inbox.get(timeout=PATIENCE_S)
    late = time.time() - due
    check(late >= 0, True)
    return f"{late * 1000:.0f} ms after its time"


class Committing(TransactionChecker):  # type: ignore[misc]
    """Every orphan is committed."""

    def check(self, message: Any) -> Any:
        return TransactionResolution.COMMIT


def transaction(world: World) -> str:
    producer = world.producer(Committing())
    inbox = world.push()
    for body, end in ((b"kept", "commit"), (b"gone", "rollback")):
        half = producer.begin_transaction()
        producer.send(world.message(body), half)
        getattr(half, end)()
    check(inbox.get(timeout=PATIENCE_S).body, b"kept")
    time.sleep(1)
    check(inbox.empty(), True)
    producer.send(world.message(b"orphan"), producer.begin_transaction())
    check(inbox.get(timeout=PATIENCE_S).body, b"orphan")
    return ""


def simple(world: World) -> str:
    producer = world.producer()
    for number in range(50):
        producer.send(world.message(b"%d" % number))
    check(len({m.body for m in receive(world.simple(), 50)}), 50)
    return ""


def push(world: World) -> str:
    inbox = world.push()
    producer = world.producer()
    for number in range(50):
        producer.send(world.message(b"%d" % number))
    check(len({inbox.get(timeout=PATIENCE_S).body for _ in range(50)}), 50)
    return ""


def push_retry(world: World) -> str:
    inbox = world.push(lambda message: message.delivery_attempt >= 3)
    world.producer().send(world.message(b"stubborn"))
    check([inbox.get(timeout=PATIENCE_S).delivery_attempt for _ in range(3)], [1, 2, 3])
    return ""


def tags(world: World) -> str:
    producer = world.producer()
    for tag in ("Aa", "BB", "C"):  # the first two have the same Java hash
        producer.send(world.message(tag.encode(), tag=tag))
    check({m.body for m in receive(world.simple("Aa || C"), 2)}, {b"Aa", b"C"})
    return ""


SCENARIOS: dict[str, Callable[[World], str]] = {
    "gRPC send normal": normal,
    "gRPC send FIFO": fifo,
    "gRPC send delayed": delayed,
    "gRPC transaction": transaction,
    "gRPC simple consumer": simple,
    "gRPC push consumer": push,
    "gRPC push retry": push_retry,
    "gRPC tags": tags,
}


def report(name: str) -> None:
    started = time.monotonic()
    ok, detail = True, ""
    try:
        detail = SCENARIOS[name](World(name))
    except BaseException as error:
        ok, detail = False, repr(error)[:300]
    result = {"client": CLIENT, "scenario": name, "ok": ok, "detail": detail}
    print(json.dumps({**result, "seconds": time.monotonic() - started}), flush=True)


if __name__ == "__main__":
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(report, SCENARIOS))
    os._exit(0)  # the clients' threads would go on
