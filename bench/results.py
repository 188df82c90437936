"""What a section measures, how it is shown, and the file that keeps it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"


@dataclass(frozen=True, slots=True)
class Target:
    """What a value must reach."""

    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )

    def __str__(self) -> str:
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


@dataclass(frozen=True, slots=True)
class Result:
    """One measured value. A ratio was computed from ``ours`` and ``other``."""

    section: str
    case: str
    what: str  # what the value is, such as "rate, ratio to Java"
    value: float
    target: Target | None = None
    ours: Mapping[str, float] = field(default_factory=dict)
    other: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.target.met(self.value)

    def line(self) -> str:
        """One row of the printed table."""
        word = {None: "", True: "ok", False: "MISSED"}[self.met]
        target = "" if self.target is None else f"target {self.target}"
        sides = "  ".join(
            f"{name} {_numbers(side)}"
            for name, side in (("ours", self.ours), ("other", self.other))
            if side
        )
        head = f"{self.section:14} {self.case:28} {self.what:34} {number(self.value):>10}"
        return f"{head}  {target:16} {word:7} {sides}".rstrip()


def number(value: float) -> str:
    """Three digits that count, or whole thousands."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _numbers(side: Mapping[str, float]) -> str:
    return " ".join(f"{name}={number(value)}" for name, value in side.items())


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "")


def _interpreter() -> dict[str, Any]:
    """How this Python was built, as far as it tells. A build without ``--enable-optimizations`` may
    still use a profile (Debian's do, and do not say so), hence no ``false``."""
    jit = getattr(sys, "_jit", None)
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    return {
        "python_build": f"{' '.join(platform.python_build())}, {platform.python_compiler()}",
        "python_jit": jit is not None and jit.is_enabled(),
        "python_optimizations": "--enable-optimizations" in arguments or None,
    }


def surroundings(java: str) -> dict[str, Any]:
    """Machine, versions and commit, for every line of a run."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit + ("+" if _output("git", "status", "--porcelain", "../src") else ""),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(memory / 2**30, 1),
            "system": f"{platform.system()} {platform.release()}",
        },
        "versions": {
            "python": platform.python_version(),
            **_interpreter(),
            "uvloop": version("uvloop"),
            "msgspec": version("msgspec"),
            "java": _output("java", "-version").split("\n", 1)[0],
            "rocketmq": java,
        },
    }


def keep(results: Iterable[Result], around: Mapping[str, Any], file: Path = RESULTS) -> None:
    """Append one JSON line for each result."""
    with file.open("a") as out:
        for result in results:
            line = {
                **around,
                "section": result.section,
                "case": result.case,
                "what": result.what,
                "value": round(result.value, 4),
                "target": None if result.target is None else str(result.target),
                "met": result.met,
                "ours": dict(result.ours),
                "other": dict(result.other),
            }
            out.write(json.dumps(line) + "\n")
