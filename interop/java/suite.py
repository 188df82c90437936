"""Apache RocketMQ's own Java client, two releases, each with both header codecs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from interop.java.jars import fetch_jars, missing_tools
from interop.program import cache_directory, run_alone, run_program
from interop.results import Report, Server

SOURCES = Path(__file__).parent / "src"
SOURCES_5 = Path(__file__).parent / "src5"  # what only clients from 5.0 on can do


@dataclass(frozen=True, slots=True)
class Row:
    """One client of the table."""

    version: str  # of org.apache.rocketmq:rocketmq-client
    headers: str  # the value of rocketmq.serialize.type

    @property
    def title(self) -> str:
        word = "JSON" if self.headers == "JSON" else "binary"
        return f"Java {self.version}, {word} headers"

    @property
    def jars(self) -> Path:
        return fetch_jars(self.version, "rocketmq-client")


ROWS = [Row(version, headers) for version in ("4.9.8", "5.5.0") for headers in ("JSON", "ROCKETMQ")]
_chosen = list(ROWS)


def clients() -> list[str]:
    return [row.title for row in ROWS]


def choose(titles: list[str]) -> None:
    """Run only the clients with these titles."""
    _chosen[:] = [row for row in ROWS if row.title in titles]


def unavailable() -> str | None:
    return missing_tools()


def _sources(row: Row) -> list[Path]:
    folders = [SOURCES] if row.version.startswith("4.") else [SOURCES, SOURCES_5]
    return [source for folder in folders for source in sorted(folder.glob("*.java"))]


def _classes(row: Row) -> Path:
    """Where the scenarios are, compiled against this client; the name has the sources' hash."""
    digest = hashlib.sha256()
    for source in _sources(row):
        digest.update(source.read_bytes())
    return cache_directory("java") / f"classes-{row.version}-{digest.hexdigest()[:12]}"


def prepare() -> None:
    for row in _chosen:
        classes = _classes(row)
        if classes.exists():
            continue
        for stale in classes.parent.glob(f"classes-{row.version}-*"):
            shutil.rmtree(stale)
        building = classes.with_name(f"building-{row.version}")
        command = ["javac", "-nowarn", "-XDsuppressNotes", "--release", "11", "-d", str(building)]
        command += ["-cp", f"{row.jars}/*", *map(str, _sources(row))]
        subprocess.run(command, check=True)
        building.rename(classes)


def run(namesrv: str, report: Report, server: Server) -> None:
    for row in _chosen:
        with tempfile.TemporaryDirectory(prefix="firearrow-interop-java-") as home:
            _run_row(row, Path(home), namesrv, report, server)


def _run_row(row: Row, home: Path, namesrv: str, report: Report, server: Server) -> None:
    java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx384m"]
    java += [f"-Duser.home={home}", f"-Drocketmq.client.logRoot={home}/logs"]
    java += [f"-Drocketmq.client.localOffsetStoreDir={home}/offsets"]
    # A 5.5.0 consumer whose first sharing-out raced its start looks again after this (20 s else).
    java += ["-Drocketmq.client.rebalance.waitInterval=8000"]
    java += [f"-Drocketmq.serialize.type={row.headers}"]
    classpath = ["-cp", f"{_classes(row)}:{row.jars}/*"]
    listed = subprocess.run(
        [*java, *classpath, "Main", "list"], check=True, capture_output=True, text=True
    )
    scenarios = listed.stdout.split("\n")[:-1]
    pops = [s for s in scenarios if s.startswith("pop")]
    others = [s for s in scenarios if s not in pops and s != "TLS"]
    parts = [("plain", others, []), ("pop", pops, []), ("tls", ["TLS"], ["true"])]
    for part, names, tls in parts:
        if not names:
            continue
        options = [f"-Dtls.enable={value}" for value in tls]
        arguments = ["Main", part, namesrv, row.title, row.headers, uuid.uuid4().hex[:8]]
        run_program([*java, *options, *classpath, *arguments], row.title, names, report, server)


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
