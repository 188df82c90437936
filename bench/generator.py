"""The compiled load generators, as a function call."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROGRAM = HERE / "build" / "loadgen"
GRPC_PROGRAM = HERE / "build" / "grpcload"
RUN_SECONDS_MAX = 240

Load = dict[str, Any]


class LoadError(Exception):
    """The load could not be put on the server, or an answer was no success."""


def build() -> None:
    """Compile the generators that are older than their sources."""
    for program in (PROGRAM, GRPC_PROGRAM):
        source = HERE / f"{program.name}.c"
        if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
            continue
        if shutil.which("gcc") is None:
            raise LoadError("gcc is missing: the load generators are C programs")
        program.parent.mkdir(exist_ok=True)
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)]
        subprocess.run(command, check=True)


def pinned(cores: str | None) -> list[str]:
    """The start of a command that may only use some cores, such as ``0`` or ``0,1``."""
    return [] if cores is None else ["taskset", "-c", cores]


def load(
    mode: str, port: int, *, cores: str | None = None, program: Path = PROGRAM, **options: Any
) -> Load:
    """Run a generator once; options as at the top of its source. One with a core of its own never
    sleeps there: its wake-ups would cost the server's core, one for each write.

    Raises:
        LoadError: an answer had an error code, or there was none.
    """
    command: Sequence[str] = [*pinned(cores), str(program), mode, "127.0.0.1", str(port)]
    if cores is not None:
        options["spin"] = 1
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
