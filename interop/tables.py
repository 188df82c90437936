"""Results as tables, client by scenario: as text, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from interop.results import Result

Rows = list[list[str]]


def word(result: Result) -> str:
    return "skip" if result.skipped else "ok" if result.ok else "FAIL"


def grouped(results: Iterable[Result]) -> list[list[Result]]:
    """One list for each table: clients with a scenario in common stand side by side."""
    groups: list[tuple[set[str], list[Result]]] = []  # the names of a group's scenarios, and it
    for client, own in _by_client(results).items():
        names = {result.scenario for result in own if result.scenario != "(all)"}
        for group_names, group in groups:
            if names & group_names or (not names and _is_part(client, group)):
                group_names |= names
                group += own
                break
        else:
            groups.append((names, own))
    return [group for _, group in groups]


def _is_part(client: str, group: list[Result]) -> bool:
    """Whether a client without results of its own is of the same program as one of the group."""
    return client.split()[0] in {result.client.split()[0] for result in group}


def _by_client(results: Iterable[Result]) -> dict[str, list[Result]]:
    clients: dict[str, list[Result]] = {}
    for result in results:
        clients.setdefault(result.client, []).append(result)
    return clients


def rows(group: Sequence[Result], words: dict[str, str] | None = None) -> Rows:
    """Scenarios down, clients across; empty where a client has no such scenario."""
    found = {(result.client, result.scenario): word(result) for result in group}
    if words is not None:
        found = {where: words[what] for where, what in found.items()}
    clients = list(_by_client(group))
    # The client with the most scenarios says in which order they come.
    longest = sorted(_by_client(group).values(), key=len, reverse=True)
    scenarios = dict.fromkeys(result.scenario for own in longest for result in own)
    head = ["", *clients]
    return [head] + [[s, *(found.get((c, s), "") for c in clients)] for s in scenarios]


def text(table: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)


def markdown(table: Rows) -> str:
    head, *rest = table
    marks = ["---", *(":-:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, marks, *rest])


def counts(group: Sequence[Result]) -> str:
    """``mqadmin 5.5.0: 68 of 68`` for each client."""
    lines = []
    for client, own in _by_client(group).items():
        passed = sum(result.ok for result in own)
        lines.append(f"{client}: {passed} of {len(own)}")
    return ", ".join(lines)


def notes(results: Iterable[Result]) -> list[str]:
    """What stands behind the cells: reasons first, then measured figures."""
    noted = sorted((result for result in results if result.detail), key=lambda result: result.ok)
    return [
        f"{word(r)}: {r.client}, {r.scenario}: {' '.join(r.detail.split())[:600]}" for r in noted
    ]
