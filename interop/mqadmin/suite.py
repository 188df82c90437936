"""mqadmin against the server under test and against the Java broker: the same output, but for
ids, times and rates."""

from __future__ import annotations

import difflib
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from interop.java.jars import missing_tools
from interop.mqadmin.commands import COMMANDS, Command
from interop.mqadmin.jvm import VERSION, Mqadmin, compile_runner
from interop.mqadmin.mask import keys, mask
from interop.program import run_alone
from interop.results import Report, Result, Server
from interop.servers import LIGHT_QUEUES, JavaServer

TITLE = f"mqadmin {VERSION}"
JAVA_PORTS = 13876, 13911


@dataclass(frozen=True, slots=True)
class Output:
    """What one command printed, made comparable; and as it was."""

    lines: list[str]
    seconds: float
    text: str


def clients() -> list[str]:
    return [TITLE]


def unavailable() -> str | None:
    return missing_tools()


def prepare() -> None:
    compile_runner()


def outputs(namesrv: str, broker: str) -> dict[str, Output]:
    """Run every command against one server; what was printed, by the command's name."""
    found = {}
    with (
        tempfile.TemporaryDirectory(prefix="firearrow-mqadmin-") as home,
        Mqadmin(Path(home), namesrv) as mqadmin,
    ):
        first = mqadmin.run("clusterList")
        match = re.search(rf"(\S+)\s+\S+\s+{re.escape(broker)}", first)
        name = match[1] if match else "unknown"
        values = {"namesrv": namesrv, "broker": broker, "name": name}
        values |= {"id": "", "key": "", "traced": ""}
        for command in COMMANDS:
            started = time.monotonic()
            text = mqadmin.run(command.words.format(**values))
            if command.words.startswith("@produce"):
                values["key"], values["id"] = text.splitlines()[3].split()
            if command.words.startswith("@trace"):
                values["traced"] = text.strip()
            if not command.compared and "Exception" in text:
                raise RuntimeError(f"{command.words}: {text}")
            replaced = {broker: "127.0.0.1:BROKER", name: "NAME"}
            seconds = time.monotonic() - started
            found[command.name] = Output(mask(text, replaced), seconds, text)
    return found


def differences(command: Command, ours: Output, java: Output) -> list[str]:
    """Lines that only one server prints, marked with - (Java's) and + (ours)."""
    left, right = java.lines, ours.lines
    if command.keys_only:
        left, right = keys(left), keys(right)
    if command.may_come:
        left, right = ([x for x in lines if command.may_come not in x] for lines in (left, right))
    if rates := r"\b\d+\b" if command.counts else command.rates:
        left, right = ([re.sub(rates, "N", line) for line in lines] for lines in (left, right))
    right = [line for line in right if not line.startswith(command.ours)]
    if command.subset:
        return [f"+ {line}" for line in right if line not in left]
    if command.unordered or command.keys_only:
        left, right = sorted(left), sorted(right)
    return [line for line in difflib.ndiff(left, right) if line[0] in "+-"]


def run(namesrv: str, report: Report, server: Server) -> None:
    with ThreadPoolExecutor(1) as pool, JavaServer(*JAVA_PORTS, settings=LIGHT_QUEUES) as java:
        expected = pool.submit(outputs, java.namesrv, java.broker)
        found = outputs(namesrv, server.broker)
        wanted = expected.result()
    for command in COMMANDS:
        if command.compared:
            ours, java_output = found[command.name], wanted[command.name]
            different = differences(command, ours, java_output)
            detail = " | ".join(different)
            report(Result(TITLE, command.name, not different, ours.seconds, detail))


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
