"""TLS settings: what works, what is refused and how that is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
        (TlsPolicy(mode=TlsMode.ENFORCING), "tls.server.certPath"),
        (TlsPolicy(certificate=Path("c")), "together"),
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
