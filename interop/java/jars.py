"""RocketMQ's jars and what they need, resolved by Maven from Maven Central into the cache."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from interop.program import cache_directory

POM = Path(__file__).parent / "pom.xml"

_fetching = threading.Lock()  # suites run side by side


def fetch_jars(version: str, *artifacts: str) -> Path:
    """The folder with all jars of `artifacts` of ``org.apache.rocketmq`` at `version`.

    Raises:
        subprocess.CalledProcessError: Maven could not resolve them; it said why.
    """
    folder = cache_directory("java") / f"{'+'.join(artifacts)}-{version}"
    with _fetching:
        if not (folder / ".complete").exists():
            _fetch(folder, version, artifacts)
    return folder


def _fetch(folder: Path, version: str, artifacts: Sequence[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for artifact in artifacts:
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command += [f"-Dartifact={artifact}", f"-Drocketmq={version}"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        subprocess.run(command, check=True)
    (folder / ".complete").touch()


def missing_tools() -> str | None:
    """What to install before Java can be used here, or None."""
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} is missing: install a JDK (11 or newer) and Maven"
