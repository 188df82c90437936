"""One HTTP/2 request: its header fields, how long its body is, and who is no gRPC client."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import hpack
import pytest
from tests.support.brokers import FakePeer
from tests.support.grpc import GrpcWorld
from tests.support.http2 import EMPTY, Raw

from firearrow.model.network import SessionError
from firearrow.protocol.either import EitherSession
from firearrow.protocol.grpc import calls, frames, refusals
from firearrow.protocol.grpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from firearrow.protocol.grpc.server import GrpcServer
from firearrow.proxy.service import SERVICE


@pytest.mark.parametrize("timeout", ["abc", "", "5", "123456789S", "-5S", "5s", "٣S"])
def test_a_timeout_that_is_none(grpc: GrpcWorld, timeout: str) -> None:
    client = grpc.connect()
    stream = client.wire.open(SERVICE + "QueryRoute", {**client.metadata, "grpc-timeout": timeout})
    assert stream.grpc_status == calls.INTERNAL


def alike(stream_id: int, timeout: str, value: str) -> bytes:
    """A whole call with an id and a timeout of its own, as literals that no table remembers."""
    fields = [(":path", "/grpc.health.v1.Health/Check"), ("content-type", "application/grpc")]
    own = [("x-mq-request-id", value), ("grpc-timeout", timeout)]
    block = b"\x83\x86" + b"".join(
        b"\x00" + b"".join(bytes((len(text),)) + text.encode() for text in field)
        for field in (*fields, *own)
    )
    head = frame(HEADERS, END_HEADERS, stream_id, block)
    return head + frame(DATA, END_STREAM, stream_id, EMPTY)


def indexed(stream_id: int, timeout: str, value: str = "1", method: bytes = b"\x83") -> bytes:
    """The same, with what stays in the table; the first call puts it there."""
    path = b"/grpc.health.v1.Health/Check"
    kept = b"\xbf\xbe"
    if stream_id == 1:
        kept = b"\x44" + bytes((len(path),)) + path + b"\x5f\x10application/grpc"
    own = [("x-mq-request-id", value), ("grpc-timeout", timeout)]
    block = method + b"\x86" + kept
    for field in own:
        block += b"\x00" + b"".join(bytes((len(text),)) + text.encode() for text in field)
    head = frame(HEADERS, END_HEADERS, stream_id, block)
    return head + frame(DATA, END_STREAM, stream_id, EMPTY)


@pytest.mark.parametrize("call", [alike, indexed])
def test_calls_that_are_alike(raw: Raw, call: Callable[..., bytes]) -> None:
    answers = [raw.write(call(2 * number + 1, f"{number}S", f"{number}")) for number in range(9)]
    assert len({tuple(payload for *_, payload in answer) for answer in answers}) == 1
    assert [answer[0][2] for answer in answers] == [1, 3, 5, 7, 9, 11, 13, 15, 17]


@pytest.mark.parametrize("timeout", ["5s", "x1", "-S"])
def test_a_timeout_that_is_none_among_calls_that_are_alike(raw: Raw, timeout: str) -> None:
    for stream_id in (1, 3, 5):
        raw.write(indexed(stream_id, "5S"))
    ((kind, flags, _, payload),) = raw.write(indexed(7, timeout))[:1]
    assert kind == HEADERS
    assert flags == END_HEADERS | END_STREAM
    assert dict(raw.decoder.decode(payload, raw=True))[b"grpc-status"] == b"13"
    assert [kind for kind, *_ in raw.write(indexed(9, "5S"))] == [HEADERS, DATA, HEADERS]


def test_each_of_calls_that_are_alike_has_its_own_deadline(grpc: GrpcWorld) -> None:
    raw = Raw(grpc).begin()
    waiting: list[calls.Call] = []
    path = "/grpc.health.v1.Health/Check"
    raw.session._methods = {path: calls.Method(bytes, lambda call, message: waiting.append(call))}
    for stream_id, timeout in ((1, "9S"), (3, "8S"), (5, "2S"), (7, "5S")):
        raw.write(indexed(stream_id, timeout, f"{stream_id}"))
    assert [call.metadata["x-mq-request-id"] for call in waiting] == ["1", "3", "5", "7"]
    assert [call.field("grpc-timeout") for call in waiting] == ["9S", "8S", "2S", "5S"]
    grpc.world.clock.advance(6)
    assert [call.ended for call in waiting] == [False, False, True, True]


def test_what_decides_is_looked_at_among_calls_that_are_alike(raw: Raw) -> None:
    for stream_id in (1, 3, 5):
        raw.write(indexed(stream_id, "5S"))
    get = raw.write(indexed(7, "5S", method=b"\x82"))
    assert dict(raw.decoder.decode(get[0][3], raw=True))[b":status"] == b"415"
    with pytest.raises(SessionError, match="opened again"):
        raw.write(indexed(5, "5S"))


def test_a_line_end_among_calls_that_are_alike(raw: Raw) -> None:
    for stream_id in (1, 3, 5):
        raw.write(indexed(stream_id, "5S", "123"))
    with pytest.raises(SessionError, match="line end"):
        raw.write(indexed(7, "5S", "1\n3"))


def test_a_request_of_the_web_is_told_where_it_is(grpc: GrpcWorld) -> None:
    wire = grpc.wire()
    stream = wire.open("/", {"content-type": "text/html"})
    wire.write_raw(stream, b"", end=True)
    assert stream.headers[":status"] == "415"
    assert b"RocketMQ" in stream.data
    assert stream.ended


def test_an_answer_to_the_web_waits_for_its_window_too(raw: Raw) -> None:
    raw.write(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    get = hpack.Encoder().encode([(":method", "GET"), (":scheme", "http"), (":path", "/")])
    assert [kind for kind, *_ in raw.write(frame(HEADERS, 5, 1, get))] == [HEADERS]
    window = frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1000))
    assert [kind for kind, *_ in raw.write(window)] == [DATA, HEADERS]


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\n\r\n", b"POST /x HTTP/1.0\r\n\r\n"])
@pytest.mark.parametrize("piece", [1, 1000])
def test_http1_is_told_where_it_is(server: GrpcServer, request_line: bytes, piece: int) -> None:
    peer = FakePeer(1)

    def remoting(peer: Any) -> Any:
        raise AssertionError("this is no remoting")

    session = EitherSession(peer, server.connect, remoting, server.refusals.count)
    pieces = [request_line[at : at + piece] for at in range(0, len(request_line), piece)]
    with pytest.raises(SessionError):
        list(map(session.receive, pieces))
    assert peer.written.startswith(b"HTTP/1.1 426 ")
    assert b"RocketMQ" in peer.written
    assert server.refusals.counts[refusals.NOT_GRPC] == 1


@pytest.mark.parametrize(
    "changed",
    [
        {":path": ""},
        {":path": None},
        {":method": None},
        {":scheme": None},
        {":status": "200"},
        {":other": "x"},
        {"te": "gzip"},
        {"connection": "close"},
        {"transfer-encoding": "chunked"},
    ],
)
def test_a_malformed_request_costs_its_stream(
    raw: Raw, changed: dict[str, str | None], refused: Callable[[], dict[str, int]]
) -> None:
    headers: dict[str, str | None] = {":method": "POST", ":scheme": "http", ":path": "/a"}
    headers |= {"content-type": "application/grpc", "te": "trailers", **changed}
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    plain = encoder.encode([(name, text) for name, text in headers.items() if text is not None])
    reset = (RST_STREAM, 0, 1, struct.pack(">I", frames.PROTOCOL_ERROR))
    assert raw.write(frame(HEADERS, END_HEADERS, 1, plain)) == [reset]
    assert raw.write(frame(DATA, END_STREAM, 1, EMPTY)) == []  # it was on its way
    assert refused() == {refusals.MALFORMED: 1}
    assert [kind for kind, *_ in raw.write(raw.check(3))] == [HEADERS, DATA, HEADERS]


FIRST = [(":method", "POST"), (":scheme", "http"), (":path", "/a")]
GRPC = ("content-type", "application/grpc")


def request(*headers: tuple[str, str]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(headers)


@pytest.mark.parametrize(
    "headers",
    [
        *([*FIRST, again, GRPC] for again in FIRST),
        *([*FIRST, GRPC, again] for again in FIRST),
        [*FIRST[:2], GRPC, FIRST[2]],
        [*FIRST, GRPC, (":authority", "here")],
        [*FIRST, GRPC, ("content-length", "-5")],
        [*FIRST, GRPC, ("content-length", "five")],
    ],
)
def test_headers_out_of_order_cost_their_stream(
    raw: Raw, headers: list[tuple[str, str]], refused: Callable[[], dict[str, int]]
) -> None:
    reset = (RST_STREAM, 0, 3, struct.pack(">I", frames.PROTOCOL_ERROR))
    assert [kind for kind, *_ in raw.write(raw.check(1))] == [HEADERS, DATA, HEADERS]
    assert raw.write(frame(HEADERS, END_HEADERS, 3, request(*headers))) == [reset]
    assert refused() == {refusals.MALFORMED: 1}
    assert [kind for kind, *_ in raw.write(raw.check(5))] == [HEADERS, DATA, HEADERS]


def test_a_field_of_ones_own_may_be_there_twice(raw: Raw) -> None:
    path = (":path", "/grpc.health.v1.Health/Check")
    head = request(*FIRST[:2], path, GRPC, ("mine", "a"), ("mine", "b"))
    body = frame(DATA, END_STREAM, 1, EMPTY)
    answer = raw.write(frame(HEADERS, END_HEADERS, 1, head), body)
    assert [kind for kind, *_ in answer] == [HEADERS, DATA, HEADERS]


def with_length(stream_id: int, length: int, flags: int = END_HEADERS) -> bytes:
    path = (":path", "/grpc.health.v1.Health/Check")
    head = request(*FIRST[:2], path, GRPC, ("content-length", str(length)))
    return frame(HEADERS, flags, stream_id, head)


BODIES = {
    "in one": frame(DATA, END_STREAM, 1, EMPTY),
    "in pieces": frame(DATA, 0, 1, EMPTY[:2]) + frame(DATA, END_STREAM, 1, EMPTY[2:]),
    "padded": frame(DATA, END_STREAM | frames.PADDED, 1, b"\x03" + EMPTY + bytes(3)),
    "before trailers": frame(DATA, 0, 1, EMPTY) + frame(HEADERS, 5, 1, b"\x00\x01x\x01y"),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_as_long_as_announced(raw: Raw, body: bytes) -> None:
    answer = raw.write(with_length(1, len(EMPTY)), body)
    assert [kind for kind, *_ in answer] == [HEADERS, DATA, HEADERS]


@pytest.mark.parametrize("length", [0, len(EMPTY) - 1, len(EMPTY) + 1])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_of_another_length_costs_its_stream(
    raw: Raw, body: bytes, length: int, refused: Callable[[], dict[str, int]]
) -> None:
    reset = (RST_STREAM, 0, 1, struct.pack(">I", frames.PROTOCOL_ERROR))
    assert raw.write(with_length(1, length), body) == [reset]
    assert refused() == {refusals.MALFORMED: 1}
    assert [kind for kind, *_ in raw.write(raw.check(3))] == [HEADERS, DATA, HEADERS]


def test_a_length_without_a_body_costs_its_stream(raw: Raw) -> None:
    reset = (RST_STREAM, 0, 1, struct.pack(">I", frames.PROTOCOL_ERROR))
    assert raw.write(with_length(1, 5, END_HEADERS | END_STREAM)) == [reset]


def test_an_answer_to_the_web_comes_behind_all_of_its_request(raw: Raw) -> None:
    """A reset of what is still to come would keep some clients from reading the answer."""
    post = request(*FIRST, ("content-type", "text/html"))
    assert raw.write(frame(HEADERS, END_HEADERS, 1, post), frame(DATA, 0, 1, b"x")) == []
    answer = raw.write(frame(DATA, END_STREAM, 1, b"y"))
    assert [kind for kind, *_ in answer] == [HEADERS, DATA, HEADERS]
