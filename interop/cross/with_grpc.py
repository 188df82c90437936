"""The Python gRPC client. Arguments: ACTION ADDRESS TOPIC GROUP LABEL COUNT."""

from __future__ import annotations

import json
import os
import sys
import time

from rocketmq import (  # type: ignore[import-not-found]
    ClientConfiguration,
    Credentials,
    FilterExpression,
    Message,
    Producer,
    SimpleConsumer,
)

action, address, topic, group, label, count = sys.argv[1:]
configuration = ClientConfiguration(address, Credentials(), request_timeout=8)


def send() -> None:
    producer = Producer(configuration, (topic,))
    producer.startup()
    message = Message()
    message.topic, message.body, message.tag = topic, f"from {label} é".encode(), "red"
    for key in ("k1", f"k-{label}"):
        message.keys = key
    message.add_property("mine", label)
    print(json.dumps({"id": producer.send(message).message_id}), flush=True)


def receive() -> None:
    consumer = SimpleConsumer(configuration, group, {topic: FilterExpression()}, 5)
    consumer.startup()
    left, end = int(count), time.monotonic() + 40
    while left and time.monotonic() < end:
        try:
            messages = consumer.receive(32, 30) or ()
        except Exception as error:  # that there is none yet, from some servers
            print(error, file=sys.stderr)
            time.sleep(0.2)
            continue
        for m in messages:
            line = {"id": m.message_id, "body": m.body.decode(), "tag": m.tag}
            line |= {"keys": " ".join(sorted(m.keys)), "mine": m.properties.get("mine")}
            print(json.dumps(line), flush=True)
            consumer.ack(m)
            left -= 1


if action == "send":
    send()
else:
    receive()
os._exit(0)  # its threads would go on
