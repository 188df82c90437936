"""A Java program of ours: compiled once, then told what to do line by line."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from interop.program import cache_directory

RUN_SECONDS_MAX = 120


def compiled(name: str, sources: Sequence[Path], jars: Path) -> Path:
    """The folder with the compiled program; its name has the sources' hash."""
    content = b"".join(source.read_bytes() for source in sources)
    digest = hashlib.sha256(content).hexdigest()[:12]
    classes = cache_directory("java") / f"{name}-{digest}"
    if not classes.exists():
        building = classes.with_name(f"building-{name}")
        command = ["javac", "-nowarn", "-XDsuppressNotes", "--release", "11", "-d", str(building)]
        command += ["-cp", f"{jars}/*", *map(str, sources)]
        subprocess.run(command, check=True)
        building.rename(classes)
    return classes


class Jvm:
    """A running JVM, killed when it takes too long."""

    def __init__(self, home: Path, options: Sequence[str], heap: str = "128m") -> None:
        command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Xmx{heap}"]
        command += [f"-Duser.home={home}", f"-Drocketmq.client.logRoot={home}/logs"]
        # A consumer that just missed a sharing-out of queues looks again after 20 s else.
        command += ["-Drocketmq.client.rebalance.waitInterval=1000", *options]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when this ends
        self._process = subprocess.Popen(
            command,
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._watchdog = threading.Timer(RUN_SECONDS_MAX, self._process.kill)
        self._watchdog.start()

    def ask(self, line: str, answer_begin: str = "") -> str:
        """Write a line, and read until one that begins so.

        Raises:
            RuntimeError: it ended; with the last of what it wrote to standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        for answer in self._process.stdout:
            if answer.startswith(answer_begin):
                return answer
        self._errors.seek(0)
        raise RuntimeError(f"the JVM ended during {line}: {self._errors.read()[-800:]}")

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
