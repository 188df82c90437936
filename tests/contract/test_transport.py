"""The transport over real loopback sockets: one port, every kind of peer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from firearrow.model.clock import VirtualClock
from firearrow.model.network import Peer, SessionError
from firearrow.transport.detect import V2_SIGNATURE
from firearrow.transport.limits import Limits
from firearrow.transport.listener import Listener, PortBusy, bind, listen
from firearrow.transport.loop import run
from firearrow.transport.network import SocketNetwork
from firearrow.transport.tls import TlsClientPolicy, TlsMode, TlsPolicy

PLAIN = TlsPolicy()
TEST_TLS = TlsPolicy(test_certificate=True)
V2 = V2_SIGNATURE + b"\x21\x11\x00\x0c" + bytes([10, 1, 2, 3, 10, 9, 8, 7])
V2 += struct.pack(">HH", 5000, 10911)
V1 = b"PROXY TCP4 10.1.2.3 10.9.8.7 5000 10911\r\n"
HANG_S = 5.0  # a test that waits this long has failed


class Echo:
    """Frames of one length byte and that many bytes; a few bodies are orders."""

    def __init__(self, peer: Peer, ended: list[Echo]) -> None:
        self.peer = peer
        self._ended = ended
        self._tail = b""
        self.answers = 0

    def receive(self, data: bytes) -> bytes:
        data = self._tail + data
        answers = []
        while data and len(data) > data[0]:
            size = data[0]
            answers.append(self._answer(data[1 : size + 1]))
            data = data[size + 1 :]
        self._tail = data
        return b"".join(answers)

    def _answer(self, body: bytes) -> bytes:
        self.answers += 1
        if body == b"who":
            return b"%s:%d %s:%d\n" % (
                self.peer.remote[0].encode(),
                self.peer.remote[1],
                self.peer.local[0].encode(),
                self.peer.local[1],
            )
        if body == b"break":
            raise SessionError("a frame that is none")
        if body == b"fail":
            raise KeyError("a bug")
        if body == b"flood":
            return bytes(1 << 20)
        return body + b"\n"

    def disconnected(self) -> None:
        self._ended.append(self)


class Server:
    """A listener of echo sessions, and what happened to them."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.sessions: list[Echo] = []
        self.ended: list[Echo] = []
        self.listener: Listener

    def session(self, peer: Peer) -> Echo:
        echo = Echo(peer, self.ended)
        self.sessions.append(echo)
        return echo

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listener.address, **options)


@contextlib.asynccontextmanager
async def serving(tls: TlsPolicy = PLAIN, limits: Limits | None = None) -> AsyncIterator[Server]:
    server = Server()
    server.listener = await listen(
        "127.0.0.1", 0, server.session, tls=tls, limits=limits or Limits(), clock=server.clock
    )
    try:
        async with asyncio.timeout(HANG_S):
            yield server
    finally:
        await server.listener.close_all()


Loops = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def on_loop(request: pytest.FixtureRequest) -> Loops:
    return run if request.param == "uvloop" else asyncio.run


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for, only turns
        await asyncio.sleep(0)


async def left(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def frame(body: bytes) -> bytes:
    return bytes([len(body)]) + body


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_split_frames_and_the_addresses_of_both_ends(on_loop: Loops) -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(frame(b"one") + frame(b"two")[:2])
            assert await reader.readline() == b"one\n"
            writer.write(frame(b"two")[2:] + frame(b"who"))
            assert await reader.readline() == b"two\n"
            ours = writer.get_extra_info("sockname")
            expected = "{}:{} {}:{}\n".format(*ours, *server.listener.address)
            assert await reader.readline() == expected.encode()
            accepted = next(iter(server.listener.connections))
            sock = accepted._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await left(writer)

    on_loop(main())


@pytest.mark.parametrize("preamble", [V1, V2])
@pytest.mark.parametrize("secure", [False, True])
def test_proxy_preamble_byte_by_byte_then_plain_or_tls(
    on_loop: Loops, preamble: bytes, secure: bool
) -> None:
    async def main() -> None:
        async with serving(TEST_TLS) as server:
            sock = socket.create_connection(server.listener.address)
            sock.setblocking(False)
            for byte in preamble:
                sock.send(bytes([byte]))
                for _ in range(3):
                    await asyncio.sleep(0)
            options: dict[str, Any] = {"ssl": trusting(), "server_hostname": "x"} if secure else {}
            reader, writer = await asyncio.open_connection(sock=sock, **options)
            writer.write(frame(b"who"))
            assert await reader.readline() == b"10.1.2.3:5000 10.9.8.7:10911\n"
            await left(writer)

    on_loop(main())


def test_tls_and_plain_share_the_port(on_loop: Loops) -> None:
    async def main() -> None:
        async with serving(TEST_TLS) as server:
            for options in ({}, {"ssl": trusting()}):
                reader, writer = await server.connect(**options)
                writer.write(frame(b"hello"))
                assert await reader.readline() == b"hello\n"
                await left(writer)

    on_loop(main())


@pytest.mark.parametrize(
    ("policy", "hello", "said"),
    [
        (PLAIN, b"\x16\x03\x01", "--tls-cert"),
        (TlsPolicy(mode=TlsMode.DISABLED), b"\x16\x03\x01", "--tls-mode"),
        (TlsPolicy(mode=TlsMode.ENFORCING, test_certificate=True), b"\0\0\0\1", "enforcing"),
        (PLAIN, b"PROXY nonsense\r\n", "not a PROXY v1 line"),
    ],
)
def test_refused_openings_are_closed_and_said(
    caplog: pytest.LogCaptureFixture, policy: TlsPolicy, hello: bytes, said: str
) -> None:
    async def main() -> None:
        async with serving(policy) as server:
            reader, writer = await server.connect()
            writer.write(hello)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            await left(writer)
            assert not server.sessions

    run(main())
    assert [said in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("order", [b"break", b"fail"])
def test_a_failing_session_closes_only_its_connection(
    on_loop: Loops, caplog: pytest.LogCaptureFixture, order: bytes
) -> None:
    async def main() -> None:
        async with serving() as server:
            other_reader, other = await server.connect()
            reader, writer = await server.connect()
            writer.write(frame(order))
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            other.write(frame(b"well"))
            assert await other_reader.readline() == b"well\n"
            assert len(server.ended) == 1
            await left(writer)
            await left(other)

    caplog.set_level(logging.INFO)
    on_loop(main())
    shown = caplog.records[0]
    assert (shown.exc_info is not None) == (order == b"fail")


def test_a_half_closed_peer_gets_its_answer_then_the_end(on_loop: Loops) -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(frame(b"last"))
            writer.write_eof()
            assert await reader.read() == b"last\n"
            await until(lambda: server.ended)
            await left(writer)

    on_loop(main())


def test_a_peer_that_never_reads_is_closed_and_others_go_on(
    on_loop: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(limits=Limits(write_buffer_bytes_max=8 << 20)) as server:
            sock = socket.create_connection(server.listener.address)
            sock.send(frame(b"x"))
            await until(lambda: server.sessions)
            for _ in range(40):
                server.sessions[0].peer.send(bytes(1 << 20))
                await asyncio.sleep(0)
            await until(lambda: server.ended)
            reader, writer = await server.connect()
            writer.write(frame(b"still"))
            assert await reader.readline() == b"still\n"
            await left(writer)
            sock.close()

    on_loop(main())
    assert "it does not read" in caplog.records[0].getMessage()


def test_a_slow_reader_is_not_asked_for_more_and_loses_nothing(on_loop: Loops) -> None:
    async def main() -> None:
        async with serving() as server:
            sock = socket.create_connection(server.listener.address)
            sock.send(frame(b"x"))
            await until(lambda: server.sessions and server.sessions[0].answers)
            for _ in range(8):
                server.sessions[0].peer.send(bytes(1 << 20))
            await asyncio.sleep(0)
            for _ in range(20):
                sock.send(frame(b"flood"))
                await asyncio.sleep(0)
            assert server.sessions[0].answers == 1, "it was read from while it does not read"
            sock.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=sock)
            assert len(await reader.readexactly((28 << 20) + 2)) == (28 << 20) + 2
            await left(writer)

    on_loop(main())


def test_idle_connections_end_silent_ones_and_quiet_ones() -> None:
    async def main() -> None:
        async with serving() as server:
            silent_reader, silent = await server.connect()
            quiet_reader, quiet = await server.connect()
            busy_reader, busy = await server.connect()
            for reader, writer in ((quiet_reader, quiet), (busy_reader, busy)):
                writer.write(frame(b"x"))
                assert await reader.readline() == b"x\n"
            server.clock.advance(60)
            busy.write(frame(b"y"))
            assert await busy_reader.readline() == b"y\n"
            server.clock.advance(59)
            assert len(server.listener.connections) == 2
            server.clock.advance(12)
            assert await quiet_reader.read() == b""
            server.clock.advance(10)
            assert await silent_reader.read() == b""
            busy.write(frame(b"z"))
            assert await busy_reader.readline() == b"z\n"
            for writer in (silent, quiet, busy):
                await left(writer)

    run(main())


def test_two_thousand_silent_sockets_leave_room_for_one_that_speaks() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4200:
        pytest.skip("fewer than 4,200 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4200), hard))

    async def main() -> None:
        async with serving() as server:
            socks = []
            for _ in range(2000):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(server.listener.address)
                socks.append(sock)
                if len(socks) % 200 == 0:
                    await until(lambda: server.listener._count() == len(socks))
            reader, writer = await server.connect()
            writer.write(frame(b"me"))
            assert await reader.readline() == b"me\n"
            await left(writer)
            server.clock.advance(140)
            assert server.listener._count() <= 1
            for sock in socks:
                sock.close()

    run(main())


def test_a_busy_port_says_what_to_do() -> None:
    async def main() -> None:
        async with serving() as server:
            host, port = server.listener.address
            with pytest.raises(PortBusy, match="listenPort") as caught:
                await listen(
                    host, port, server.session, tls=PLAIN, limits=Limits(), clock=server.clock
                )
            assert caught.value.port == port

    run(main())


def test_a_free_port_is_nobody_elses_from_then_on() -> None:
    async def main() -> None:
        with await bind("127.0.0.1", 0) as sock, pytest.raises(PortBusy):
            await bind("127.0.0.1", sock.getsockname()[1])

    run(main())


def test_out_of_descriptors_pauses_accepting_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            late = socket.socket()
            late.setblocking(False)
            writer.write(frame(b"a"))
            await reader.readline()
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
            try:
                late.connect_ex(server.listener.address)
                await until(lambda: caplog.records)
                server.clock.advance(1)
                for _ in range(5):
                    await asyncio.sleep(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            writer.write(frame(b"b"))
            assert await reader.readline() == b"b\n"
            server.clock.advance(1)
            await until(lambda: server.listener._count() == 2)
            late.close()
            await left(writer)

    run(main())
    assert len(caplog.records) == 1


def test_drain_sends_what_was_written_and_ends() -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(frame(b"x"))
            await reader.readline()
            server.sessions[0].peer.send(b"bye\n")
            drained = asyncio.ensure_future(server.listener.drain(3.0))
            assert await reader.read() == b"bye\n"
            await drained
            assert not server.listener.connections
            await left(writer)

    run(main())


class Caller:
    """The client's end: says hello, keeps what comes back."""

    def __init__(self, peer: Peer, got: asyncio.Future[bytes]) -> None:
        self._got = got
        peer.send(frame(b"hello"))

    def receive(self, data: bytes) -> bytes:
        self._got.set_result(data)
        return b""

    def disconnected(self) -> None: ...


@pytest.mark.parametrize("tls", [None, TlsClientPolicy()])
def test_outgoing_connections_by_name(on_loop: Loops, tls: TlsClientPolicy | None) -> None:
    async def main() -> None:
        async with serving(TEST_TLS) as server:
            network = SocketNetwork(tls=tls)
            got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            port = server.listener.address[1]
            network.connect("localhost", port, lambda peer: Caller(peer, got), got.set_exception)  # type: ignore[arg-type]
            assert await got == b"hello\n"
            await network.close()
            assert not network.connections

    on_loop(main())


def test_an_outgoing_connection_that_fails_says_why(on_loop: Loops) -> None:
    async def main() -> None:
        network = SocketNetwork()
        for host, port in (("127.0.0.1", 1), ("no such host", 1), ("127.0.0.1", 70000)):
            said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            network.connect(host, port, lambda peer: Echo(peer, []), said.set_result)
            assert f"{host}:{port}" in await said
        await network.close()

    on_loop(main())
