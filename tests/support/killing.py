"""A broker in a process of its own that is killed under load, again and again, on one store.

A campaign starts it, lets clients work until the kill, and starts the next one on what is left.
FIREARROW_KILL_ROUNDS=10 for more kills than the few of an ordinary run, FIREARROW_KILL_SEED to
repeat one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.brokers import Answered
from tests.support.program import BlockingClient, Program

ROUNDS: Final = int(os.environ.get("FIREARROW_KILL_ROUNDS", "2"))
SEED: Final = int(os.environ.get("FIREARROW_KILL_SEED", "0")) or random.SystemRandom().randrange(
    1 << 32
)
JOIN_S: Final = 20.0
MOMENT_S: Final = 10.0
SMALL_FILES: Final = {"mappedFileSizeCommitLog": 524_288, "mappedFileSizeConsumeQueue": 20_000}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Worker(threading.Thread):
    """A client that does one thing after another, until its connection breaks or it has to stop.

    What it must not see (a wrong answer, or none) goes to ``errors``.
    """

    def __init__(self, address: str, name: str, errors: list[BaseException]) -> None:
        super().__init__(name=name, daemon=True)
        self.client = BlockingClient(address)
        self.stopped = False
        self._errors = errors

    def call(self, code: int, ext: dict[str, Any] | None = None, body: bytes = b"") -> Answered:
        return Answered(*self.client.call(code, ext, body))

    def begin(self) -> None: ...

    def step(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        try:
            self.begin()
            while not self.stopped:
                self.step()
        except TimeoutError as error:  # an OSError, too: an answer that never came
            self._errors.append(error)
        except (OSError, ConnectionError):
            pass
        except BaseException as error:
            self._errors.append(error)
        self.client.close()


class Campaign:
    """Rounds on one store. ``settings`` are those of broker.conf."""

    log_level = "warning"

    def __init__(self, root: Path, rng: random.Random, **settings: Any) -> None:
        self.root = root
        self.rng = rng
        self.errors: list[BaseException] = []
        self.kills_ms: list[int] = []
        root.mkdir()
        self._conf = root / "broker.conf"
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        """The settings from the next start on."""
        lines = {"brokerName": "broker-a", **SMALL_FILES, **settings}
        self._conf.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    def child_rng(self) -> random.Random:
        """Randomness for one thread: what it takes does not depend on the others."""
        return random.Random(self.rng.random())

    def start(self) -> tuple[Program, str]:
        """A running broker, and its address."""
        program = Program(
            self.root,
            *("up", "--namesrv-port", "0", "--broker-port", "0"),
            *("--store", "store", "-c", str(self._conf), "--log-level", self.log_level),
        )
        return program, program.ready()["broker"]

    @contextmanager
    def running(self) -> Iterator[str]:
        """The address of a broker that is stopped at the end, as an operator would."""
        program, address = self.start()
        with program:
            yield address
            assert program.stop() == 0
        assert not self.errors, self.errors

    @contextmanager
    def connected(self) -> Iterator[BlockingClient]:
        """A client of such a broker."""
        with self.running() as address, BlockingClient(address) as client:
            yield client

    def kill_under(
        self,
        workers: Callable[[str], Sequence[Worker]],
        load_s: tuple[float, float],
        moment: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start a broker, let ``workers(address)`` work for a random time, and kill it in the next
        ``moment`` there is, if one comes soon."""
        program, address = self.start()
        with program:
            threads = workers(address)
            for thread in threads:
                thread.start()
            time.sleep(self.rng.uniform(*load_s))
            deadline = time.monotonic() + MOMENT_S
            while not moment() and time.monotonic() < deadline:
                pass  # it is over in a millisecond
            self.kills_ms.append(now_ms())
            program.process.kill()
            for thread in threads:
                thread.join(JOIN_S)
        assert not self.errors, self.errors

    def work(self, workers: Sequence[Worker], done: Callable[[], bool], limit_s: float) -> None:
        """Let clients of a running broker work until ``done()``, or as long as they may."""
        deadline = time.monotonic() + limit_s
        for worker in workers:
            worker.start()
        while not done() and not self.errors and time.monotonic() < deadline:
            time.sleep(0.02)
        for worker in workers:
            worker.stopped = True
        for worker in workers:
            worker.join(JOIN_S)
        assert not self.errors, self.errors
