"""What the compaction of a large topic costs: its time, memory, and how long the loop stands still.

    python bench/compaction.py [COUNT]

One process: a real broker on the real loop, messages put through its writer, ten for each key, all
in one queue. Prints one line a phase.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from firearrow.assembly import assemble, open_broker_store
from firearrow.config import BrokerSettings
from firearrow.model.message import Message
from firearrow.model.topic import Topic
from firearrow.store.disk import RealDisk
from firearrow.transport import loop

sys.path.insert(0, str(Path(__file__).parent.parent))  # so that it works from anywhere

from bench.pending_timers import Stalls, resident_mb, until

TOPIC = "prices"
VALUES_PER_KEY = 10
HOST = bytes([127, 0, 0, 1, 0, 0, 0, 9])
MEGABYTE = 1024 * 1024


def settings_for(count: int) -> BrokerSettings:
    """Compacted once everything is there."""
    settings = BrokerSettings()
    settings.compaction_mapped_file_size = 20 * MEGABYTE
    settings.compaction_cq_mapped_file_size = 2 * MEGABYTE
    settings.compaction_schedule_internal = 1000 * (15 + count // 20_000)
    return settings


def files_in(root: str) -> int:
    return len(list(Path(root, "compaction/compactionLog", TOPIC, "0").glob("0*")))


async def main(count: int, root: str) -> None:
    clock, background = loop.LoopClock(), loop.ThreadBackground()
    store = open_broker_store(root, settings_for(count), RealDisk(), clock, background)
    broker = assemble(settings_for(count), store, clock, ("127.0.0.1", 10911))
    attributes = {"cleanup.policy": "COMPACTION"}
    broker.core.topics.create(Topic(name=TOPIC, attributes=attributes))
    store.start()
    broker.start()
    put, keys = broker.core.writer.put, count // VALUES_PER_KEY
    stalls, before_mb = Stalls(), resident_mb()
    started = time.monotonic()
    for number in range(count):
        properties = f"UNIQ_KEY\x01{number:032X}\x02KEYS\x01article-{number % keys}\x02".encode()
        put(Message(TOPIC, 0, b"x" * 128, properties, clock.now_ms(), HOST))
        if number % 64 == 0:
            await asyncio.sleep(0)
    sent_s = time.monotonic() - started
    await until(lambda: store.needed_from == store.log.end)
    print(
        f"{count} messages: sent in {sent_s:.1f} s, all copied after "
        f"{time.monotonic() - started:.1f} s; memory +{resident_mb() - before_mb:.1f} MB; "
        f"longest stall {stalls.take():.1f} ms"
    )
    due = started + store.settings.compaction_schedule_internal / 1000
    await until(lambda: time.monotonic() >= due)
    stalls.take()
    await until(Path(root, "compaction/position-checkpoint").exists)
    print(
        f"compacted in {time.monotonic() - due:.1f} s, {files_in(root)} files of 20 MB are left; "
        f"memory +{resident_mb() - before_mb:.1f} MB; longest stall {stalls.take():.1f} ms"
    )
    broker.stop()
    store.close()
    background.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="firearrow-bench-") as directory:
        loop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500_000, directory))
