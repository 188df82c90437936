"""Compare mqadmin's output line by line, Firearrow and the Java broker, each started here."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it works from anywhere

from interop.mqadmin import suite
from interop.mqadmin.commands import COMMANDS
from interop.servers import LIGHT_QUEUES, FirearrowServer, JavaServer

OUR_PORTS = 20876, 20911


def main() -> int:
    reason = suite.unavailable()
    if reason is not None:
        print(reason)
        return 1
    suite.prepare()
    with (
        JavaServer(*suite.JAVA_PORTS, settings=LIGHT_QUEUES) as java,
        FirearrowServer(*OUR_PORTS, settings=LIGHT_QUEUES) as ours,
        ThreadPoolExecutor(2) as pool,
    ):
        expected = pool.submit(suite.outputs, java.namesrv, java.broker)
        found = pool.submit(suite.outputs, ours.namesrv, ours.broker)
        wanted, got = expected.result(), found.result()
    failures = 0
    for command in COMMANDS:
        if not command.compared:
            continue
        different = suite.differences(command, got[command.name], wanted[command.name])
        failures += bool(different)
        word = "DIFF" if different else "same"
        seconds = f"{got[command.name].seconds:5.2f} s, Java {wanted[command.name].seconds:5.2f} s"
        print(f"{word}  {seconds}  {command.name}: mqadmin {command.words}")
        for line in different:
            print(f"      {line}")
        if "--show" in sys.argv:
            print(got[command.name].text)
    compared = sum(command.compared for command in COMMANDS)
    print(f"mqadmin: {compared - failures} of {compared} outputs are the same")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
