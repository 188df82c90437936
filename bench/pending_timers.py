"""What a million pending timed messages cost: memory, rate, and how long the loop stands still.

    python bench/pending_timers.py [COUNT]

One process: a real broker on the real loop, messages put through its writer, all due within the
same 20 seconds. Prints one line a phase.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from firearrow.assembly import assemble, open_broker_store
from firearrow.config import BrokerSettings
from firearrow.model.message import Message
from firearrow.store.disk import RealDisk
from firearrow.transport import loop

WINDOW_S = 20
HOST = bytes([127, 0, 0, 1, 0, 0, 0, 9])


class Stalls:
    """The longest time between two turns of the loop that should be 2 ms apart."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._last = time.monotonic()
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self._last - 0.002)
        self._last = now
        asyncio.get_running_loop().call_later(0.002, self._tick)

    def take(self) -> float:
        longest, self.longest_s = self.longest_s, 0.0
        return longest * 1000


def resident_mb() -> float:
    """Without the pages of mapped files, which the kernel takes back at will."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


async def until(done: Callable[[], bool]) -> None:
    while not done():  # noqa: ASYNC110 - a look from outside: nothing tells
        await asyncio.sleep(0.05)


async def main(count: int, root: str) -> None:
    clock, background = loop.LoopClock(), loop.ThreadBackground()
    settings = BrokerSettings()
    store = open_broker_store(root, settings, RealDisk(), clock, background)
    broker = assemble(settings, store, clock, ("127.0.0.1", 10911))
    store.start()
    broker.start()
    put = broker.core.writer.put
    stalls = Stalls()
    before_mb = resident_mb()

    due_ms = clock.now_ms() + 1000 * (15 + count // 40_000)
    started = time.monotonic()
    for number in range(count):
        at = due_ms + number * 1000 * WINDOW_S // count
        properties = f"UNIQ_KEY\x01{number:032X}\x02TIMER_DELIVER_MS\x01{at}\x02".encode()
        put(Message("timed", number & 7, b"x" * 128, properties, clock.now_ms(), HOST))
        if number % 64 == 0:
            await asyncio.sleep(0)
    sent_s = time.monotonic() - started
    await until(lambda: broker.core.timer_state()["timerOffsetBehind"] == "0")
    taken_s = time.monotonic() - started
    print(
        f"{count} timed messages: sent in {sent_s:.1f} s, all in the wheel after {taken_s:.1f} s "
        f"({count / taken_s:,.0f}/s); memory +{resident_mb() - before_mb:.1f} MB; "
        f"longest stall {stalls.take():.0f} ms"
    )
    await asyncio.sleep(max(0.0, (due_ms - clock.now_ms()) / 1000))
    await until(lambda: sum(store.max_offset("timed", queue) for queue in range(8)) >= count)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    late_ms = clock.now_ms() - due_ms - 1000 * WINDOW_S
    print(
        f"delivered {count / WINDOW_S:,.0f}/s for {WINDOW_S} s, the last one {late_ms} ms after "
        f"its time; memory +{resident_mb() - before_mb:.1f} MB (peak with mapped files "
        f"{peak_mb:.0f} MB); longest stall {stalls.take():.0f} ms"
    )
    broker.stop()
    store.close()
    background.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="firearrow-bench-") as directory:
        loop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, directory))
