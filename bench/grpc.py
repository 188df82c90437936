"""The gRPC service: sends, receives and acknowledgements, against RocketMQ's own proxy in one
process with its broker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence

from bench.generator import GRPC_PROGRAM, Load, LoadError, load, middle, summary
from bench.plan import ROUND_WARM_UP_S, Plan, in_turns
from bench.rates import RATE_TO_JAVA
from bench.results import Result, Target
from bench.servers import Firearrow, JavaLocal
from interop.remoting import Remote

TOPIC = "GrpcBenchmark"
BODY_BYTES = 128
CALLS = {"connections": 8, "inflight": 8}
CASE = "8x8 128 B"
BATCH = 32
GROUP = "benchmark_consumer"
UPDATE_SUBSCRIPTION_GROUP = 200
SETTLE_S = 4.0  # key indexes are built behind the log, when nobody sends
WARM_UP_RECEIVES_S = 10.0  # of Java, on top of the sends
# More than any side takes in a second; what is left over waits for the next round.
CONSUMED_MAX = 30_000
DRAINED_MAX = 150_000


def grpc(plan: Plan) -> Iterator[Result]:
    """64 calls at a time: ours on one core, then Java on every core and ours one process."""
    with Firearrow(plan.ports.ours, plan.server_core) as ours:
        _fill(ours, 1000)
        pinned = [
            _call("send", ours, plan.seconds, plan.generator_core) for _ in range(plan.rounds)
        ]
        yield _least("SendMessage, server on one core", "calls a second", 20_000, [pinned])
    with Firearrow(plan.ports.ours) as ours, JavaLocal(plan.ports.java) as java:
        for server in (ours, java):
            _fill(server, 1000)
            _create_group(server)
        _call("send", java, plan.java_warm_up_s)
        yield from _compared("SendMessage", _sides("send", plan, ours, java))
        for server in (ours, java):
            _call("consume", server, 1.0)  # the group is known, and reads from the start
        _fill(java, round(CONSUMED_MAX * plan.scale))
        _call("consume", java, min(WARM_UP_RECEIVES_S, plan.java_warm_up_s))
        yield from _compared("ReceiveMessage, AckMessage", _sides("consume", plan, ours, java))
        drained = _sides("drain", plan, ours, java)
        yield _least("ReceiveMessage, 32 each", "messages a second", 100_000, drained)


def _sides(mode: str, plan: Plan, ours: Firearrow, java: JavaLocal) -> list[list[Load]]:
    def run(server: Firearrow | JavaLocal) -> Load:
        if mode != "send":
            _prepare(server, mode, plan)
        result = _call(mode, server, plan.seconds)
        if result["empty"] * BATCH > result["messages"] and mode != "send":
            raise LoadError(f"{mode}: the backlog was too small, {result['empty']} got nothing")
        return result

    return in_turns(plan.rounds, [lambda: run(ours), lambda: run(java)])


def _call(
    mode: str, server: Firearrow | JavaLocal, seconds: float, cores: str | None = None
) -> Load:
    timing = {"seconds": seconds, "warmup": ROUND_WARM_UP_S}
    return load(
        mode,
        server.proxy_port,
        cores=cores,
        program=GRPC_PROGRAM,
        topic=TOPIC,
        size=BODY_BYTES,
        batch=BATCH,
        **CALLS,
        **timing,
    )


def _prepare(server: Firearrow | JavaLocal, mode: str, plan: Plan) -> None:
    """Make the backlog larger than what can be taken."""
    a_second = CONSUMED_MAX if mode == "consume" else DRAINED_MAX
    _fill(server, round(a_second * (plan.seconds + ROUND_WARM_UP_S)))
    time.sleep(SETTLE_S * plan.scale)


def _create_group(server: Firearrow | JavaLocal) -> None:
    """Java's proxy knows no group that nobody made."""
    with Remote(server.broker) as broker:
        answer = broker.call(
            UPDATE_SUBSCRIPTION_GROUP, body=json.dumps({"groupName": GROUP}).encode()
        )
    if answer.code != 0:
        raise LoadError(f"group {GROUP}: {answer}")


def _fill(server: Firearrow | JavaLocal, count: int) -> None:
    port = server.broker_port
    load("fill", port, topic=TOPIC, count=count, connections=8, inflight=16, size=BODY_BYTES)


def _compared(what: str, loads: Sequence[Sequence[Load]]) -> Iterator[Result]:
    one, other = map(summary, loads)
    case = f"{what}, {CASE}"
    ratio = one["rate"] / other["rate"]
    yield Result("grpc", case, RATE_TO_JAVA, ratio, Target(least=2.0), one, other)
    yield Result(
        "grpc",
        case,
        "p99, ratio to Java",
        one["p99"] / other["p99"],
        Target(most=1.0),
        {"p99_us": one["p99"]},
        {"p99_us": other["p99"]},
    )


def _least(case: str, what: str, least: float, loads: Sequence[Sequence[Load]]) -> Result:
    sides: list[Mapping[str, float]] = [summary(side) for side in loads]
    other = sides[1] if len(sides) > 1 else {}
    return Result(
        "grpc", case, what, middle(loads[0], "rate"), Target(least=least), sides[0], other
    )
