"""Health checks and reflection: what tools ask a gRPC server."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from tests.support.grpc import GrpcWorld, Stream, Wire

from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.pb import health_pb2, reflection_pb2
from firearrow.protocol.grpc.pb.health_pb2 import HealthCheckResponse

HEALTH = "/grpc.health.v1.Health/"
MESSAGING = "apache.rocketmq.v2.MessagingService"
ADMIN = "apache.rocketmq.v2.Admin"


@pytest.fixture
def wire(grpc: GrpcWorld) -> Wire:
    return grpc.wire()


# -- health


def ask(wire: Wire, method: str, service: str = "") -> Stream:
    stream = wire.open(HEALTH + method)
    request = health_pb2.HealthCheckRequest(service=service)
    wire.write(stream, request.SerializeToString(), end=True)
    return stream


def statuses(wire: Wire, stream: Stream) -> list[int]:
    wire.exchange()
    return [HealthCheckResponse.FromString(data).status for data in stream.raw_messages()]


@pytest.mark.parametrize("service", ["", MESSAGING])
def test_a_health_check(wire: Wire, service: str) -> None:
    stream = ask(wire, "Check", service)
    assert stream.grpc_status == calls.OK
    assert statuses(wire, stream) == [HealthCheckResponse.SERVING]


def test_the_health_of_what_is_not_served(wire: Wire) -> None:
    assert ask(wire, "Check", "shop").grpc_status == calls.NOT_FOUND
    watching = ask(wire, "Watch", "shop")
    assert statuses(wire, watching) == [HealthCheckResponse.SERVICE_UNKNOWN]
    assert not watching.ended


def test_a_list_of_all_services(wire: Wire) -> None:
    (data,) = ask(wire, "List").raw_messages()
    found = health_pb2.HealthListResponse.FromString(data).statuses
    found_statuses = {name: entry.status for name, entry in found.items()}
    assert found_statuses == {"": 1, MESSAGING: 1, ADMIN: 1}


def test_a_watcher_hears_that_the_server_stops(grpc: GrpcWorld, wire: Wire) -> None:
    watching, gone = ask(wire, "Watch"), ask(wire, "Watch")
    wire.h2.reset_stream(gone.stream_id)
    wire.exchange()
    grpc.proxy.health.stop()
    grpc.world.clock.advance(0)
    serving, not_serving = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
    assert statuses(wire, watching) == [serving, not_serving]
    assert statuses(wire, gone) == [serving]
    assert statuses(wire, ask(wire, "Check")) == [not_serving]


# -- reflection


@pytest.fixture(params=["v1", "v1alpha"])
def version(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def reflect(wire: Wire, version: str, **question: Any) -> reflection_pb2.ServerReflectionResponse:
    """The answer to one question on a stream of its own."""
    stream = wire.open(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
    request = reflection_pb2.ServerReflectionRequest(host="here", **question)
    wire.write(stream, request.SerializeToString(), end=True)
    assert stream.grpc_status == calls.OK
    (data,) = stream.raw_messages()
    answer = reflection_pb2.ServerReflectionResponse.FromString(data)
    assert answer.original_request == request
    return answer


def rebuilt(answer: reflection_pb2.ServerReflectionResponse) -> descriptor_pool.DescriptorPool:
    """What a tool that knows nothing else makes of the answer."""
    pool = descriptor_pool.DescriptorPool()
    files = {}
    for data in answer.file_descriptor_response.file_descriptor_proto:
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        files[file.name] = file

    def add(name: str) -> None:
        file = files.pop(name, None)
        if file is not None:
            for needed in file.dependency:
                add(needed)
            pool.AddSerializedFile(file.SerializeToString())

    for name in list(files):
        add(name)
    return pool


def test_the_services_are_listed(wire: Wire, version: str) -> None:
    answer = reflect(wire, version, list_services="*")
    names = [service.name for service in answer.list_services_response.service]
    assert MESSAGING in names
    assert "grpc.health.v1.Health" in names
    assert f"grpc.reflection.{version}.ServerReflection" in names
    for name in names:  # each can be described
        file = rebuilt(reflect(wire, version, file_containing_symbol=name))
        assert file.FindServiceByName(name).methods


@pytest.mark.parametrize(
    "symbol",
    [
        "apache.rocketmq.v2.Message",
        "apache.rocketmq.v2.Code",
        "apache.rocketmq.v2.SystemProperties.tag",
        f"{MESSAGING}.SendMessage",
        "google.protobuf.Timestamp",
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
    ],
)
def test_the_file_of_a_symbol(wire: Wire, version: str, symbol: str) -> None:
    answer = reflect(wire, version, file_containing_symbol=symbol)
    assert not answer.HasField("error_response")
    assert answer.file_descriptor_response.file_descriptor_proto
    rebuilt(answer)


def test_a_file_by_its_name(wire: Wire, version: str) -> None:
    name = "apache/rocketmq/v2/service.proto"
    pool = rebuilt(reflect(wire, version, file_by_filename=name))
    assert pool.FindFileByName(name).package == "apache.rocketmq.v2"


def test_there_are_no_extensions(wire: Wire, version: str) -> None:
    name = "apache.rocketmq.v2.Message"
    answer = reflect(wire, version, all_extension_numbers_of_type=name)
    assert answer.all_extension_numbers_response.base_type_name == name
    assert not answer.all_extension_numbers_response.extension_number


@pytest.mark.parametrize(
    "question",
    [
        {"file_containing_symbol": "shop.Order"},
        {"file_containing_symbol": "apache.rocketmq.v2.Message.nothing"},
        {"file_containing_symbol": ""},
        {"file_by_filename": "shop.proto"},
        {"all_extension_numbers_of_type": "shop.Order"},
        {"file_containing_extension": {"containing_type": "shop.Order", "extension_number": 5}},
        {},
    ],
)
def test_questions_without_an_answer(wire: Wire, version: str, question: dict[str, Any]) -> None:
    answer = reflect(wire, version, **question)
    assert answer.error_response.error_code == calls.NOT_FOUND
    assert answer.error_response.error_message


def test_many_questions_on_one_stream(wire: Wire) -> None:
    stream = wire.open("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    for number in range(3):
        wire.write(stream, request, end=number == 2)
        assert len(stream.raw_messages()) == number + 1
    assert stream.ended
