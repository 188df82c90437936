"""What the interop suites make of a client's results."""

from __future__ import annotations

from interop.program import excusing
from interop.results import Result


def test_a_failure_of_rocketmqs_own_servers_is_skipped_with_its_reason() -> None:
    kept: list[Result] = []
    report = excusing(kept.append, {"is null": "RocketMQ has none"})
    fine = Result("client", "one", True, 0.0, "is null")
    other = Result("client", "two", False, 0.0, "refused")
    for result in (fine, other, Result("client", "three", False, 0.0, "x is null")):
        report(result)
    assert kept == [fine, other, Result("client", "three", False, 0.0, "RocketMQ has none", True)]
