"""The gRPC service: sends, receives and acknowledgements, against RocketMQ's own proxy in one
process with its broker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

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
ONE_CORE_WARM_UP = 2  # times as long: compiling takes turns with serving there
# More than any side takes in a second; what is left over waits for the next round.
CONSUMED_MAX = 60_000
DRAINED_MAX = 240_000

Server = Firearrow | JavaLocal
Round = Callable[[str, Server], Load]


def one_core(plan: Plan) -> Iterator[Result]:
    """64 calls at a time, both servers on one core, the generator on the other."""
    core = plan.server_core
    with Firearrow(plan.ports.ours, core) as ours, JavaLocal(plan.ports.java, core) as java:
        run = _rounds(plan, plan.generator_core)
        _warm_up(ours, java, plan, run, ONE_CORE_WARM_UP)
        sends = _sides(run, "send", plan, ours, java)
        yield _least("grpc-one-core", "SendMessage", "calls a second", 20_000, sends)
        yield from _compared("grpc-one-core", "SendMessage", sends)
        received = _sides(run, "consume", plan, ours, java)
        yield from _compared("grpc-one-core", "ReceiveMessage, AckMessage", received)


def free(plan: Plan) -> Iterator[Result]:
    """64 calls at a time: Java on every core, ours one process."""
    with Firearrow(plan.ports.ours) as ours, JavaLocal(plan.ports.java) as java:
        run = _rounds(plan, None)
        _warm_up(ours, java, plan, run)
        yield from _compared("grpc", "SendMessage", _sides(run, "send", plan, ours, java))
        received = _sides(run, "consume", plan, ours, java)
        yield from _compared("grpc", "ReceiveMessage, AckMessage", received)
        drained = _sides(run, "drain", plan, ours, java)
        yield _least("grpc", "ReceiveMessage, 32 each", "messages a second", 100_000, drained)


def _rounds(plan: Plan, cores: str | None) -> Round:
    """A round of one mode against one server, with the generator on some cores."""

    def run(mode: str, server: Server) -> Load:
        if mode != "send":
            _prepare(server, mode, plan)
        result = _call(mode, server, plan.seconds, cores)
        if result["empty"] * BATCH > result["messages"] and mode != "send":
            raise LoadError(f"{mode}: the backlog was too small, {result['empty']} got nothing")
        return result

    return run


def _warm_up(ours: Firearrow, java: JavaLocal, plan: Plan, run: Round, times: int = 1) -> None:
    for server in (ours, java):
        _fill(server, 1000)
        _create_group(server)
        _call("consume", server, 1.0)  # the group is known, and reads from the start
    _call("send", java, times * plan.java_warm_up_s)
    for _ in range(times):
        run("consume", java)
        run("consume", java)


def _sides(run: Round, mode: str, plan: Plan, ours: Firearrow, java: JavaLocal) -> list[list[Load]]:
    return in_turns(plan.rounds, [lambda: run(mode, ours), lambda: run(mode, java)])


def _call(mode: str, server: Server, seconds: float, cores: str | None = None) -> Load:
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


def _prepare(server: Server, mode: str, plan: Plan) -> None:
    """Make the backlog larger than what can be taken."""
    a_second = CONSUMED_MAX if mode == "consume" else DRAINED_MAX
    _fill(server, round(a_second * (plan.seconds + ROUND_WARM_UP_S)))
    time.sleep(SETTLE_S * plan.scale)


def _create_group(server: Server) -> None:
    """Java's proxy knows no group that nobody made."""
    with Remote(server.broker) as broker:
        answer = broker.call(
            UPDATE_SUBSCRIPTION_GROUP, body=json.dumps({"groupName": GROUP}).encode()
        )
    if answer.code != 0:
        raise LoadError(f"group {GROUP}: {answer}")


def _fill(server: Server, count: int) -> None:
    port = server.broker_port
    load("fill", port, topic=TOPIC, count=count, connections=8, inflight=16, size=BODY_BYTES)


def _compared(section: str, what: str, loads: Sequence[Sequence[Load]]) -> Iterator[Result]:
    one, other = map(summary, loads)
    case = f"{what}, {CASE}"
    ratio = one["rate"] / other["rate"]
    yield Result(section, case, RATE_TO_JAVA, ratio, Target(least=2.0), one, other)
    yield Result(
        section,
        case,
        "p99, ratio to Java",
        one["p99"] / other["p99"],
        Target(most=1.0),
        {"p99_us": one["p99"]},
        {"p99_us": other["p99"]},
    )


def _least(
    section: str, case: str, what: str, least: float, loads: Sequence[Sequence[Load]]
) -> Result:
    one, other = map(summary, loads)
    return Result(section, case, what, middle(loads[0], "rate"), Target(least=least), one, other)
