"""The servers under test: ours, and the Java name server and broker that judge the scenarios."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from interop.java.jars import fetch_jars

JAVA_VERSION = "5.5.0"
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60


class ServerError(Exception):
    """The server did not start or stop; the text has the end of its output."""


class _Process:
    """One process that says in its output file when it is ready."""

    def __init__(self, command: Sequence[str], ready: str, output: Path) -> None:
        self._command = command
        self._output = output
        with output.open("w") as out:  # a file: nobody has to drain it
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            self._wait_for(ready)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def _wait_for(self, ready: str) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while ready not in self._output.read_text(errors="replace"):
            if self._process.poll() is not None:
                raise self._error(f"ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._error(f"was not ready in {START_SECONDS_MAX} s")
            time.sleep(0.02)

    def _error(self, what: str) -> ServerError:
        tail = self._output.read_text(errors="replace")[-1500:]
        return ServerError(f"{' '.join(self._command)} {what}:\n{tail}")

    def stop(self) -> None:
        """Ask it to end, and wait: a broker writes its state on the way out."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise self._error(f"did not stop in {STOP_SECONDS_MAX} s") from None
        if status not in (0, 128 + signal.SIGTERM):  # the second is how a JVM ends
            raise self._error(f"ended with status {status}")


class _LocalServer(ABC):
    """A name server and a broker on loopback, with a store that lasts as long as the object."""

    name: str

    def __init__(self, namesrv_port: int, broker_port: int) -> None:
        self.namesrv_port = namesrv_port
        self.broker_port = broker_port
        self.namesrv = f"127.0.0.1:{namesrv_port}"
        self.broker = f"127.0.0.1:{broker_port}"
        self.directory = Path(tempfile.mkdtemp(prefix="firearrow-interop-"))
        self._running: list[_Process] = []

    @abstractmethod
    def _start(self) -> None:
        """Start every process, each appended to ``_running``."""

    def stop(self) -> None:
        while self._running:
            self._running.pop().stop()

    def restart(self) -> None:
        self.stop()
        self._start()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


class FirearrowServer(_LocalServer):
    """``firearrow up`` of this checkout, with its self-signed test certificate."""

    name = "firearrow"

    def __init__(self, namesrv_port: int = 25876, broker_port: int = 25911) -> None:
        super().__init__(namesrv_port, broker_port)

    def _start(self) -> None:
        command = [sys.executable, "-m", "firearrow", "up", "--host", "127.0.0.1"]
        command += ["--namesrv-port", str(self.namesrv_port)]
        command += ["--broker-port", str(self.broker_port)]
        command += ["--store", str(self.directory / "store"), "--tls-test-certificate"]
        output = self.directory / "firearrow.out"
        self._running.append(_Process(command, "firearrow ready in ", output))


class JavaServer(_LocalServer):
    """RocketMQ's own name server and broker, fetched from Maven Central by name."""

    name = f"java {JAVA_VERSION}"

    def __init__(self, namesrv_port: int = 24876, broker_port: int = 24911) -> None:
        super().__init__(namesrv_port, broker_port)

    def _start(self) -> None:
        self._namesrv()
        self._broker()

    def restart(self) -> None:
        self._running.pop().stop()  # the broker only: that is what a cluster restarts
        self._broker()

    def _namesrv(self) -> None:
        lines = [f"listenPort={self.namesrv_port}"]
        self._java("namesrv", "128m", "org.apache.rocketmq.namesrv.NamesrvStartup", lines)

    def _broker(self) -> None:
        store = self.directory / "store"
        lines = [
            "brokerClusterName=DefaultCluster",
            "brokerName=broker-a",
            "brokerId=0",
            "brokerIP1=127.0.0.1",
            f"listenPort={self.broker_port}",
            f"haListenPort={self.broker_port + 1}",
            f"namesrvAddr={self.namesrv}",
            f"storePathRootDir={store}",
            f"storePathCommitLog={store}/commitlog",
            "mappedFileSizeCommitLog=67108864",
            "waitTimeMillsInSendQueue=8000",  # a JVM that just started is slow: no flow control
            "diskMaxUsedSpaceRatio=95",
            "autoCreateTopicEnable=true",
            "enablePropertyFilter=true",
        ]
        self._java("broker", "512m", "org.apache.rocketmq.broker.BrokerStartup", lines)
        self._await_route()

    def _java(self, name: str, heap: str, main: str, lines: list[str]) -> None:
        jars = fetch_jars(JAVA_VERSION, "rocketmq-namesrv", "rocketmq-broker")
        settings = self.directory / f"{name}.conf"
        settings.write_text("\n".join(lines) + "\n")
        command = ["java", "-XX:+UseSerialGC", f"-Xmx{heap}", "-XX:MaxDirectMemorySize=512m"]
        command += [f"-Duser.home={self.directory}", f"-Drocketmq.home.dir={self.directory}"]
        command += ["-cp", f"{jars}/*", main, "-c", str(settings)]
        self._running.append(_Process(command, "boot success", self.directory / f"{name}.out"))

    def _await_route(self) -> None:
        """A broker says it is up before the name server has its topics."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not _has_route(self.namesrv_port, "TBW102"):
            if time.monotonic() > deadline:
                raise ServerError("the broker never registered with the name server")
            time.sleep(0.1)


def _has_route(namesrv_port: int, topic: str) -> bool:
    """Ask the name server for a route (request 105); a code other than 0 means there is none."""
    header = {"code": 105, "language": "OTHER", "version": 0, "opaque": 1, "flag": 0}
    encoded = json.dumps({**header, "extFields": {"topic": topic}}).encode()
    frame = struct.pack(">II", 4 + len(encoded), len(encoded)) + encoded
    with socket.create_connection(("127.0.0.1", namesrv_port), timeout=5) as connection:
        connection.sendall(frame)
        with connection.makefile("rb") as answer:
            _, header_size = struct.unpack(">II", answer.read(8))
            return bool(json.loads(answer.read(header_size & 0xFFFFFF))["code"] == 0)
