"""One cluster of Java and Firearrow processes: a name server and a broker of each kind, every
broker registered with both name servers."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from interop.cluster import dialogue, java
from interop.java.jars import fetch_jars, missing_tools
from interop.mqadmin.jvm import Mqadmin, compile_runner
from interop.mqadmin.mask import mask
from interop.program import run_alone
from interop.remoting import Remote
from interop.results import Report, Result, Server
from interop.servers import JAVA_VERSION, FirearrowServer, JavaServer

TITLE = f"cluster with Java {JAVA_VERSION}"
OURS, JAVAS = "127.0.0.1:12876", "127.0.0.1:12776"  # name servers
BOTH = f"{OURS};{JAVAS}"
OUR_BROKER, JAVA_BROKER = "broker-f", "broker-j"
TOPIC = "Spread"
MESSAGES = 80
NAMESRV = {"notifyMinBrokerIdChanged": "true", "scanNotActiveBrokerInterval": 500}
BROKER = {"registerNameServerPeriod": 10_000}
ROUTE_SECONDS_MAX = 15.0
# How soon clients must stop finding a broker that left or died.
GONE_SECONDS_MAX = 2.0

# Asked of both name servers; what they print must be the same.
COMMANDS = [
    "clusterList",
    "clusterList -m",
    f"topicClusterList -t {TOPIC}",
    f"topicRoute -t {TOPIC}",
    f"wipeWritePerm -b {JAVA_BROKER}",
    f"topicRoute -t {TOPIC}",
    f"addWritePerm -b {JAVA_BROKER}",
    "wipeWritePerm -b nobody",
    f"topicRoute -t {TOPIC}",
    f"updateOrderConf -t {TOPIC} -m put -v {JAVA_BROKER}:4;{OUR_BROKER}:4",
    f"updateOrderConf -t {TOPIC} -m get",
    f"updateOrderConf -t {TOPIC} -m delete",
    f"updateOrderConf -t {TOPIC} -m get",  # both say that there is none
    "updateKvConfig -s NAMES -k gone -v value",
    "deleteKvConfig -s NAMES -k gone",
    "updateKvConfig -s NAMES -k kept -v value",
    "updateNamesrvConfig -k orderMessageEnable -v true",
    f"updateOrderConf -t {TOPIC} -m put -v {JAVA_BROKER}:4;{OUR_BROKER}:2",
    f"topicRoute -t {TOPIC}",
]


def clients() -> list[str]:
    return [TITLE]


def unavailable() -> str | None:
    return missing_tools()


def prepare() -> None:
    fetch_jars(JAVA_VERSION, "rocketmq-namesrv", "rocketmq-broker")
    compile_runner()
    for version in java.VERSIONS:
        java.compile_spread(version)


class Cluster:
    """Four processes and the scenarios they are good for."""

    def __init__(self, home: Path, report: Report) -> None:
        self._home = home
        self._report = report
        self._our_namesrv = FirearrowServer(12876, 0, namesrv_settings=NAMESRV)
        self._java_namesrv = JavaServer(12776, 0, namesrv_settings=NAMESRV)
        settings = {**BROKER, "brokerName": OUR_BROKER}
        self._our_broker = FirearrowServer(0, 12911, namesrv_addr=BOTH, settings=settings)
        settings = {**BROKER, "brokerName": JAVA_BROKER}
        self._java_broker = JavaServer(0, 12811, namesrv_addr=BOTH, settings=settings)

    def check(self, scenario: str, find: Callable[[], list[str]]) -> None:
        """Report a scenario: it is fine when nothing is found."""
        started = time.monotonic()
        try:
            found = find()
        except Exception as error:
            found = [repr(error)]
        seconds = time.monotonic() - started
        self._report(Result(TITLE, scenario, not found, seconds, " | ".join(found)[:3000]))

    def run(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._our_namesrv)
            stack.enter_context(self._java_namesrv)
            self.check("name servers say the same", _dialogues)
            stack.enter_context(self._our_broker)
            stack.enter_context(self._java_broker)
            self.check("both brokers are at both", self._routes)
            self.check("mqadmin makes a topic", self._make_topic)
            self.check("clients spread", self._spread)
            self.check("mqadmin at both", self._mqadmin)
            self.check("key values outlive a restart", self._restart)
            self.check("brokers come back", self._routes)
            self.check("a stop leaves at once", lambda: self._leaves(OUR_BROKER))
            self.check("a kill leaves at once", lambda: self._leaves(JAVA_BROKER))

    def _routes(self) -> list[str]:
        """Both name servers have the same brokers and topics, each with the same route."""
        with Remote(OURS) as ours, Remote(JAVAS) as javas:
            for remote in (ours, javas):
                for name in (OUR_BROKER, JAVA_BROKER):
                    _await_route(remote, name)
            time.sleep(0.5)  # the other topics of a registration in parts
            found = [_topics(remote) for remote in (ours, javas)]
        return _differences(*found)

    def _make_topic(self) -> list[str]:
        (text,) = self._mqadmins([f"updateTopic -n {OURS} -c DefaultCluster -t {TOPIC} -r 4 -w 4"])
        with Remote(OURS) as ours, Remote(JAVAS) as javas:
            for remote in (ours, javas):
                _await_route(remote, TOPIC, brokers=2)
        return [] if text.count("success") == 2 else [text]

    def _mqadmins(self, commands: list[str]) -> list[str]:
        with Mqadmin(self._home, OURS) as mqadmin:
            return [mqadmin.run(command) for command in commands]

    def _spread(self) -> list[str]:
        """Java clients of two releases, through either name server and through both."""
        found = []
        everywhere = (OURS, JAVAS, BOTH)
        with ThreadPoolExecutor(len(java.VERSIONS)) as pool:
            runs = {
                version: pool.submit(java.spread, version, self._home, TOPIC, MESSAGES, *everywhere)
                for version in java.VERSIONS
            }
        expected = {OUR_BROKER: MESSAGES // 2, JAVA_BROKER: MESSAGES // 2}
        for version, run in runs.items():
            for namesrv, counts in zip(everywhere, run.result(), strict=True):
                if counts != {"sent": expected, "received": expected}:
                    found.append(f"{version} at {namesrv}: {counts}")
        return found

    def _mqadmin(self) -> list[str]:
        """Each command at both name servers."""
        words = [[_at(command, namesrv) for command in COMMANDS] for namesrv in (OURS, JAVAS)]
        with ThreadPoolExecutor(2) as pool:
            ours, javas = pool.map(self._mqadmins, words)
        return [
            f"{command}: {mine} instead of {other}"
            for command, mine, other in zip(
                COMMANDS, map(_lines, ours), map(_lines, javas), strict=True
            )
            if mine != other
        ]

    def _restart(self) -> list[str]:
        found = []
        for namesrv in (self._our_namesrv, self._java_namesrv):
            namesrv.kill()
            namesrv.start()
            with Remote(namesrv.namesrv) as remote:
                values = [
                    remote.call(101, {"namespace": "NAMES", "key": key}).ext.get("value")
                    for key in ("kept", "gone")
                ]
            if values != ["value", None]:
                found.append(f"{namesrv.name}: {values}")
        return found

    def _leaves(self, name: str) -> list[str]:
        """The broker goes; how long both name servers go on naming it."""
        ours = name == OUR_BROKER
        started = time.monotonic()
        if ours:
            self._our_broker.stop()
            started = time.monotonic()
        else:
            self._java_broker.kill()
        found = []
        for namesrv in (OURS, JAVAS):
            with Remote(namesrv) as remote:
                while remote.call(105, {"topic": name}).code == 0:
                    time.sleep(0.02)
                    if time.monotonic() - started > GONE_SECONDS_MAX:
                        found.append(f"{namesrv} still has a route to {name}")
                        break
        return found


def _dialogues() -> list[str]:
    return _differences(*(dialogue.hold(namesrv) for namesrv in (OURS, JAVAS)))


def _differences(ours: dict[str, Any], javas: dict[str, Any]) -> list[str]:
    return [
        f"{question}: {ours.get(question)} instead of {javas.get(question)}"
        for question in {**ours, **javas}
        if ours.get(question) != javas.get(question)
    ]


def _await_route(remote: Remote, topic: str, brokers: int = 1) -> None:
    deadline = time.monotonic() + ROUTE_SECONDS_MAX
    while time.monotonic() < deadline:
        answer = remote.call(105, {"topic": topic})
        if answer.code == 0 and len(answer.json()["brokerDatas"]) >= brokers:
            return
        time.sleep(0.05)
    raise TimeoutError(f"no route to {topic} in {ROUTE_SECONDS_MAX} s")


def _topics(remote: Remote) -> dict[str, Any]:
    """Every topic's route, and the cluster, in an order of our own."""
    names = sorted(remote.ask(206).json()["topicList"])
    routes = {name: _sorted(remote.ask(105, {"topic": name}).json()) for name in names}
    return {**routes, "the cluster": _sorted(remote.ask(106).json())}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return sorted((_sorted(item) for item in value), key=str)
    return value


def _at(command: str, namesrv: str) -> str:
    name, _, rest = command.partition(" ")
    return f"{name} -n {namesrv} {rest}"


def _lines(text: str) -> list[str]:
    replaced = dict.fromkeys((OURS, JAVAS), "127.0.0.1:BROKER")
    return sorted(mask(text, replaced))


def run(namesrv: str, report: Report, server: Server) -> None:
    with tempfile.TemporaryDirectory(prefix="firearrow-cluster-") as home:
        Cluster(Path(home), report).run()


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
