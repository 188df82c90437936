"""RocketMQ 5's own C++ client over gRPC, built from a checkout of its project.

No registry has it. Its source goes to ``CACHE/grpc_cpp/source`` (``git clone --recursive`` of
https://github.com/apache/rocketmq-clients); ``python -m interop.grpc_cpp.suite`` builds it there in
some minutes. Without such a build the suite is skipped.
"""

from __future__ import annotations

import filecmp
import re
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from interop.grpc_topics import create_topics, save_roots
from interop.program import cache_directory, run_program
from interop.results import Report, Server

HERE = Path(__file__).parent
VERSION = re.compile(r"project\(rocketmq VERSION (\S+)")


def _cache() -> Path:
    return cache_directory("grpc_cpp")


def _title() -> str:
    lists = _cache() / "source" / "cpp" / "CMakeLists.txt"
    found = VERSION.search(lists.read_text()) if lists.exists() else None
    return f"C++ gRPC {found[1]}" if found else "C++ gRPC"


def clients() -> list[str]:
    return [_title()]


def program() -> Path:
    return _cache() / "build" / "scenarios"


def unavailable() -> str | None:
    if program().exists():
        return None
    return "not built: interop/grpc_cpp/suite.py says how"


def prepare() -> None:
    """What was built once is built again where these sources have changed: half a minute."""
    project = _cache() / "project"
    ours = [path for path in HERE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    _, differ, missing = filecmp.cmpfiles(
        HERE, project, [str(path.relative_to(HERE)) for path in ours], shallow=False
    )
    if differ or missing:
        build()


def build() -> None:
    missing = [
        tool for tool in ("cmake", "g++", "protoc", "grpc_cpp_plugin") if not shutil.which(tool)
    ]
    if missing or not (_cache() / "source" / "cpp").exists():
        raise SystemExit(f"{__doc__}\nMissing: {', '.join(missing) or 'the source'}.")
    project, folder = _cache() / "project", str(program().parent)
    shutil.copytree(HERE, project, dirs_exist_ok=True)  # CMake wants it at one place for ever
    configure = ["cmake", "-S", str(project), "-B", folder]
    configure += [f"-DCLIENT_SOURCE={_cache() / 'source'}"]
    configure += ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS=-O1", "-Wno-dev"]
    subprocess.run(configure, check=True)
    subprocess.run(["cmake", "--build", folder, "--target", "scenarios", "-j", "2"], check=True)


def run(namesrv: str, report: Report, server: Server) -> None:
    listed = subprocess.run([program(), "--list"], check=True, capture_output=True, text=True)
    scenarios, name = listed.stdout.splitlines(), uuid.uuid4().hex[:8]
    # The client waits without end for the route of a topic that does not exist yet.
    create_topics(server.broker, name, scenarios, dead_letters=True)
    environment = {"HOME": str(_cache()), **save_roots(server.proxy, _cache())}

    def run_one(scenario: str) -> None:
        command = [str(program()), server.proxy, name, _title(), scenario]
        run_program(command, _title(), [scenario], report, server, environment)

    # A process for each: where this library crashes, it takes nothing else along.
    with ThreadPoolExecutor(len(scenarios)) as pool:
        list(pool.map(run_one, scenarios[:-1]))
    run_one(scenarios[-1])  # nothing else may be under way while the server restarts


if __name__ == "__main__":
    build()
