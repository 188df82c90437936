"""What one scenario of the Python client opens, the names it uses, and how it checks."""

from __future__ import annotations

import queue
import re
import sys
import time
from collections.abc import Callable
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
)
from rocketmq.grpc_protocol import FilterType  # type: ignore[import-not-found]

ENDPOINT, RUN = sys.argv[1:3]
PATIENCE_S = 40  # the longest any awaited event may take


class World:
    """The names of one scenario, and what it opens."""

    def __init__(self, scenario: str) -> None:
        self.topic = f"{RUN}-{re.sub('[^A-Za-z0-9]+', '-', scenario)}"
        self.group = f"group-{self.topic}"
        self.tls = False

    @property
    def configuration(self) -> Any:
        # A certificate is for a name, not for an address.
        endpoint = ENDPOINT.replace("127.0.0.1", "localhost") if self.tls else ENDPOINT
        return ClientConfiguration(endpoint, Credentials(), request_timeout=8)

    def producer(self, checker: Any = None) -> Any:
        producer = Producer(self.configuration, (self.topic,), checker, self.tls)
        producer.startup()
        return producer

    def simple(
        self,
        expression: str = "*",
        kind: Any = FilterType.TAG,
        *,
        topic: str = "",
        group: str = "",
    ) -> Any:
        if topic:
            group = f"{self.group}-2"
        consumer = SimpleConsumer(
            self.configuration,
            group or self.group,
            {topic or self.topic: FilterExpression(expression, kind)},
            10,
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
        PushConsumer(
            self.configuration, self.group, Listener(), subscription, tls_enable=self.tls
        ).startup()
        return inbox

    def message(self, body: bytes, **fields: Any) -> Any:
        message = Message()
        message.topic, message.body = self.topic, body
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def persist(self, act: Callable[[], Any]) -> Any:
        """Do it again until it works."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return act()
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


def receive(
    consumer: Any, count: int, *, batch: int = 32, ack: bool = True, invisible_s: int = 15
) -> list[Any]:
    """Receive until ``count`` messages are there."""
    found: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < deadline:
        try:
            messages = consumer.receive(batch, invisible_s) or ()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
            continue
        for message in messages:
            found.append(message)
            if ack:
                consumer.ack(message)
    check(len(found), count)
    return found


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def nothing(inbox: queue.Queue[Any], seconds: float) -> None:
    try:
        surplus = inbox.get(timeout=seconds)
    except queue.Empty:
        return
    raise AssertionError(f"too much arrived: {surplus.body!r}")


def expect(code: int, act: Callable[[], Any]) -> str:
    """Check that it is refused, with this code unless that is 0; what the refusal said."""
    try:
        act()
    except Exception as refusal:
        if code and str(code) not in str(refusal):
            raise
        return f"{type(refusal).__name__}: {refusal}"[:200]
    raise AssertionError("not refused")


def check(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{found!r}, not {wanted!r}")
