"""The interop table: what is tried again, and that a suite in trouble takes no other along."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from interop import run
from interop.results import Report, Result
from interop.tables import word

FAILED = Result("Java", "send", False, 1.0, "lost")
PASSED = Result("Java", "send", True, 1.0)
BROKE_OFF = Result("Java", "(all)", False, 0.0, "the suite broke off: OSError('no server')")
TOGETHER_SECONDS_MAX = 30


class Suite:
    """A suite whose tries end in what was written down."""

    def __init__(self, title: str, *tries: list[Result] | Callable[[], list[Result]]) -> None:
        self._title = title
        self._tries = list(tries)
        self.runs = 0

    def clients(self) -> list[str]:
        return [self._title]

    def unavailable(self) -> str | None:
        return None

    def prepare(self) -> None: ...

    def run(self, namesrv: str, report: Report, server: object) -> None:
        self.runs += 1
        results = self._tries[self.runs - 1]
        for result in results if isinstance(results, list) else results():
            if result is BROKE_OFF:
                raise OSError("no server")
            report(result)


class Unprepared(Suite):
    def prepare(self) -> None:
        raise OSError("no network")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Result]]:
    """Runs suites by name, without servers; what the table gets."""

    @contextmanager
    def server(options: argparse.Namespace, lane: int) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(namesrv=f"127.0.0.1:{lane}")

    monkeypatch.setattr(run, "_server", server)

    def run_all(**suites: Suite) -> list[Result]:
        monkeypatch.setattr(run, "_suite", suites.__getitem__)
        options = argparse.Namespace(suite=",".join(suites), client="", quick=False, jobs=2)
        return run.run(options)

    return run_all


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
    table: Callable[..., list[Result]], first: list[Result], second: list[Result], words: list[str]
) -> None:
    suite = Suite("Java", first, second)
    assert list(map(word, table(java=suite))) == words
    assert suite.runs == (1 if first == [PASSED] else 2)


def test_it_says_that_it_was_one(table: Callable[..., list[Result]]) -> None:
    (result,) = table(java=Suite("Java", [FAILED], [PASSED]))
    assert result.detail == "second try; first: lost"


def test_suites_run_side_by_side_and_are_listed_in_order(
    table: Callable[..., list[Result]],
) -> None:
    both = threading.Barrier(2, timeout=TOGETHER_SECONDS_MAX)

    def passes(title: str) -> Callable[[], list[Result]]:
        def together() -> list[Result]:
            both.wait()
            return [Result(title, "send", True, 1.0)]

        return together

    results = table(go=Suite("Go", passes("Go")), java=Suite("Java", passes("Java")))
    assert [(result.client, result.ok) for result in results] == [("Go", True), ("Java", True)]


def test_what_cannot_be_prepared_fails_alone(table: Callable[..., list[Result]]) -> None:
    go, java = table(go=Unprepared("Go"), java=Suite("Java", [PASSED]))
    assert (go.ok, go.detail) == (False, "could not be prepared: OSError('no network')")
    assert java.ok
