"""The Go remoting client, ``github.com/apache/rocketmq-client-go/v2`` as go.mod pins it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from interop.program import cache_directory, run_alone, run_program
from interop.results import Report, Server

HERE = Path(__file__).parent
CLIENT = "Go 2.1.2"


def clients() -> list[str]:
    return [CLIENT]


def unavailable() -> str | None:
    return None if shutil.which("go") else "Go is missing: install Go 1.23 or newer"


def _program() -> Path:
    return cache_directory("go") / "scenarios"


def prepare() -> None:
    subprocess.run(["go", "build", "-mod=readonly", "-o", _program(), "."], cwd=HERE, check=True)


def run(namesrv: str, report: Report, server: Server) -> None:
    listed = subprocess.run([_program(), "-list"], check=True, capture_output=True, text=True)
    command = [str(_program()), "-namesrv", namesrv, "-broker", server.broker]
    command += ["-run", uuid.uuid4().hex[:8]]
    run_program(command, CLIENT, listed.stdout.splitlines(), report, server)


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
