"""The interop table never says ok where a client failed twice."""

from __future__ import annotations

import argparse

import pytest
from interop import run
from interop.results import Report, Result
from interop.tables import word

FAILED = Result("Java", "send", False, 1.0, "lost")
PASSED = Result("Java", "send", True, 1.0)
BROKE_OFF = Result("Java", "(all)", False, 0.0, "no server")


def tried(
    monkeypatch: pytest.MonkeyPatch, first: list[Result], second: list[Result]
) -> tuple[list[Result], int]:
    """What the table gets, and how often the suite ran."""
    tries = [first, second]
    runs = 0

    def suite(name: str, options: argparse.Namespace, report: Report, only: object = ()) -> None:
        nonlocal runs
        for result in tries[runs]:
            report(result)
        runs += 1

    monkeypatch.setattr(run, "_run_suite", suite)
    return run.run(argparse.Namespace(suite="java")), runs


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([PASSED], [], ["ok"]),
        ([FAILED], [PASSED], ["ok"]),
        ([FAILED], [FAILED], ["FAIL"]),
        ([FAILED], [], ["FAIL"]),
        ([FAILED], [BROKE_OFF], ["FAIL", "FAIL"]),
        ([BROKE_OFF], [BROKE_OFF], ["FAIL"]),
        ([BROKE_OFF], [PASSED], ["ok"]),
    ],
)
def test_a_second_try(
    monkeypatch: pytest.MonkeyPatch, first: list[Result], second: list[Result], words: list[str]
) -> None:
    results, runs = tried(monkeypatch, first, second)
    assert list(map(word, results)) == words
    assert runs == (1 if first == [PASSED] else 2)


def test_it_says_that_it_was_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (result,), _ = tried(monkeypatch, [FAILED], [PASSED])
    assert result.detail == "second try; first: lost"
