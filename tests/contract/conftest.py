"""A gRPC server and a client that writes its frames by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.grpc import GrpcWorld
from tests.support.http2 import Raw

from firearrow.protocol.grpc.server import GrpcServer


@pytest.fixture
def server(grpc: GrpcWorld) -> GrpcServer:
    return GrpcServer(grpc.methods, grpc.world.clock)


@pytest.fixture
def raw(grpc: GrpcWorld, server: GrpcServer) -> Raw:
    raw = Raw(grpc)
    raw.session = server.connect(raw.peer)
    return raw.begin()


@pytest.fixture
def refused(server: GrpcServer) -> Callable[[], dict[str, int]]:
    """What was refused so far, and how often."""
    return lambda: {kind: count for kind, count in server.refusals.counts.items() if count}
