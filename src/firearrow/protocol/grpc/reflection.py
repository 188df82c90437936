"""gRPC's server reflection (``grpc.reflection.v1`` and ``v1alpha``): tools such as grpcurl learn
from it what is served, without the .proto files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf import descriptor_pb2

from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.calls import Call, Inbox, Method
from firearrow.protocol.grpc.pb import POOL
from firearrow.protocol.grpc.pb import reflection_pb2 as rpc

PACKAGE: Final = "grpc.reflection.v1"
ALPHA: Final = "grpc.reflection.v1alpha"
SERVICES: Final = (f"{PACKAGE}.ServerReflection", f"{ALPHA}.ServerReflection")


class Reflection:
    """Answers from our descriptor pool. ``services`` are those to list, by their full names."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted({*services, *SERVICES})
        _know_alpha()

    def methods(self) -> dict[str, Method]:
        """By path. The messages of both versions are the same."""
        parse = rpc.ServerReflectionRequest.FromString
        method = Method(parse, begin=lambda call: _Stream(call, self._services))
        return {f"/{service}/ServerReflectionInfo": method for service in SERVICES}


class _Stream(Inbox):
    """One caller's questions."""

    def __init__(self, call: Call, services: list[str]) -> None:
        self._call = call
        self._services = services

    def received(self, message: Any) -> None:
        request: rpc.ServerReflectionRequest = message
        response = rpc.ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            self._answer(request, response)
        except KeyError as error:
            response.error_response.error_code = calls.NOT_FOUND
            response.error_response.error_message = str(error.args[0])
        self._call.send(response)

    def half_closed(self) -> None:
        self._call.end()

    def _answer(
        self, request: rpc.ServerReflectionRequest, response: rpc.ServerReflectionResponse
    ) -> None:
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            _add_files(response, POOL.FindFileByName(request.file_by_filename))
        elif kind == "file_containing_symbol":
            _add_files(response, _file_of(request.file_containing_symbol))
        elif kind == "all_extension_numbers_of_type":
            name = request.all_extension_numbers_of_type
            POOL.FindMessageTypeByName(name)
            response.all_extension_numbers_response.base_type_name = name  # proto3 has none
        elif kind == "file_containing_extension":
            wanted = request.file_containing_extension
            raise KeyError(
                f"{wanted.containing_type} has no extension {wanted.extension_number}: nothing has"
            )
        else:
            raise KeyError("the request asks for nothing that is known")


def _file_of(symbol: str) -> Any:
    """The file of a message, enum, service; or of a field, value or method of one.

    Raises:
        KeyError: there is none.
    """
    try:
        return POOL.FindFileContainingSymbol(symbol)
    except KeyError:
        owner, _, _ = symbol.rpartition(".")
        file = POOL.FindFileContainingSymbol(owner) if owner else None
        if file is None or symbol not in set(_members(file)):
            raise KeyError(f"{symbol} is not known") from None
        return file


def _members(file: Any) -> Iterator[str]:
    """Methods, and fields and values of the outermost messages and enums."""
    for service in file.services_by_name.values():
        yield from (method.full_name for method in service.methods)
    for message in file.message_types_by_name.values():
        yield from (field.full_name for field in message.fields)
    for enum in file.enum_types_by_name.values():
        yield from (f"{enum.full_name}.{value.name}" for value in enum.values)


def _add_files(response: rpc.ServerReflectionResponse, file: Any) -> None:
    """The file, and everything that it imports."""
    files, open_files = {file.name: file}, [file]
    while open_files:
        for needed in open_files.pop().dependencies:
            if needed.name not in files:
                files[needed.name] = needed
                open_files.append(needed)
    response.file_descriptor_response.file_descriptor_proto.extend(
        found.serialized_pb for found in files.values()
    )


def _know_alpha() -> None:
    """Make the pool know v1alpha: v1 under another package."""
    file = descriptor_pb2.FileDescriptorProto()
    rpc.DESCRIPTOR.CopyToProto(file)
    file.name = file.name.replace("/v1/", "/v1alpha/")
    file.package = ALPHA
    old, new = f".{PACKAGE}.", f".{ALPHA}."
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, new)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(old, new)
        method.output_type = method.output_type.replace(old, new)
    POOL.AddSerializedFile(file.SerializeToString())
