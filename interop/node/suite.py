"""The Node remoting client ``ali-ons`` from npm, as package-lock.json pins it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from interop.program import cache_directory, run_alone, run_program
from interop.results import Report, Server

HERE = Path(__file__).parent
CLIENT = "Node ali-ons 3.12.0"


def clients() -> list[str]:
    return [CLIENT]


def unavailable() -> str | None:
    if shutil.which("node") and shutil.which("npm"):
        return None
    return "Node is missing: install Node 18 or newer with npm"


def prepare() -> None:
    packages = cache_directory("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, packages / name)
    install = ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=packages, check=True)


def run(namesrv: str, report: Report, server: Server) -> None:
    packages = {"INTEROP_NODE_PACKAGES": str(cache_directory("node"))}
    program = ["node", str(HERE / "scenarios.js")]
    listed = subprocess.run(
        [*program, "--list"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **packages},
    )
    command = [*program, "--namesrv", namesrv, "--broker", server.broker]
    command += ["--run", uuid.uuid4().hex[:8]]
    run_program(command, CLIENT, listed.stdout.splitlines(), report, server, packages)


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
