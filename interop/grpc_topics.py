"""The topics and groups of the gRPC suites: RocketMQ 5 clients make none themselves."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

UPDATE_TOPIC, UPDATE_GROUP = 17, 200
QUEUES = 4
# A word of the scenario's name -> type of its topic; NORMAL otherwise.
TYPES = {
    "lite": "LITE",
    "FIFO": "FIFO",
    "order": "FIFO",
    "delayed": "DELAY",
    "recall": "DELAY",
    "transaction": "TRANSACTION",
    "priority": "PRIORITY",
}
SPREAD = ("simple", "push", "transaction", "delayed")  # over all brokers
LITE_QUOTA = 3
IN_ORDER = ("FIFO", "order")  # whose groups consume in order
GIVES_UP = "dead letter"  # whose groups try a message three times

CUSTOMIZED = {
    "type": "CUSTOMIZED",
    "customizedRetryPolicy": {"next": [1000, 1000, 2000, 5000]},
}
EXPONENTIAL = {
    "type": "EXPONENTIAL",
    "exponentialRetryPolicy": {"initial": 1000, "max": 5000, "multiplier": 2},
}


def topic_of(run: str, scenario: str) -> str:
    return f"{run}-{re.sub('[^A-Za-z0-9]+', '-', scenario)}"


def save_roots(proxy: str, folder: Path) -> dict[str, str]:
    """Keep the certificate that the gRPC endpoint shows in ``folder``; the environment that makes
    clients trust it which check certificates. It is for the name ``localhost``."""
    host, _, port = proxy.rpartition(":")
    file = folder / f"roots-{port}.pem"  # two servers may run side by side
    file.write_text(ssl.get_server_certificate((host, int(port)), timeout=10))
    return {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(file), "SSL_CERT_FILE": str(file)}


def create_on_all(
    brokers: Sequence[str], run: str, scenarios: Iterable[str], policy: object = CUSTOMIZED
) -> None:
    """As ``create_topics``; most on the first broker only. Simple consumers wait at one broker
    after the other, longer than many scenarios have patience, and priorities are a broker's own."""
    scenarios = list(scenarios)
    create_topics(brokers[0], run, scenarios, policy)
    in_order = {s for s in scenarios if any(word in s for word in IN_ORDER)}
    spread = [s for s in scenarios if s not in in_order and any(word in s for word in SPREAD)]
    for broker in brokers[1:]:
        create_topics(broker, run, spread, policy)


def create_topics(
    broker: str,
    run: str,
    scenarios: Iterable[str],
    policy: object = CUSTOMIZED,
    *,
    dead_letters: bool = False,
) -> None:
    """Make each scenario's topic, and its groups with this retry policy, on the broker at
    ``host:port``; the topics of the ``dead_letters`` too, which a broker makes with the first."""
    host, _, port = broker.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for scenario in scenarios:
            topic = topic_of(run, scenario)
            kind = next((kind for word, kind in TYPES.items() if word in scenario), "NORMAL")
            _create_topic(connection, topic, kind)
            if dead_letters and GIVES_UP in scenario:
                _create_topic(connection, f"%DLQ%group-{topic}", "UNSPECIFIED")
            lite = _lite_attributes(topic, scenario) if kind == "LITE" else {}
            _create_group(connection, scenario, f"group-{topic}", policy, lite)
            # Who reads the dead letters, or waits for what the first consumer never acknowledged.
            _create_group(connection, "", f"group-{topic}-2", policy, {})


def create_groups(broker: str, names: Iterable[str]) -> None:
    """Groups with defaults on the broker at ``host:port``, where nobody makes them by consuming."""
    host, _, port = broker.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for name in names:
            _create_group(connection, "", name, CUSTOMIZED, {})


def _create_topic(connection: socket.socket, topic: str, kind: str) -> None:
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


def _create_group(
    connection: socket.socket,
    scenario: str,
    name: str,
    policy: object,
    attributes: dict[str, str],
) -> None:
    group = {
        "groupName": name,
        "consumeMessageOrderly": any(word in scenario for word in IN_ORDER),
        "consumeBroadcastEnable": False,
        "retryMaxTimes": 2 if GIVES_UP in scenario else 16,
        "groupRetryPolicy": policy,
        **({"attributes": attributes} if attributes else {}),
    }
    _call(connection, UPDATE_GROUP, {}, json.dumps(group).encode())


def _lite_attributes(topic: str, scenario: str) -> dict[str, str]:
    attributes = {"+lite.bind.topic": topic}
    if "exclusive" in scenario:
        attributes["+lite.sub.model"] = "Exclusive"
    if "quota" in scenario:
        attributes["+lite.sub.client.quota"] = str(LITE_QUOTA)
    return attributes


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
