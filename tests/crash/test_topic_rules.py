"""What topics were told holds for the next process after a kill -9."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from tests.support.brokers import pull_fields, send_fields
from tests.support.program import BlockingClient, Program

from firearrow.codec.record import split_records
from firearrow.model import codes

pytestmark = pytest.mark.slow

KILLS = 3


def start(directory: Path) -> Program:
    ports = ["--namesrv-port", "0", "--broker-port", "0", "--host", "127.0.0.1"]
    return Program(directory, "up", *ports, "--store", str(directory / "store"))


def create(client: BlockingClient, topic: str, attributes: str) -> None:
    fields = {"topic": topic, "readQueueNums": 1, "writeQueueNums": 1, "perm": 6, "order": "false"}
    fields |= {"defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "attributes": attributes}
    assert client.call(17, fields)[0].code == codes.SUCCESS


def send(client: BlockingClient, topic: str, properties: str) -> str:
    """Where in the log the message is, as its id says (the rest of it is the broker's address)."""
    fields = send_fields(topic, properties=properties, queues=1)
    header, _ = client.call(310, fields, b"body")
    assert header.code == codes.SUCCESS, header.remark
    return str((header.ext or {})["msgId"])[-16:]


def readable(client: BlockingClient, topic: str, offset: int) -> int:
    header, body = client.call(11, pull_fields(topic, offset=offset))
    return len(split_records(body)) if header.code == codes.SUCCESS else 0


def test_a_kill_forgets_neither_keys_nor_times(tmp_path: Path) -> None:
    ids: dict[str, str] = {}
    for kill in range(KILLS):
        with start(tmp_path) as program:
            client = BlockingClient(program.ready()["broker"])
            if not ids:
                create(client, "once", "+dedup.window.ms=600000")
                create(client, "short", "+retention.ms=1")
            for key, place in ids.items():  # sent again: stored once
                assert send(client, "once", f"KEYS\x01{key}\x02") == place
            assert readable(client, "once", 0) == min(32, len(ids))
            assert readable(client, "times", 0) == kill  # not those that were over
            assert readable(client, "short", 0) == 0
            for n in range(10):
                key = f"{kill}-{n}"
                ids[key] = send(client, "once", f"KEYS\x01{key}\x02")
            send(client, "times", "TTL_MS\x011\x02")
            send(client, "times", "TTL_MS\x01600000\x02")
            send(client, "short", "")
            program.stop(signal.SIGKILL)
            client.socket.close()
        time.sleep(0.005)
    assert len(set(ids.values())) == 10 * KILLS
