"""How fast messages come out: a waiting pull that is woken, and a backlog that is drained."""

from __future__ import annotations

from collections.abc import Iterator

from bench.generator import Load, LoadError, load, middle
from bench.plan import Plan, in_turns
from bench.results import Result, Target
from bench.servers import Firearrow, Java

WAKES = 2000
BACKLOG = 300_000  # messages of 1 KB
QUEUES = 8
BODY_BYTES = 1024
BACKLOG_TOPIC = "Backlog"


def delivery(plan: Plan) -> Iterator[Result]:
    """Both servers on all cores; ours is one process."""
    with Firearrow(plan.ports.ours) as ours, Java(plan.ports.java) as java:
        java.warm_up(plan.java_warm_up_s)
        yield _wake(plan, ours.broker_port, java.broker_port)
        yield from _drain(plan, ours.broker_port, java.broker_port)


def _wake(plan: Plan, ours: int, java: int) -> Result:
    count = plan.count(WAKES)
    one, other = in_turns(
        plan.rounds,
        [lambda p=port: load("wake", p, topic="Wake", count=count) for port in (ours, java)],  # type: ignore[misc]
    )
    return Result(
        "delivery",
        "send to a waiting pull",
        "p50 in microseconds",
        middle(one, "p50"),
        Target(most=1000),
        {key: middle(one, key) for key in ("p50", "p99")},
        {key: middle(other, key) for key in ("p50", "p99")},
    )


def _drain(plan: Plan, ours: int, java: int) -> Iterator[Result]:
    count = plan.count(BACKLOG)
    for port in (ours, java):
        _fill(port, count)
    for case, mode in (
        ("pulls of 32, 8 connections", "pull"),
        ("a push consumer's pulls", "client"),
    ):
        one, other = in_turns(
            plan.rounds,
            [lambda p=port, m=mode: _drained(p, m, count) for port in (ours, java)],  # type: ignore[misc]
        )
        yield Result(
            "delivery",
            case,
            "MB/s of bodies, 1 KB messages",
            _megabytes(one),
            Target(least=200),
            {"messages_per_second": middle(one, "rate")},
            {"MB/s": _megabytes(other), "messages_per_second": middle(other, "rate")},
        )


def _megabytes(loads: list[Load]) -> float:
    return middle(loads, "rate") * BODY_BYTES / 1e6


def _fill(port: int, count: int) -> None:
    """Exactly ``count`` messages, spread over the queues as a producer does."""
    load(
        "fill", port, topic=BACKLOG_TOPIC, connections=8, inflight=16, size=BODY_BYTES, count=count
    )


def _drained(port: int, mode: str, count: int) -> Load:
    result = load(mode, port, topic=BACKLOG_TOPIC, connections=QUEUES, queues=QUEUES, count=count)
    if int(result["messages"]) != count:
        raise LoadError(f"{mode}: {result['messages']} messages came, {count} were sent")
    return result
