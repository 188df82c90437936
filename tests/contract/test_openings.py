"""What stands before a connection's first frame: TLS, a proxy's preamble, both, or half of one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from pathlib import Path

import pytest
from tests.contract.test_transport import (
    TEST_TLS,
    V1,
    V2,
    Loops,
    frame,
    left,
    on_loop,
    serving,
    trusting,
    until,
)

from firearrow.transport import listener
from firearrow.transport.detect import V2_SIGNATURE
from firearrow.transport.loop import run
from firearrow.transport.tls import TlsMode, TlsPolicy, self_signed

__all__ = ["on_loop"]  # a fixture

LOCAL_V2 = V2_SIGNATURE + b"\x20\x00\x00\x00"  # a health check of the proxy itself
UNKNOWN_V1 = b"PROXY UNKNOWN\r\n"
TCP6_V1 = b"PROXY TCP6 fd00::1 fd00::2 5000 10911\r\n"
TLV_V2 = V2[:15] + bytes([12 + 7]) + V2[16:] + b"\x01\x00\x04test"


def own_certificate(folder: Path, mode: TlsMode = TlsMode.PERMISSIVE) -> TlsPolicy:
    certificate, key = self_signed("localhost")
    (folder / "chain.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    return TlsPolicy(mode, folder / "chain.pem", folder / "key.pem")


@pytest.mark.parametrize("mode", [TlsMode.PERMISSIVE, TlsMode.ENFORCING])
def test_a_client_that_checks_the_certificate_gets_what_it_asks_for(
    on_loop: Loops, tmp_path: Path, mode: TlsMode
) -> None:
    async def main() -> None:
        async with serving(own_certificate(tmp_path, mode)) as server:
            context = ssl.create_default_context(cafile=str(tmp_path / "chain.pem"))
            context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
            reader, writer = await server.connect(ssl=context, server_hostname="localhost")
            writer.write(frame(b"who") + frame(b"flood") * 3)
            assert await reader.readline()
            assert await reader.readexactly(3 << 20) == bytes(3 << 20)
            version = writer.get_extra_info("ssl_object").version()
            assert version in ("TLSv1.2", "TLSv1.3")
            await left(writer)

    on_loop(main())


def test_a_handshake_that_is_not_finished_is_given_up(
    on_loop: Loops, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "TLS_HANDSHAKE_S", 0.1)
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with serving(TEST_TLS) as server:
            with socket.create_connection(server.listener.address) as half:
                half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
                reader, writer = await server.connect()
                writer.write(frame(b"other"))
                assert await reader.readline() == b"other\n", "others do not wait for it"
                await until(lambda: "no connection with" in caplog.text)
                await until(lambda: server.listener._count() == 1)
                await left(writer)

    on_loop(main())


def test_a_handshake_of_garbage_ends_in_one_line(
    on_loop: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with serving(TEST_TLS) as server:
            reader, writer = await server.connect()
            writer.write(b"\x16\x03\x01\x00\x05hello" + bytes(100))
            with contextlib.suppress(ConnectionError):
                await reader.read()  # an alert, perhaps
            await until(lambda: "no connection with" in caplog.text)
            assert not server.sessions
            await left(writer)

    on_loop(main())
    assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.parametrize(
    ("preamble", "seen"),
    [
        (V1, "10.1.2.3:5000 10.9.8.7:10911"),
        (V2, "10.1.2.3:5000 10.9.8.7:10911"),
        (TLV_V2, "10.1.2.3:5000 10.9.8.7:10911"),
        (TCP6_V1, "fd00::1:5000 fd00::2:10911"),
    ],
)
def test_a_proxy_tells_who_came_and_by_which_address(
    on_loop: Loops, preamble: bytes, seen: str
) -> None:
    async def main() -> None:
        async with serving(TEST_TLS) as server:
            reader, writer = await server.connect()
            writer.write(preamble + frame(b"who"))
            assert (await reader.readline()).decode() == seen + "\n"
            await left(writer)

    on_loop(main())


@pytest.mark.parametrize("preamble", [LOCAL_V2, UNKNOWN_V1])
@pytest.mark.parametrize("secure", [False, True])
def test_a_proxy_that_tells_nothing_is_the_client_itself(preamble: bytes, secure: bool) -> None:
    async def main() -> None:
        async with serving(TEST_TLS) as server:
            sock = socket.create_connection(server.listener.address)
            ours = "{}:{}".format(*sock.getsockname())
            sock.send(preamble)
            sock.setblocking(False)
            options = {"ssl": trusting(), "server_hostname": "x"} if secure else {}
            reader, writer = await asyncio.open_connection(sock=sock, **options)  # type: ignore[arg-type]
            writer.write(frame(b"who"))
            there = "{}:{}".format(*server.listener.address)
            assert (await reader.readline()).decode() == f"{ours} {there}\n"
            await left(writer)

    run(main())


@pytest.mark.parametrize("start", [b"PROXY TCP4 10.", V2[:20], V2_SIGNATURE[:5], V1, b"PROXY"])
def test_a_preamble_that_is_not_followed_by_anything_is_idle(start: bytes) -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(start)
            await writer.drain()
            await until(lambda: server.listener._count() == 1)
            for _ in range(10):
                await asyncio.sleep(0)
            server.clock.advance(140)
            with contextlib.suppress(ConnectionResetError):  # what was never read is lost
                assert await reader.read() == b""
            assert server.listener._count() == 0
            await left(writer)

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        V2_SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),  # version 3
        V2_SIGNATURE + b"\x21\x11\xff\xff",  # 64 KiB of addresses
        V2_SIGNATURE + struct.pack(">BBH", 0x21, 0x21, 4) + bytes(4),  # too short for IPv6
        b"PROXY TCP4 10.1.2.3 10.9.8.7 5000 70000\r\n",
        b"PROXY TCP4 " + b"1" * 200,
    ],
)
def test_a_preamble_that_is_wrong_ends_the_connection(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert not server.sessions
            await left(writer)

    run(main())
    assert len(caplog.records) == 1
    assert "PROXY" in caplog.text
