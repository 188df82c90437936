"""How gRPC connections end when the server stops."""

from __future__ import annotations

import h2.settings
import pytest
from tests.support.grpc import Client, GrpcWorld

from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.frames import go_away
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.session import LEAVE_S, LINGER_S

EVERY_STREAM = 2**31 - 1


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


def leave(client: Client) -> None:
    client.wire.session.leave("the server stops")


def test_an_idle_client_is_told_to_go(grpc: GrpcWorld, client: Client) -> None:
    client.produce("orders")
    leave(client)
    client.wire.exchange()
    assert client.wire.h2.goaways == [(EVERY_STREAM, 0), (1, 0)]
    assert not client.wire.peer.closed  # it may close first
    grpc.world.clock.advance(LINGER_S + 0.01)
    assert client.wire.peer.closed


def test_calls_that_wait_are_answered_before_the_end(grpc: GrpcWorld, client: Client) -> None:
    settings = v2.Settings(client_type=v2.PRODUCER)
    settings.publishing.SetInParent()
    telemetry, _ = client.settings(settings)
    receive, _ = client.receive("orders", polling_s=20)
    pull_request = rpc.PullMessageRequest(batch_size=1)
    pull_request.group.name, pull_request.message_queue.topic.name = "pullers", "orders"
    pull_request.long_polling_timeout.seconds = 20
    pull = client.start("PullMessage", pull_request, timeout="30S")

    leave(client)
    client.wire.exchange()
    assert client.wire.h2.goaways == [(EVERY_STREAM, 0)]
    assert telemetry.grpc_status == calls.UNAVAILABLE
    assert not receive.ended
    grpc.proxy.dismiss()
    grpc.world.clock.advance(0)
    client.wire.exchange()
    assert receive.grpc_status == pull.grpc_status == calls.OK
    assert client.status_of(receive) == v2.MESSAGE_NOT_FOUND
    assert client.messages("PullMessage", pull)[0].status.code == v2.MESSAGE_NOT_FOUND
    assert client.wire.h2.goaways == [(EVERY_STREAM, 0), (pull.stream_id, 0)]


def test_a_dialogue_ends_with_its_status_alone(grpc: GrpcWorld, client: Client) -> None:
    # A client that hears of a reset besides takes the reset for the end: the Rust client then asks
    # the dead stream again and again, and does nothing else.
    settings = v2.Settings(client_type=v2.PRODUCER)
    settings.publishing.SetInParent()
    telemetry, _ = client.settings(settings)
    receive, _ = client.receive("orders", polling_s=20)
    leave(client)
    client.wire.exchange()
    assert telemetry.grpc_status == calls.UNAVAILABLE
    assert not telemetry.reset
    # What the client says on it before it ends its half disturbs nothing.
    client.wire.h2.send_data(telemetry.stream_id, b"late", end_stream=True)
    client.wire.exchange()
    grpc.proxy.dismiss()
    grpc.world.clock.advance(0)
    client.wire.exchange()
    assert receive.grpc_status == calls.OK


def test_what_crosses_the_goodbye_on_its_way_is_served(grpc: GrpcWorld, client: Client) -> None:
    leave(client)
    grpc.proxy.dismiss()
    # The client has not read anything yet.
    unread, client.wire.peer.written = client.wire.peer.written, bytearray()
    sent = client.produce("orders")
    late, _ = client.receive("orders", "another", polling_s=20)
    assert sent.status.code == v2.OK
    assert late.ended  # it does not wait
    client.wire.peer.written = unread
    client.wire.exchange()
    assert client.wire.h2.goaways[-1] == (late.stream_id, 0)


def test_a_client_that_does_not_go_is_left(grpc: GrpcWorld, client: Client) -> None:
    client.receive("orders", polling_s=20)
    leave(client)
    client.wire.exchange()
    grpc.world.clock.advance(LEAVE_S - 0.1)
    assert not client.wire.peer.closed
    grpc.world.clock.advance(0.2)
    assert client.wire.peer.closed
    assert client.wire.peer.close_reason == "the server stops"


def test_a_slow_reader_gets_its_answer_first(grpc: GrpcWorld, client: Client) -> None:
    client.produce("orders", b"x" * 300_000)
    wire = client.wire = grpc.wire({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    wire.reads = False
    stream, _ = client.receive("orders")
    leave(client)
    wire.exchange()
    assert wire.h2.goaways == [(EVERY_STREAM, 0)]
    wire.reads = True
    wire.h2.acknowledge_received_data(wire.unread, stream.stream_id)
    wire.unread = 0
    wire.exchange()
    assert len(client.delivered(stream)[0].body) == 300_000
    assert len(wire.h2.goaways) == 2


def test_a_client_that_goes_itself_still_gets_its_answers(grpc: GrpcWorld, client: Client) -> None:
    stream, _ = client.receive("orders", polling_s=20)
    back = client.wire.session.receive(go_away(0, 0))
    client.wire.h2.receive_data(back)
    grpc.connect("other").produce("orders", b"new")
    grpc.world.clock.advance(0.01)
    assert [m.body for m in client.delivered(stream)] == [b"new"]
    assert stream.ended
