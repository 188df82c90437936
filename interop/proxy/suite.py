"""``firearrow proxy`` alone: a gRPC client in front of two brokers, and a remoting client that
knows no other address than the proxy's."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from interop.fleet import BROKER_SETTINGS, Fleet
from interop.go import suite as remoting
from interop.grpc_python import suite as grpc
from interop.results import Report, Result, Server

# A topic is made at a broker, whose address is not the proxy's.
ADMINISTRATION = "create topic"


@dataclass(frozen=True, slots=True)
class Row:
    """One client of the table."""

    suite: Any  # a module of results.py's kind, with one client
    where: str
    brokers: int
    ports: tuple[int, int]

    @property
    def title(self) -> str:
        return f"{self.suite.clients()[0]}, {self.where}"


# A remoting client from before RocketMQ 5 names no broker in its requests: one has to do.
ROWS = [
    Row(grpc, "proxy, 2 brokers", 2, (14876, 14911)),
    Row(remoting, "through a proxy", 1, (15876, 15911)),
]
_chosen = list(ROWS)


def clients() -> list[str]:
    return [row.title for row in ROWS]


def choose(titles: list[str]) -> None:
    """Run only the clients with these titles."""
    _chosen[:] = [row for row in ROWS if row.title in titles]


def unavailable() -> str | None:
    return next(filter(None, (row.suite.unavailable() for row in ROWS)), None)


def prepare() -> None:
    for row in _chosen:
        row.suite.prepare()


def run(namesrv: str, report: Report, server: Server) -> None:
    """Before servers of its own: the given one is not used."""
    with ThreadPoolExecutor(len(_chosen)) as pool:
        list(pool.map(lambda row: _run_row(row, report), _chosen))


def _run_row(row: Row, report: Report) -> None:
    def renamed(result: Result) -> None:
        if result.scenario != ADMINISTRATION:
            report(replace(result, client=row.title))

    with Fleet(
        "firearrow",
        row.ports,
        BROKER_SETTINGS,
        brokers=row.brokers,
        proxy="firearrow",
        through=True,
    ) as fleet:
        row.suite.run(fleet.namesrv, renamed, fleet)


if __name__ == "__main__":
    sys.exit("run it with: python interop/run.py --suite proxy")
