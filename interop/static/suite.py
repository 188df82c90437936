"""A static topic that `mqadmin` makes and moves between two brokers and back: a Java client sends
and receives through its logical queues, and everything is still received, in order."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interop.java.jars import fetch_jars, missing_tools
from interop.mqadmin.jvm import Mqadmin, compile_runner
from interop.program import run_alone
from interop.remoting import Remote
from interop.results import Report, Result, Server
from interop.servers import JAVA_VERSION, FirearrowServer, JavaServer, LocalServer
from interop.static.client import Client, Seen, compile_client

TOPIC = "Static"
QUEUES = 2
MESSAGES = 20  # of each step
OFFSETS_STEP = 10_000  # where mqadmin begins a new item behind one that has a few messages
FIRST, SECOND = "broker-a", "broker-b"
LOGICAL_BROKER = "__syslo__"  # begins the client's name for whoever leads a logical queue
ROUTE_SECONDS_MAX = 10.0
GET_ROUTEINFO_BY_TOPIC, GET_TOPIC_CONFIG = 105, 351

Kind = type[FirearrowServer] | type[JavaServer]


@dataclass(frozen=True, slots=True)
class Row:
    """Whose the name server and the brokers are."""

    title: str
    mixed: bool  # the first broker Java's, the rest ours; else all are of the kind under test
    ports: tuple[int, int, int]  # of the name server and of the brokers


ROWS = [
    Row("static, two brokers", False, (11876, 11911, 11951)),
    Row(f"static, with Java {JAVA_VERSION}", True, (11776, 11811, 11851)),
]
_chosen = list(ROWS)


def clients() -> list[str]:
    return [row.title for row in ROWS]


def choose(titles: list[str]) -> None:
    """Run only the clients with these titles."""
    _chosen[:] = [row for row in ROWS if row.title in titles]


def unavailable() -> str | None:
    return missing_tools()


def prepare() -> None:
    fetch_jars(JAVA_VERSION, "rocketmq-namesrv", "rocketmq-broker")
    compile_runner()
    compile_client()


class Play:
    """One static topic on two brokers."""

    def __init__(
        self,
        title: str,
        brokers: dict[str, LocalServer],
        mqadmin: Mqadmin,
        client: Client,
        report: Report,
    ) -> None:
        self._title = title
        self._brokers = brokers
        self._namesrv = brokers[FIRST].namesrv
        self._mqadmin = mqadmin
        self._client = client
        self._report = report
        self._sent: list[Seen] = []

    def run(self) -> None:
        self._check("mqadmin makes it", self._make)
        self._check("send and receive", lambda: self._go_on(0))
        self._check("moved, nothing lost", lambda: self._move(SECOND))
        self._check("moved, offsets go on", lambda: self._go_on(1))
        self._check("mapping outlives a kill", lambda: self._kill(FIRST))
        self._check("moved back, nothing lost", lambda: self._move(FIRST))
        self._check("moved back, offsets go on", lambda: self._go_on(2))

    def _check(self, scenario: str, find: Callable[[], str]) -> None:
        """Report a scenario: it is fine when nothing is found."""
        started = time.monotonic()
        try:
            found = find()
        except Exception as error:
            found = repr(error)
        seconds = time.monotonic() - started
        self._report(Result(self._title, scenario, not found, seconds, found[:3000]))

    def _make(self) -> str:
        said = self._mqadmin.run(
            f"updateStaticTopic -n {self._namesrv} -b {FIRST} -t {TOPIC} -qn {QUEUES}"
        )
        wrong = self._led_by(FIRST)
        return f"{wrong}; mqadmin: {said}" if wrong else ""

    def _move(self, broker: str) -> str:
        """To that broker; what was sent before is received from there."""
        said = self._mqadmin.run(f"remappingStaticTopic -n {self._namesrv} -b {broker} -t {TOPIC}")
        if wrong := self._led_by(broker):
            return f"{wrong}; mqadmin: {said}"
        return self._receive_all()

    def _led_by(self, broker: str) -> str:
        """What is wrong when clients do not find that this broker leads all queues."""
        deadline = time.monotonic() + ROUTE_SECONDS_MAX
        with Remote(self._namesrv) as remote:
            while True:
                answer = remote.call(GET_ROUTEINFO_BY_TOPIC, {"topic": TOPIC})
                route = answer.json() if answer.code == 0 else {}
                mappings = route.get("topicQueueMappingByBroker") or {}
                led = {name: len(of["currIdMap"]) for name, of in mappings.items()}
                if {name: count for name, count in led.items() if count} == {broker: QUEUES}:
                    return ""
                if time.monotonic() > deadline:
                    return f"queues led: {led or answer}"
                time.sleep(0.1)

    def _go_on(self, moves: int) -> str:
        """Send more, whose offsets begin at a new multiple after each move; receive all."""
        sent = self._client.send(MESSAGES)
        self._sent += sent
        begin = moves * OFFSETS_STEP
        expected = list(range(begin, begin + MESSAGES // QUEUES))
        offsets = {queue: [seen.offset for seen in own] for queue, own in _by_queue(sent).items()}
        if offsets != dict.fromkeys(range(QUEUES), expected):
            return f"offsets of what was sent: {offsets}"
        return self._receive_all()

    def _receive_all(self) -> str:
        """A new group gets everything from the first offsets on, once and in order."""
        received = self._client.receive(len(self._sent))
        if others := {seen.broker for seen in received if not _is_logical(seen)}:
            return f"received from {others}"
        for queue, sent in _by_queue(self._sent).items():
            came = _by_queue(received).get(queue, [])
            if [seen[1:] for seen in came] != [seen[1:] for seen in sent]:
                return f"of queue {queue} came {_brief(came)} instead of {_brief(sent)}"
        return ""

    def _kill(self, broker: str) -> str:
        """Where older items are; it knows them afterwards and they are received."""
        before = self._items(broker)
        self._brokers[broker].kill()
        self._brokers[broker].start()
        after = self._items(broker)
        if after != before or len(before) != QUEUES:
            return f"items were {before} and are {after}"
        return self._receive_all()

    def _items(self, broker: str) -> dict[str, Any]:
        with Remote(self._brokers[broker].broker) as remote:
            detail = remote.ask(GET_TOPIC_CONFIG, {"topic": TOPIC, "lo": "true"}).json()
        items: dict[str, Any] = detail["mappingDetail"]["hostedQueues"]
        return items


def _by_queue(messages: list[Seen]) -> dict[int, list[Seen]]:
    queues: dict[int, list[Seen]] = {}
    for seen in messages:
        queues.setdefault(seen.queue, []).append(seen)
    return dict(sorted(queues.items()))


def _is_logical(seen: Seen) -> bool:
    return seen.broker.startswith(LOGICAL_BROKER)


def _brief(messages: list[Seen]) -> str:
    return ", ".join(f"{seen.offset} {seen.body!r}" for seen in messages)


def run(namesrv: str, report: Report, server: Server) -> None:
    """Before servers of its own; those of the first row are of the kind of the given one."""
    kind: Kind = JavaServer if server.name.startswith("java") else FirearrowServer
    with ThreadPoolExecutor(len(_chosen)) as pool:
        for done in [pool.submit(_run_row, row, kind, report) for row in _chosen]:
            done.result()


def _run_row(row: Row, kind: Kind, report: Report) -> None:
    namesrv_port, *ports = row.ports
    address = f"127.0.0.1:{namesrv_port}"
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="firearrow-static-")))
        kinds: tuple[Kind, Kind] = (JavaServer, FirearrowServer) if row.mixed else (kind, kind)
        stack.enter_context(kinds[1](namesrv_port, 0))
        brokers: dict[str, LocalServer] = {}
        for name, broker, port in zip((FIRST, SECOND), kinds, ports, strict=True):
            settings = {"brokerName": name}
            started = broker(0, port, namesrv_addr=address, settings=settings)
            brokers[name] = stack.enter_context(started)
        mqadmin = stack.enter_context(Mqadmin(home, address))
        client = stack.enter_context(Client(home, address, TOPIC))
        Play(row.title, brokers, mqadmin, client, report).run()
        for running in brokers.values():
            running.kill()  # a Java broker takes half a minute to stop


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
