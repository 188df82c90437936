"""Put what runs of interop/run.py gave into the README and docs/interop-results.md.

python interop/run.py --json ours.json
python interop/run.py --server java --json java.json
python interop/record.py ours.json java.json

Of two runs with the same server the later has the word on the clients in it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from interop import tables  # noqa: E402
from interop.results import Result  # noqa: E402

README = HERE.parent / "README.md"
RESULTS = HERE.parent / "docs" / "interop-results.md"
PLACE = re.compile(r"<!-- interop -->.*<!-- /interop -->", re.DOTALL)
SHOWN = frozenset({"send sync", "gRPC send normal"})  # the scenarios that every client has
SIGNS = {"ok": "✓", "FAIL": "**fails**", "skip": "skipped"}


@dataclass(frozen=True, slots=True)
class Run:
    """One run's document."""

    server: str
    about: str
    results: list[Result]

    @classmethod
    def read(cls, file: Path) -> Run:
        document = json.loads(file.read_text())
        return cls(
            document["server"],
            document["about"],
            [Result(**result) for result in document["results"]],
        )


def _joined(runs: Sequence[Run]) -> list[Run]:
    """One run for each server."""
    joined: dict[str, Run] = {}
    for run in runs:
        before = joined.get(run.server)
        if before is not None:
            again = list(dict.fromkeys(result.client for result in run.results))
            kept = [result for result in before.results if result.client not in again]
            named = f"{again[0]} and {len(again) - 1} others" if again[1:] else again[0]
            about = f"{before.about} Of a later run, {named}: {run.about}"
            run = Run(run.server, about, kept + run.results)
        joined[run.server] = run
    return list(joined.values())


def _tables(results: Sequence[Result]) -> tuple[str, str]:
    """The tables of the remoting and of the gRPC clients, and one line for each other group."""
    groups = tables.grouped(results)
    shown = [group for group in groups if not SHOWN.isdisjoint(map(_what, group))]
    clients = "\n\n".join(tables.markdown(tables.rows(group, SIGNS)) for group in shown)
    others = [tables.counts(group) for group in groups if group not in shown]
    return clients, "\n".join(f"- {line}" for line in others)


def _what(result: Result) -> str:
    return result.scenario


def _readme(ours: Run) -> str:
    clients, others = _tables(ours.results)
    return "\n".join(
        [
            "<!-- interop -->",
            ours.about,
            "An empty cell: the client has no such function, or the suite no such scenario.",
            "",
            clients,
            "",
            "The other suites (`from ...`: whose messages every other client received the same) "
            "and how many passed",
            "(what did not is in [docs/interop-results.md](docs/interop-results.md)):",
            "",
            others,
            "",
            "<!-- /interop -->",
        ]
    )


def _document(runs: Sequence[Run]) -> str:
    parts = [
        "# Results of the interop suites",
        "",
        "Written by `python interop/record.py` from the runs named below. What the scenarios are",
        "and how to run them: [interop/README.md](../interop/README.md).",
    ]
    for run in runs:
        parts += ["", f"## Server: {run.server}", "", run.about]
        for group in tables.grouped(run.results):
            parts += ["", tables.markdown(tables.rows(group, SIGNS))]
        reasons = [note for note in tables.notes(run.results) if not note.startswith("ok")]
        parts += ["", *(f"- {reason}" for reason in reasons)]
        figures = [note for note in tables.notes(run.results) if note.startswith("ok")]
        parts += ["", "<details><summary>Figures</summary>", ""]
        parts += [f"- {figure.removeprefix('ok: ')}" for figure in figures]
        parts += ["", "</details>"]
    return "\n".join(parts) + "\n"


def main() -> int:
    runs = _joined([Run.read(Path(name)) for name in sys.argv[1:]])
    if not runs:
        print(__doc__)
        return 1
    readme = README.read_text()
    if not PLACE.search(readme):
        print(f"{README} has no <!-- interop --> ... <!-- /interop -->")
        return 1
    README.write_text(PLACE.sub(lambda _: _readme(runs[0]), readme))
    RESULTS.write_text(_document(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
