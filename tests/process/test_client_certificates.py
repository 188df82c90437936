"""TLS as operators set it up: client certificates, and keys with a password."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.support.program import BlockingClient, Program, address_of

from firearrow.model import codes
from firearrow.transport.tls import self_signed

pytestmark = pytest.mark.slow

PASSWORD = "a long one"


class Files:
    """A server's certificate with an encrypted key, a client's, and a stranger's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("server", "client", "stranger"):
            certificate, key = self_signed("localhost")
            (folder / f"{name}.pem").write_bytes(certificate)
            (folder / f"{name}.key").write_bytes(key)
        key_file = folder / "server.key"
        loaded = serialization.load_pem_private_key(key_file.read_bytes(), None)
        key_file.write_bytes(
            loaded.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(PASSWORD.encode()),
            )
        )

    def write(self, **changed: str) -> Path:
        settings = {
            "tls.server.mode": "enforcing",
            "tls.server.certPath": str(self.folder / "server.pem"),
            "tls.server.keyPath": str(self.folder / "server.key"),
            "tls.server.keyPassword": PASSWORD,
            "tls.server.need.client.auth": "require",
            "tls.server.authClient": "true",
            "tls.server.trustCertPath": str(self.folder / "client.pem"),
            **{key.replace("_", "."): value for key, value in changed.items()},
        }
        path = self.folder / "tls.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items() if value))
        return path

    def context(self, name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "server.pem"))
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if name is not None:
            context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def arguments(config: Path) -> tuple[str, ...]:
    return ("up", "--namesrv-port", "0", "--broker-port", "0", "--tls-config", str(config))


@contextlib.contextmanager
def connected(address: str, context: ssl.SSLContext) -> Iterator[BlockingClient]:
    with BlockingClient(address) as client:
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        yield client


def test_who_shows_no_certificate_or_a_strangers_is_refused(tmp_path: Path, files: Files) -> None:
    with Program(tmp_path / "p", *arguments(files.write())) as program:
        ready = program.ready()
        for port in ("namesrv", "broker", "proxy"):
            with connected(ready[port], files.context("client")) as client:
                header, _ = client.call(105, {"topic": "TBW102"})
                assert header.code in (codes.SUCCESS, codes.REQUEST_CODE_NOT_SUPPORTED), port
            for name in (None, "stranger"):
                # With TLS 1.3 a client hears of the refusal when it reads.
                with (
                    pytest.raises((ssl.SSLError, ConnectionError)),
                    connected(ready[port], files.context(name)) as client,
                ):
                    client.call(105, {"topic": "TBW102"})
            with socket.create_connection(address_of(ready[port])) as plain:
                plain.sendall(b"\0\0\0\1")
                plain.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert plain.recv(1) == b"", "plain text is let in"
        assert program.stop() == 0
        assert "Traceback" not in program.err


def test_a_certificate_may_be_optional(tmp_path: Path, files: Files) -> None:
    config = files.write(tls_server_need_client_auth="optional")
    with Program(tmp_path / "p", *arguments(config)) as program:
        address = program.ready()["broker"]
        for name in (None, "client"):
            with connected(address, files.context(name)) as client:
                assert client.call(28)[0].code == codes.SUCCESS
        with (
            pytest.raises((ssl.SSLError, ConnectionError)),
            connected(address, files.context("stranger")) as client,
        ):
            client.call(28)
        program.stop()


def test_who_could_come_without_tls_is_said(tmp_path: Path, files: Files) -> None:
    config = files.write(tls_server_mode="permissive")
    with Program(tmp_path / "p", *arguments(config)) as program:
        program.ready()
        program.until_said("set --tls-mode enforcing")
        program.stop()
    with Program(tmp_path / "q", *arguments(config), "--tls-mode", "enforcing") as program:
        program.ready()
        assert "set --tls-mode enforcing" not in program.err
        program.stop()


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"tls_server_keyPassword": "wrong"}, 1, "tls.server.keyPassword the key's password"),
        ({"tls_server_keyPassword": ""}, 1, "tls.server.keyPassword the key's password"),
        ({"tls_server_trustCertPath": ""}, 1, "needs tls.server.trustCertPath"),
        ({"tls_server_trustCertPath": "/no/ca"}, 1, "cannot use the trust file /no/ca"),
        ({"tls_server_need_client_auth": "always"}, 2, "must be one of none, optional, require"),
        ({"tls_server_mode": "strict"}, 2, "must be one of disabled, permissive, enforcing"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    tmp_path: Path, files: Files, changed: dict[str, str], status: int, said: str
) -> None:
    with Program(tmp_path / "p", *arguments(files.write(**changed))) as program:
        assert program.ended() == status
        lines = program.err.splitlines()
        assert said in lines[-1]
        assert len(lines) == 1


def test_an_unknown_key_is_warned_about_and_a_missing_file_stops(
    tmp_path: Path, files: Files
) -> None:
    config = files.write(tls_server_certpath="x", tls_client_keyPath="y")
    with Program(tmp_path / "p", *arguments(config)) as program:
        program.ready()
        assert "tls.server.certpath is not a setting here" in program.err
        assert "did you mean tls.server.certPath?" in program.err
        assert "tls.client.keyPath" not in program.err
        program.stop()
    with Program(tmp_path / "q", *arguments(tmp_path / "none")) as program:
        assert program.ended() == 2
        assert "No such file" in program.err
