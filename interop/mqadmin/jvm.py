"""mqadmin in one JVM: fetched by Maven, run command by command."""

from __future__ import annotations

import base64
from pathlib import Path

from interop.java.jars import fetch_jars
from interop.java.jvm import Jvm, compiled

VERSION = "5.5.0"
SOURCES = Path(__file__).parent / "src"


def jars() -> Path:
    return fetch_jars(VERSION, "rocketmq-tools")


def compile_runner() -> Path:
    """The folder with the compiled runner."""
    return compiled(f"mqadmin-{VERSION}", sorted(SOURCES.glob("*.java")), jars())


class Mqadmin(Jvm):
    """A running JVM. ``run`` gives what a command printed on both streams."""

    def __init__(self, home: Path, namesrv: str) -> None:
        options = [f"-Drocketmq.home.dir={home}", f"-Drocketmq.namesrv.addr={namesrv}"]
        options += [f"-Djava.io.tmpdir={home}"]  # for the mappings that it moved, before and after
        options += ["-cp", f"{compile_runner()}:{jars()}/*", "Mqadmin"]
        super().__init__(home, options, heap="256m")

    def run(self, words: str) -> str:
        answer = self.ask("\t".join(words.split()))
        return base64.b64decode(answer).decode("utf-8", "replace")
