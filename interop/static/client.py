"""The Java client of logical queues, in one JVM, told what to do line by line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from interop.java.jars import fetch_jars
from interop.program import cache_directory

VERSION = "5.5.0"
SOURCE = Path(__file__).parent / "src" / "Logical.java"
RUN_SECONDS_MAX = 120


class Seen(NamedTuple):
    """A message as the client saw it."""

    broker: str  # name of the broker of the client's message queue
    queue: int  # logical
    offset: int
    body: str


def compile_client() -> Path:
    """The folder with the compiled program; its name has the source's hash."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    classes = cache_directory("java") / f"static-{VERSION}-{digest}"
    if not classes.exists():
        building = classes.with_name("building-static")
        command = ["javac", "-nowarn", "-XDsuppressNotes", "--release", "11", "-d", str(building)]
        command += ["-cp", f"{fetch_jars(VERSION, 'rocketmq-client')}/*", str(SOURCE)]
        subprocess.run(command, check=True)
        building.rename(classes)
    return classes


class Client:
    """A running JVM."""

    def __init__(self, home: Path, namesrv: str, topic: str) -> None:
        command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m"]
        command += [f"-Duser.home={home}", f"-Drocketmq.client.logRoot={home}/logs"]
        # A consumer whose first sharing-out raced its start looks again after 20 s else.
        command += ["-Drocketmq.client.rebalance.waitInterval=1000"]
        jars = fetch_jars(VERSION, "rocketmq-client")
        command += ["-cp", f"{compile_client()}:{jars}/*", "Logical", namesrv, topic]
        self._errors = (home / "client.err").open("w+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._watchdog = threading.Timer(RUN_SECONDS_MAX, self._process.kill)
        self._watchdog.start()

    def send(self, count: int) -> list[Seen]:
        """By a new producer, one after the other."""
        return self._ask(f"send {count}")

    def receive(self, count: int) -> list[Seen]:
        """What a new group gets from the first offsets on: until it has `count`, or for 15 s."""
        return self._ask(f"receive {count}")

    def _ask(self, line: str) -> list[Seen]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        for answer in self._process.stdout:
            if answer.startswith("["):
                return [Seen(*fields) for fields in json.loads(answer)]
        self._errors.seek(0)
        raise RuntimeError(f"the client ended during {line}: {self._errors.read()[-800:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait()
        self._errors.close()
