"""The judge of the order suite sees what must not be."""

from __future__ import annotations

import pytest
from interop.order.journal import judge


def test_members_that_follow_each_other() -> None:
    verdict = judge(["a k 0", "b j 0", "a k 1", "c k 2", "c k 3"])
    assert (verdict.consumed, verdict.inversions, verdict.unexplained) == (5, 0, 0)
    assert verdict.lost(keys=2, per_key=4) == 3


def test_what_a_killed_member_had_comes_again() -> None:
    verdict = judge(["a k 0", "a k 1", "killed a 0", "b k 1", "b k 2"])
    assert (verdict.consumed, verdict.inversions, verdict.repeats) == (3, 0, 1)
    assert verdict.unexplained == 0


@pytest.mark.parametrize(
    "lines",
    [
        ["a k 1", "a k 0"],  # it begins in the middle, and goes back
        ["a k 0", "a k 2", "a k 1"],
        ["a k 0", "b k 2"],
        ["a k 0", "a k 0"],
        ["a k 0", "a k 1", "killed a 0", "b k 0", "b k 1", "b k 0"],
    ],
)
def test_inversions(lines: list[str]) -> None:
    verdict = judge(lines)
    assert verdict.inversions
    assert verdict.first_wrong


def test_two_members_at_a_time() -> None:
    verdict = judge(["a k 0", "a k 1", "b k 0", "b k 1"])
    assert verdict.unexplained == 1
    assert "which lives" in verdict.first_wrong
