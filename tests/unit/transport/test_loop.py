"""The real clock and the background thread."""

from __future__ import annotations

import asyncio
import threading
import time

from firearrow.transport.loop import LoopClock, ThreadBackground, Wakefulness, run


def test_the_clock_is_the_loops_and_the_walls() -> None:
    async def main() -> None:
        clock = LoopClock()
        assert abs(clock.now_ms() - time.time() * 1000) < 1000
        assert clock.monotonic() == asyncio.get_running_loop().time()
        ran: list[str] = []
        clock.call_later(0, ran.append, "never").cancel()
        done = asyncio.Event()
        clock.call_later(0.001, done.set)
        clock.call_soon(ran.append, "soon")
        await done.wait()
        assert ran == ["soon"]

    run(main())


def test_work_keeps_its_order_and_results_come_back_on_the_loop() -> None:
    async def main() -> None:
        background = ThreadBackground()
        seen: list[tuple[object, object, bool]] = []
        finished = asyncio.Event()
        here = threading.current_thread()

        def done(result: object, error: OSError | None) -> None:
            kind = None if error is None else str(error)
            seen.append((result, kind, threading.current_thread() is here))
            if len(seen) == 4:
                finished.set()

        def full() -> int:
            raise OSError("disk full")

        def bug() -> int:
            raise KeyError("x")

        background.submit(lambda: 1, done)
        background.submit(full, done)
        background.submit(bug, done)
        background.submit(lambda: threading.current_thread() is here, done)
        await finished.wait()
        assert seen == [
            (1, None, True),
            (None, "disk full", True),
            (None, "KeyError: 'x'", True),
            (False, None, True),
        ]
        background.close()

    run(main())


def test_close_delivers_what_was_submitted_and_what_that_submits() -> None:
    async def main() -> None:
        background = ThreadBackground()
        seen: list[object] = []

        def again(result: object, error: OSError | None) -> None:
            seen.append(result)
            if len(seen) < 3:
                background.submit(lambda: len(seen), again)

        background.submit(lambda: "first", again)
        background.close()
        assert seen == ["first", 1, 2]

    run(main())


def test_the_loop_sleeps_again_when_nothing_comes() -> None:
    async def main() -> None:
        wakefulness = Wakefulness()
        wakefulness.extend()
        wakefulness.extend()
        await asyncio.sleep(0.05)
        used = time.thread_time()
        await asyncio.sleep(0.2)
        assert time.thread_time() - used < 0.05

    run(main())
