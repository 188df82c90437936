"""Measure Firearrow side by side with RocketMQ's broker and an echo server.

Prints one line for each value, with its target and what it was computed from, and appends the same
to results.jsonl. bench/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # so that `python bench/run.py` works from anywhere

from bench import delivery, footprint, generator, growth, grpc, rates, results, rooms  # noqa: E402
from bench.memory import filled_page_cache  # noqa: E402
from bench.plan import Plan  # noqa: E402
from bench.results import Result  # noqa: E402
from bench.servers import WARM_UP_S, Ports  # noqa: E402
from interop.java.jars import missing_tools  # noqa: E402
from interop.servers import JAVA_VERSION  # noqa: E402

Section = Callable[[Plan], Iterator[Result]]

SECTIONS: Mapping[str, Section] = {
    "rooms": rooms.price,
    "echo": rates.echo,
    "java-one-core": rates.java_one_core,
    "java-free": rates.java_free,
    "sync-flush": rates.sync_flush,
    "delivery": delivery.delivery,
    "grpc-one-core": grpc.one_core,
    "grpc": grpc.free,
    "new-topics": growth.new_topics,
    "many-topics": growth.many_topics,
    "idle": footprint.idle,
    "reopen": footprint.reopen,
}
QUICK_SCALE = 0.1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="of each server, in turns")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round")
    parser.add_argument("--quick", action="store_true", help="a look: about two minutes in all")
    parser.add_argument("--no-record", action="store_true", help="do not touch results.jsonl")
    parser.add_argument("--ports", type=int, default=26000, help="first of a range of free ports")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return options


def _plan(options: argparse.Namespace) -> Plan:
    first = options.ports
    ports = Ports((first + 1, first + 11), (first + 21, first + 31), first + 41)
    if options.quick:
        return Plan(ports, rounds=1, seconds=1.0, java_warm_up_s=5.0, scale=QUICK_SCALE)
    return Plan(ports, options.rounds, options.seconds, WARM_UP_S)


def main() -> int:
    """Run the sections; 0 when every answer was a success, whatever the speed."""
    options = _arguments()
    reason = missing_tools()
    if reason is not None:
        print(reason)
        return 1
    generator.build()
    around = results.surroundings(JAVA_VERSION)
    print(f"{around['date']}  commit {around['commit']}  {around['machine']}  {around['versions']}")
    plan = _plan(options)
    measured: list[Result] = []
    with filled_page_cache() as fill:
        for name in options.only.split(","):
            started = time.monotonic()
            fill()
            for result in SECTIONS[name](plan):
                measured.append(result)
                print(result.line(), flush=True)
                if not (options.no_record or options.quick):
                    results.keep([result], around)
            print(f"-- {name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    missed = [result for result in measured if result.met is False]
    print(f"bench: {len(measured)} values, {len(missed)} missed their target")
    return 0


if __name__ == "__main__":
    sys.exit(main())
