"""gRPC over HTTP/2, asked by a client of the ``h2`` library, and what hostile peers get."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import h2.settings
import pytest
from tests.support.brokers import FakePeer
from tests.support.grpc import GrpcWorld, message

from firearrow.model.network import SessionError
from firearrow.protocol.either import EitherSession
from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.frames import PREFACE
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.session import RESETS_AHEAD_MAX, GrpcSession
from firearrow.protocol.grpc.streamcall import MESSAGE_BYTES_MAX
from firearrow.proxy.service import SERVICE


def test_a_call_and_its_answer(grpc: GrpcWorld) -> None:
    grpc.create_topic("orders")
    assert grpc.connect().produce("orders").status.code == v2.OK


def test_many_calls_on_one_connection(grpc: GrpcWorld) -> None:
    grpc.create_topic("orders")
    client = grpc.connect()
    for number in range(300):
        assert client.produce("orders").entries[0].offset == number


def test_four_mebibytes_there_and_back(grpc: GrpcWorld) -> None:
    grpc.create_topic("orders")
    client = grpc.connect()
    body = bytes(range(256)) * 16 * 1024
    assert client.produce("orders", body).status.code == v2.OK
    _, (message,) = client.receive("orders")
    assert message.body == body


def test_a_peer_with_a_small_window_gets_everything(grpc: GrpcWorld) -> None:
    grpc.create_topic("orders")
    client = grpc.connect()
    client.produce("orders", b"x" * 300_000)
    client.wire = grpc.wire({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    _, (message,) = client.receive("orders")
    assert len(message.body) == 300_000


def test_a_method_that_is_not_there(grpc: GrpcWorld) -> None:
    client = grpc.connect()
    stream = client.wire.open(SERVICE + "Nothing", client.metadata)
    assert stream.grpc_status == calls.UNIMPLEMENTED


def test_a_request_that_is_no_protobuf(grpc: GrpcWorld) -> None:
    client = grpc.connect()
    stream = client.wire.open(SERVICE + "SendMessage", client.metadata)
    client.wire.write(stream, b"\xff\xff\xff", end=True)
    assert stream.grpc_status == calls.INTERNAL


def test_a_request_that_is_cut_off(grpc: GrpcWorld) -> None:
    client = grpc.connect()
    stream = client.wire.open(SERVICE + "SendMessage", client.metadata)
    client.wire.write_raw(stream, struct.pack(">BI", 0, 100) + b"abc", end=True)
    assert stream.grpc_status == calls.INTERNAL


def test_a_message_above_the_limit_ends_its_call_alone(grpc: GrpcWorld) -> None:
    grpc.create_topic("orders")
    client = grpc.connect()
    stream = client.wire.open(SERVICE + "SendMessage", client.metadata)
    client.wire.write_raw(stream, struct.pack(">BI", 0, MESSAGE_BYTES_MAX + 1))
    assert stream.grpc_status == calls.RESOURCE_EXHAUSTED
    assert client.produce("orders").status.code == v2.OK


def test_compressed_requests(grpc: GrpcWorld) -> None:
    grpc.create_topic("orders")
    client = grpc.connect()
    plain = rpc.QueryRouteRequest()
    plain.topic.name = "orders"
    packed = gzip.compress(plain.SerializeToString())
    for encoding, wanted in (("gzip", 0), ("snappy", calls.UNIMPLEMENTED)):
        metadata = {**client.metadata, "grpc-encoding": encoding}
        stream = client.wire.open(SERVICE + "QueryRoute", metadata)
        client.wire.write_raw(stream, struct.pack(">BI", 1, len(packed)) + packed, end=True)
        assert stream.grpc_status == wanted


def test_a_request_that_is_no_grpc(grpc: GrpcWorld) -> None:
    client = grpc.connect()
    stream = client.wire.open("/", {"content-type": "text/html"})
    client.wire.write_raw(stream, b"", end=True)
    assert stream.headers[":status"] == "415"


def test_a_deadline_ends_a_call_that_waits(grpc: GrpcWorld) -> None:
    grpc.create_topic("orders")
    client = grpc.connect()
    request = rpc.ReceiveMessageRequest(batch_size=1)
    request.group.name, request.message_queue.topic.name = "group", "orders"
    request.invisible_duration.seconds = 30
    stream = client.start("ReceiveMessage", request, timeout="6S")
    assert not stream.ended
    grpc.world.clock.advance(30)
    client.wire.exchange()
    assert stream.ended


def test_a_deadline_ends_what_has_no_end(grpc: GrpcWorld) -> None:
    wire = grpc.wire()
    stream = wire.open("/grpc.health.v1.Health/Watch", {"grpc-timeout": "5S"})
    wire.write(stream, b"", end=True)
    grpc.world.clock.advance(4.9)
    wire.exchange()
    assert not stream.ended
    grpc.world.clock.advance(0.2)
    wire.exchange()
    assert stream.grpc_status == calls.DEADLINE_EXCEEDED
    grpc.proxy.health.stop()  # it is not told any more
    grpc.world.clock.advance(1)
    wire.exchange()
    assert len(stream.raw_messages()) == 1


def test_a_deadline_that_has_passed_already(grpc: GrpcWorld) -> None:
    wire = grpc.wire()
    stream = wire.open("/grpc.health.v1.Health/Watch", {"grpc-timeout": "0n"})
    wire.write(stream, b"", end=True)
    grpc.world.clock.advance(0)
    wire.exchange()
    assert stream.grpc_status == calls.DEADLINE_EXCEEDED


def test_many_large_bodies_at_a_time(grpc: GrpcWorld) -> None:
    """More than the windows of a connection hold, in pieces that take turns."""
    grpc.create_topic("orders")
    client = grpc.connect()
    streams = []
    for number in range(6):
        body = bytes([number]) * 3_900_000
        request = rpc.SendMessageRequest(messages=[message("orders", body)])
        data = request.SerializeToString()
        stream = client.wire.open(SERVICE + "SendMessage", client.metadata)
        streams.append((stream, struct.pack(">BI", 0, len(data)) + data))
    for at in range(0, 4_000_000, 1_000_000):
        for stream, data in streams:
            piece = data[at : at + 1_000_000]
            client.wire.write_raw(stream, piece, end=at + 1_000_000 >= len(data))
    for stream, _ in streams:
        (answer,) = client.messages("SendMessage", stream)
        assert answer.status.code == v2.OK


def test_a_caller_that_leaves_frees_what_was_popped_for_it(grpc: GrpcWorld) -> None:
    grpc.create_topic("orders")
    client = grpc.connect()
    stream, _ = client.receive("orders", polling_s=10)
    client.wire.h2.reset_stream(stream.stream_id)
    client.wire.exchange()
    grpc.connect("other").produce("orders")
    grpc.world.clock.advance(0.1)
    # Nobody took it: it is visible again after a second, not after 30.
    grpc.world.clock.advance(5)
    _, messages = client.receive("orders")
    assert [m.body for m in messages] == [b"hello"]


def test_nothing_is_popped_for_callers_that_left(grpc: GrpcWorld) -> None:
    """However many gave up, the next one gets the message at once, at its first attempt."""
    grpc.create_topic("orders")
    client = grpc.connect()
    for _ in range(20):
        left, _ = client.receive("orders", polling_s=20)
        client.wire.h2.reset_stream(left.stream_id)
        client.wire.exchange()
    waiting, _ = client.receive("orders", polling_s=20)
    grpc.connect("other").produce("orders")
    grpc.world.clock.advance(0.01)
    (got,) = client.delivered(waiting)
    assert got.system_properties.delivery_attempt == 1


def test_a_flood_of_resets_is_cut(grpc: GrpcWorld) -> None:
    client = grpc.connect()

    def flood() -> None:
        for _ in range(RESETS_AHEAD_MAX + 2):
            stream = client.wire.open(SERVICE + "SendMessage", client.metadata)
            client.wire.h2.reset_stream(stream.stream_id)
            client.wire.exchange()

    with pytest.raises(SessionError):
        flood()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        PREFACE + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",  # window update of 0
        PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"x" * 100,  # a frame of 16 MiB
        PREFACE + b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\xff",  # headers before settings, bad HPACK
        PREFACE[:-2] + b"XX",
    ],
)
def test_what_is_no_http2_closes_the_connection(grpc: GrpcWorld, data: bytes) -> None:
    session = GrpcSession(FakePeer(1), grpc.methods, grpc.world.clock)
    with pytest.raises(SessionError):
        session.receive(data + bytes(20_000_000))


def test_byte_by_byte(grpc: GrpcWorld) -> None:
    grpc.create_topic("orders")
    client = grpc.connect()
    whole = client.wire.session.receive

    def single(data: bytes) -> bytes:
        return b"".join(whole(data[at : at + 1]) for at in range(len(data)))

    client.wire.session = type("Slow", (), {"receive": staticmethod(single)})
    assert client.produce("orders").status.code == v2.OK


class _Side:
    def __init__(self, name: str) -> None:
        self.name = name
        self.got = b""

    def receive(self, data: bytes) -> bytes:
        self.got += data
        return b""

    def disconnected(self) -> None: ...


@pytest.mark.parametrize(("data", "name"), [(PREFACE + b"x", "http2"), (b"\0\0\0\x10", "remoting")])
@pytest.mark.parametrize("piece", [1, 5, 100])
def test_one_port_for_both_protocols(data: bytes, name: str, piece: int) -> None:
    sides: dict[str, Any] = {"http2": _Side("http2"), "remoting": _Side("remoting")}
    session = EitherSession(
        FakePeer(1),
        lambda peer: sides["http2"],
        lambda peer: sides["remoting"],
        lambda kind, remote: None,
    )
    for at in range(0, len(data), piece):
        session.receive(data[at : at + piece])
    assert sides[name].got == data
