"""The servers that are measured: ours, RocketMQ's own, and one that only echoes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.generator import load, pinned
from interop.servers import JavaLocalServer, JavaServer, LocalServer, Process

WARM_UP_S = 30.0  # a JVM compiles for about so long; ours warms up as long as any round
SETTINGS = {"diskMaxUsedSpaceRatio": 95, "brokerName": "broker-a"}
JAVA_SETTINGS = {**SETTINGS, "mappedFileSizeCommitLog": 1024**3}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens; a server also uses the port above or two below its broker's."""

    ours: tuple[int, int]
    java: tuple[int, int]
    echo: int


class Firearrow(LocalServer):
    """``firearrow up`` of this checkout."""

    name = "firearrow"

    def __init__(
        self,
        ports: tuple[int, int],
        cores: str | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(*ports, settings={**SETTINGS, **(settings or {})})
        self._cores = cores
        self.process: Process

    def _start(self) -> None:
        conf = self.directory / "broker.conf"
        conf.write_text("".join(f"{key}={value}\n" for key, value in self.settings.items()))
        command = [*pinned(self._cores), sys.executable, "-m", "firearrow", "up", "-c", str(conf)]
        command += ["--namesrv-port", str(self.namesrv_port)]
        command += ["--broker-port", str(self.broker_port)]
        command += ["--store", str(self.store)]
        self.process = Process(command, "firearrow ready in ", self.directory / "firearrow.out")
        self._running.append(self.process)

    @property
    def ready_s(self) -> float:
        """What the server itself says it took, from the start of Python's first own line."""
        output = (self.directory / "firearrow.out").read_text()
        found = re.search(r"ready in ([\d.]+) s", output)
        assert found is not None
        return float(found[1])

    def start_again(self) -> None:
        """After ``kill``."""
        self._start()


class Java(JavaServer):
    """RocketMQ's name server and broker with a heap of 2 GB, file sizes as it has them."""

    collector = "-XX:+UseG1GC"
    broker_heap = "2g"

    def __init__(
        self,
        ports: tuple[int, int],
        cores: str | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(*ports, settings={**JAVA_SETTINGS, **(settings or {})})
        self.launcher = pinned(cores)

    @property
    def processes(self) -> list[Process]:
        return list(self._running)

    def stop(self) -> None:
        """Its store is thrown away, and a clean stop takes it up to half a minute."""
        self.kill()

    def warm_up(self, seconds: float, cores: str | None = None) -> None:
        """Let it compile what the rounds will use."""
        load("send", self.broker_port, cores=cores, connections=32, seconds=seconds, warmup=0)


class JavaLocal(JavaLocalServer):
    """RocketMQ's name server, and its proxy in one process with the broker, as ``Java``."""

    collector = Java.collector
    broker_heap = Java.broker_heap

    def __init__(self, ports: tuple[int, int], cores: str | None = None) -> None:
        super().__init__(*ports, settings=JAVA_SETTINGS)
        self.launcher = pinned(cores)

    def stop(self) -> None:
        self.kill()


class SmallJava(Java):
    """With the smallest heaps that a broker runs well with."""

    collector = "-XX:+UseSerialGC"
    broker_heap = "512m"


@contextmanager
def echo_server(port: int, cores: str | None = None) -> Iterator[int]:
    """The echo server's port, while it runs."""
    program = Path(__file__).parent / "echo_server.py"
    with ExitStack() as stack:
        output = program.parent / "build" / "echo.out"
        process = Process(
            [*pinned(cores), sys.executable, str(program), str(port)], "ready", output
        )
        stack.callback(process.kill)
        yield port
