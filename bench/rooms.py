"""What an ordinary message pays for features that it does not use, without any socket."""

from __future__ import annotations

import gc
import json
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.plan import Plan
from bench.results import Result, Target

from firearrow.assembly import assemble, open_broker_store
from firearrow.broker.broker import Broker, Core
from firearrow.config import BrokerSettings
from firearrow.features.retry import RetryRoom
from firearrow.model.background import InlineBackground
from firearrow.model.clock import VirtualClock
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession
from firearrow.store.disk import RealDisk
from firearrow.store.filestore import FileStore

FRAMES = 10_000
REPEATS = 25
PORT = 10911
Receive = Callable[[bytes], bytes]


class _Peer:
    """A client that reads nothing."""

    remote = ("127.0.0.1", 40000)
    local = ("127.0.0.1", PORT)
    closed = False

    def send(self, data: bytes) -> None: ...

    def close(self, reason: str) -> None: ...


def price(plan: Plan) -> Iterator[Result]:
    """Sends and pulls through the whole broker, with all its feature rooms and with none."""
    with tempfile.TemporaryDirectory(prefix="firearrow-bench-") as directory:
        with_rooms = _session(Path(directory) / "with", rooms=True)
        without = _session(Path(directory) / "without", rooms=False)
        count = plan.count(FRAMES)
        cases = {
            "ordinary send": [_send(n, keys=False) for n in range(count)],
            "send with its own KEYS": [_send(n, keys=True) for n in range(count)],
            "pull of 32": [_pull(n) for n in range(count // 10)],
        }
        for case, frames in cases.items():
            ours, bare = _times(frames, (with_rooms, without))
            yield Result(
                "rooms",
                case,
                "price of all rooms, percent",
                (ours / bare - 1) * 100,
                Target(most=5),
                {"us": ours * 1e6},
                {"us": bare * 1e6},
            )


def _session(root: Path, *, rooms: bool) -> Receive:
    settings, clock = BrokerSettings(), VirtualClock()
    settings.broker_name = "broker-a"
    settings.mapped_file_size_commit_log = 1024**3
    store = open_broker_store(str(root), settings, RealDisk(), clock, InlineBackground())
    address = ("127.0.0.1", PORT)
    if rooms:
        broker = assemble(settings, store, clock, address)
    else:
        broker = _bare(settings, store, clock, address)
        # Nobody to ask about a message: no look at its properties either.
        setattr(broker.core.writer, "put", store.append)  # noqa: B010
    broker.start()
    return RemotingSession(_Peer(), Dispatcher(broker.routes()), clock).receive


def _bare(
    settings: BrokerSettings, store: FileStore, clock: VirtualClock, address: tuple[str, int]
) -> Broker:
    """What every room stands on. Sends need the retry room's rules for retry topics."""
    core = Core(settings, store, clock, address)
    store.settings.store_host = core.store_host
    core.load()
    retry = RetryRoom(
        settings, store, core.writer, core.topics, core.groups, core.locks, core.stats
    )
    return Broker(core, retry, ())


def _times(frames: list[bytes], sides: tuple[Receive, Receive]) -> tuple[float, float]:
    """Seconds a frame, each the best of many turns: whatever disturbs only adds."""
    best = [float("inf")] * len(sides)
    gc.collect()
    gc.freeze()
    for turn in range(REPEATS):
        for index in (0, 1) if turn % 2 else (1, 0):
            receive = sides[index]
            started = time.perf_counter()
            for frame in frames:
                receive(frame)
            best[index] = min(best[index], (time.perf_counter() - started) / len(frames))
    return best[0], best[1]


def _send(number: int, *, keys: bool) -> bytes:
    unique = f"7F0000010F2A18B4{number:016X}"
    properties = f"UNIQ_KEY\x01{unique}\x02WAIT\x01true\x02"
    if keys:
        properties = f"KEYS\x01order-{number}\x02{properties}TAGS\x01paid\x02"
    fields = {
        "a": "benchmark_producer",
        "b": "BenchmarkTest",
        "c": "TBW102",
        "d": "8",
        "e": str(number % 8),
        "f": "0",
        "g": "1700000000000",
        "h": "0",
        "i": properties,
        "j": "0",
        "k": "false",
        "l": "0",
        "m": "false",
        "n": "broker-a",
    }
    return _frame(310, number, fields, b"x" * 128)


def _pull(number: int) -> bytes:
    fields = {
        "consumerGroup": "benchmark_consumer",
        "topic": "BenchmarkTest",
        "queueId": str(number % 8),
        "queueOffset": str(number // 8 * 32),
        "maxMsgNums": "32",
        "sysFlag": "4",
        "commitOffset": "0",
        "suspendTimeoutMillis": "0",
        "subscription": "*",
        "subVersion": "0",
    }
    return _frame(11, number, fields, b"")


def _frame(code: int, number: int, fields: dict[str, str], body: bytes) -> bytes:
    header = {"code": code, "extFields": fields, "flag": 0, "language": "JAVA", "opaque": number}
    encoded = json.dumps({**header, "version": 479}, separators=(",", ":")).encode()
    return struct.pack(">II", 4 + len(encoded) + len(body), len(encoded)) + encoded + body
