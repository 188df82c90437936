"""Sends a second: against an echo server, and against RocketMQ's broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.generator import Load, load, summary
from bench.plan import Plan, in_turns
from bench.results import Result, Target
from bench.servers import Firearrow, Java, echo_server

RATE_TO_JAVA = "rate, ratio to Java"


def echo(plan: Plan) -> Iterator[Result]:
    """How near a send comes to what the loop and the kernel allow at all."""
    server, generator = plan.server_core, plan.generator_core
    with Firearrow(plan.ports.ours, server) as ours, echo_server(plan.ports.echo, server) as port:
        for size in (128, 1024):
            options = plan.send("32x1", size)
            loads = in_turns(
                plan.rounds,
                [
                    lambda o=options: load("send", ours.broker_port, cores=generator, **o),  # type: ignore[misc]
                    lambda o=options: load("echo", port, cores=generator, **o),  # type: ignore[misc]
                ],
            )
            one, other = map(summary, loads)
            yield Result(
                "echo",
                f"32x1 {size} B",
                "rate, ratio to an echo server",
                one["rate"] / other["rate"],
                Target(least=0.6),
                one,
                other,
            )


def java_one_core(plan: Plan) -> Iterator[Result]:
    """Both servers on one core, the generator on the other."""
    server, generator = plan.server_core, plan.generator_core
    with Firearrow(plan.ports.ours, server) as ours, Java(plan.ports.java, server) as java:
        java.warm_up(plan.java_warm_up_s, generator)
        for shape, least in (("32x1", 2.0), ("8x64", 3.0)):
            one, other = map(summary, _sides(plan, ours, java, shape, 128, generator))
            yield _rate("java-one-core", f"{shape} 128 B", one, other, least)


def java_free(plan: Plan) -> Iterator[Result]:
    """RocketMQ's broker on every core of the machine, ours one process."""
    with Firearrow(plan.ports.ours) as ours, Java(plan.ports.java) as java:
        java.warm_up(plan.java_warm_up_s)
        for size in (128, 1024):
            for shape, least in (("1x1", 2.0), ("32x1", 1.4), ("8x64", 1.5)):
                one, other = map(summary, _sides(plan, ours, java, shape, size, None))
                case = f"{shape} {size} B"
                yield _rate("java-free", case, one, other, least)
                for key in ("p50", "p99"):
                    yield Result(
                        "java-free",
                        case,
                        f"{key}, ratio to Java",
                        one[key] / other[key],
                        Target(most=1.0),
                        {f"{key}_us": one[key]},
                        {f"{key}_us": other[key]},
                    )


def sync_flush(plan: Plan) -> Iterator[Result]:
    """Both with SYNC_FLUSH: every answer waits for the disk."""
    settings = {"flushDiskType": "SYNC_FLUSH"}
    with (
        Firearrow(plan.ports.ours, settings=settings) as ours,
        Java(plan.ports.java, settings=settings) as java,
    ):
        java.warm_up(plan.java_warm_up_s)
        for shape in ("32x1", "8x64"):
            one, other = map(summary, _sides(plan, ours, java, shape, 128, None))
            yield _rate("sync-flush", f"{shape} 128 B", one, other, 1.0)


def _sides(
    plan: Plan, ours: Firearrow, java: Java, shape: str, size: int, cores: str | None
) -> list[list[Load]]:
    options = plan.send(shape, size)
    return in_turns(
        plan.rounds,
        [
            lambda: load("send", ours.broker_port, cores=cores, **options),
            lambda: load("send", java.broker_port, cores=cores, **options),
        ],
    )


def _rate(
    section: str, case: str, one: Mapping[str, float], other: Mapping[str, float], least: float
) -> Result:
    ratio = one["rate"] / other["rate"]
    return Result(section, case, RATE_TO_JAVA, ratio, Target(least=least), one, other)
