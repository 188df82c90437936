"""Clients that mean harm, or are broken, against the real program: others do not notice."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.brokers import send_fields
from tests.support.program import BlockingClient, Program, address_of

from firearrow.model import codes
from firearrow.protocol.remoting.headers import Header, encode_request

pytestmark = pytest.mark.slow

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# What an ordinary call may take while others misbehave, on a busy machine; usually it is 0.2 ms.
CALL_S_MAX = 0.25


class Victim:
    """A running server with a topic, and an ordinary client of it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        ready = program.ready()
        self.broker, self.namesrv = address_of(ready["broker"]), address_of(ready["namesrv"])
        self.client = BlockingClient(self.broker)
        assert self.send().code == codes.SUCCESS

    def send(self, body: bytes = b"hello") -> Header:
        return self.client.call(310, send_fields("T"), body)[0]

    def median_s(self, calls: int = 100) -> float:
        """What an ordinary send takes."""
        taken = []
        for _ in range(calls):
            started = time.perf_counter()
            assert self.send().code == codes.SUCCESS
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.program.process.pid}/stat").read_text().rpartition(")")[2]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / TICKS_A_SECOND

    def memory(self) -> int:
        """Resident bytes."""
        text = Path(f"/proc/{self.program.process.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    conf = tmp_path_factory.mktemp("hostile")
    (conf / "broker.conf").write_text("mappedFileSizeCommitLog=268435456\n")
    flags = ("--namesrv-port", "0", "--broker-port", "0", "-c", "broker.conf")
    with Program(conf, "up", *flags) as program:
        victim = Victim(program)
        yield victim
        victim.client.close()
        assert program.stop() == 0
        assert "Traceback" not in program.err, program.err


def frame(header: bytes, body: bytes = b"", kind: int = 0) -> bytes:
    size = len(header)
    return struct.pack(">II", 4 + size + len(body), kind << 24 | size) + header + body


GARBAGE = {
    "2 GB": struct.pack(">II", 0x7FFFFFFF, 16) + bytes(64),
    "negative length": struct.pack(">iI", -1, 16) + bytes(64),
    "zero length": bytes(64),
    "header longer than the frame": struct.pack(">II", 20, 0x00FFFFFF) + bytes(64),
    "unknown encoding": frame(b"abcd", kind=9),
    "no JSON": frame(b"abcd"),
    "not UTF-8": frame(b'{"code":30,"remark":"\xff\xfe"}'),
    "NaN": frame(b'{"code":NaN}'),
    "a huge number": frame(b'{"code":' + b"9" * 1_000_000 + b"}"),
    "a nested bomb": frame(b'{"code":30,"extFields":' + b'{"a":' * 500_000),
    "an array bomb": frame(b"[" * 4_000_000),
    "a short binary header": frame(b"\x00", kind=1),
    "a binary header that lies": frame(bytes(13) + b"\x7f\xff\xff\xff" + bytes(8), kind=1),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS without a certificate": b"\x16\x03\x01\x00\xa5" + bytes(200),
    "a broken PROXY line": b"PROXY TCP4 nonsense\r\n" + bytes(64),
    "random": bytes(range(255, 0, -1)) * 40,
}


@pytest.mark.parametrize("what", GARBAGE)
@pytest.mark.parametrize("port", ["broker", "namesrv"])
def test_garbage_ends_its_own_connection_only(victim: Victim, what: str, port: str) -> None:
    address = victim.broker if port == "broker" else victim.namesrv
    with socket.create_connection(address, 10) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(GARBAGE[what])
        assert sock.recv(1) == b""
    assert victim.send().code == codes.SUCCESS


def test_a_key_that_comes_twice_is_read_and_unknown_codes_are_answered(victim: Victim) -> None:
    with BlockingClient(victim.broker) as client:
        header = b'{"code":30,"code":29,"opaque":5,"extFields":{"topic":"T","topic":"T"}}'
        client.socket.sendall(frame(header))
        assert client.read()[0].opaque == 5
        for code in (9999, 32768, 70000, 2147483647, -1):
            assert client.call(code)[0].code == codes.REQUEST_CODE_NOT_SUPPORTED


def test_a_header_that_does_not_end_costs_only_what_arrived(victim: Victim) -> None:
    before = victim.memory()
    socks = [socket.create_connection(victim.broker, 10) for _ in range(50)]
    for sock in socks:
        sock.sendall(struct.pack(">II", 16 * 1024 * 1024 - 8, 0x00F00000) + b'{"remark":"')
    for _ in range(20):  # a few bytes at a time
        for sock in socks:
            sock.sendall(b"a" * 10)
    assert victim.median_s() < CALL_S_MAX
    assert victim.memory() - before < 8 * 1024 * 1024
    for sock in socks:
        sock.close()


def test_a_peer_that_never_reads_is_cut_at_the_limit(victim: Victim) -> None:
    with BlockingClient(victim.broker) as writer:
        fields = send_fields("Big")
        for _ in range(8):
            assert writer.call(310, fields, bytes(1_000_000))[0].code == codes.SUCCESS
    before = victim.memory()
    pull = encode_request(
        11,
        1,
        {
            "consumerGroup": "g",
            "topic": "Big",
            "queueId": "0",
            "queueOffset": "0",
            "maxMsgNums": "32",
            "sysFlag": "4",
            "commitOffset": "0",
            "suspendTimeoutMillis": "0",
            "subscription": "*",
            "subVersion": "0",
        },
    )
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(victim.broker)
        sock.settimeout(0.5)
        with contextlib.suppress(OSError):  # nobody reads it any more, or it is cut
            for _ in range(20_000):
                sock.sendall(pull)
        assert victim.median_s() < CALL_S_MAX
        assert victim.memory() - before < 100 * 1024 * 1024


def test_a_flood_of_one_way_requests_leaves_others_their_turn(victim: Victim) -> None:
    flood = b"".join(encode_request(9999, n, None, b"", one_way=True) for n in range(2000))
    flood += b"".join(
        encode_request(310, n, {k: str(v) for k, v in send_fields("T").items()}, b"x", one_way=True)
        for n in range(2000)
    )
    with socket.create_connection(victim.broker, 30) as sock:
        sock.setblocking(False)
        taken = []
        left = memoryview(flood * 5)
        for _ in range(300):
            with contextlib.suppress(BlockingIOError):
                left = left[sock.send(left) :] if left else memoryview(flood)
            started = time.perf_counter()
            assert victim.send().code == codes.SUCCESS
            taken.append(time.perf_counter() - started)
    print(f"median {statistics.median(taken) * 1000:.2f} ms, longest {max(taken) * 1000:.1f} ms")
    assert statistics.median(taken) < CALL_S_MAX


def test_a_storm_of_connections_is_survived(victim: Victim) -> None:
    before = victim.memory()
    for _ in range(2000):
        with socket.create_connection(victim.broker, 10) as sock:
            sock.send(b"\0")
    assert victim.median_s() < CALL_S_MAX
    assert victim.memory() - before < 20 * 1024 * 1024


def test_ten_thousand_idle_sockets_cost_little_and_slow_nobody(victim: Victim) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 500)
    alone_s, memory = victim.median_s(300), victim.memory()
    started_cpu = victim.cpu_s()
    victim.median_s(2000)
    alone_cpu = victim.cpu_s() - started_cpu
    request = encode_request(30, 1, {"topic": "T", "queueId": "0"})
    socks: list[socket.socket] = []
    try:
        for number in range(count):
            sock = socket.create_connection(victim.broker, 10)
            socks.append(sock)
            if number % 2:  # half of them have spoken once, the others never
                sock.sendall(request)
                sock.recv(1000)
        each = (victim.memory() - memory) / count
        crowded_s = victim.median_s(300)
        started_cpu = victim.cpu_s()
        victim.median_s(2000)
        crowded_cpu = victim.cpu_s() - started_cpu
        print(
            f"{count} idle connections: {each:.0f} bytes each; a send takes "
            f"{crowded_s * 1000:.2f} ms instead of {alone_s * 1000:.2f} ms, 2,000 sends "
            f"{crowded_cpu:.2f} s of processor time instead of {alone_cpu:.2f} s"
        )
        assert each < 6 * 1024
        assert crowded_cpu < 2 * alone_cpu + 0.1
        assert crowded_s < CALL_S_MAX
    finally:
        for sock in socks:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
