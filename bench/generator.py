"""The compiled load generator, as a function call."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = HERE / "loadgen.c"
PROGRAM = HERE / "build" / "loadgen"
RUN_SECONDS_MAX = 240

Load = dict[str, Any]


class LoadError(Exception):
    """The load could not be put on the server, or an answer was no success."""


def build() -> None:
    """Compile the generator when it is older than its source."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    if shutil.which("gcc") is None:
        raise LoadError("gcc is missing: the load generator is a C program")
    PROGRAM.parent.mkdir(exist_ok=True)
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", str(PROGRAM), str(SOURCE)], check=True)


def pinned(cores: str | None) -> list[str]:
    """The start of a command that may only use some cores, such as ``0`` or ``0,1``."""
    return [] if cores is None else ["taskset", "-c", cores]


def load(mode: str, port: int, *, cores: str | None = None, **options: Any) -> Load:
    """Run the generator once; options as at the top of ``loadgen.c``.

    Raises:
        LoadError: an answer had an error code, or there was none.
    """
    command: Sequence[str] = [*pinned(cores), str(PROGRAM), mode, "127.0.0.1", str(port)]
    more = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    done = subprocess.run(
        [*command, *more], capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False
    )
    if done.returncode:
        raise LoadError(f"{mode} {options}: {done.stdout.strip()} {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def middle(loads: Sequence[Load], key: str) -> float:
    """The median of one value over several rounds."""
    return statistics.median(float(one[key]) for one in loads)


def summary(loads: Sequence[Load]) -> dict[str, float]:
    """Medians of rate, and of the times in microseconds."""
    return {key: middle(loads, key) for key in ("rate", "p50", "p99")}
