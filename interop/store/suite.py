"""One store in turn under the Java broker and under Firearrow: whoever opens it answers every
question as the one before did, after a clean stop and after kill -9."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from interop.java.jars import fetch_jars, missing_tools
from interop.program import run_alone
from interop.remoting import Remote
from interop.results import Report, Result, Server
from interop.servers import JAVA_VERSION, FirearrowServer, JavaServer
from interop.store import halves
from interop.store.check import late, lost_or_doubled
from interop.store.load import GROUP, LEVEL_AFTER, ORDERS, QUEUES, Load, seed
from interop.store.questions import Answers, ask_everything, differences

from firearrow.codec import lenient_json

SAVED_SECONDS_MAX = 20
SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One store: how large its files are, and where its brokers listen."""

    title: str
    settings: Mapping[str, object]
    ports: tuple[int, int]  # Java's and ours
    messages: int  # in each round


_EVERY = {
    "brokerName": "broker-a",
    "flushConsumerOffsetInterval": 1000,
    "flushDelayOffsetInterval": 1000,
    **halves.SETTINGS,
}
SMALL_FILES = {
    "mappedFileSizeCommitLog": 256 * 1024,
    "mappedFileSizeConsumeQueue": 100 * 20,
    "mapperFileSizeBatchConsumeQueue": 10 * 46,
    "maxHashSlotNum": 1000,
    "maxIndexNum": 900,
}
ROWS = [
    Row("store, small files", {**_EVERY, **SMALL_FILES}, (19811, 19911), 900),
    Row("store, 1 GiB files", {**_EVERY, "mappedFileSizeCommitLog": 1 << 30}, (19821, 19921), 600),
]


_chosen = list(ROWS)


def clients() -> list[str]:
    return [row.title for row in ROWS]


def choose(titles: list[str]) -> None:
    """Run only these rows."""
    _chosen[:] = [row for row in ROWS if row.title in titles]


def unavailable() -> str | None:
    return missing_tools()


def prepare() -> None:
    fetch_jars(JAVA_VERSION, "rocketmq-namesrv", "rocketmq-broker")


class Chain:
    """One store and its history."""

    def __init__(self, row: Row, root: Path, report: Report) -> None:
        self._row = row
        self._store = root / "store"
        self._report = report
        self._load = Load(row.messages)
        self._halves = halves.Halves()
        self._truth: Answers = {}
        self._started = time.monotonic()
        seed(self._store)

    @contextlib.contextmanager
    def java(self) -> Iterator[tuple[JavaServer, Remote]]:
        port = self._row.ports[0]
        with (
            JavaServer(0, port, settings=self._row.settings, store=self._store) as server,
            Remote(server.broker) as remote,
        ):
            yield server, remote

    @contextlib.contextmanager
    def ours(self) -> Iterator[tuple[FirearrowServer, Remote]]:
        port = self._row.ports[1]
        with (
            FirearrowServer(0, port, settings=self._row.settings, store=self._store) as server,
            Remote(server.broker) as remote,
        ):
            yield server, remote

    def check(self, scenario: str, find: Callable[[], list[str]]) -> None:
        """Report a scenario: it is fine when nothing is found."""
        try:
            found = find()
        except Exception as error:
            found = [repr(error)]
        more = f" | and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
        detail = " | ".join(found[:SHOWN_MAX]) + more
        seconds, self._started = time.monotonic() - self._started, time.monotonic()
        self._report(Result(self._row.title, scenario, not found, seconds, detail))

    def compare(self, remote: Remote) -> list[str]:
        """What is answered otherwise than by the broker before, or was lost on the way."""
        found = differences(self._truth, ask_everything(remote, QUEUES))
        # Messages that became due in between are given back by now.
        # A Java broker that stops asks about transactions first, which moves their offsets.
        ignored = f"delay progress {LEVEL_AFTER}"
        asked = "CID_RMQ_SYS_TRANS"
        changed = [line for line in found if not line.startswith(ignored) and asked not in line]
        lost = lost_or_doubled(remote, self._load.written)
        return changed + lost + self._halves.miscounted(self._store)

    def write(self, remote: Remote) -> None:
        """Another round; then what this broker answers is the truth for the next one."""
        self._load.write(remote)
        self._halves.write(remote)
        time.sleep(1.2)  # what was delayed by a second is given back; counts are saved
        self._truth = ask_everything(remote, QUEUES)

    def await_saved(self) -> None:
        """Wait until the committed offsets are in their file: what a killed broker keeps."""
        wanted = self._load.written.committed[ORDERS, 0]
        file = self._store / "config" / "consumerOffset.json"
        deadline = time.monotonic() + SAVED_SECONDS_MAX
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                table = lenient_json.loads(file.read_bytes())["offsetTable"]
                if table[f"{ORDERS}@{GROUP}"]["0"] == wanted:
                    return
            time.sleep(0.05)
        raise TimeoutError("the committed offsets were never saved")

    def run(self) -> None:
        with self.java() as (_, remote):
            self.write(remote)
        with self.ours() as (_, remote):
            self.check("Java stops, we open", lambda: self.compare(remote))
            self.write(remote)
        with self.java() as (server, remote):
            self.check("we stop, Java opens", lambda: self.compare(remote))
            self.write(remote)
            self.await_saved()
            server.kill()
        with self.ours() as (ours, remote):
            self.check("Java is killed, we open", lambda: self.compare(remote))
            self.write(remote)
            self.await_saved()
            ours.kill()
        with self.java() as (_, remote):
            self.check("we are killed, Java opens", lambda: self.compare(remote))
            self.write(remote)
        with self.ours() as (_, remote):
            self.check("Java wrote on, we open", lambda: self.compare(remote))
            self.check("delayed messages came", lambda: [*late(remote, self._load.written)])


def run(namesrv: str, report: Report, server: Server) -> None:
    with ThreadPoolExecutor(len(_chosen)) as pool:
        for done in [pool.submit(_run_row, row, report) for row in _chosen]:
            done.result()


def _run_row(row: Row, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="firearrow-store-") as root:
        Chain(row, Path(root), report).run()


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
