"""TLS settings: what works, what is refused and how that is said."""

from __future__ import annotations

import contextlib
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from firearrow.model.clock import VirtualClock
from firearrow.transport.tls import (
    RELOAD_S,
    ClientAuth,
    TlsClientPolicy,
    TlsConfigError,
    TlsMode,
    TlsPolicy,
    TlsServer,
    client_context,
    self_signed,
    server_context,
)


def written(folder: Path, name: str) -> TlsPolicy:
    certificate, key = self_signed(name)
    (folder / "certificate.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    return TlsPolicy(certificate=folder / "certificate.pem", key=folder / "key.pem")


def test_a_changed_certificate_is_taken_at_the_next_look(tmp_path: Path) -> None:
    clock = VirtualClock()
    server = TlsServer(written(tmp_path, "one"), clock)
    first = server.context()
    (tmp_path / "key.pem").write_bytes(b"half")
    os.utime(tmp_path / "key.pem", ns=(1, 1))
    clock.advance(RELOAD_S)
    assert server.context() is first, "a half-written pair is not taken"
    written(tmp_path, "two")
    assert server.context() is first, "looked at too often"
    clock.advance(RELOAD_S)
    second = server.context()
    assert second is not None
    assert second is not first
    clock.advance(RELOAD_S)
    assert server.context() is second, "nothing changed"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (TlsPolicy(mode=TlsMode.ENFORCING), "--tls-cert"),
        (TlsPolicy(certificate=Path("c")), "go together"),
        (TlsPolicy(certificate=Path("/no/c"), key=Path("/no/k")), "/no/c"),
        (TlsPolicy(test_certificate=True, client_auth=ClientAuth.REQUIRE), "trustCertPath"),
        (
            TlsPolicy(
                test_certificate=True, client_auth=ClientAuth.REQUIRE, trust=Path("/no/trust")
            ),
            "/no/trust",
        ),
    ],
)
def test_settings_that_cannot_work_say_which(policy: TlsPolicy, said: str) -> None:
    with pytest.raises(TlsConfigError, match=said):
        server_context(policy)


def test_disabled_and_without_certificate_there_is_no_context() -> None:
    assert server_context(TlsPolicy()) is None
    assert server_context(TlsPolicy(mode=TlsMode.DISABLED, test_certificate=True)) is None


def test_a_client_with_a_trust_file_verifies(tmp_path: Path) -> None:
    policy = written(tmp_path, "localhost")
    assert client_context(TlsClientPolicy()).verify_mode.name == "CERT_NONE"
    assert client_context(TlsClientPolicy(trust=policy.certificate)).verify_mode.name == (
        "CERT_REQUIRED"
    )


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_a_client_that_trusts_our_certificate_knows_the_local_server(
    tmp_path: Path, name: str
) -> None:
    context = server_context(written(tmp_path, "localhost"))
    assert context is not None
    trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(3):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert client.getpeercert() is not None


def test_our_certificate_is_not_an_authority() -> None:
    # Rust's TLS takes an authority's certificate for no server's.
    certificate = x509.load_pem_x509_certificate(self_signed("localhost")[0])
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
