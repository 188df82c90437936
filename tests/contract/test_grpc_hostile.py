"""gRPC peers that mean harm, or are broken: what they cost, and that others do not notice."""

from __future__ import annotations

import gc
import logging
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hpack
import pytest
from tests.support.brokers import FakePeer
from tests.support.grpc import GrpcWorld
from tests.support.http2 import BEGIN, Raw, block, open_stream, read_frames

from firearrow.model.network import SessionError
from firearrow.protocol.grpc import frames, refusals
from firearrow.protocol.grpc.frames import (
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from firearrow.protocol.grpc.http2 import NUISANCES_MAX, NUISANCES_S, STREAMS_MAX
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import reflection_pb2
from firearrow.protocol.grpc.refusals import LOG_S
from firearrow.protocol.grpc.server import GrpcServer
from firearrow.protocol.grpc.session import CONNECTION_BYTES_MAX, RESETS_AHEAD_MAX
from firearrow.protocol.grpc.streamcall import MESSAGE_BYTES_MAX, WAITING_BYTES_MAX
from firearrow.proxy.service import SERVICE

MIB = 1024 * 1024
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


@pytest.fixture(autouse=True)
def others(grpc: GrpcWorld) -> Iterator[None]:
    """Whatever happens, another client is served as before."""
    client = grpc.connect("another")
    receive, _ = client.receive("orders", "others", polling_s=20)
    yield
    client.wire.exchange()
    if receive.ended:  # the test moved the clock
        receive, _ = client.receive("orders", "others", polling_s=20)
    assert client.produce("orders", b"still here").status.code == v2.OK
    grpc.world.clock.advance(0.01)
    assert [m.body for m in client.delivered(receive)] == [b"still here"]


def last_error(raw: Raw) -> int:
    """The code of the GOAWAY that came last."""
    (payload,) = [p for kind, _, _, p in read_frames(bytes(raw.peer.written)) if kind == GOAWAY]
    return int.from_bytes(payload[-4:])


def feed(raw: Raw, pieces: Iterable[bytes]) -> None:
    for data in pieces:
        raw.session.receive(data)


def memory_of(work: Callable[[], Any]) -> int:
    """Bytes that were allocated at most while it ran."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# -- floods


FLOODS: dict[str, Callable[[int], bytes]] = {
    "pings": lambda number: frame(PING, 0, 0, bytes(8)),
    "settings": lambda number: frame(SETTINGS, 0, 0),
    "priorities": lambda number: frame(PRIORITY, 0, 1, bytes(5)),
    "unknown frames": lambda number: frame(99, 0, 0, b"x"),
    "empty data": lambda number: frame(DATA, 0, 1),
    "padding": lambda number: frame(DATA, frames.PADDED, 1, b"\x03abc"),
    "windows": lambda number: frame(WINDOW_UPDATE, 0, 0, bytes(3) + b"\x01"),
    "windows of a stream": lambda number: frame(WINDOW_UPDATE, 0, 1, bytes(3) + b"\x01"),
    "windows of a closed stream": lambda number: frame(WINDOW_UPDATE, 0, 3, bytes(3) + b"\x01"),
    "resets of a closed stream": lambda number: frame(RST_STREAM, 0, 3, bytes(4)),
    "data on a closed stream": lambda number: frame(DATA, 0, 3, b"x"),
    "trailers on a closed stream": lambda number: frame(HEADERS, 5, 3, b"\x00\x01x\x01y"),
    "malformed requests": lambda number: frame(HEADERS, 5, 2 * number + 5, b"\x82\x87"),
}


@pytest.fixture(params=FLOODS)
def flood(request: pytest.FixtureRequest, raw: Raw) -> Callable[[int], bytes]:
    made: Callable[[int], bytes] = FLOODS[request.param]
    raw.write(open_stream(1), raw.check(3))
    return made


def test_frames_without_calls_end_the_connection(
    raw: Raw, flood: Callable[[int], bytes], refused: Callable[[], dict[str, int]]
) -> None:
    with pytest.raises(SessionError):
        feed(raw, map(flood, range(2 * NUISANCES_MAX + 10)))
    assert last_error(raw) == frames.ENHANCE_YOUR_CALM
    assert refused()[refusals.FLOOD] == 1


def test_as_many_frames_are_fine_in_their_time(
    grpc: GrpcWorld, raw: Raw, flood: Callable[[int], bytes]
) -> None:
    for number in range(3 * NUISANCES_MAX):
        raw.session.receive(flood(number))
        grpc.world.clock.advance(1.01 * NUISANCES_S / NUISANCES_MAX)


def test_frames_between_calls_are_fine(raw: Raw) -> None:
    for number in range(3 * NUISANCES_MAX):
        raw.session.receive(frame(PING, 0, 0, bytes(8)) + raw.check(2 * number + 1))


def test_a_rapid_reset_ends_the_connection(raw: Raw, refused: Callable[[], dict[str, int]]) -> None:
    attack = b"".join(
        open_stream(number) + frame(RST_STREAM, 0, number, bytes(3) + b"\x08")
        for number in range(1, 2 * RESETS_AHEAD_MAX + 4, 2)
    )
    with pytest.raises(SessionError):
        raw.session.receive(attack)
    assert last_error(raw) == frames.ENHANCE_YOUR_CALM
    assert refused() == {refusals.RESETS: 1}


def test_calls_that_are_given_up_now_and_then_are_fine(raw: Raw) -> None:
    for number in range(1, 8 * RESETS_AHEAD_MAX, 4):
        reset = frame(RST_STREAM, 0, number, bytes(3) + b"\x08")
        raw.session.receive(open_stream(number) + reset + raw.check(number + 2))


def test_streams_above_the_limit_are_refused_and_a_flood_of_them_ends(
    raw: Raw, refused: Callable[[], dict[str, int]]
) -> None:
    raw.write(*(open_stream(2 * number + 1) for number in range(STREAMS_MAX)))
    above = iter(range(2 * STREAMS_MAX + 1, 10**6, 2))
    for _ in range(100):
        ((kind, _, _, code),) = raw.write(open_stream(next(above)))
        assert (kind, int.from_bytes(code)) == (RST_STREAM, frames.REFUSED_STREAM)
    assert refused() == {refusals.STREAMS: 100}
    with pytest.raises(SessionError):
        feed(raw, (open_stream(next(above)) for _ in range(2 * NUISANCES_MAX)))


# -- memory


def test_a_header_bomb_takes_no_memory(raw: Raw) -> None:
    """One large entry of the table, and thousands of references to it."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("bomb", "x" * 3900)]
    bomb = hpack.Encoder().encode(headers) + b"\xbe" * 12_000
    peak = memory_of(lambda: raw.write(frame(HEADERS, 5, 1, bomb)))
    assert peak < MIB


def test_headers_above_the_limit_end_the_connection(
    raw: Raw, refused: Callable[[], dict[str, int]]
) -> None:
    piece = frame(frames.CONTINUATION, 0, 1, bytes(16_000))
    with pytest.raises(SessionError):
        raw.write(frame(HEADERS, 0, 1, block()), piece * 5)
    assert last_error(raw) == frames.ENHANCE_YOUR_CALM
    assert refused() == {refusals.HEADERS: 1}


def test_values_of_headers_do_not_stay_in_memory(
    grpc: GrpcWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """What decoders remember of compressed texts serves all connections, so it must be small."""
    caplog.set_level(logging.ERROR)  # pytest would keep every line, which counts as memory too

    def attack(numbers: range) -> None:
        for number in numbers:
            raw = Raw(grpc).begin()
            headers = [(":method", "POST"), (":scheme", "http"), (":path", "/")]
            large = hpack.Encoder().encode([*headers, ("large", f"{number:05}" + "0" * 9000)])
            raw.write(frame(HEADERS, 5, 1, large))

    attack(range(300))
    gc.collect()
    tracemalloc.start()
    attack(range(300, 600))
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 2 * MIB


def test_bodies_that_never_end(raw: Raw, refused: Callable[[], dict[str, int]]) -> None:
    size = MESSAGE_BYTES_MAX - 1
    chunk = frame(DATA, 0, 1, bytes(16_000))

    def attack() -> None:
        for stream_id in range(1, 2 * CONNECTION_BYTES_MAX // size + 5, 2):
            raw.session.receive(
                open_stream(stream_id) + frame(DATA, 0, stream_id, b"\0" + struct.pack(">I", size))
            )
            part = chunk[:8] + bytes([stream_id]) + chunk[9:]
            for _ in range(size // 16_000):
                raw.session.receive(part)

    with pytest.raises(SessionError):
        attack()
    assert last_error(raw) == frames.ENHANCE_YOUR_CALM
    assert refused() == {refusals.UNFINISHED: 1}


@pytest.mark.slow
def test_answers_that_nobody_reads(raw: Raw, refused: Callable[[], dict[str, int]]) -> None:
    """A peer that opens no window: its streams are given up when too much waits for it."""
    raw.write(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    headers = [(":method", "POST"), (":scheme", "http"), (":path", REFLECTION)]
    begin = encoder.encode([*headers, ("content-type", "application/grpc")])
    symbol = SERVICE.strip("/")
    question = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
    data = question.SerializeToString()
    ask = b"\0" + struct.pack(">I", len(data)) + data

    def attack() -> None:
        for stream_id in (1, 3, 5, 7):
            raw.session.receive(frame(HEADERS, END_HEADERS, stream_id, begin))
        while not refused():
            for stream_id in (1, 3, 5, 7):
                written.append(raw.session.receive(frame(DATA, 0, stream_id, ask) * 50))

    written: list[bytes] = []
    peak = memory_of(attack)
    assert peak < 1.5 * WAITING_BYTES_MAX
    assert refused() == {refusals.UNREAD: 1}
    resets = [f for f in read_frames(b"".join(written)) if f[0] == RST_STREAM]
    assert len(resets) == 1  # the others go on


# -- what the operator sees


def test_one_line_a_minute_says_what_was_refused(
    grpc: GrpcWorld, server: GrpcServer, caplog: pytest.LogCaptureFixture
) -> None:
    def attack() -> None:
        for _ in range(50):
            with pytest.raises(SessionError):
                server.connect(FakePeer(4711)).receive(BEGIN + frame(PING, 0, 1, bytes(8)))

    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    attack()
    (line,) = lines()
    assert line.startswith("refused 1 of protocol")
    assert "127.0.0.1:4711" in line
    grpc.world.clock.advance(LOG_S + 1)
    attack()
    assert lines()[1].startswith("refused 50 of protocol")
    assert server.state()["grpcRefusedProtocol"] == "100"
    assert server.state()["grpcRefusedFlood"] == "0"
