"""SQL92 expressions: RocketMQ's own ``rocketmq-filter`` judges every verdict of ours.

There is no client and no server here: the library that Java brokers filter with and the filter
room get the same expressions and properties, and must accept, reject and match alike.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from interop.filter.cases import Case, generate
from interop.java.jars import fetch_jars, missing_tools
from interop.program import cache_directory
from interop.results import Report, Result, Server

from firearrow.codec.properties import parse_properties
from firearrow.features.filter.expression import EvaluationError
from firearrow.features.filter.lexer import ExpressionSyntaxError
from firearrow.features.filter.numbers import NotANumberError
from firearrow.features.filter.sql92 import compile_sql92

VERSION = "5.5.0"
TITLE = f"rocketmq-filter {VERSION}"
SCENARIO = "SQL92 verdicts"
SOURCE = Path(__file__).parent / "src" / "Sql92.java"
SEED = 92
CASES = 8000
JAVA_SECONDS_MAX = 60

# What one library says of a case: the text after "-" is where an expression is wrong ("" where it
# does not say), the letters after "+" are a T, F, N or E for each message.
Verdict = str


def clients() -> list[str]:
    return [TITLE]


def unavailable() -> str | None:
    return missing_tools()


def prepare() -> None:
    fetch_jars(VERSION, "rocketmq-filter")


def java_verdicts(cases: Iterable[Case]) -> list[Verdict]:
    """Run RocketMQ's library over all cases, in one process."""
    lines = [
        " ".join(
            base64.b64encode(field).decode()
            for field in (case.expression.encode(), *case.strings())
        )
        for case in cases
    ]
    with tempfile.TemporaryDirectory(dir=cache_directory("java")) as directory:
        path = Path(directory) / "cases"
        path.write_text("\n".join(lines) + "\n")
        jars = f"{fetch_jars(VERSION, 'rocketmq-filter')}/*"
        command = [
            "java",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            jars,
            str(SOURCE),
            str(path),
        ]
        run = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=JAVA_SECONDS_MAX
        )
    return [_java_verdict(line) for line in run.stdout.splitlines()]


def _java_verdict(line: str) -> Verdict:
    if line[0] == "+":
        return line
    reason = base64.b64decode(line[1:]).decode()
    # Of a text that is no token, Java names the end of what it tried, we name the beginning.
    return "-" if "TokenMgrError" in reason else f"-{_place(reason)}"


def our_verdict(case: Case) -> Verdict:
    """What the filter room says."""
    try:
        condition = compile_sql92(case.expression)
    except ExpressionSyntaxError as error:
        return f"-{_place(str(error))}"
    letters = "+"
    for data in case.strings():
        try:
            value = condition(parse_properties(data).get)
        except (EvaluationError, NotANumberError):
            letters += "E"
        else:
            letters += "N" if value is None else "T" if value else "F"
    return letters


def _place(reason: str) -> str:
    """Where a reason says that the expression is wrong."""
    found = re.search(r"line \d+, column \d+", reason)
    return found[0] if found else ""


def agree(java: Verdict, ours: Verdict) -> bool:
    """Both accept and judge alike, or both reject, and in the same place if Java names one."""
    if java == ours:
        return True
    return java == "-" and ours[0] == "-"


def run(namesrv: str, report: Report, server: Server) -> None:
    started = time.monotonic()
    cases = generate(SEED, CASES)
    verdicts = java_verdicts(cases)
    different = [
        f"{case.expression!r}: java {java}, ours {ours}"
        for case, java in zip(cases, verdicts, strict=True)
        if not agree(java, ours := our_verdict(case))
    ]
    rejected = sum(verdict[0] == "-" for verdict in verdicts)
    matched = sum(verdict.count("T") for verdict in verdicts)
    detail = f"{len(cases)} expressions, {rejected} rejected, {matched} matches"
    if different:
        detail = f"{len(different)} of {len(cases)} differ: {'; '.join(different[:5])}"
    seconds = time.monotonic() - started
    report(Result(TITLE, SCENARIO, not different, seconds, detail))


def main() -> int:
    """Compare, or write cases with RocketMQ's verdicts as golden data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--golden", type=Path, help="write the cases to this file")
    options = parser.parse_args()
    prepare()
    cases = generate(options.seed, options.cases)
    if options.golden:
        cases = [Case(case.expression, case.messages[:5]) for case in cases]
    verdicts = java_verdicts(cases)
    if options.golden:
        rows = [
            {"expression": case.expression, "messages": case.messages, "verdict": verdict}
            for case, verdict in zip(cases, verdicts, strict=True)
        ]
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        options.golden.write_text(f'{{"library":"{TITLE}","cases":[\n{lines}\n]}}\n')
        return 0
    different = 0
    for case, java in zip(cases, verdicts, strict=True):
        ours = our_verdict(case)
        if not agree(java, ours):
            different += 1
            print(f"{case.expression!r}: java {java}, ours {ours} {case.messages}")
    print(f"{len(cases)} expressions, {different} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
