"""Which Python runs this, for the log: some handle half as many messages again as others
(docs/operations.md, "Which Python")."""

from __future__ import annotations

import platform
import sys
from typing import Final, Protocol


class Jit(Protocol):
    """What CPython says of its compiler (``sys._jit``, since 3.14)."""

    def is_available(self) -> bool: ...
    def is_enabled(self) -> bool: ...


JIT: Final[Jit | None] = getattr(sys, "_jit", None)


def describe(jit: Jit | None = JIT) -> str:
    """``CPython 3.15.2``, and what is to be said of its JIT, if one was built in."""
    name = f"{platform.python_implementation()} {platform.python_version()}"
    if jit is None or not jit.is_available():
        return name
    if jit.is_enabled():
        return f"{name} with its JIT"
    return f"{name}; its JIT is off: set PYTHON_JIT=1 in the environment for more messages a second"
