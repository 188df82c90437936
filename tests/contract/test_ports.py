"""The ports of a whole server: what each serves, and to whom it says where the broker is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_openings import own_certificate
from tests.contract.test_transport import HANG_S, V1, V2, trusting
from tests.support.brokers import pull_fields, send_fields

from firearrow.app import Server
from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.plan import Plan
from firearrow.protocol.remoting.headers import Header, decode_header, encode_request
from firearrow.transport.loop import run
from firearrow.transport.tls import TlsPolicy


@contextlib.asynccontextmanager
async def serving(
    store: Path, tls: TlsPolicy | None = None, settings: BrokerSettings | None = None
) -> AsyncIterator[Server]:
    plan = Plan(
        settings or BrokerSettings(),
        str(store),
        namesrv_port=0,
        broker_port=0,
        tls=tls or TlsPolicy(),
    )
    async with asyncio.timeout(HANG_S), contextlib.AsyncExitStack() as stack:
        server = Server(plan, stack)
        await server.start()
        yield server
        await server.leave()


async def call(
    address: tuple[str, int],
    code: int,
    ext: dict[str, Any] | None = None,
    body: bytes = b"",
    *,
    preamble: bytes = b"",
    secure: ssl.SSLContext | None = None,
) -> tuple[Header, bytes]:
    reader, writer = await asyncio.open_connection(*address, ssl=secure)
    try:
        fields = {key: str(value) for key, value in (ext or {}).items()}
        writer.write(preamble + encode_request(code, 1, fields, body))
        length, word = struct.unpack(">II", await reader.readexactly(8))
        data = await reader.readexactly(length - 4)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return decode_header(word >> 24, data[:word]), data[word:]


def namesrv_of(server: Server) -> tuple[str, int]:
    return "127.0.0.1", server.plan.namesrv_settings.listen_port


def broker_of(server: Server) -> tuple[str, int]:
    assert server.broker is not None
    return server.broker.core.address


async def broker_seen(server: Server, **how: Any) -> str:
    _, body = await call(namesrv_of(server), 105, {"topic": "TBW102"}, **how)
    return str(json.loads(body)["brokerDatas"][0]["brokerAddrs"]["0"])


@pytest.mark.parametrize("preamble", [V1, V2])
def test_behind_a_proxy_clients_get_the_proxys_address(tmp_path: Path, preamble: bytes) -> None:
    """The one they used for the name server: the broker's port must be passed on there as well."""

    async def scenario() -> None:
        async with serving(tmp_path) as server:
            port = broker_of(server)[1]
            assert await broker_seen(server) == f"127.0.0.1:{port}"
            assert await broker_seen(server, preamble=preamble) == f"10.9.8.7:{port}"
            header, _ = await call(broker_of(server), 310, send_fields("T"), preamble=preamble)
            assert header.code == codes.SUCCESS

    run(scenario())


def test_an_address_that_is_configured_is_shown_behind_a_proxy_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = BrokerSettings(broker_ip1="127.0.0.5")
        async with serving(tmp_path, settings=settings) as server:
            assert (await broker_seen(server, preamble=V1)).startswith("127.0.0.5:")

    run(scenario())


def test_every_port_takes_tls_with_ones_own_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s", own_certificate(tmp_path)) as server:
            host, port = broker_of(server)
            secure = trusting()
            assert await broker_seen(server, secure=secure) == f"{host}:{port}"
            for where in ((host, port), (host, port - 2)):
                for context in (secure, None):
                    header, _ = await call(where, 310, send_fields("T"), secure=context)
                    assert header.code == codes.SUCCESS

    run(scenario())


def test_the_fast_port_serves_everything_but_pulls(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as server:
            host, port = broker_of(server)
            fast = host, port - 2
            assert (await call(fast, 310, send_fields("T"), b"x"))[0].code == codes.SUCCESS
            fields = pull_fields("T")
            assert (await call((host, port), 11, fields))[0].code == codes.SUCCESS
            for code in (11, 361):
                header, _ = await call(fast, code, fields)
                assert header.code == codes.REQUEST_CODE_NOT_SUPPORTED
            assert (await call(fast, 28))[0].code == codes.SUCCESS

    run(scenario())


def test_each_port_says_what_it_does_not_serve(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as server:
            header, _ = await call(broker_of(server), 105, {"topic": "T"})
            assert header.code == codes.REQUEST_CODE_NOT_SUPPORTED
            header, _ = await call(namesrv_of(server), 310, send_fields("T"))
            assert header.code == codes.REQUEST_CODE_NOT_SUPPORTED

    run(scenario())
