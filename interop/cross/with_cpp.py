"""The C++ remoting client, through Python. Arguments: ACTION ADDRESS TOPIC GROUP LABEL COUNT."""

from __future__ import annotations

import json
import os
import queue
import sys
from typing import Any

from rocketmq.client import Message, Producer, PushConsumer  # type: ignore[import-not-found]


def send(address: str, topic: str, group: str, label: str) -> None:
    producer = Producer(group)
    producer.set_namesrv_addr(address)
    producer.start()
    message = Message(topic)
    message.set_body(f"from {label} é")
    message.set_tags("red")
    message.set_keys(f"k1 k-{label}")
    message.set_property("mine", label)
    print(json.dumps({"id": producer.send_sync(message).msg_id}), flush=True)


def receive(address: str, topic: str, group: str, count: int) -> None:
    inbox: queue.Queue[dict[str, str]] = queue.Queue()

    def put(message: Any) -> None:  # the library frees a message when this returns
        texts = {"body": message.body, "tag": message.tags, "keys": message.keys}
        texts["mine"] = message.get_property("mine")
        inbox.put({"id": message.id, **{name: text.decode() for name, text in texts.items()}})

    consumer = PushConsumer(group)
    consumer.set_namesrv_addr(address)
    consumer.subscribe(topic, put)
    consumer.start()
    for _ in range(count):
        print(json.dumps(inbox.get(timeout=40)), flush=True)


action, address, topic, group, label, count = sys.argv[1:]
try:
    if action == "send":
        send(address, topic, group, label)
    else:
        receive(address, topic, group, int(count))
finally:
    sys.stderr.flush()
    os._exit(0)  # its threads would go on
