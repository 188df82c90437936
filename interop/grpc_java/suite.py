"""RocketMQ 5's own Java client over gRPC, two releases, with TLS (its default) and without."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from interop.grpc_topics import create_on_all
from interop.java.jars import fetch_jars, missing_tools
from interop.program import cache_directory, excusing, run_program
from interop.results import Report, Server

SOURCES = Path(__file__).parent / "src"
LITE_SOURCES = Path(__file__).parent / "lite"  # for clients that have lite topics
LITE_SINCE = (5, 2)
ARTIFACT = "rocketmq-client-java"
JAVA_ONLY = {
    'ServiceManager.getLiteSubscriptionService()" is null': (
        "RocketMQ's proxy in local mode, as of 5.5.0, has no lite topics (NullPointerException)"
    )
}


@dataclass(frozen=True, slots=True)
class Row:
    """One client of the table."""

    version: str
    security: str  # "TLS" or "plain"

    @property
    def title(self) -> str:
        return f"Java gRPC {self.version}, {self.security}"


ROWS = [Row("5.0.7", "plain"), Row("5.2.0", "TLS")]
_chosen = list(ROWS)


def clients() -> list[str]:
    return [row.title for row in ROWS]


def choose(titles: list[str]) -> None:
    """Run only the clients with these titles."""
    _chosen[:] = [row for row in ROWS if row.title in titles]


def unavailable() -> str | None:
    return missing_tools()


def _sources(version: str) -> list[Path]:
    folders = [SOURCES]
    if tuple(map(int, version.split(".")[:2])) >= LITE_SINCE:
        folders.append(LITE_SOURCES)
    return [source for folder in folders for source in sorted(folder.glob("*.java"))]


def _classes(version: str) -> Path:
    digest = hashlib.sha256()
    for source in _sources(version):
        digest.update(source.read_bytes())
    return cache_directory("java") / f"grpc-{version}-{digest.hexdigest()[:12]}"


def prepare() -> None:
    for version in {row.version for row in _chosen}:
        jars, classes = fetch_jars(version, ARTIFACT), _classes(version)
        if classes.exists():
            continue
        for stale in classes.parent.glob(f"grpc-{version}-*"):
            shutil.rmtree(stale)
        building = classes.with_name(f"building-grpc-{version}")
        command = ["javac", "-nowarn", "--release", "11", "-d", str(building)]
        command += ["-cp", f"{jars}/*", *map(str, _sources(version))]
        subprocess.run(command, check=True)
        building.rename(classes)


def run(namesrv: str, report: Report, server: Server) -> None:
    for row in _chosen:
        with tempfile.TemporaryDirectory(prefix="firearrow-interop-grpc-") as home:
            _run_row(row, Path(home), namesrv, report, server)


def _run_row(row: Row, home: Path, namesrv: str, report: Report, server: Server) -> None:
    java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m"]
    java += [f"-Duser.home={home}", f"-Drocketmq.log.root={home}/logs"]
    java += ["-cp", f"{_classes(row.version)}:{fetch_jars(row.version, ARTIFACT)}/*", "Main"]
    listed = subprocess.run([*java, "list"], check=True, capture_output=True, text=True)
    scenarios = listed.stdout.split("\n")[:-1]
    name = uuid.uuid4().hex[:8]
    create_on_all(server.brokers, name, scenarios)
    arguments = [server.proxy, namesrv, row.title, row.security, name]
    run_program([*java, *arguments], row.title, scenarios, excusing(report, JAVA_ONLY), server)
