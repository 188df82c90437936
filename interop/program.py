"""Run a client program in its own language and turn its lines into results.

The program prints one JSON object a line on standard output: either a result
``{"client", "scenario", "ok", "seconds", "detail", "skipped"?}`` or the request
``{"request": "restart"}``, which it makes once its other scenarios are over; it then waits for one
line on standard input: ``restarted``, or ``no`` when the server cannot be restarted from here.
A scenario the program never reported counts as failed, with the end of its error output.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Protocol

from interop.results import Report, Result, Server

RUN_SECONDS_MAX = 150  # a suite takes under 40 s; a hung client must not hang the table


class Suite(Protocol):
    """The module contract of results.py, as :func:`run_alone` needs it."""

    def unavailable(self) -> str | None: ...
    def prepare(self) -> None: ...
    def run(self, namesrv: str, report: Report, server: Server) -> None: ...


def cache_directory(suite: str) -> Path:
    """Where `suite` installs what it downloads and builds; created when missing."""
    root = os.environ.get("FIREARROW_INTEROP_CACHE")
    base = Path(root) if root else Path.home() / ".cache" / "firearrow-interop"
    folder = base / suite
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_program(
    command: Sequence[str],
    client: str,
    scenarios: Iterable[str],
    report: Report,
    server: Server,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run `command` and report each of its `scenarios` exactly once for `client`."""
    missing = dict.fromkeys(scenarios)
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        watchdog = _Watchdog(process)
        try:
            for result in _results(process, server, watchdog):
                missing.pop(result.scenario, None)
                report(result)
            status = process.wait()
        finally:
            watchdog.stop()
            process.kill()
            process.wait()
        reason = f"no result; the program ended with status {status}: {_tail(errors)}"
    for scenario in missing:
        report(Result(client, scenario, ok=False, seconds=0.0, detail=reason))


class _Watchdog:
    """Kills a program that hangs. While the server restarts it waits: the Java broker takes up to
    a minute to stop."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.start()

    def start(self) -> None:
        self._timer = threading.Timer(RUN_SECONDS_MAX, self._process.kill)
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()


def _results(
    process: subprocess.Popen[str], server: Server, watchdog: _Watchdog
) -> Iterable[Result]:
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith("{"):
            continue  # a client's own chatter
        fields = json.loads(line)
        if fields.get("request") == "restart":
            watchdog.stop()
            answer = _restart(server)
            watchdog.start()
            process.stdin.write(answer + "\n")
            process.stdin.flush()
        else:
            yield Result(**fields)


def _restart(server: Server) -> str:
    try:
        server.restart()
    except NotImplementedError:
        return "no"
    return "restarted"


def _tail(errors: IO[str]) -> str:
    errors.seek(0)
    return errors.read()[-400:].strip().replace("\n", " | ")


def excusing(report: Report, reasons: Mapping[str, str]) -> Report:
    """Make of a failure with such a text, which only RocketMQ's own servers give, a skipped
    scenario with this reason."""

    def excused(result: Result) -> None:
        for text, reason in reasons.items():
            if not result.ok and text in result.detail:
                result = replace(result, skipped=True, detail=reason)
        report(result)

    return excused


class _GivenServer:
    """A server that somebody else started, restarted by a command when one was given."""

    def __init__(self, namesrv: str, broker: str, restart_command: str | None) -> None:
        self.namesrv = namesrv
        self.broker = broker
        self.brokers = [broker]
        self.proxy = ""
        self.name = "given"
        self._restart_command = restart_command

    def restart(self) -> None:
        if self._restart_command is None:
            raise NotImplementedError("no --restart-command")
        subprocess.run(shlex.split(self._restart_command), check=True, stdout=subprocess.DEVNULL)


def run_alone(suite: Suite) -> int:
    """Run one suite from the command line against a running server; the number of failures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--namesrv", required=True, help="host:port of the name server")
    parser.add_argument("--broker", required=True, help="host:port of the broker")
    parser.add_argument("--restart-command", help="stops and starts the broker")
    arguments = parser.parse_args()
    reason = suite.unavailable()
    if reason is not None:
        print(reason)
        return 1
    suite.prepare()
    failures = 0

    def show(result: Result) -> None:
        nonlocal failures
        failures += not (result.ok or result.skipped)
        word = "skip" if result.skipped else "ok" if result.ok else "FAIL"
        where = f"{word:4} {result.client:25} {result.scenario:20}"
        print(f"{where} {result.seconds:6.2f} s  {result.detail}", flush=True)

    server = _GivenServer(arguments.namesrv, arguments.broker, arguments.restart_command)
    suite.run(arguments.namesrv, show, server)
    return failures
