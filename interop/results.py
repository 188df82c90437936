"""What every interop suite reports, and how a suite looks to the runner.

A suite is a module ``interop/<folder>/suite.py`` with:

- ``clients() -> list[str]``: row titles, e.g. ``"Java 5.5.0, JSON headers"``.
- ``unavailable() -> str | None``: ``None`` when it can run here, else one sentence that says what
  to install.
- ``prepare() -> None``: fetch and build what is needed (may take minutes the first time).
- ``run(namesrv: str, report: Report, server: Server) -> None``: run all scenarios against the name
  server at ``host:port``, calling ``report`` once for each client and scenario.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Result:
    """One cell of the table."""

    client: str
    scenario: str
    ok: bool
    seconds: float
    detail: str = ""  # why it failed, or a measured figure such as a wake-up time
    skipped: bool = False  # with the reason in ``detail``; a skipped scenario is not ok


Report = Callable[[Result], None]


class Server(Protocol):
    """The server under test, as far as a scenario may touch it."""

    namesrv: str  # host:port
    broker: str  # host:port
    brokers: list[str]  # all of its cluster
    name: str  # "firearrow" or "java 5.5.0"

    @property
    def proxy(self) -> str:
        """host:port of the gRPC endpoint."""

    def restart(self) -> None:
        """Stop cleanly and start again on the same store and ports; returns when it accepts."""
