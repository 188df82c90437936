"""What a server takes when nobody uses it, and how long it takes to be there again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.generator import load
from bench.plan import Plan
from bench.results import Result, Target
from bench.servers import Firearrow, SmallJava
from bench.wire import messages
from interop.servers import Process

IDLE_S = 10.0
STARTS = 5
MESSAGES = 1_000_000
QUEUES = 8
TOPIC = "Reopen"
MEBIBYTE = 1024 * 1024


def idle(plan: Plan) -> Iterator[Result]:
    """Name server and broker, nobody connected."""
    with Firearrow(plan.ports.ours) as ours:
        ready = [ours.ready_s]
        for _ in range(plan.count(STARTS) - 1):
            ours.restart()
            ready.append(ours.ready_s)
        with SmallJava(plan.ports.java) as java:
            time.sleep(2.0)  # what follows a start belongs to the start
            one, other = _idle([ours.process]), _idle(java.processes)
    sizes = Target(most=64)
    yield Result("idle", "up", "MiB resident", one["MiB"], sizes, {}, {"MiB": other["MiB"]})
    cpu, java_cpu = one["cpu_ms"], other["cpu_ms"]
    # One part in a thousand of a core: what one timer a second costs.
    yield Result("idle", "up", "ms CPU in 10 s", cpu, Target(most=10), {}, {"cpu_ms": java_cpu})
    middle = sorted(ready)[len(ready) // 2]
    yield Result("idle", "up", "s until ready, new store", middle, Target(most=0.5))


def _idle(processes: Iterable[Process]) -> dict[str, float]:
    pids = [process.pid for process in processes]
    before = sum(map(_cpu_ns, pids))
    time.sleep(IDLE_S)
    return {
        "MiB": sum(map(_resident, pids)) / MEBIBYTE,
        "cpu_ms": (sum(map(_cpu_ns, pids)) - before) / 1e6,
    }


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _cpu_ns(pid: int) -> int:
    """CPU time of all threads, from the scheduler: the ticks of ``stat`` are too coarse."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def reopen(plan: Plan) -> Iterator[Result]:
    """From the start of the process until it is ready, with a million messages in the store."""
    count = plan.count(MESSAGES)
    with Firearrow(plan.ports.ours) as ours:
        options: dict[str, Any] = {
            "topic": TOPIC,
            "queues": QUEUES,
            "connections": 8,
            "inflight": 64,
        }
        load("fill", ours.broker_port, count=count, size=128, **options)
        ours.kill()
        ours.start_again()
        crashed, found = ours.ready_s, _messages(ours)
        ours.restart()
        clean, found_again = ours.ready_s, _messages(ours)
    case = f"{count} messages"
    yield Result("reopen", case, "s after kill -9", crashed, Target(most=5))
    yield Result("reopen", case, "messages lost by kill -9", count - found, Target(most=0))
    yield Result("reopen", case, "s after a clean stop", clean, Target(most=1))
    yield Result("reopen", case, "messages lost by a stop", count - found_again, Target(most=0))


def _messages(ours: Firearrow) -> int:
    return sum(messages(ours.broker, [(TOPIC, queue_id) for queue_id in range(QUEUES)]))
