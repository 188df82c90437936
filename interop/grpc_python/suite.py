"""RocketMQ 5's own Python client over gRPC, from PyPI."""

from __future__ import annotations

import ast
import subprocess
import sys
import uuid
import venv
from pathlib import Path

from interop.grpc_topics import create_on_all, save_roots
from interop.program import cache_directory, run_program
from interop.results import Report, Server

HERE = Path(__file__).parent
CLIENT = "Python gRPC 5.1.2"


def clients() -> list[str]:
    return [CLIENT]


def unavailable() -> str | None:
    return None


def _python() -> Path:
    return cache_directory("grpc_python") / "venv" / "bin" / "python"


def prepare() -> None:
    if not _python().exists():
        venv.create(_python().parent.parent, with_pip=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([_python(), *install, "-r", HERE / "requirements.txt"], check=True)


def _scenarios() -> list[str]:
    """The names in the program's table; it cannot be imported here, its client is not installed."""
    for node in ast.parse((HERE / "scenarios.py").read_text()).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "SCENARIOS":
            assert isinstance(node.value, ast.Dict)
            return [ast.literal_eval(key) for key in node.value.keys if key]
    raise AssertionError("scenarios.py has no table SCENARIOS")


def run(namesrv: str, report: Report, server: Server) -> None:
    name, scenarios = uuid.uuid4().hex[:8], _scenarios()
    create_on_all(server.brokers, name, scenarios)
    command = [str(_python()), "-m", "interop.grpc_python.scenarios", server.proxy, name, CLIENT]
    home = cache_directory("grpc_python")  # the client logs below it
    sources = {"PYTHONPATH": str(HERE.parent.parent)}
    environment = {"HOME": str(home), **sources, **save_roots(server.proxy, home)}
    run_program(command, CLIENT, scenarios, report, server, environment)


if __name__ == "__main__":
    sys.exit("run it with: python interop/run.py --suite grpc_python")
