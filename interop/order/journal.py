"""What several consumer processes wrote to one file, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

KILLED = "killed"  # a line "killed PID 0" stands where a consumer was certainly dead


@dataclass(slots=True)
class Key:
    """How far one key has come."""

    newest: int = -1
    owner: str = ""  # the process that consumed it last
    last: int = -1  # ... this number


@dataclass(slots=True)
class Verdict:
    """Counts over the whole journal."""

    consumed: int = 0  # different messages
    repeats: int = 0  # consumed again, by another, after their consumer was killed
    unexplained: int = 0  # consumed again for no such reason
    inversions: int = 0  # a message before one that must come before it, or twice at a time
    first_wrong: str = ""
    keys: dict[str, Key] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)

    def lost(self, keys: int, per_key: int) -> int:
        return keys * per_key - self.consumed


def judge(lines: Iterable[str]) -> Verdict:
    """Read ``pid key number`` lines."""
    verdict = Verdict()
    read_on(verdict, lines)
    return verdict


def read_on(verdict: Verdict, lines: Iterable[str]) -> None:
    """Add the lines that follow."""
    for line in lines:
        owner, name, text = line.split(" ")
        if owner == KILLED:
            verdict.dead.add(name)
            continue
        _take(verdict, owner, name, int(text))


def _take(verdict: Verdict, owner: str, name: str, number: int) -> None:
    key = verdict.keys.setdefault(name, Key())
    follows = number == key.last + 1 and owner == key.owner
    if number > key.newest + 1 or (owner == key.owner and not follows):
        verdict.inversions += 1
        verdict.first_wrong = verdict.first_wrong or (
            f"{owner} consumed {number} of key {name} after {key.last} by {key.owner}, "
            f"the newest was {key.newest}"
        )
    if number > key.newest:
        verdict.consumed += 1
        key.newest = number
    elif follows or key.owner in verdict.dead:
        verdict.repeats += 1
    else:
        verdict.unexplained += 1
        verdict.first_wrong = verdict.first_wrong or (
            f"{owner} consumed {number} of key {name} again, after {key.owner}, which lives"
        )
    key.owner, key.last = owner, number
