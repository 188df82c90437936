"""gRPC's health checking protocol (``grpc.health.v1.Health``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.calls import Call, Method
from firearrow.protocol.grpc.pb import health_pb2 as rpc

SERVICE: Final = "/grpc.health.v1.Health/"
_Response = rpc.HealthCheckResponse
WHOLE_SERVER: Final = ""


class Health:
    """Whether each service serves; all do, until the server stops."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset({WHOLE_SERVER, *services})
        self._serving = True
        self._watching: dict[Call, str] = {}

    def methods(self) -> dict[str, Method]:
        """By path."""
        request = rpc.HealthCheckRequest.FromString
        return {
            SERVICE + "Check": Method(request, self._check),
            SERVICE + "Watch": Method(request, self._watch),
            SERVICE + "List": Method(rpc.HealthListRequest.FromString, self._list),
        }

    def stop(self) -> None:
        """The server stops: whoever watches hears of it, once."""
        if self._serving:
            self._serving = False
            for call, service in self._watching.items():
                call.send(self._status(service))

    def dismiss(self) -> None:
        """End what has no end of its own."""
        for call in list(self._watching):
            call.end(calls.UNAVAILABLE, "the server stops")
        self._watching.clear()

    def _status(self, service: str) -> rpc.HealthCheckResponse:
        if service not in self._services:
            return _Response(status=_Response.SERVICE_UNKNOWN)
        return _Response(status=_Response.SERVING if self._serving else _Response.NOT_SERVING)

    def _check(self, call: Call, request: Any) -> None:
        if request.service in self._services:
            call.answer(self._status(request.service))
        else:
            call.end(calls.NOT_FOUND, f"service {request.service!r} is not served")

    def _list(self, call: Call, request: Any) -> None:
        response = rpc.HealthListResponse()
        for service in self._services:
            response.statuses[service].CopyFrom(self._status(service))
        call.answer(response)

    def _watch(self, call: Call, request: Any) -> None:
        """A stream that says what is, and then what changes. It stays open for a service that is
        not known too, which might come."""
        self._watching[call] = request.service
        call.cancelled = lambda: self._leave(call)
        call.send(self._status(request.service))

    def _leave(self, call: Call) -> None:
        self._watching.pop(call, None)
