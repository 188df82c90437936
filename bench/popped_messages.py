"""What a million popped, unacknowledged messages cost: memory, rate, stalls of the loop.

    python bench/popped_messages.py [COUNT] [MESSAGES_A_POP]

One process: a real broker on the real loop, asked with request frames but without a socket. All
messages are popped, none is acknowledged, all come again; then each is popped and acknowledged by
itself. Prints one line a phase.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import tempfile
import time
from pathlib import Path

from firearrow.assembly import assemble, open_broker_store
from firearrow.codec.record import decode_record, split_records
from firearrow.config import BrokerSettings
from firearrow.model.message import Message
from firearrow.model.topic import Topic
from firearrow.protocol.remoting.headers import decode_header
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession
from firearrow.store.disk import RealDisk
from firearrow.transport import loop

sys.path.insert(0, str(Path(__file__).parent.parent))  # so that it works from anywhere

from bench.pending_timers import Stalls, resident_mb, until

HOST = bytes([127, 0, 0, 1, 0, 0, 0, 9])
TOPIC, GROUP = "popped", "group"
RETRY = f"%RETRY%{GROUP}_{TOPIC}"
_PREFIX = struct.Struct(">II")


class Peer:
    """A connection without a socket."""

    remote = ("127.0.0.1", 9)
    local = ("127.0.0.1", 10911)
    closed = False

    def send(self, data: bytes) -> None: ...

    def close(self, reason: str) -> None: ...


class Client:
    def __init__(self, dispatcher: Dispatcher, clock: loop.LoopClock) -> None:
        self._session = RemotingSession(Peer(), dispatcher, clock)

    def call(self, code: int, fields: dict[str, object]) -> tuple[dict[str, str], bytes]:
        ext = {key: str(value) for key, value in fields.items()}
        header = json.dumps(
            {
                "code": code,
                "extFields": ext,
                "flag": 0,
                "language": "JAVA",
                "opaque": 1,
                "version": 479,
            },
            separators=(",", ":"),
        ).encode()
        size = len(header)
        answer = self._session.receive(_PREFIX.pack(4 + size, size) + header)
        _, word = _PREFIX.unpack_from(answer)
        decoded = decode_header(0, answer[8 : 8 + word])
        if decoded.code not in (0, 210):
            raise RuntimeError(decoded.remark)
        return decoded.ext or {}, answer[8 + word :]

    def pop(self, count: int, invisible_ms: int) -> tuple[dict[str, str], bytes]:
        fields = {
            "consumerGroup": GROUP,
            "topic": TOPIC,
            "queueId": -1,
            "maxMsgNums": count,
            "invisibleTime": invisible_ms,
            "pollTime": 0,
            "bornTime": 0,
            "initMode": 0,
        }
        return self.call(200050, fields)

    def ack(self, data: bytes) -> None:
        record = decode_record(data)
        handle = next(
            piece[7:] for piece in record.properties.split(b"\x02") if piece[:7] == b"POP_CK\x01"
        ).decode()
        self.call(
            200051,
            {
                "consumerGroup": GROUP,
                "topic": RETRY,
                "queueId": 0,
                "extraInfo": handle,
                "offset": record.queue_offset,
            },
        )


async def main(count: int, at_a_time: int, root: str) -> None:
    clock, background = loop.LoopClock(), loop.ThreadBackground()
    settings = BrokerSettings()
    store = open_broker_store(root, settings, RealDisk(), clock, background)
    broker = assemble(settings, store, clock, ("127.0.0.1", 10911))
    store.start()
    broker.start()
    broker.core.topics.create(Topic(name=TOPIC, read_queues=8, write_queues=8))
    for number in range(count):
        properties = f"UNIQ_KEY\x01{number:032X}\x02".encode()
        store.append(Message(TOPIC, number & 7, b"x" * 128, properties, clock.now_ms(), HOST))
        if number % 64 == 0:
            await asyncio.sleep(0)
    client = Client(Dispatcher(broker.routes()), clock)
    stalls = Stalls()
    await asyncio.sleep(1)
    stalls.take()
    before_mb, log_before = resident_mb(), store.commit_log_range()[1]

    invisible_ms = 1000 * (10 + count // (4000 * at_a_time))
    started = time.monotonic()
    due_s = started + invisible_ms / 1000
    popped = 0
    while popped < count:
        _, records = client.pop(at_a_time, invisible_ms)
        popped += len(split_records(records))
        await asyncio.sleep(0)
    spent_s = time.monotonic() - started
    grown = store.commit_log_range()[1] - log_before
    print(
        f"{count} messages popped by {at_a_time} in {spent_s:.1f} s ({count / spent_s:,.0f}/s, "
        f"{count / at_a_time / spent_s:,.0f} pops/s); memory +{resident_mb() - before_mb:.1f} MB, "
        f"{grown / count:.0f} bytes of log a message; longest stall {stalls.take():.0f} ms"
    )
    await until(lambda: broker.core.timer_state()["timerOffsetBehind"] == "0")
    print(f"in the timer: memory +{resident_mb() - before_mb:.1f} MB")
    await asyncio.sleep(max(0.0, due_s - time.monotonic()))
    peak_mb = 0.0
    while store.max_offset(RETRY, 0) < count:
        peak_mb = max(peak_mb, resident_mb())
        await asyncio.sleep(0.05)
    spent_s = time.monotonic() - due_s
    print(
        f"all came again {spent_s:.1f} s after the first was due ({count / spent_s:,.0f}/s); "
        f"memory at most +{peak_mb - before_mb:.1f} MB; longest stall {stalls.take():.0f} ms"
    )
    started = time.monotonic()
    acked = 0
    while acked < count:
        for data in split_records(client.pop(32, 3_600_000)[1]):
            client.ack(data)
            acked += 1
        await asyncio.sleep(0)
    spent_s = time.monotonic() - started
    print(
        f"popped by 32 and acknowledged one by one: {count / spent_s:,.0f}/s; "
        f"memory +{resident_mb() - before_mb:.1f} MB; longest stall {stalls.take():.0f} ms"
    )
    broker.stop()
    store.close()
    background.close()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    at_a_time = int(sys.argv[2]) if len(sys.argv) > 2 else 32
    with tempfile.TemporaryDirectory(prefix="firearrow-bench-") as directory:
        loop.run(main(count, at_a_time, directory))
