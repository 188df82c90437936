"""Every client's message is received by every other, whichever protocol they speak.

Each client sends one message to one topic; then each receives them all with a group of its own.
What must be the same for all: body, tag, keys, a property, and the id that the sender was told.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from interop.cpp import suite as cpp
from interop.go import suite as go
from interop.grpc_cpp import suite as grpc_cpp
from interop.grpc_go import suite as grpc_go
from interop.grpc_node import suite as grpc_node
from interop.grpc_python import suite as grpc_python
from interop.grpc_rust import suite as grpc_rust
from interop.grpc_topics import create_groups, create_topics, topic_of
from interop.java.jars import fetch_jars, missing_tools
from interop.node import suite as node
from interop.program import Suite, cache_directory
from interop.results import Report, Result, Server

HERE = Path(__file__).parent
SCENARIO = "cross"
SECONDS_MAX = 90
FIELDS = ("body", "tag", "keys", "mine", "id")
JAVA = {"Remoting": ("rocketmq-client", "5.5.0"), "Grpc": ("rocketmq-client-java", "5.2.0")}

Line = dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Client:
    """One client; ``command`` is followed by what its program is to do."""

    title: str
    remoting: bool
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return re.sub("[^A-Za-z0-9]+", "-", self.title)


def _suites() -> list[Suite]:
    """Whose programs take part where they can run."""
    return [cpp, go, grpc_cpp, grpc_go, grpc_node, grpc_python, grpc_rust, node]


def clients() -> list[str]:
    return [f"from {client.title}" for client in _clients()]


def unavailable() -> str | None:
    return missing_tools()


def prepare() -> None:
    for suite in _suites():
        if suite.unavailable() is None:
            suite.prepare()
    for name in JAVA:
        classes = _classes(name)
        if not (classes / f"{name}.class").exists():
            sources = [str(HERE / "src" / f"{source}.java") for source in ("Line", name)]
            command = ["javac", "-nowarn", "--release", "11", "-d", str(classes)]
            subprocess.run([*command, "-cp", f"{_jars(name)}/*", *sources], check=True)


def _jars(name: str) -> Path:
    artifact, version = JAVA[name]
    return fetch_jars(version, artifact)


def _classes(name: str) -> Path:
    digest = hashlib.sha256()
    for source in sorted((HERE / "src").glob("*.java")):
        digest.update(source.read_bytes())
    return cache_directory("java") / f"cross-{JAVA[name][1]}-{digest.hexdigest()[:12]}"


def _java(name: str) -> list[str]:
    java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]
    java += [f"-Duser.home={cache_directory('cross')}"]
    return [*java, "-cp", f"{_classes(name)}:{_jars(name)}/*", name]


def _clients(prepared: bool = False) -> list[Client]:
    """Those that can run here."""
    home = {"HOME": str(cache_directory("cross"))}  # some log below it
    old, new = (
        {**home, "INTEROP_NODE_PACKAGES": str(cache_directory(name))}
        for name in ("node", "grpc_node")
    )
    go_program, go5_program = (
        str(cache_directory(name) / "scenarios") for name in ("go", "grpc_go")
    )
    offered = [
        (go, True, [go_program, "cross"], home),
        (cpp, True, [_python("cpp"), str(HERE / "with_cpp.py")], home),
        (node, True, ["node", str(HERE / "remoting.js")], old),
        (grpc_go, False, [go5_program, "cross"], home),
        (grpc_python, False, [_python("grpc_python"), str(HERE / "with_grpc.py")], home),
        (grpc_node, False, ["node", str(HERE / "grpc.js")], new),
        (grpc_rust, False, [str(grpc_rust.program()), "cross"], home),
        (grpc_cpp, False, [str(grpc_cpp.program()), "cross"], home),
    ]
    java = [
        Client(f"Java {JAVA['Remoting'][1]}", True, _java("Remoting") if prepared else []),
        Client(f"Java gRPC {JAVA['Grpc'][1]}", False, _java("Grpc") if prepared else []),
    ]
    others = [
        Client(suite.clients()[0], remoting, command, environment)
        for suite, remoting, command, environment in offered
        if suite.unavailable() is None
    ]
    return sorted(java + others, key=lambda client: (not client.remoting, client.title))


def _python(suite: str) -> str:
    return str(cache_directory(suite) / "venv" / "bin" / "python")


def run(namesrv: str, report: Report, server: Server) -> None:
    started, name = time.monotonic(), uuid.uuid4().hex[:8]
    taking_part, topic = _clients(prepared=True), topic_of(name, SCENARIO)
    create_topics(server.broker, name, [SCENARIO])
    create_groups(server.broker, [_group("receive", client, topic) for client in taking_part])

    def together(action: str) -> dict[Client, list[Line]]:
        return _together(action, taking_part, namesrv, server.proxy, topic)

    sent = together("send")
    got = together("receive")
    seconds = (time.monotonic() - started) / len(taking_part)
    for sender in taking_part:
        ids = [line["id"] or _agreed(sender, got) for line in sent[sender]]
        for receiver in taking_part:
            wrong = _difference(sender, ids, got[receiver])
            title, scenario = f"from {sender.title}", f"to {receiver.title}"
            report(Result(title, scenario, not wrong, seconds / len(taking_part), wrong))


def _agreed(sender: Client, got: dict[Client, list[Line]]) -> str:
    """The id that the first receiver saw."""
    seen = [line["id"] for lines in got.values() for line in lines if line["mine"] == sender.label]
    return seen[0] if seen else ""


def _difference(sender: Client, ids: list[str], lines: Iterable[Line]) -> str:
    """How what came differs from what was sent; empty when it does not."""
    if len(ids) != 1:
        return f"{len(ids)} messages were sent"
    label = sender.label
    values = (f"from {label} é", "red", {"k1", f"k-{label}"}, label, ids[0])
    wanted = dict(zip(FIELDS, values, strict=True))
    found = [line for line in lines if line.get("mine") == label or label in line["body"].split()]
    if len(found) != 1:
        return f"{len(found)} messages came"
    line: dict[str, object] = {**found[0], "keys": set(found[0]["keys"].split())}
    return "; ".join(
        f"{name} {line.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if line.get(name) != value
    )


def _group(action: str, client: Client, topic: str) -> str:
    return f"{action}-{client.label}-{topic}"


def _together(
    action: str, taking_part: list[Client], namesrv: str, proxy: str, topic: str
) -> dict[Client, list[Line]]:
    """Start a program for each client at once; the lines of each."""
    running: dict[Client, subprocess.Popen[str]] = {}
    for client in taking_part:
        address = namesrv if client.remoting else proxy
        arguments = [action, address, topic, _group(action, client, topic), client.label]
        running[client] = subprocess.Popen(
            [*client.command, *arguments, str(len(taking_part))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # some tell all they do
            text=True,
            env={**os.environ, **client.environment},
        )
    return {client: _lines(running[client]) for client in taking_part}


def _lines(process: subprocess.Popen[str]) -> list[Line]:
    try:
        text, _ = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
