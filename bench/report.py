"""Write the newest value of everything measured into the table of bench/README.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from bench.results import RESULTS, number  # noqa: E402

README = HERE / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def newest(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The last line of each (section, case, what), in the order of their first ones."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in lines:
        row = json.loads(line)
        found[row["section"], row["case"], row["what"]] = row
    return list(found.values())


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    met = {None: "", True: "met", False: "**missed**"}[row["met"]]
    ours, other = (
        ", ".join(f"{name} {number(value)}" for name, value in row[side].items())
        for side in ("ours", "other")
    )
    when = f"{row['commit']}, {row['date'][:10]}"
    value = number(row["value"])
    return (
        row["section"],
        row["case"],
        row["what"],
        value,
        (row["target"] or "").replace(">=", "≥").replace("<=", "≤"),
        met,
        ours,
        other,
        when,
    )


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Markdown."""
    head = ("section", "case", "what", "value", "target", "", "ours", "other", "commit, date")
    lines = [head, ("---",) * len(head), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Rewrite what stands between the marks."""
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = newest(RESULTS.read_text().splitlines())
    README.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
