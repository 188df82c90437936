"""``firearrow proxy`` alone in front of two brokers: RocketMQ 5's Java client over gRPC, and the
remoting one that knows no other address than the proxy's."""

from __future__ import annotations

import sys
from dataclasses import replace

from interop.fleet import BROKER_SETTINGS, Fleet
from interop.grpc_java import suite as over_grpc
from interop.java import suite as over_remoting
from interop.results import Report, Result, Server

GRPC, REMOTING = "Java gRPC 5.2.0, TLS", "Java 5.5.0, JSON headers"
SUITES = {GRPC: over_grpc, REMOTING: over_remoting}
BEHIND = ", through a proxy"
PORTS = 34876, 34911
_chosen = list(SUITES)


def clients() -> list[str]:
    return [title + BEHIND for title in SUITES]


def choose(titles: list[str]) -> None:
    """Run only the clients with these titles."""
    _chosen[:] = [title for title in SUITES if title + BEHIND in titles]


def unavailable() -> str | None:
    return over_grpc.unavailable()


def prepare() -> None:
    for title in _chosen:
        SUITES[title].choose([title])
        SUITES[title].prepare()


def run(namesrv: str, report: Report, server: Server) -> None:
    """The given server is not used: it has no second broker."""

    def report_behind(result: Result) -> None:
        report(replace(result, client=result.client + BEHIND))

    fleet = Fleet("firearrow", PORTS, BROKER_SETTINGS, brokers=2, proxy="firearrow", through=True)
    with fleet:
        for title in _chosen:
            SUITES[title].choose([title])
            SUITES[title].run(fleet.namesrv, report_behind, fleet)


if __name__ == "__main__":
    sys.exit("run it with: python interop/run.py --suite proxy")
