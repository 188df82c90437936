"""The Java client of logical queues, in one JVM, told what to do line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from interop.java.jars import fetch_jars
from interop.java.jvm import Jvm, compiled

VERSION = "5.5.0"
SOURCE = Path(__file__).parent / "src" / "Logical.java"


class Seen(NamedTuple):
    """A message as the client saw it."""

    broker: str  # name of the broker of the client's message queue
    queue: int  # logical
    offset: int
    body: str


def jars() -> Path:
    return fetch_jars(VERSION, "rocketmq-client")


def compile_client() -> Path:
    """The folder with the compiled program."""
    return compiled(f"static-{VERSION}", [SOURCE], jars())


class Client(Jvm):
    """A running JVM."""

    def __init__(self, home: Path, namesrv: str, topic: str) -> None:
        program = f"{compile_client()}:{jars()}/*"
        super().__init__(home, ["-cp", program, "Logical", namesrv, topic])

    def send(self, count: int) -> list[Seen]:
        """By a new producer, one after the other."""
        return self._seen(f"send {count}")

    def receive(self, count: int) -> list[Seen]:
        """What a new group gets from the first offsets on: until it has `count`, or for 15 s."""
        return self._seen(f"receive {count}")

    def _seen(self, line: str) -> list[Seen]:
        return [Seen(*fields) for fields in json.loads(self.ask(line, "["))]
