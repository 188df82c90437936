"""Half messages in flight while their store changes hands: Java broker, Firearrow, and back.

Whoever opens the store asks about exactly those that nobody ended, takes ends by the offsets that
the other one told, and delivers what is committed once.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from interop.java.jars import fetch_jars, missing_tools
from interop.program import run_alone
from interop.remoting import Remote
from interop.results import Report, Result, Server
from interop.servers import JAVA_VERSION, FirearrowServer, JavaServer
from interop.store.load import send
from interop.store.questions import read_queue

from firearrow.codec.record import decode_record

TITLE = "store, transactions"
TOPIC = "Payments"
GROUP = "writers"  # whom ``send`` says it is
PORTS = (17811, 17911)  # Java's and ours
SETTINGS: Mapping[str, object] = {
    "brokerName": "broker-a",
    # Both above the 3000 ms within which a Java broker marks an end: it asks needlessly else.
    "transactionCheckInterval": 6000,
    "transactionTimeOut": 4000,
    "transactionCheckMax": 100,
    "flushConsumerOffsetInterval": 1000,
    "mappedFileSizeCommitLog": 64 * 1024 * 1024,
}
COMMIT, ROLLBACK = 8, 12
SETTLE_S = 12.0  # the time-out, the interval, and some
EACH = 40  # messages of every kind


class Producer:
    """A producer of the group: its connection, and what it sent and was asked."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.checks: list[tuple[str, dict[str, str]]] = []

    def half(self, body: str) -> tuple[int, int]:
        """Send a half message; its offset in the half queue and in the log."""
        properties = {"UNIQ_KEY": body, "TRAN_MSG": "true", "PGROUP": GROUP, "KEYS": body}
        ext = send(self._remote, TOPIC, 0, body.encode(), properties, sys_flag=4)
        return int(ext["queueOffset"]), int(ext["msgId"][-16:], 16)

    def end(self, half: tuple[int, int], decision: int, *, asked: bool = False) -> None:
        fields = {
            "producerGroup": GROUP,
            "tranStateTableOffset": half[0],
            "commitLogOffset": half[1],
            "commitOrRollback": decision,
            "fromTransactionCheck": str(asked).lower(),
            "msgId": "any",
        }
        self._remote.ask(37, fields)

    def listen(self, seconds: float, decide: Callable[[str], int]) -> None:
        """Stay online, and answer checks: COMMIT, ROLLBACK, or nothing for 0."""
        beat = {"clientID": "producer", "producerDataSet": [{"groupName": GROUP}]}
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._remote.ask(34, body=json.dumps({**beat, "consumerDataSet": []}).encode())
            while self._remote.requests:
                header, data = self._remote.requests.popleft()
                if header["code"] == 39:
                    self._asked(header["extFields"], data, decide)
            time.sleep(0.1)

    def _asked(self, ext: dict[str, str], data: bytes, decide: Callable[[str], int]) -> None:
        body = decode_record(data).body.decode()
        self.checks.append((body, ext))
        decision = decide(body)
        if decision:
            half = int(ext["tranStateTableOffset"]), int(ext["commitLogOffset"])
            self.end(half, decision, asked=True)


class Handover:
    """One store and what must become of every message in it."""

    def __init__(self, root: Path, report: Report) -> None:
        self._store = root / "store"
        self._report = report
        self._expected: set[str] = set()  # what is delivered in the end
        self._late: dict[str, tuple[int, int]] = {}  # ended under the next broker
        self._silent: set[str] = set()  # nobody ended them yet

    def begin(self, producer: Producer, word: str) -> None:
        """Send messages of every kind, and end those that are ended at once."""
        for n in range(EACH):
            producer.end(producer.half(f"{word} commit {n}"), COMMIT)
            producer.end(producer.half(f"{word} rollback {n}"), ROLLBACK)
            for kind in ("silent commit", "silent rollback", "silent"):
                producer.half(f"{word} {kind} {n}")
                self._silent.add(f"{word} {kind} {n}")
            self._expected.add(f"{word} commit {n}")

    def end_later(self, producer: Producer, word: str) -> None:
        """Send messages that nobody is asked about before this broker goes. A Java broker that
        stops takes its time, and asks meanwhile."""
        for n in range(EACH):
            self._late[f"{word} late {n}"] = producer.half(f"{word} late {n}")

    def take_over(self, remote: Remote, producer: Producer) -> list[str]:
        """End what the broker before left open; what is not as it should be."""
        for n, (body, half) in enumerate(self._late.items()):
            producer.end(half, (COMMIT, ROLLBACK)[n % 2])
            if n % 2 == 0:
                self._expected.add(body)
        late, self._late = set(self._late), {}
        producer.listen(SETTLE_S, decide)
        asked = Counter(body for body, _ in producer.checks)
        found = [f"{body} was asked about, but is ended" for body in late if asked[body]]
        found += [f"nobody was asked about {body}" for body in self._silent if not asked[body]]
        others = asked.keys() - self._silent - late
        found += [f"{body} was asked about" for body in sorted(others)]
        for body in asked:
            if decide(body):
                found += [f"{body} was asked about again"] if asked[body] > 1 else []
                self._silent.discard(body)
                if decide(body) == COMMIT:
                    self._expected.add(body)
        return found + self.delivered(remote)

    def delivered(self, remote: Remote) -> list[str]:
        got = Counter(r.body.decode() for r in read_queue(remote, TOPIC, 0).decoded)
        found = [f"{body} came {n} times" for body, n in got.items() if n > 1]
        found += [f"{body} is lost" for body in sorted(self._expected - got.keys())]
        return found + [f"{body} came" for body in sorted(got.keys() - self._expected)]

    def check(self, scenario: str, found: list[str], started: float) -> None:
        detail = " | ".join(found[:5]) + (f" | and {len(found) - 5} more" if found[5:] else "")
        self._report(Result(TITLE, scenario, not found, time.monotonic() - started, detail))

    def step(
        self, server: JavaServer | FirearrowServer, word: str, scenario: str, *, kill: bool = False
    ) -> None:
        """One broker has the store: it takes over, gets messages of its own, and goes."""
        started = time.monotonic()
        with server, Remote(server.broker) as remote:
            producer = Producer(remote)
            producer.listen(0.5, lambda body: 0)
            if scenario:
                self.check(scenario, self.take_over(remote, producer), started)
            if word:
                self.begin(producer, word)
                # One round of checks without an answer, and every end is marked.
                producer.listen(SETTLE_S, lambda body: 0)
                if kill or isinstance(server, FirearrowServer):
                    self.end_later(producer, word)
            if kill:
                server.kill()

    def run(self) -> None:
        self.step(self._java(), "java", "")
        self.step(self._ours(), "ours", "Java stops, we go on")
        self.step(self._java(), "again", "we stop, Java goes on")
        self.step(self._ours(), "killed", "Java stops, we go on again", kill=True)
        self.step(self._java(), "dead", "we are killed, Java goes on", kill=True)
        self.step(self._ours(), "", "Java is killed, we go on")

    def _java(self) -> JavaServer:
        return JavaServer(0, PORTS[0], settings=SETTINGS, store=self._store)

    def _ours(self) -> FirearrowServer:
        return FirearrowServer(0, PORTS[1], settings=SETTINGS, store=self._store)


def decide(body: str) -> int:
    """What the producer answers when it is asked, whichever broker asks."""
    if "silent commit" in body:
        return COMMIT
    return ROLLBACK if "silent rollback" in body else 0


def clients() -> list[str]:
    return [TITLE]


def unavailable() -> str | None:
    return missing_tools()


def prepare() -> None:
    fetch_jars(JAVA_VERSION, "rocketmq-namesrv", "rocketmq-broker")


def run(namesrv: str, report: Report, server: Server) -> None:
    with tempfile.TemporaryDirectory(prefix="firearrow-transactions-") as root:
        Handover(Path(root), report).run()


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
