"""The topics and groups of the gRPC suites: RocketMQ 5 clients make none themselves."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterable

UPDATE_TOPIC, UPDATE_GROUP = 17, 200
QUEUES = 4
# A word of the scenario's name -> type of its topic; NORMAL otherwise.
TYPES = {"FIFO": "FIFO", "order": "FIFO", "delayed": "DELAY", "transaction": "TRANSACTION"}
IN_ORDER = ("FIFO", "order")  # whose groups consume in order


def topic_of(run: str, scenario: str) -> str:
    return f"{run}-{re.sub('[^A-Za-z0-9]+', '-', scenario)}"


def create_topics(broker: str, run: str, scenarios: Iterable[str]) -> None:
    """Make each scenario's topic, and its group, on the broker at ``host:port``."""
    host, _, port = broker.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for scenario in scenarios:
            topic = topic_of(run, scenario)
            kind = next((kind for word, kind in TYPES.items() if word in scenario), "NORMAL")
            fields = {
                "topic": topic,
                "defaultTopic": "TBW102",
                "readQueueNums": str(QUEUES),
                "writeQueueNums": str(QUEUES),
                "perm": "6",
                "topicFilterType": "SINGLE_TAG",
                "topicSysFlag": "0",
                "order": "false",
                "attributes": f"+message.type={kind}",
            }
            _call(connection, UPDATE_TOPIC, fields, b"")
            ordered = any(word in scenario for word in IN_ORDER)
            group = {
                "groupName": f"group-{topic}",
                "consumeMessageOrderly": ordered,
                "consumeBroadcastEnable": False,
                "retryMaxTimes": 16,
                "groupRetryPolicy": {
                    "type": "CUSTOMIZED",
                    "customizedRetryPolicy": {"next": [1000, 1000, 2000, 5000]},
                },
            }
            _call(connection, UPDATE_GROUP, {}, json.dumps(group).encode())


def _call(connection: socket.socket, code: int, fields: dict[str, str], body: bytes) -> None:
    header = {"code": code, "language": "OTHER", "version": 513, "opaque": 1, "flag": 0}
    encoded = json.dumps({**header, "extFields": fields}).encode()
    frame = struct.pack(">II", 4 + len(encoded) + len(body), len(encoded)) + encoded + body
    connection.sendall(frame)
    with connection.makefile("rb") as answer:
        length, size = struct.unpack(">II", answer.read(8))
        found = json.loads(answer.read(size))
        answer.read(length - 4 - size)
    if found["code"]:
        raise RuntimeError(f"request {code} was refused: {found}")
