"""A Java client that sends to all brokers of a topic and consumes from all of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from interop.java.jars import fetch_jars
from interop.program import cache_directory

SOURCE = Path(__file__).parent / "src" / "Spread.java"
VERSIONS = ("4.9.8", "5.5.0")
RUN_SECONDS_MAX = 90


def compile_spread(version: str) -> Path:
    """The folder with the program for one release of the client."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    classes = cache_directory("java") / f"spread-{version}-{digest}"
    if not classes.exists():
        command = ["javac", "-nowarn", "-XDsuppressNotes", "--release", "11", "-d", str(classes)]
        command += ["-cp", f"{fetch_jars(version, 'rocketmq-client')}/*", str(SOURCE)]
        subprocess.run(command, check=True)
    return classes


def spread(version: str, home: Path, topic: str, count: int, *namesrvs: str) -> list[Any]:
    """``{"sent": {broker name: messages}, "received": ...}`` for each list of name servers."""
    jars = fetch_jars(version, "rocketmq-client")
    command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m"]
    command += [f"-Duser.home={home}", f"-Drocketmq.client.logRoot={home}/logs"]
    command += ["-cp", f"{compile_spread(version)}:{jars}/*", "Spread", topic, str(count)]
    done = subprocess.run(
        [*command, *namesrvs], capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
