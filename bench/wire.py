"""One request over a connection of its own: enough to ask a broker what it holds."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any


def ask(port: int, code: int, ext: dict[str, Any] | None = None) -> tuple[dict[str, Any], bytes]:
    """(header, body) of the answer to one request; headers are JSON in both directions."""
    fields = {key: str(value) for key, value in (ext or {}).items()}
    header = {"code": code, "language": "OTHER", "version": 0, "opaque": 1, "flag": 0}
    encoded = json.dumps({**header, "extFields": fields}).encode()
    frame = struct.pack(">II", 4 + len(encoded), len(encoded)) + encoded
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(frame)
        with connection.makefile("rb") as answer:
            size, word = struct.unpack(">II", answer.read(8))
            header_size = word & 0xFFFFFF
            data = json.loads(answer.read(header_size))
            return data, answer.read(size - 4 - header_size)


def max_offset(port: int, topic: str, queue_id: int) -> int:
    """GET_MAX_OFFSET (30): messages that the queue ever held."""
    header, _ = ask(port, 30, {"topic": topic, "queueId": queue_id})
    if header["code"] != 0:
        return 0
    return int(header["extFields"]["offset"])


def topics(port: int) -> dict[str, Any]:
    """GET_ALL_TOPIC_CONFIG (21): the broker's topic table."""
    _, body = ask(port, 21)
    return dict(json.loads(body)["topicConfigTable"])
