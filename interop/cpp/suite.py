"""The C++ remoting client, as the wheel ``rocketmq`` 0.4.4 on PyPI bundles it (librocketmq.so).

The wheel is for glibc on x86-64 and needs nothing else; its wrapper runs on every Python 3.
"""

from __future__ import annotations

import ast
import platform
import subprocess
import sys
import uuid
import venv
from pathlib import Path

from interop.program import cache_directory, run_alone, run_program
from interop.results import Report, Server

HERE = Path(__file__).parent
CLIENT = "C++ (PyPI rocketmq 0.4.4)"


def clients() -> list[str]:
    return [CLIENT]


def unavailable() -> str | None:
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        return None
    return "the client's library is built for x86-64 Linux: run this suite there"


def _python() -> Path:
    return cache_directory("cpp") / "venv" / "bin" / "python"


def prepare() -> None:
    if not _python().exists():
        venv.create(_python().parent.parent, with_pip=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([_python(), *install, "-r", HERE / "requirements.txt"], check=True)


def _scenarios() -> list[str]:
    """The names in the program's table; it cannot be imported here, its client is not installed."""
    for node in ast.parse((HERE / "scenarios.py").read_text()).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "SCENARIOS":
            assert isinstance(node.value, ast.Dict)
            return [ast.literal_eval(key) for key in node.value.keys if key] + ["broker restart"]
    raise AssertionError("scenarios.py has no table SCENARIOS")


def run(namesrv: str, report: Report, server: Server) -> None:
    command = [str(_python()), str(HERE / "scenarios.py"), "--namesrv", namesrv]
    command += ["--run", uuid.uuid4().hex[:8]]
    home = {"HOME": str(cache_directory("cpp"))}  # the client logs below it
    run_program(command, CLIENT, _scenarios(), report, server, home)


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
