"""HTTP/2 frame by frame: what a peer may send, and what costs it a stream or the connection."""

from __future__ import annotations

import struct

import hpack
import pytest
from tests.support.grpc import GrpcWorld
from tests.support.http2 import EMPTY, Raw, block, open_stream, read_frames

from firearrow.model.network import SessionError
from firearrow.protocol.grpc import frames
from firearrow.protocol.grpc.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame,
)
from firearrow.protocol.grpc.http2 import HEADER_BYTES_MAX, STREAMS_MAX, WINDOW_BYTES

LAST = END_HEADERS | END_STREAM
MALFORMED = b"\x40\x01x\x7f"


def error_codes(data: bytes, kind: int) -> list[int]:
    return [
        int.from_bytes(payload[-4:]) for found, _, _, payload in read_frames(data) if found == kind
    ]


@pytest.fixture
def raw(grpc: GrpcWorld) -> Raw:
    return Raw(grpc).begin()


ANSWER = [HEADERS, DATA, HEADERS]


def kinds(found: list[tuple[int, int, int, bytes]]) -> list[int]:
    return [kind for kind, *_ in found]


def test_a_connection_has_no_number_of_calls_after_which_it_ends(raw: Raw) -> None:
    for number in range(9000):
        assert len(raw.session.receive(raw.check(2 * number + 1))) > 50


def test_padding_and_priorities(raw: Raw) -> None:
    padded = b"\x03" + bytes(5) + block() + bytes(3)
    head = frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, 1, padded)
    body = frame(DATA, END_STREAM | PADDED, 1, b"\x02" + EMPTY + bytes(2))
    assert kinds(raw.write(head, frame(PRIORITY, 0, 1, bytes(5)), body)) == ANSWER


def test_headers_in_pieces(raw: Raw) -> None:
    whole = block()
    pieces = [frame(CONTINUATION, 0, 1, whole[at : at + 7]) for at in range(7, len(whole), 7)]
    head = frame(HEADERS, 0, 1, whole[:7])
    end = frame(CONTINUATION, END_HEADERS, 1)
    assert kinds(raw.write(head, *pieces, end, frame(DATA, END_STREAM, 1, EMPTY))) == ANSWER


def test_an_end_of_its_own_and_trailers(raw: Raw) -> None:
    body = frame(DATA, 0, 1, EMPTY)
    assert raw.write(open_stream(1), body) == []
    assert kinds(raw.write(frame(DATA, END_STREAM, 1))) == ANSWER
    trailers = frame(HEADERS, LAST, 3, b"\x00\x01x\x01y")
    assert kinds(raw.write(open_stream(3), frame(DATA, 0, 3, EMPTY), trailers)) == ANSWER


def test_pings_are_answered_and_unknown_frames_are_not(raw: Raw) -> None:
    ping = frame(PING, 0, 0, b"12345678")
    assert raw.write(ping, frame(PING, ACK, 0, bytes(8)), frame(77, 0, 0, b"x")) == [
        (PING, ACK, 0, b"12345678")
    ]


def test_more_streams_than_allowed_are_refused(raw: Raw) -> None:
    raw.write(*(open_stream(2 * number + 1) for number in range(STREAMS_MAX)))
    first_above = 2 * STREAMS_MAX + 1
    refused = (RST_STREAM, 0, first_above, struct.pack(">I", frames.REFUSED_STREAM))
    assert raw.write(raw.check(first_above)) == [refused]
    assert kinds(raw.write(frame(DATA, END_STREAM, 1, EMPTY))) == ANSWER
    assert kinds(raw.write(raw.check(first_above + 2))) == ANSWER


def test_windows_are_renewed(raw: Raw) -> None:
    chunk = frame(DATA, 0, 1, bytes([0]) + struct.pack(">I", 15_000_000) + bytes(16_000))
    more = frame(DATA, 0, 1, bytes(16_005))
    found = raw.write(open_stream(1), chunk, *[more] * (WINDOW_BYTES * 2 // 16_005))
    renewed = {0: 0, 1: 0}
    for kind, _, stream_id, payload in found:
        assert kind == WINDOW_UPDATE
        renewed[stream_id] += int.from_bytes(payload)
    assert min(renewed.values()) >= WINDOW_BYTES


def test_an_answer_waits_for_the_peers_windows(raw: Raw) -> None:
    raw.write(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    assert kinds(raw.write(raw.check(1))) == [HEADERS]
    some = frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 3))
    ((kind, _, _, first),) = raw.write(some)
    assert (kind, len(first)) == (DATA, 3)
    known, rest, trailers = raw.write(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 100)))
    assert known[:2] == (SETTINGS, ACK)
    assert (rest[0], trailers[0]) == (DATA, HEADERS)
    assert trailers[1] & END_STREAM
    assert len(first + rest[3]) == 7


def test_an_early_answer_stops_the_request(raw: Raw) -> None:
    too_large = b"\x00" + struct.pack(">I", 2**31)
    *_, head, stop = raw.write(open_stream(1), frame(DATA, 0, 1, too_large))
    assert (head[0], head[1]) == (HEADERS, LAST)
    assert stop == (RST_STREAM, 0, 1, bytes(4))
    late = [frame(DATA, 0, 1, b"x"), frame(WINDOW_UPDATE, 0, 1, bytes(3) + b"\x01")]
    assert raw.write(*late, frame(DATA, END_STREAM, 1), frame(RST_STREAM, 0, 1, bytes(4))) == []
    assert kinds(raw.write(raw.check(3))) == ANSWER


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 2**31 - 1)), frames.FLOW_CONTROL_ERROR),
        (frame(WINDOW_UPDATE, 0, 1, bytes(4)), frames.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\x00\x01x\x01y"), frames.PROTOCOL_ERROR),
    ],
)
def test_what_costs_a_stream(raw: Raw, wrong: bytes, code: int) -> None:
    raw.write(open_stream(1))
    assert raw.write(wrong) == [(RST_STREAM, 0, 1, struct.pack(">I", code))]
    assert kinds(raw.write(raw.check(3))) == ANSWER


def test_data_behind_the_end_costs_the_stream(raw: Raw) -> None:
    watch = frame(HEADERS, END_HEADERS, 1, block("Watch"))
    assert kinds(raw.write(watch, frame(DATA, END_STREAM, 1, EMPTY))) == [HEADERS, DATA]
    closed = struct.pack(">I", frames.STREAM_CLOSED)
    assert raw.write(frame(DATA, 0, 1, b"x")) == [(RST_STREAM, 0, 1, closed)]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (frame(DATA, 0, 0, b"x"), frames.PROTOCOL_ERROR),
        (frame(DATA, 0, 99, b"x"), frames.PROTOCOL_ERROR),
        (frame(DATA, PADDED, 1, b"\x09x"), frames.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 0, block()), frames.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 4, block()), frames.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, block()), frames.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS | WITH_PRIORITY, 3, b"x"), frames.FRAME_SIZE_ERROR),
        (frame(HEADERS, END_HEADERS, 3, MALFORMED), frames.COMPRESSION_ERROR),
        (frame(HEADERS, 0, 3, block()) + frame(PING, 0, 0, bytes(8)), frames.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 3, b"") + frame(DATA, 0, 1, b"x"), frames.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 3, b"") + open_stream(5), frames.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 3, b"") + frame(CONTINUATION, 4, 5, b""), frames.PROTOCOL_ERROR),
        (
            frame(HEADERS, 0, 3, b"") + frame(CONTINUATION, 0, 3) * HEADER_BYTES_MAX,
            frames.ENHANCE_YOUR_CALM,
        ),
        (frame(CONTINUATION, END_HEADERS, 1), frames.PROTOCOL_ERROR),
        (frame(PRIORITY, 0, 1, b"x"), frames.FRAME_SIZE_ERROR),
        (frame(PRIORITY, 0, 0, bytes(5)), frames.PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 0, bytes(4)), frames.PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 99, bytes(4)), frames.PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, b"x"), frames.FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 1), frames.PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, bytes(6)), frames.FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)), frames.FLOW_CONTROL_ERROR),
        (frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 100)), frames.PROTOCOL_ERROR),
        (frame(PUSH_PROMISE, 0, 1, bytes(4)), frames.PROTOCOL_ERROR),
        (frame(PING, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (frame(PING, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (frame(GOAWAY, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, bytes(4)), frames.PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 99, bytes(3) + b"\x01"), frames.PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)), frames.FLOW_CONTROL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (b"\x00\x40\x01" + bytes(6), frames.FRAME_SIZE_ERROR),
    ],
)
def test_what_costs_the_connection(raw: Raw, wrong: bytes, code: int) -> None:
    raw.write(open_stream(1))
    with pytest.raises(SessionError):
        raw.write(wrong)
    assert error_codes(bytes(raw.peer.written), GOAWAY) == [code]


@pytest.mark.parametrize("first", [open_stream(1), frame(DATA, 0, 1), frame(PING, 0, 0, bytes(8))])
def test_settings_come_first(grpc: GrpcWorld, first: bytes) -> None:
    raw = Raw(grpc)
    with pytest.raises(SessionError):
        raw.write(PREFACE, first)
    assert error_codes(bytes(raw.peer.written), GOAWAY) == [frames.PROTOCOL_ERROR]


def test_a_peer_that_goes_away(raw: Raw) -> None:
    assert raw.write(frame(GOAWAY, 0, 0, bytes(8))) == []
    assert kinds(raw.write(raw.check(1))) == ANSWER  # what it began before is still answered
    with pytest.raises(SessionError):
        raw.write(frame(GOAWAY, 0, 0, bytes(7) + b"\x02"))


def test_two_requests_in_a_unary_call(raw: Raw) -> None:
    ((kind, flags, _, trailers),) = raw.write(
        open_stream(1), frame(DATA, 0, 1, EMPTY), frame(DATA, END_STREAM, 1, EMPTY)
    )
    assert (kind, flags) == (HEADERS, LAST)
    assert dict(hpack.Decoder().decode(trailers, raw=True))[b"grpc-status"] == b"13"
