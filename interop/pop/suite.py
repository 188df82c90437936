"""Popped messages in flight while the store goes from the Java broker to Firearrow and back:
whoever opens it keeps them invisible, takes acknowledgements by the old handles, and gives again
what was not acknowledged."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from interop.java.jars import fetch_jars, missing_tools
from interop.pop.consumer import Consumer, Popped
from interop.program import run_alone
from interop.remoting import Remote
from interop.results import Report, Result, Server
from interop.servers import JAVA_VERSION, FirearrowServer, JavaServer

SETTINGS = {
    "brokerName": "broker-a",
    "flushConsumerOffsetInterval": 1000,
    "mappedFileSizeCommitLog": 64 * 1024 * 1024,
}
INVISIBLE_S = 40  # longer than one broker takes to stop and the other to start
CHANGED_S = 55
LATE_S = 12  # revive takes some seconds; a cold JVM more
KILLED_AFTER_S = 12  # what a killed broker had in memory is in its files by then


@dataclass(frozen=True, slots=True)
class Row:
    """Who has the store first, and how it ends."""

    title: str
    first: type[JavaServer] | type[FirearrowServer]
    second: type[JavaServer] | type[FirearrowServer]
    kill: bool
    port: int


ROWS = [
    Row("pop, Java then us", JavaServer, FirearrowServer, False, 18811),
    Row("pop, us then Java", FirearrowServer, JavaServer, False, 18821),
    Row("pop, Java killed, us", JavaServer, FirearrowServer, True, 18831),
    Row("pop, us killed, Java", FirearrowServer, JavaServer, True, 18841),
]
_chosen = list(ROWS)


def clients() -> list[str]:
    return [row.title for row in ROWS]


def choose(titles: list[str]) -> None:
    _chosen[:] = [row for row in ROWS if row.title in titles]


def unavailable() -> str | None:
    return missing_tools()


def prepare() -> None:
    fetch_jars(JAVA_VERSION, "rocketmq-namesrv", "rocketmq-broker")


class Handover:
    """One store under two brokers."""

    def __init__(self, row: Row, store: Path, report: Report) -> None:
        self._row = row
        self._store = store
        self._report = report
        self._plain = Consumer("pops", "poppers")
        self._ordered = Consumer("orders", "orderers")
        self._messages: list[Popped] = []
        self._batch: list[Popped] = []
        self._changed_at = 0.0

    def run(self) -> None:
        row = self._row
        with row.first(0, row.port, settings=SETTINGS, store=self._store) as server:
            with Remote(server.broker) as remote:
                self._begin(remote)
            if row.kill:
                time.sleep(KILLED_AFTER_S)
                server.kill()
        with (
            row.second(0, row.port + 5, settings=SETTINGS, store=self._store) as server,
            Remote(server.broker) as remote,
        ):
            self._check("they stay invisible", lambda: self._invisible(remote))
            self._check("they come again", lambda: self._again(remote))
            self._check("a changed time is kept", lambda: self._changed(remote))
            self._check("ordered batches go on", lambda: self._order(remote))
            self._check("nothing comes twice", lambda: self._nothing(remote))

    def _check(self, scenario: str, find: Callable[[], str]) -> None:
        started = time.monotonic()
        try:
            found = find()
        except Exception as error:
            found = repr(error)
        seconds = time.monotonic() - started
        self._report(Result(self._row.title, scenario, not found, seconds, found))

    def _begin(self, remote: Remote) -> None:
        """0 to 2 acknowledged one by one, 3 to 5 together, 6 for longer, 7 to 11 in flight."""
        plain = self._plain
        plain.send(remote, map(str, range(12)))
        while len(self._messages) < 12:  # a Java broker makes them readable a moment later
            self._messages += plain.pop(remote, INVISIBLE_S * 1000)
        for message in self._messages[:3]:
            plain.ack(remote, message)
        plain.ack_together(remote, self._messages[3:6])
        plain.change(remote, self._messages[6], CHANGED_S * 1000)
        self._changed_at = time.monotonic()
        self._ordered.send(remote, map(str, range(4)))
        while not self._batch:
            self._batch = self._ordered.pop(remote, INVISIBLE_S * 1000, order=True, count=3)
        self._ordered.ack(remote, self._batch[0])

    def _invisible(self, remote: Remote) -> str:
        found = self._plain.pop(remote, 1000)
        self._plain.ack(remote, self._messages[7])  # the handle is the other broker's
        ordered = self._ordered.pop(remote, 1000, order=True)
        return _said("in flight, and popped", found + ordered)

    def _until(self, remote: Remote, end: float) -> dict[str, float]:
        """Everything that comes until then, acknowledged: text -> when."""
        found: dict[str, float] = {}
        while time.monotonic() < end:
            for message in self._plain.pop(remote, 30_000):
                if message.text in found or message.record.reconsume_times != 1:
                    raise AssertionError(f"{message.text}: {message.record.reconsume_times} tries")
                found[message.text] = time.monotonic()
                self._plain.ack(remote, message)
            time.sleep(0.2)
        return found

    def _again(self, remote: Remote) -> str:
        due = self._messages[11].at + INVISIBLE_S
        found = self._until(remote, due + LATE_S)
        if set(found) - {"6"} != {"8", "9", "10", "11"}:
            return f"came: {sorted(found)}"
        early = [text for text, at in found.items() if at < due]
        return f"too early: {early}" if early else ""

    def _changed(self, remote: Remote) -> str:
        due = self._changed_at + CHANGED_S
        found = self._until(remote, due + LATE_S)
        if set(found) != {"6"}:
            return f"came: {sorted(found)}"
        return "too early" if found["6"] < due else ""

    def _order(self, remote: Remote) -> str:
        batch = self._ordered.pop(remote, 30_000, order=True)
        if [message.text for message in batch] != ["1", "2", "3"]:
            return f"came: {[message.text for message in batch]}"
        for message in batch:
            self._ordered.ack(remote, message)
        return ""

    def _nothing(self, remote: Remote) -> str:
        time.sleep(5)
        found = self._plain.pop(remote, 1000) + self._ordered.pop(remote, 1000, order=True)
        return _said("came again", found)


def _said(what: str, found: list[Popped]) -> str:
    return f"{what}: {[message.text for message in found]}" if found else ""


def run(namesrv: str, report: Report, server: Server) -> None:
    with ThreadPoolExecutor(len(_chosen)) as pool:
        for done in [pool.submit(_run_row, row, report) for row in _chosen]:
            done.result()


def _run_row(row: Row, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="firearrow-pop-") as root:
        Handover(row, Path(root) / "store", report).run()


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
