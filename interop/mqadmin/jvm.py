"""mqadmin in one JVM: fetched by Maven, run command by command."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from interop.java.jars import fetch_jars
from interop.program import cache_directory

VERSION = "5.5.0"
SOURCES = Path(__file__).parent / "src"
RUN_SECONDS_MAX = 120


def jars() -> Path:
    return fetch_jars(VERSION, "rocketmq-tools")


def compile_runner() -> Path:
    """The folder with the compiled runner; its name has the source's hash."""
    sources = sorted(SOURCES.glob("*.java"))
    content = b"".join(source.read_bytes() for source in sources)
    digest = hashlib.sha256(content).hexdigest()[:12]
    classes = cache_directory("java") / f"mqadmin-{VERSION}-{digest}"
    if not classes.exists():
        command = ["javac", "-nowarn", "-XDsuppressNotes", "--release", "11", "-d", str(classes)]
        command += ["-cp", f"{jars()}/*", *map(str, sources)]
        subprocess.run(command, check=True)
    return classes


class Mqadmin:
    """A running JVM. ``run`` gives what a command printed on both streams."""

    def __init__(self, home: Path, namesrv: str) -> None:
        command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]
        command += [f"-Duser.home={home}", f"-Drocketmq.client.logRoot={home}/logs"]
        command += [f"-Drocketmq.home.dir={home}", f"-Drocketmq.namesrv.addr={namesrv}"]
        command += [f"-Djava.io.tmpdir={home}"]  # for the mappings that it moved, before and after
        # A consumer shares out its new retry topic when it looks the next time, after 20 s else.
        command += ["-Drocketmq.client.rebalance.waitInterval=1000"]
        command += ["-cp", f"{compile_runner()}:{jars()}/*", "Mqadmin"]
        self._process = subprocess.Popen(
            command,
            cwd=home,  # consumerStatus leaves its dumps where it runs
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._watchdog = threading.Timer(RUN_SECONDS_MAX, self._process.kill)
        self._watchdog.start()

    def run(self, words: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(words.split()) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the JVM ended during: mqadmin {words}")
        return base64.b64decode(answer).decode("utf-8", "replace")

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
