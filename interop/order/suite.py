"""Order under changes: consumers are added and killed (SIGKILL) while messages of many keys come.

Every key's messages must be consumed in order, whoever consumes them, and none may be missing. One
row has two brokers of ours behind ``firearrow proxy``, whatever the server under test.
FIREARROW_ORDER_MESSAGES is how many there are (1,000,000 for the full proof).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interop.fleet import BROKER_SETTINGS, Fleet
from interop.java.jars import fetch_jars, missing_tools
from interop.order.journal import KILLED, Verdict, read_on
from interop.program import cache_directory
from interop.remoting import Remote
from interop.results import Report, Result, Server

HERE = Path(__file__).parent
MESSAGES = int(os.environ.get("FIREARROW_ORDER_MESSAGES", "20000"))
KEYS_MAX = 1000
QUEUES = 16
MEMBERS = 3
# When so much is consumed, a member is added or killed. A queue of one that was killed stays locked
# for a minute, as with the Java broker.
CHANGES = ((0.1, "add"), (0.2, "kill"), (0.3, "add"), (0.4, "kill"), (0.5, "add"), (0.6, "kill"))
RUN_SECONDS_MAX = 230
SCENARIO = "order while members change"


@dataclass(frozen=True, slots=True)
class Row:
    """One client, and what it sends and consumes with."""

    title: str
    version: str
    artifact: str
    main: str
    sources: str
    share: float  # of the messages: one by one they take longer
    grpc: bool = False
    brokers: int = 1  # more: of ours, behind ``firearrow proxy``


PORTS = (16876, 16911)  # of the name server and first broker of several
GRPC = ("5.2.0", "rocketmq-client-java", "Fifo", "src_grpc", 0.02, True)
ROWS = [
    Row("Java 5.5.0, orderly push", "5.5.0", "rocketmq-client", "Ordered", "src", 1.0),
    Row("Java gRPC 5.2.0, FIFO", *GRPC),
    Row("Java gRPC 5.2.0, FIFO, proxy, 2 brokers", *GRPC, brokers=2),
]
_chosen = list(ROWS)


def clients() -> list[str]:
    return [row.title for row in ROWS]


def choose(titles: list[str]) -> None:
    """Run only the clients with these titles."""
    _chosen[:] = [row for row in ROWS if row.title in titles]


def unavailable() -> str | None:
    return missing_tools()


def _source(row: Row) -> Path:
    return HERE / row.sources / f"{row.main}.java"


def _classes(row: Row) -> Path:
    digest = hashlib.sha256(_source(row).read_bytes()).hexdigest()[:12]
    return cache_directory("java") / f"order-{row.main}-{digest}"


def prepare() -> None:
    for row in _chosen:
        jars, classes = fetch_jars(row.version, row.artifact), _classes(row)
        if classes.exists():
            continue
        for stale in classes.parent.glob(f"order-{row.main}-*"):
            shutil.rmtree(stale)
        building = classes.with_name(f"building-order-{row.main}")
        command = ["javac", "-nowarn", "--release", "11", "-d", str(building), "-cp", f"{jars}/*"]
        subprocess.run([*command, str(_source(row))], check=True)
        building.rename(classes)


def run(namesrv: str, report: Report, server: Server) -> None:
    for row in _chosen:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="firearrow-interop-order-") as home:
            try:
                with _server(row, server) as given:
                    ok, detail = _Play(row, Path(home), given).run()
            except (OSError, RuntimeError) as error:
                ok, detail = False, f"it broke off: {error!r}"
        report(Result(row.title, SCENARIO, ok, time.monotonic() - started, detail))


def _server(row: Row, server: Server) -> contextlib.AbstractContextManager[Server]:
    if row.brokers == 1:
        return contextlib.nullcontext(server)
    return Fleet("firearrow", PORTS, BROKER_SETTINGS, brokers=row.brokers, proxy="firearrow")


class _Play:
    """One row's run."""

    def __init__(self, row: Row, home: Path, server: Server) -> None:
        self._row = row
        self._home = home
        self._address = server.proxy if row.grpc else server.namesrv
        self._journal = home / "journal"
        self._journal.touch()
        messages = max(2000, round(MESSAGES * row.share))
        self._keys = min(KEYS_MAX, messages // 20)
        self._per_key = messages // self._keys
        self._topic = f"order-{row.main}-{uuid.uuid4().hex[:8]}"
        self._group = f"group-{self._topic}"
        self._members: list[subprocess.Popen[bytes]] = []
        for broker in server.brokers:
            self._create(broker)
        time.sleep(1)  # the name server hears of it

    def _create(self, broker: str) -> None:
        topic = {"topic": self._topic, "readQueueNums": QUEUES, "writeQueueNums": QUEUES, "perm": 6}
        topic |= {"defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "order": "false"}
        topic |= {"topicSysFlag": 0, "attributes": "+message.type=FIFO" if self._row.grpc else ""}
        group = f'{{"groupName":"{self._group}","consumeMessageOrderly":true}}'
        with Remote(broker) as remote:
            for code, ext, body in ((17, topic, b""), (200, {}, group.encode())):
                answer = remote.call(code, ext, body)
                if answer.code:
                    raise RuntimeError(f"request {code} was refused: {answer}")

    def run(self) -> tuple[bool, str]:
        """Whether all is as it should be, and the counts."""
        wanted = self._keys * self._per_key
        deadline = time.monotonic() + RUN_SECONDS_MAX
        changes = list(CHANGES)
        producer = None
        killed = added = 0
        try:
            for _ in range(MEMBERS):
                self._add()
            producer = self._start("send", self._topic, str(self._keys), str(self._per_key))
            progress = self._progress()
            for verdict in progress:
                if changes and verdict.consumed >= changes[0][0] * wanted:
                    if changes.pop(0)[1] == "add":
                        self._add()
                        added += 1
                    else:
                        self._kill()
                        killed += 1
                done = verdict.consumed >= wanted and not changes
                if done or time.monotonic() > deadline:
                    break
            sent = producer.wait(10)
            time.sleep(2)  # what comes twice has time to come
        finally:
            for process in [*self._members, *([producer] if producer else [])]:
                process.kill()
                process.wait()
        verdict = next(progress)
        lost = verdict.lost(self._keys, self._per_key)
        detail = (
            f"{wanted} messages of {self._keys} keys, {added} members added, {killed} killed: "
            f"{verdict.inversions} inversions, {lost} lost, {verdict.repeats} again after a kill, "
            f"{verdict.unexplained} again without one {verdict.first_wrong}"
        ).strip()
        wrong = verdict.inversions or lost or verdict.unexplained or sent or changes
        return not wrong, detail

    def _progress(self) -> Iterator[Verdict]:
        """What the journal says so far, again and again."""
        verdict, rest = Verdict(), ""
        with self._journal.open() as journal:
            while True:
                *lines, rest = (rest + journal.read()).split("\n")
                read_on(verdict, lines)
                yield verdict
                time.sleep(0.1)

    def _add(self) -> None:
        self._members.append(self._start("consume", self._topic, self._group, str(self._journal)))

    def _kill(self) -> None:
        """The oldest one."""
        process = self._members.pop(0)
        process.kill()
        process.wait()
        with self._journal.open("a") as journal:
            journal.write(f"{KILLED} {process.pid} 0\n")

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        row, home = self._row, self._home
        java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx300m"]
        java += [f"-Duser.home={home}", f"-Drocketmq.client.logRoot={home}/logs"]
        java += [f"-Drocketmq.log.root={home}/logs"]
        java += ["-Drocketmq.client.rebalance.waitInterval=4000"]
        java += ["-cp", f"{_classes(row)}:{fetch_jars(row.version, row.artifact)}/*", row.main]
        output = home / f"{what}-{uuid.uuid4().hex[:8]}"
        with output.open("wb") as out:
            return subprocess.Popen(
                [*java, what, self._address, *arguments], stdout=out, stderr=subprocess.STDOUT
            )
