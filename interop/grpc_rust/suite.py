"""RocketMQ 5's own Rust client over gRPC, from crates.io as Cargo.lock pins it.

Its build takes minutes, so the suite runs only where one exists:
``python -m interop.grpc_rust.suite`` makes it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from interop.grpc_topics import create_on_all, save_roots
from interop.program import cache_directory, excusing, run_program
from interop.results import Report, Server

HERE = Path(__file__).parent
PINNED = re.compile(r'rocketmq = "=(\S+)"')
JAVA_ONLY = {
    'because "settings" is null': (
        "RocketMQ's proxy forgets the client's settings, which it does not say again"
    )
}
PROTOC = f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n'


def _title() -> str:
    found = PINNED.search((HERE / "Cargo.toml").read_text())
    assert found is not None
    return f"Rust gRPC {found[1]}"


CLIENT = _title()


def clients() -> list[str]:
    return [CLIENT]


def _target() -> Path:
    return cache_directory("grpc_rust") / "target"


def program() -> Path:
    return _target() / "debug" / "scenarios"


def unavailable() -> str | None:
    if shutil.which("cargo") is None:
        return "Rust is missing: install cargo 1.80 or newer"
    if not program().exists():
        return "not built, it takes minutes: python -m interop.grpc_rust.suite"
    return None


def prepare() -> None:
    protoc = cache_directory("grpc_rust") / "protoc"
    protoc.write_text(PROTOC)
    protoc.chmod(0o755)
    command = ["cargo", "build", "--quiet", "--locked", "--target-dir", str(_target())]
    environment = {**os.environ, "PROTOC": str(protoc)}
    subprocess.run(command, cwd=HERE, check=True, env=environment)


def run(namesrv: str, report: Report, server: Server) -> None:
    listed = subprocess.run([program(), "--list"], check=True, capture_output=True, text=True)
    scenarios, name = listed.stdout.splitlines(), uuid.uuid4().hex[:8]
    create_on_all(server.brokers, name, scenarios)
    environment = save_roots(server.proxy, cache_directory("grpc_rust"))
    command = [str(program()), server.proxy, name, CLIENT]
    excused = excusing(report, JAVA_ONLY)
    run_program(command, CLIENT, scenarios, excused, server, environment)


if __name__ == "__main__":
    prepare()
