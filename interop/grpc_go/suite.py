"""RocketMQ 5's own Go client over gRPC, ``github.com/apache/rocketmq-clients/golang/v5`` as go.mod
pins it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from interop.grpc_topics import create_on_all
from interop.program import cache_directory, run_program
from interop.results import Report, Server

HERE = Path(__file__).parent
PINNED = re.compile(r"rocketmq-clients/golang/v5 v(\S+)")


def _title() -> str:
    found = PINNED.search((HERE / "go.mod").read_text())
    assert found is not None
    return f"Go gRPC {found[1]}"


CLIENT = _title()


def clients() -> list[str]:
    return [CLIENT]


def unavailable() -> str | None:
    return None if shutil.which("go") else "Go is missing: install Go 1.25 or newer"


def _program() -> Path:
    return cache_directory("grpc_go") / "scenarios"


def prepare() -> None:
    subprocess.run(["go", "build", "-mod=readonly", "-o", _program(), "."], cwd=HERE, check=True)


def run(namesrv: str, report: Report, server: Server) -> None:
    listed = subprocess.run([_program(), "-list"], check=True, capture_output=True, text=True)
    scenarios, name = listed.stdout.splitlines(), uuid.uuid4().hex[:8]
    create_on_all(server.brokers, name, scenarios)
    command = [str(_program()), "-endpoint", server.proxy, "-client", CLIENT, "-run", name]
    home = {"HOME": str(cache_directory("grpc_go"))}  # the client logs below it
    run_program(command, CLIENT, scenarios, report, server, home)


if __name__ == "__main__":
    sys.exit("run it with: python interop/run.py --suite grpc_go")
