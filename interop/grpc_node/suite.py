"""RocketMQ 5's own Node client over gRPC, from npm as package-lock.json pins it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from interop.grpc_topics import EXPONENTIAL, create_on_all, save_roots
from interop.program import cache_directory, run_program
from interop.results import Report, Server

HERE = Path(__file__).parent
PACKAGE = "rocketmq-client-nodejs"
VERSION = json.loads((HERE / "package.json").read_text())["dependencies"][PACKAGE]
CLIENT = f"Node gRPC {VERSION}"


def clients() -> list[str]:
    return [CLIENT]


def unavailable() -> str | None:
    if shutil.which("node") and shutil.which("npm"):
        return None
    return "Node is missing: install Node 18 or newer with npm"


def prepare() -> None:
    packages = cache_directory("grpc_node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, packages / name)
    install = ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=packages, check=True)


def run(namesrv: str, report: Report, server: Server) -> None:
    packages = cache_directory("grpc_node")
    environment = {"INTEROP_NODE_PACKAGES": str(packages), "HOME": str(packages)}
    program = ["node", str(HERE / "scenarios.js")]
    listed = subprocess.run(
        [*program, "--list"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    scenarios, name = listed.stdout.splitlines(), uuid.uuid4().hex[:8]
    create_on_all(server.brokers, name, scenarios, EXPONENTIAL)  # the only one it knows
    environment |= save_roots(server.proxy, packages)
    command = [*program, server.proxy, name, CLIENT]
    run_program(command, CLIENT, scenarios, report, server, environment)


if __name__ == "__main__":
    sys.exit("run it with: python interop/run.py --suite grpc_node")
