"""The program as an operator meets it."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from tests.support.brokers import send_fields
from tests.support.program import BlockingClient, Program, address_of

from firearrow import __version__
from firearrow.model import codes
from firearrow.protocol.remoting.headers import Header

pytestmark = pytest.mark.slow

FREE = ("--namesrv-port", "0", "--broker-port", "0")
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (INFO|WARNING|ERROR) +[\w.]+  \S.*")


def route(namesrv: str | tuple[str, int], topic: str = "TBW102") -> dict[str, str] | None:
    """Broker id -> address."""
    with BlockingClient(namesrv) as client:
        header, body = client.call(105, {"topic": topic, "acceptStandardJsonOnly": "true"})
    if header.code == codes.TOPIC_NOT_EXIST:
        return None
    addresses: dict[str, str] = json.loads(body)["brokerDatas"][0]["brokerAddrs"]
    return addresses


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_a_message_and_a_clean_stop(tmp_path: Path, number: int) -> None:
    with Program(tmp_path, "up", *FREE) as program:
        ready = program.ready()
        assert set(ready) == {"namesrv", "broker", "proxy", "store"}
        assert ready["store"] == "./firearrow-store"
        found = route(ready["namesrv"])
        assert found == {"0": ready["broker"]}
        with BlockingClient(ready["broker"]) as client:
            header, _ = client.call(310, send_fields("Greetings"), b"hello")
        assert header.code == codes.SUCCESS
        assert (tmp_path / "firearrow-store/abort").exists()
        assert program.stop(number) == 0
        assert not (tmp_path / "firearrow-store/abort").exists()
        assert f"firearrow {__version__} on {platform.python_implementation()} " in program.err
        assert program.out.count("\n") == 1, "standard output has the ready line and nothing else"
        assert [line for line in program.err.splitlines() if not LOG_LINE.fullmatch(line)] == []
        assert "Traceback" not in program.err


def test_the_broker_of_a_cluster_and_its_name_server(tmp_path: Path) -> None:
    with Program(tmp_path / "n", "namesrv", "--namesrv-port", "0") as name_server:
        namesrv = name_server.ready()["namesrv"]
        arguments = ("broker", "--broker-port", "0", "-n", f"{namesrv};127.0.0.1:1")
        with Program(tmp_path / "b", *arguments) as broker:
            ready = broker.ready()
            assert set(ready) == {"broker", "proxy", "store"}
            broker.until_said(f"registered with name server {namesrv}")
            broker.until_said("name server 127.0.0.1:1 cannot be reached")
            assert route(namesrv) == {"0": ready["broker"]}
            assert broker.stop() == 0
        assert route(namesrv) is None
        assert name_server.stop() == 0


def test_a_proxy_alone_says_what_it_lacks_and_goes_on(tmp_path: Path) -> None:
    arguments = ("proxy", "--proxy-port", "0", "-n", "127.0.0.1:1")
    with Program(tmp_path / "p", *arguments) as proxy:
        assert set(proxy.ready()) == {"proxy"}
        proxy.until_said("name server 127.0.0.1:1 cannot be reached")
        assert proxy.stop() == 0
        assert "Traceback" not in proxy.err
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["stderr", "stdout"]


def test_a_proxy_alone_needs_a_name_server_and_a_port(tmp_path: Path) -> None:
    with Program(tmp_path / "a", "proxy") as proxy:
        assert proxy.ended() == 2
        assert_one_line(proxy.err, "through name servers: give them with -n")
    with Program(tmp_path / "b", "proxy", "-n", "nowhere") as proxy:
        assert proxy.ended() == 2
        assert_one_line(proxy.err, "nowhere is not an address; write host:port;host:port")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        flags = ("--proxy-port", str(port), "-n", "127.0.0.1:1")
        with Program(tmp_path / "c", "proxy", *flags) as proxy:
            assert proxy.ended() == 1
            assert_one_line(proxy.err, f"port {port} on 127.0.0.1 is in use")


def test_what_was_configured_at_the_name_server_is_there_after_a_restart(tmp_path: Path) -> None:
    fields = {"namespace": "N", "key": "k"}
    with Program(tmp_path, "namesrv", "--namesrv-port", "0", "--store", "s") as program:
        with BlockingClient(program.ready()["namesrv"]) as client:
            assert client.call(100, {**fields, "value": "v"})[0].code == codes.SUCCESS
        assert program.stop() == 0
    with Program(tmp_path, "namesrv", "--namesrv-port", "0", "--store", "s") as program:
        with BlockingClient(program.ready()["namesrv"]) as client:
            assert client.call(101, fields)[0].ext == {"value": "v"}
        program.stop()
    (tmp_path / "file").touch()
    for store in ("file", "file/below"):
        with Program(tmp_path, "namesrv", "--namesrv-port", "0", "--store", store) as program:
            assert program.ended() == 1
            assert_one_line(program.err, f"cannot use {tmp_path / 'file'}: it is no directory")
    (tmp_path / "s/kvConfig.json").write_text("[")
    with Program(tmp_path, "namesrv", "--namesrv-port", "0", "--store", "s") as program:
        assert program.ended() == 1
        assert "kvConfig.json is unreadable" in program.err


def test_two_brokers_do_not_share_a_store(tmp_path: Path) -> None:
    with Program(tmp_path / "1", "up", *FREE, "--store", str(tmp_path / "s")) as first:
        ready = first.ready()
        with Program(tmp_path / "2", "up", *FREE, "--store", str(tmp_path / "s")) as second:
            assert second.ended() == 1
            assert_one_line(second.err, f"the store {tmp_path / 's'} is in use by another broker")
        assert route(ready["namesrv"]), "the first one goes on"
        first.stop()


def assert_one_line(text: str, said: str) -> None:
    assert text.startswith("firearrow: "), text
    assert said in text
    assert text.count("\n") == 1, text


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ("namesrv", "choose another port with --namesrv-port"),
        ("broker", "choose another port with --broker-port (listenPort)"),
        ("fast", "it is the fast port"),
    ],
)
def test_a_busy_port_is_said_before_the_store_is_touched(
    tmp_path: Path, taken: str, said: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        flags = {
            "namesrv": ("--namesrv-port", str(port), "--broker-port", "0"),
            "broker": ("--namesrv-port", "0", "--broker-port", str(port)),
            "fast": ("--namesrv-port", "0", "--broker-port", str(port + 2)),
        }[taken]
        with Program(tmp_path, "up", *flags) as program:
            assert program.ended() == 1
            assert_one_line(program.err, f"port {port} on 127.0.0.1 is in use")
            assert said in program.err
    assert not (tmp_path / "firearrow-store").exists()


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (("--store", "file"), 1, "cannot use"),
        (("--store", "file/below"), 1, "cannot use"),
        (("--store", "/proc/firearrow"), 1, "/proc/firearrow"),
        (("--host", "192.0.2.1"), 1, "192.0.2.1 is not an address of this machine; see --host"),
        (("--host", "no.such.host.invalid"), 1, "is not an address of this machine; see --host"),
        (("--tls-cert", "file"), 1, "go together: --tls-cert and --tls-key"),
        (("--tls-key", "file"), 1, "go together: --tls-cert and --tls-key"),
        (("--tls-cert", "file", "--tls-key", "file"), 1, "must be PEM files"),
        (("--tls-cert", "none", "--tls-key", "file"), 1, "key file: No such file"),
        (("--tls-mode", "enforcing"), 1, "needs a certificate: give --tls-cert"),
        (("-c", "none.conf"), 2, "cannot read none.conf: No such file"),
        (("-c", "."), 2, "cannot read .: Is a directory"),
        (("-c", "wrong.conf"), 2, "wrong.conf, line 2: listenPort=70000: must be 3 to 65534"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    tmp_path: Path, flags: tuple[str, ...], status: int, said: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "wrong.conf").write_text("brokerName=a\nlistenPort=70000\n")
    with Program(tmp_path, "up", *FREE, *flags) as program:
        assert program.ended() == status
        assert_one_line(program.err, said)


def test_a_port_that_is_wanted_twice_is_said_before_the_store_is_touched(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = str(other.getsockname()[1])
    with Program(tmp_path, "up", "--namesrv-port", port, "--broker-port", port) as program:
        assert program.ended() == 1
        assert_one_line(program.err, f"port {port} is wanted twice")
    assert not (tmp_path / "firearrow-store").exists()


def test_dead_letters_of_no_broker_are_refused(tmp_path: Path) -> None:
    with Program(tmp_path, "redrive", "-g", "G", "-b", "127.0.0.1:1") as program:
        assert program.ended() == 1
        assert_one_line(program.err, "start the broker, or give its address with -b")


def test_a_full_disk_at_the_start_is_said(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=64k none {0} && cd {0}/.. && exec "$@"'.format(tmp_path / "d")
    (tmp_path / "d").mkdir()
    before = ("unshare", "-rm", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*before, "true"], check=False).returncode:
        pytest.skip("no rights to mount a small disk")
    with Program(tmp_path, "up", *FREE, "--store", str(tmp_path / "d/s"), before=before) as program:
        # The log is opened by the first message, so a start may succeed and refuse to write.
        try:
            ready = program.ready()
        except AssertionError:
            assert program.ended() == 1
            assert_one_line(program.err, "is full; free space")
            return
        with BlockingClient(ready["broker"]) as client:
            header, _ = client.call(310, send_fields("T"), bytes(100_000))
        assert header.code == codes.SERVICE_NOT_AVAILABLE
        assert program.stop() == 0


def test_log_lines_are_json_where_wanted(tmp_path: Path) -> None:
    (tmp_path / "broker.conf").write_text("brokerNane=a\n")
    with Program(tmp_path, "up", *FREE, "--log-format", "json", "-c", "broker.conf") as program:
        ready = program.ready()
        with socket.create_connection(address_of(ready["broker"])) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(10) == b""
        assert program.stop() == 0
    lines = [json.loads(line) for line in program.err.splitlines()]
    assert all(line.keys() >= {"time", "level", "room", "text"} for line in lines)
    assert "did you mean brokerName?" in lines[0]["text"]
    assert any("closing 127.0.0.1:" in line["text"] for line in lines)


class HangingNameServer(threading.Thread):
    """Accepts a registration, and does not answer when a broker says goodbye."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.goodbye = threading.Event()
        self.start()

    def run(self) -> None:
        client = BlockingClient.__new__(BlockingClient)
        client.socket, _ = self.listener.accept()
        with self.listener, client, contextlib.suppress(OSError):
            while True:
                header, _ = client.read()
                if header.code == 104:
                    self.goodbye.set()
                elif header.code == 103:
                    client.socket.sendall(answer_to(header))


def answer_to(header: Header) -> bytes:
    from firearrow.protocol.remoting.command import Reply
    from firearrow.protocol.remoting.headers import encode_reply

    return encode_reply(header.opaque, Reply())


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, first: int, second: int) -> None:
    name_server = HangingNameServer()
    arguments = ("broker", "--broker-port", "0", "-n", name_server.address)
    with Program(tmp_path, *arguments) as program:
        program.ready()
        program.until_said("registered with name server")
        program.process.send_signal(first)
        assert name_server.goodbye.wait(10)
        program.process.send_signal(second)
        assert program.ended() == -second
    assert (tmp_path / "firearrow-store/abort").exists()
    name_server.join(10)


def test_a_stop_does_not_wait_long_for_a_name_server_that_hangs(tmp_path: Path) -> None:
    name_server = HangingNameServer()
    arguments = ("broker", "--broker-port", "0", "-n", name_server.address)
    with Program(tmp_path, *arguments) as program:
        program.ready()
        program.until_said("registered with name server")
        assert program.stop() == 0
    assert not (tmp_path / "firearrow-store/abort").exists()
    name_server.join(10)


def test_more_clients_than_the_shell_allows_descriptors(tmp_path: Path) -> None:
    before = ("sh", "-c", 'ulimit -Sn 64 && exec "$@"', "sh")
    with Program(tmp_path, "up", *FREE, before=before) as program:
        address = address_of(program.ready()["broker"])
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(BlockingClient(address)) for _ in range(200)]
            for client in clients:
                assert client.call(9999)[0].code == codes.REQUEST_CODE_NOT_SUPPORTED
        assert program.stop() == 0


# -- who can reach it


def test_only_this_machine_reaches_it_by_default(tmp_path: Path) -> None:
    with Program(tmp_path, "up", *FREE) as program:
        for address in program.ready().values():
            if ":" in address:
                host, port = address_of(address)
                assert host == "127.0.0.1"
                with pytest.raises(OSError):  # noqa: PT011 - the system's own text
                    socket.create_connection(("127.0.0.2", port), 5)
        program.stop()


def test_a_client_gets_the_address_by_which_it_came(tmp_path: Path) -> None:
    with Program(tmp_path, "up", *FREE, "--host", "0.0.0.0") as program:
        ready = program.ready()
        namesrv, broker = address_of(ready["namesrv"])[1], address_of(ready["broker"])[1]
        for host in ("127.0.0.1", "127.0.0.2"):
            assert route((host, namesrv)) == {"0": f"{host}:{broker}"}
            with BlockingClient((host, broker)) as client:
                assert client.call(310, send_fields("T"), b"x")[0].code == codes.SUCCESS
        assert program.stop() == 0


def test_an_address_that_is_configured_is_what_every_client_gets(tmp_path: Path) -> None:
    (tmp_path / "broker.conf").write_text("brokerIP1=127.0.0.3\n")
    with Program(tmp_path, "up", *FREE, "-c", "broker.conf") as program:
        ready = program.ready()
        assert route(ready["namesrv"]) == {"0": f"127.0.0.3:{address_of(ready['broker'])[1]}"}
        assert program.stop() == 0


# -- configuration


def test_a_setting_changed_by_an_operator_counts_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "broker.conf"
    file.write_text("# mine\nbrokerName=broker-a\nfileReservedTime = 48\n")
    with Program(tmp_path, "up", *FREE, "-c", "broker.conf") as program:
        ready = program.ready()
        with BlockingClient(ready["broker"]) as client:
            header, body = client.call(26)
            shown = dict(line.split("=", 1) for line in body.decode().splitlines())
            assert shown["listenPort"] == ready["broker"].rpartition(":")[2]
            assert client.call(25, body=b"fileReservedTime=72\n")[0].code == codes.SUCCESS
            header, _ = client.call(25, body=b"fileReservedTime=soon\n")
            assert header.code == codes.SYSTEM_ERROR
            assert header.remark == "fileReservedTime=soon: must be a whole number"
            assert b"fileReservedTime=72\n" in client.call(26)[1]
        assert program.stop() == 0
    assert file.read_text() == "# mine\nbrokerName=broker-a\nfileReservedTime=72\n"


# -- help


@pytest.mark.parametrize("command", [(), ("up",), ("namesrv",), ("broker",), ("proxy",)])
def test_help_shows_examples_that_work(tmp_path: Path, command: tuple[str, ...]) -> None:
    with Program(tmp_path, *command, "--help") as program:
        assert program.ended() == 0
    text = " ".join(program.out.split())
    assert "Example" in text
    for line in re.findall(r"^ +firearrow (.*?)(?:   .*)?$", program.out, re.MULTILINE):
        assert line.split()[0] in ("up", "namesrv", "broker", "proxy")
    if command:
        assert "default: 127.0.0.1" in text
        assert not re.search(r"--[\w-]+ [A-Z]+ *$", program.out, re.MULTILINE), "no help text"


def test_the_version(tmp_path: Path) -> None:
    with Program(tmp_path, "--version") as program:
        assert program.ended() == 0
    assert program.out == f"firearrow, version {__version__}\n"


def test_an_unknown_flag_is_said(tmp_path: Path) -> None:
    with Program(tmp_path, "up", "--prot", "1") as program:
        assert program.ended() == 2
    assert "No such option" in program.err
