"""What tests of compaction topics need: a broker with small files, and a topic's messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firearrow.codec.properties import format_properties
from firearrow.model import codes
from firearrow.model.clock import VirtualClock
from tests.support.brokers import Answered, Connection, World

TOPIC = "prices"
# Nine messages a file: the entries' file has room for ten.
SIZES = {"compaction_cq_mapped_file_size": 460, "compaction_mapped_file_size": 8000}
INTERVAL_S = 900


def open_world(root: Path, clock: VirtualClock | None = None, **more: Any) -> World:
    return World(root, clock=clock, **{**SIZES, **more})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = open_world(tmp_path)
    yield world
    world.stop()


@pytest.fixture
def client(world: World) -> Connection:
    return world.connect()


def make_topic(
    client: Connection, attributes: str = "+cleanup.policy=COMPACTION", topic: str = TOPIC
) -> Answered:
    """As ``mqadmin updateTopic -a``."""
    fields = {
        "topic": topic,
        "defaultTopic": "TBW102",
        "readQueueNums": 2,
        "writeQueueNums": 2,
        "perm": 6,
        "topicFilterType": "SINGLE_TAG",
        "order": "false",
        "attributes": attributes,
    }
    return client.call(17, fields)


def put(
    client: Connection, key: str, body: str, queue_id: int = 0, topic: str = TOPIC, tag: str = ""
) -> int:
    """Send; the message's offset."""
    properties = {"UNIQ_KEY": f"U{body}", "KEYS": key, "TAGS": tag}
    text = format_properties({k: v for k, v in properties.items() if v}).decode()
    answer = client.produce(topic, body.encode(), queue_id, properties=text)
    assert answer.code == codes.SUCCESS, answer.header.remark
    return int(answer.ext["queueOffset"])


def put_many(client: Connection, count: int, keys: int, first: int = 0, queue_id: int = 0) -> None:
    for n in range(first, first + count):
        put(client, f"k{n % keys}", f"v{n}", queue_id)


def read_all(
    client: Connection, offset: int = 0, queue_id: int = 0, topic: str = TOPIC
) -> dict[int, str]:
    """Offset -> body of everything that a consumer gets."""
    found: dict[int, str] = {}
    while True:
        answer = client.pull(TOPIC, queue_id, offset)
        if answer.code == codes.SUCCESS:
            for record in answer.records():
                assert record.queue_offset >= offset
                found[record.queue_offset] = record.body.decode()
        elif answer.code != codes.PULL_RETRY_IMMEDIATELY:
            return found
        following = int(answer.ext["nextBeginOffset"])
        assert following > offset
        offset = following


def compact(world: World) -> None:
    """Let the messages be copied, and a compaction run."""
    world.clock.advance(INTERVAL_S + 5)


def restart(world: World, *, clean: bool, **more: Any) -> World:
    if clean:
        world.stop()
    else:
        world.store.disk.unlock()  # the process is gone
    return open_world(Path(world.store.root), VirtualClock(world.clock.now_ms()), **more)
