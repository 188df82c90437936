"""A remoting connection: frames in any pieces, both header encodings, calls both ways."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from tests.support.brokers import FakePeer

from firearrow.model import codes
from firearrow.model.clock import VirtualClock
from firearrow.model.network import SessionError
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.headers import decode_header, encode_request
from firearrow.protocol.remoting.requests import REQUESTS, QueueOfTopic
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession, Route

GET_MAX_OFFSET = 30

# GET_ROUTEINFO_BY_TOPIC of T1 by a Java client, version 479, opaque 7 (remoting.md 1.4).
BINARY_105 = bytes.fromhex(
    "00000026010000220069000 1DF0000000700000000000000000000000D0005746F706963000000025431".replace(
        " ", ""
    )
)


class Server:
    """A session with two requests: 30 answers its fields, 105 its topic."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.peer = FakePeer(1)
        self.seen: list[Request[Any]] = []
        routes = {code: Route(*REQUESTS[code], self.handle) for code in (GET_MAX_OFFSET, 105, 310)}
        self.session = RemotingSession(self.peer, Dispatcher(routes), self.clock)

    def handle(self, request: Request[Any]) -> Answer:
        self.seen.append(request)
        if request.fields is not None and getattr(request.fields, "topic", "") == "boom":
            raise RuntimeError("unforeseen")
        return Reply(ext={"offset": "5"}, body=request.body)

    def answers(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """(opaque, code, body) of everything that comes back."""
        out = self.session.receive(data)
        found = []
        while out:
            length, word = struct.unpack_from(">II", out)
            header = decode_header(0, out[8 : 8 + word])
            found.append((header.opaque, header.code, out[8 + word : 4 + length]))
            out = out[4 + length :]
        return found


def json_frame(header: dict[str, Any], body: bytes = b"", tail: bytes = b"") -> bytes:
    encoded = msgspec.json.encode(header) + tail
    return struct.pack(">II", 4 + len(encoded) + len(body), len(encoded)) + encoded + body


def test_a_request_of_java() -> None:
    server = Server()
    frame = json_frame(
        {
            "code": GET_MAX_OFFSET,
            "extFields": {"topic": "T", "queueId": "3", "bname": "broker-a"},
            "flag": 0,
            "language": "JAVA",
            "opaque": 9,
            "serializeTypeCurrentRPC": "JSON",
            "version": 479,
        },
        b"body",
    )
    assert server.answers(frame) == [(9, 0, b"body")]
    assert server.seen[0].fields == QueueOfTopic("T", 3)


def test_a_request_of_cpp_with_numbers_and_a_newline() -> None:
    server = Server()
    frame = json_frame(
        {
            "code": GET_MAX_OFFSET,
            "extFields": {"topic": "T", "queueId": 3, "Signature": "", "AccessKey": ""},
            "flag": 0,
            "language": "CPP",
            "opaque": 1,
            "remark": "",
            "version": 333,
        },
        tail=b"\n",
    )
    assert server.answers(frame) == [(1, 0, b"")]
    assert server.seen[0].fields == QueueOfTopic("T", 3)


def test_keys_in_another_order_and_nulls() -> None:
    server = Server()
    frame = json_frame(
        {
            "opaque": 4,
            "remark": None,
            "unknown": {"a": [1]},
            "extFields": {"queueId": "1", "topic": "T", "x": None},
            "code": GET_MAX_OFFSET,
        }
    )
    assert server.answers(frame) == [(4, 0, b"")]


def test_a_binary_request_is_answered_in_json() -> None:
    server = Server()
    assert server.answers(BINARY_105) == [(7, 0, b"")]
    request = server.seen[0]
    assert (request.fields.topic, request.version, request.language) == ("T1", 479, "JAVA")


def test_pieces_of_any_size_make_the_same_frames() -> None:
    stream = BINARY_105 + json_frame({"code": 105, "extFields": {"topic": "x"}, "opaque": 8}, b"b")
    whole = Server().session.receive(stream)
    for size in (1, 2, 3, 7, 8, 9, 40, 100):
        server = Server()
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        assert b"".join(server.session.receive(piece) for piece in pieces) == whole


def test_an_unknown_code_is_said() -> None:
    server = Server()
    frame = json_frame({"code": 9999, "opaque": 3})
    assert server.answers(frame) == [(3, codes.REQUEST_CODE_NOT_SUPPORTED, b"")]


def test_a_handler_that_fails_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    frame = json_frame(
        {"code": GET_MAX_OFFSET, "extFields": {"topic": "boom", "queueId": "1"}, "opaque": 3}
    )
    assert server.answers(frame) == [(3, codes.SYSTEM_ERROR, b"")]
    assert "unforeseen" in caplog.text


@pytest.mark.parametrize(
    "ext", [{}, {"topic": "T"}, {"topic": "T", "queueId": "many"}, None, "absent"]
)
def test_fields_that_are_missing_or_wrong_are_an_answer(
    caplog: pytest.LogCaptureFixture, ext: dict[str, str] | str | None
) -> None:
    server = Server()
    header = {"code": GET_MAX_OFFSET, "extFields": ext, "opaque": 3}
    if ext == "absent":
        del header["extFields"]
    assert server.answers(json_frame(header)) == [(3, codes.SYSTEM_ERROR, b"")]
    assert not caplog.records, "it was foreseen"


def test_one_way_requests_are_not_answered() -> None:
    server = Server()
    for code in (GET_MAX_OFFSET, 9999):
        assert server.answers(json_frame({"code": code, "flag": 2, "opaque": 1})) == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x7f\xff\xff\xff\x00\x00\x00\x10",  # 2 GB
        b"\x00\x00\x00\x03\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\x00\x00\x00\x00",
        b"\x00\x00\x00\x08\x00\x00\x00\x40" + b"{}" * 4,  # header longer than the frame
        b"\x00\x00\x00\x08\x09\x00\x00\x04" + b"abcd",  # unknown encoding
        b"\x00\x00\x00\x08\x00\x00\x00\x04" + b"abcd",  # no JSON
        b"\x00\x00\x00\x08\x00\x00\x00\x04" + b"[[[[",
        b"\x00\x00\x00\x08\x01\x00\x00\x04" + b"abcd",  # short binary
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_garbage_ends_the_connection(data: bytes) -> None:
    with pytest.raises(SessionError):
        Server().session.receive(data)


def test_a_frame_that_never_ends_costs_only_what_arrived() -> None:
    server = Server()
    server.session.receive(b"\x00\xff\xff\xf0\x00\x00\x00\x10")
    for _ in range(100):
        assert server.session.receive(bytes(1000)) == b""


def test_a_read_full_of_requests_does_not_pile_up_answers() -> None:
    server = Server()
    body = bytes(400_000)
    frames = b"".join(
        json_frame(
            {"code": GET_MAX_OFFSET, "extFields": {"topic": "T", "queueId": "1"}, "opaque": n}, body
        )
        for n in range(10)
    )
    rest = server.session.receive(frames)
    assert len(rest) < 2_000_000
    assert len(server.peer.written) + len(rest) > 4_000_000


# -- calls of ours


def test_a_call_gets_its_answer() -> None:
    server = Server()
    got: list[tuple[int, bytes]] = []
    server.session.call(
        307,
        {"a": "b"},
        b"?",
        5.0,
        lambda header, body: got.append((header.code if header else -1, body)),
    )
    length, word = struct.unpack_from(">II", server.peer.written)
    request = decode_header(0, bytes(server.peer.written[8 : 8 + word]))
    assert (request.code, request.ext, request.flag) == (307, {"a": "b"}, 0)
    answer = json_frame({"code": 0, "flag": 1, "opaque": request.opaque}, b"!")
    assert server.session.receive(answer) == b""
    assert got == [(0, b"!")]
    server.clock.advance(10)  # its time-out is gone
    assert len(got) == 1
    assert length == len(server.peer.written) - 4


def test_a_call_without_an_answer_ends() -> None:
    server = Server()
    got: list[object] = []
    server.session.call(307, None, b"", 5.0, lambda header, body: got.append(header))
    server.clock.advance(5.1)
    assert got == [None]
    server.session.call(307, None, b"", 5.0, lambda header, body: got.append(header))
    server.session.disconnected()
    assert got == [None, None]


def test_a_notice_is_one_way() -> None:
    server = Server()
    server.session.notify(40, {"consumerGroup": "g"})
    word = int.from_bytes(server.peer.written[4:8])
    assert decode_header(0, bytes(server.peer.written[8 : 8 + word])).flag == 2


def test_what_we_encode_is_read_back() -> None:
    frame = encode_request(105, 3, {"topic": 'a"\u00e9\n'}, b"body")
    server = Server()
    assert server.answers(frame) == [(3, 0, b"body")]
    assert server.seen[0].fields.topic == 'a"\u00e9\n'


def test_pop_codes_of_binary_headers_are_understood() -> None:
    """They do not fit 16 bits, and arrive truncated (remoting.md 1.4)."""
    header = struct.pack(">hbhii", 200050 & 0xFFFF, 0, 479, 1, 0) + bytes(8)
    assert decode_header(1, header).code == 200050
