"""What many topics cost: making them, sending to them, keeping them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.generator import Load, load, middle
from bench.plan import Plan, in_turns
from bench.results import Result, Target
from bench.servers import Firearrow, Java
from bench.wire import messages, topics

NEW_TOPICS = 20_000
NEW_TOPICS_JAVA = 500  # it needs about five seconds for them
QUEUES = 8
TOPIC_COUNTS = (1, 100, 10_000)
IN_FLIGHT = {"connections": 32, "inflight": 1}


def new_topics(plan: Plan) -> Iterator[Result]:
    """One first message to each of many new topics; then kill -9, and is each of them there?"""
    count = plan.count(NEW_TOPICS)
    with Firearrow(plan.ports.ours) as ours, Java(plan.ports.java) as java:
        java.warm_up(plan.java_warm_up_s)
        other = load(
            "topics",
            java.broker_port,
            topic="new",
            count=plan.count(NEW_TOPICS_JAVA),
            connections=32,
        )
        one = load("topics", ours.broker_port, topic="new", count=count, connections=32)
        ours.kill()
        ours.start_again()
        table = topics(ours.broker)
        lost = sum(f"new-{n}" not in table for n in range(count))
        some = [(f"new-{n}", 0) for n in range(0, count, 97)]
        empty = sum(held != 1 for held in messages(ours.broker, some))
    yield Result(
        "new-topics",
        f"{count} topics",
        "a second",
        one["rate"],
        Target(least=2000),
        {"p50": one["p50"], "p99": one["p99"]},
        {"rate": other["rate"], "p50": other["p50"], "p99": other["p99"]},
    )
    yield Result("new-topics", "after kill -9", "topics lost", lost, Target(most=0))
    yield Result("new-topics", "after kill -9", "first messages lost", empty, Target(most=0))


def many_topics(plan: Plan) -> Iterator[Result]:
    """Sends spread over topics of 8 queues, and what a queue takes in memory.

    Queues that get a message now and then are written to their files after a minute; so once with
    that outside the rounds, and once with all queues so eager that their files are made meanwhile.
    """
    yield from _spread(plan, "", {})
    eager = {"flushConsumeQueueThoroughInterval": 1000}
    yield from _spread(plan, ", files being made", eager)


def _spread(plan: Plan, kind: str, settings: Mapping[str, object]) -> Iterator[Result]:
    with Firearrow(plan.ports.ours, plan.server_core, settings) as ours:
        counts = [plan.count(number) for number in TOPIC_COUNTS]
        _touch(ours, counts[0])
        before = _own_memory(ours)
        for number in counts[1:]:
            _touch(ours, number)
        queues = sum(counts[1:]) * QUEUES
        waiting = _own_memory(ours) - before
        rounds = in_turns(
            plan.rounds,
            [lambda n=number: _send(plan, ours, n) for number in counts],  # type: ignore[misc]
        )
    base = middle(rounds[0], "rate")
    for number, loads in zip(counts, rounds, strict=True):
        yield Result(
            "many-topics",
            f"{number} topics{kind}",
            "send rate, ratio to one topic",
            middle(loads, "rate") / base,
            Target(least=0.9),
            {"rate": middle(loads, "rate"), "p99": middle(loads, "p99")},
        )
    if not kind:
        memory = waiting / queues
        bound = Target(most=1024)
        yield Result(
            "many-topics", f"{queues} queues", "bytes a queue, one message each", memory, bound
        )


def _touch(ours: Firearrow, number: int) -> None:
    """One message to every queue of every topic."""
    options: dict[str, Any] = {"topic": f"of{number}", "topics": number, "queues": QUEUES}
    load("fill", ours.broker_port, connections=8, inflight=8, count=number * QUEUES, **options)


def _send(plan: Plan, ours: Firearrow, number: int) -> Load:
    options = plan.send("32x1", 128, topic=f"of{number}", topics=number, queues=QUEUES)
    return load("send", ours.broker_port, cores=plan.generator_core, **options)


def _own_memory(ours: Firearrow) -> int:
    """Bytes of the process that no file stands behind."""
    status = Path(f"/proc/{ours.process.pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
