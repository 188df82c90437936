"""What the log says of the Python that runs the program."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from firearrow.transport.interpreter import describe


@dataclass
class Jit:
    available: bool
    enabled: bool

    def is_available(self) -> bool:
        return self.available

    def is_enabled(self) -> bool:
        return self.enabled


def test_a_jit_that_is_there_and_off_is_said_with_what_turns_it_on() -> None:
    version = platform.python_version()
    assert "set PYTHON_JIT=1" in describe(Jit(available=True, enabled=False))
    assert describe(Jit(available=True, enabled=True)).endswith(f"{version} with its JIT")
    for jit in (None, Jit(available=False, enabled=False)):
        assert describe(jit) == f"{platform.python_implementation()} {version}"
