"""Run unmodified RocketMQ clients against a server and print a table, client by scenario."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import queue
import sys
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, cast

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # so that `python interop/run.py` works from anywhere

from interop import tables  # noqa: E402
from interop.fleet import BROKER_SETTINGS, KINDS, Fleet  # noqa: E402
from interop.results import Report, Result, Server  # noqa: E402
from interop.servers import FirearrowServer  # noqa: E402
from interop.tables import word  # noqa: E402

LANE_STEP = 1000  # between the ports of two suites' servers
LONGEST = {name: place for place, name in enumerate(("java", "transactions", "store", "order"))}


class Suite(Protocol):
    """A suite module; results.py tells what each function does."""

    def clients(self) -> list[str]: ...
    def unavailable(self) -> str | None: ...
    def prepare(self) -> None: ...
    def run(self, namesrv: str, report: Report, server: Server) -> None: ...


class _NoRestart:
    """The server, for ``--quick``: the restart scenarios report themselves as skipped."""

    def __init__(self, server: Server) -> None:
        self.namesrv, self.broker, self.name = server.namesrv, server.broker, server.name
        self.brokers = server.brokers
        self._server = server

    @property
    def proxy(self) -> str:
        return self._server.proxy

    def restart(self) -> None:
        raise NotImplementedError("--quick restarts nothing")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=list(KINDS), default="firearrow")
    parser.add_argument("--ports", help="NAMESRV,BROKER: listen there, not on the usual ports")
    parser.add_argument("--brokers", type=int, default=1, help="so many in the server's cluster")
    parser.add_argument(
        "--proxy",
        choices=["own", "firearrow", "java"],
        default="own",
        help="for gRPC: the server's own, or one in a process of its own in front of the brokers",
    )
    parser.add_argument(
        "--through",
        action="store_true",
        help="remoting clients too reach everything through that proxy",
    )
    names = ",".join(sorted(path.parent.name for path in HERE.glob("*/suite.py")))
    parser.add_argument("--suite", default=names, help=f"comma-separated, of {names}")
    parser.add_argument("--client", default="", help="only clients with this in their title")
    parser.add_argument("--jobs", type=int, default=2, help="so many suites at a time")
    parser.add_argument("--quick", action="store_true", help="no restart, one client of a suite")
    parser.add_argument("--json", type=Path, help="write every result to this file")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    return parser.parse_args()


def _wanted(suite: Suite, part: str, quick: bool) -> list[str]:
    titles = [title for title in suite.clients() if part.lower() in title.lower()]
    return titles[:1] if quick else titles


def _run_suite(
    name: str,
    options: argparse.Namespace,
    report: Report,
    lane: int,
    only: Collection[str] = (),
) -> None:
    """Run one suite against a server of its own; whatever stops it is a result of its clients."""
    suite = _suite(name)
    titles = _titles(suite, options, only)
    reason = suite.unavailable()
    if reason is not None or not titles:
        _report_every(titles, reason or "", report, skipped=True)
        return
    if choose := getattr(suite, "choose", None):
        choose(titles)
    try:
        with _server(options, lane) as server:
            suite.run(server.namesrv, report, _NoRestart(server) if options.quick else server)
    except Exception as error:
        _report_every(titles, f"the suite broke off: {error!r}", report)


def _suite(name: str) -> Suite:
    return cast(Suite, importlib.import_module(f"interop.{name}.suite"))


def _titles(suite: Suite, options: argparse.Namespace, only: Collection[str] = ()) -> list[str]:
    titles = _wanted(suite, options.client, options.quick)
    if only and hasattr(suite, "choose"):
        titles = [title for title in titles if title in only]
    return titles


def _report_every(titles: list[str], why: str, report: Report, *, skipped: bool = False) -> None:
    for title in titles:
        report(Result(title, "(all)", False, 0.0, why, skipped))


def run(options: argparse.Namespace) -> list[Result]:
    """One result for each client and scenario, suite by suite."""
    names = options.suite.split(",")
    results: dict[str, list[Result]] = {name: [] for name in names}
    prepared = [name for name in names if _prepare(name, options, _reporter(results[name]))]
    _side_by_side(prepared, options, results)
    for name in prepared:
        results[name] = _second_try(name, options, results[name])
    return [result for name in names for result in results[name]]


def _prepare(name: str, options: argparse.Namespace, report: Report) -> bool:
    """Fetch and build what a suite needs, before anything runs: some share what they build."""
    suite = _suite(name)
    titles = _titles(suite, options)
    if not titles or suite.unavailable() is not None:
        return True
    if choose := getattr(suite, "choose", None):
        choose(titles)
    try:
        suite.prepare()
    except Exception as error:
        _report_every(titles, f"could not be prepared: {error!r}", report)
        return False
    return True


def _side_by_side(
    names: list[str], options: argparse.Namespace, results: dict[str, list[Result]]
) -> None:
    """Suites mostly wait, for a redelivery or a consumer's turn: so many at a time as there are
    lanes, the longest first."""
    lanes: queue.SimpleQueue[int] = queue.SimpleQueue()
    for lane in range(options.jobs):
        lanes.put(lane)

    def run_one(name: str) -> None:
        lane = lanes.get()
        try:
            _run_suite(name, options, _reporter(results[name]), lane)
        finally:
            lanes.put(lane)

    order = sorted(names, key=lambda name: (LONGEST.get(name, len(LONGEST)), name))
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run_one, order))


def _reporter(results: list[Result]) -> Report:
    def report(result: Result) -> None:
        results.append(result)
        _show(result)

    return report


def _show(result: Result) -> None:
    what = f"{word(result):4} {result.client:28} {result.scenario:22}"
    print(f"{what} {result.seconds:6.2f} s  {result.detail}", file=sys.stderr, flush=True)


def _second_try(name: str, options: argparse.Namespace, first: list[Result]) -> list[Result]:
    """The clients that failed run once more against a new server, since they have races of their
    own; what passes only then says so in its detail."""
    failed = {result.client for result in first if word(result) == "FAIL"}
    if not failed:
        return first
    print(f"once more: {', '.join(sorted(failed))}", file=sys.stderr, flush=True)
    again: list[Result] = []
    _run_suite(name, options, _reporter(again), 0, failed)
    merged = {(result.client, result.scenario): result for result in first}
    for second in again:
        _take_better(merged, second)
    broke_off = {result.client for result in again if result.scenario == "(all)"}
    return [
        r for r in merged.values() if r.scenario != "(all)" or r.client in broke_off or r.skipped
    ]


def _take_better(merged: dict[tuple[str, str], Result], second: Result) -> None:
    where = second.client, second.scenario
    first = merged.get(where)
    if first is None:
        merged[where] = second
    elif word(first) == "FAIL" and second.ok:
        detail = f"second try; first: {first.detail}"
        detail = f"{second.detail} ({detail})" if second.detail else detail
        merged[where] = replace(second, detail=detail)
        print(f"ok at the second try: {', '.join(where)}", file=sys.stderr, flush=True)


def _server(options: argparse.Namespace, lane: int) -> Fleet:
    """A new one, not started yet; each lane has ports of its own."""
    given = options.ports.split(",") if options.ports else KINDS[options.server].usual_ports
    ports = [int(port) + lane * LANE_STEP for port in given]
    return Fleet(
        options.server,
        ports,
        BROKER_SETTINGS,
        brokers=options.brokers,
        proxy=options.proxy,
        through=options.through,
    )


def main() -> int:
    options = _arguments()
    started = time.monotonic()
    results = run(options)
    server = KINDS[options.server].name
    about = _about(server, time.monotonic() - started)
    if options.proxy != "own":
        what = "brokers" if options.brokers > 1 else "broker"
        about += f" Behind a {options.proxy} proxy alone, {options.brokers} {what}."
    print(f"\n{about}")
    for group in tables.grouped(results):
        rows = tables.rows(group)
        print(f"\n{tables.markdown(rows) if options.markdown else tables.text(rows)}")
    print()
    print("\n".join(reversed(tables.notes(results))))  # failures at the end, where people look
    if options.json is not None:
        listed = [asdict(result) for result in results]
        document = {"server": server, "about": about, "results": listed}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    count = [word(result) for result in results].count
    print(f"\ninterop: {count('ok')} passed, {count('FAIL')} failed, {count('skip')} skipped")
    return 1 if count("FAIL") or not results else 0


def _about(server: str, seconds: float) -> str:
    """One sentence: what ran where and when."""
    if server == FirearrowServer.name:
        server += f" {version('firearrow')} on Python {platform.python_version()}"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return f"{server[0].upper()}{server[1:]}, {machine}, {today}, in {seconds:.0f} s."


if __name__ == "__main__":
    sys.exit(main())
