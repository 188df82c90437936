"""What tests of batch queues need: a broker with small files, and batches."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firearrow.codec.batch import decode_batch
from firearrow.model import codes
from tests.support.batches import create_fields
from tests.support.brokers import Answered, Connection, World, send_fields

TOPIC = "batches"
INNER = 0x80 | 0x40
UNIT = struct.Struct(">qiqqqhii")
SETTINGS: dict[str, Any] = {
    "mapped_file_size_commit_log": 64 * 1024,
    "mapper_file_size_batch_consume_queue": 46 * 5,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    world = opened(root)
    yield world
    world.stop()


@pytest.fixture
def client(world: World) -> Connection:
    return world.connect()


def opened(root: Path) -> World:
    return World(root, **SETTINGS)


def create(client: Connection, topic: str = TOPIC, kind: str = "BatchCQ") -> None:
    assert client.call(17, create_fields(topic, 2, kind)).code == codes.SUCCESS


def batch(*bodies: bytes) -> bytes:
    items = []
    for n, body in enumerate(bodies):
        properties = b"UNIQ_KEY\x01id-%d\x02" % n
        rest = struct.pack(">iiii", 0, 0, 0, len(body)) + body
        rest += struct.pack(">h", len(properties)) + properties
        items.append(struct.pack(">i", 4 + len(rest)) + rest)
    return b"".join(items)


def send(
    client: Connection, count: int = 3, *, tag: str = "", envelope: str = "", text: str = "m"
) -> Answered:
    properties = envelope or "UNIQ_KEY\x01envelope\x02"
    properties += f"TAGS\x01{tag}\x02" if tag else ""
    body = batch(*(b"%s-%d" % (text.encode(), n) for n in range(count)))
    return client.call(320, send_fields(TOPIC, batch=True, properties=properties), body)


def bounds(client: Connection, topic: str = TOPIC) -> tuple[int, int]:
    fields = {"topic": topic, "queueId": 0}
    low, high = client.call(31, fields), client.call(30, fields)
    return int(low.ext["offset"]), int(high.ext["offset"])


def search(client: Connection, timestamp: int, boundary: str = "LOWER") -> int:
    fields = {"topic": TOPIC, "queueId": 0, "timestamp": timestamp, "boundaryType": boundary}
    return int(client.call(29, fields).ext["offset"])


def contents(client: Connection, offset: int = 0) -> list[tuple[int, list[bytes]]]:
    """(offset, bodies) of every record to the end of the queue, pulled one after the other."""
    found = []
    while (answer := client.pull(TOPIC, 0, offset, count=1)).code == codes.SUCCESS:
        (record,) = answer.records()
        inner = record.sys_flag & 0x80
        bodies = [i.body for i in decode_batch(record.body)] if inner else [record.body]
        found.append((record.queue_offset, bodies))
        offset = int(answer.ext["nextBeginOffset"])
    return found
