"""TLS by RocketMQ's settings (``tls.server.*``, ``tls.client.*``)."""

from __future__ import annotations

import datetime
import logging
import ssl
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from firearrow.model.clock import Clock

log = logging.getLogger(__name__)

# How old a look at the certificate files may be; a look is a few `stat` calls.
RELOAD_S: Final = 60.0


class TlsConfigError(Exception):
    """The TLS settings cannot work; the text says which and what to do."""


class TlsMode(Enum):
    """``tls.server.mode``."""

    DISABLED = "disabled"
    PERMISSIVE = "permissive"
    ENFORCING = "enforcing"


class ClientAuth(Enum):
    """``tls.server.need.client.auth``; other than NONE needs a trust file."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """The server side: what is accepted, and with which certificate (PEM files)."""

    mode: TlsMode = TlsMode.PERMISSIVE
    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = None
    client_auth: ClientAuth = ClientAuth.NONE
    trust: Path | None = None
    test_certificate: bool = False


@dataclass(frozen=True, slots=True)
class TlsClientPolicy:
    """The client side; as RocketMQ's, it trusts any server unless ``trust`` is given."""

    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = None
    trust: Path | None = None


class TlsServer:
    """Holds the context for new connections, and renews it when the files change."""

    def __init__(self, policy: TlsPolicy, clock: Clock) -> None:
        """Load the certificate.

        Raises:
            TlsConfigError: the settings cannot work.
        """
        self.policy = policy
        self._clock = clock
        self._looked = clock.monotonic()
        files = (policy.certificate, policy.key, policy.trust)
        self._files = [file for file in files if file is not None]
        self._seen = self._stamps()
        # A certificate of our own is made when the first client wants TLS.
        self._made = not policy.test_certificate or policy.certificate is not None
        self._context = server_context(policy) if self._made else None

    def context(self) -> ssl.SSLContext | None:
        """The context for a new connection; ``None`` when there is no certificate."""
        if not self._made:
            self._made = True
            self._context = server_context(self.policy)
        now = self._clock.monotonic()
        if self._context is not None and now - self._looked >= RELOAD_S:
            self._looked = now
            self._renew()
        return self._context

    def refusal(self) -> str:
        """Why a TLS hello is refused when there is no context."""
        if self.policy.mode is TlsMode.DISABLED:
            return "TLS is off here; --tls-mode permissive serves it"
        return (
            "there is no TLS certificate; give one with --tls-cert and --tls-key, or make one "
            "with --tls-test-certificate"
        )

    def _renew(self) -> None:
        stamps = self._stamps()
        if stamps == self._seen:
            return
        try:
            self._context = server_context(self.policy)
        except TlsConfigError as error:  # half-written files: the next look finds the rest
            log.warning("the TLS certificate changed and is not taken: %s", error)
        else:
            self._seen = stamps
            log.info("the TLS certificate changed and is in use")

    def _stamps(self) -> list[tuple[int, int] | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def server_context(policy: TlsPolicy) -> ssl.SSLContext | None:
    """Build the server's context; ``None`` when TLS is off or has no certificate.

    Raises:
        TlsConfigError: the settings cannot work.
    """
    if policy.mode is TlsMode.DISABLED:
        return None
    if (policy.certificate is None) != (policy.key is None):
        raise TlsConfigError("a certificate and its key go together: --tls-cert and --tls-key")
    if policy.certificate is None and not policy.test_certificate:
        if policy.mode is TlsMode.ENFORCING:
            raise TlsConfigError(
                "--tls-mode enforcing needs a certificate: give --tls-cert and --tls-key, or "
                "--tls-test-certificate"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])  # for gRPC clients; others do not ask
    if policy.certificate is not None and policy.key is not None:
        _load(context, policy.certificate, policy.key, policy.key_password)
    else:
        _load_test_certificate(context)
    _ask_for_client_certificate(context, policy)
    return context


def client_context(policy: TlsClientPolicy) -> ssl.SSLContext:
    """Build a client's context; no host name is checked, as in RocketMQ.

    Raises:
        TlsConfigError: the settings cannot work.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if policy.trust is None else ssl.CERT_REQUIRED
    if policy.trust is not None:
        _trust(context, policy.trust)
    if policy.certificate is not None and policy.key is not None:
        _load(context, policy.certificate, policy.key, policy.key_password)
    return context


def _ask_for_client_certificate(context: ssl.SSLContext, policy: TlsPolicy) -> None:
    if policy.client_auth is ClientAuth.NONE:
        return
    if policy.trust is None:
        raise TlsConfigError(
            f"tls.server.need.client.auth={policy.client_auth.value} needs "
            "tls.server.trustCertPath, the CA that signs the clients' certificates (both in the "
            "file that --tls-config names)"
        )
    _trust(context, policy.trust)
    required = policy.client_auth is ClientAuth.REQUIRE
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL


def _trust(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise TlsConfigError(f"cannot use the trust file {file}: {error}") from error


def _load(context: ssl.SSLContext, certificate: Path, key: Path, password: str | None) -> None:
    try:
        # A callable, even for no password: OpenSSL would ask on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: password or "")
    except (OSError, ValueError) as error:
        raise TlsConfigError(
            f"cannot use the certificate {certificate} with the key {key}: {_reason(error)}"
        ) from error


def _reason(error: OSError | ValueError) -> str:
    """In words: of most mistakes OpenSSL says a code alone."""
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key belongs to another certificate"
        return (
            "they must be PEM files, and tls.server.keyPassword the key's password if it has one "
            f"({error})"
        )
    return getattr(error, "strerror", None) or str(error)


def _load_test_certificate(context: ssl.SSLContext) -> None:
    certificate, key = self_signed("localhost")
    with tempfile.TemporaryDirectory(prefix="firearrow-tls-") as folder:
        paths = Path(folder, "certificate.pem"), Path(folder, "key.pem")  # in a 0700 directory
        paths[0].write_bytes(certificate)
        paths[1].write_bytes(key)
        _load(context, *paths, None)


def self_signed(name: str) -> tuple[bytes, bytes]:
    """Make a self-signed certificate, valid for a year: the PEM of it and of its key.

    It is for the loopback addresses too: clients that are given an address check for that. It is
    not an authority's: Rust's clients take such a certificate for no server's, even if told to.
    """
    # Here, so that only who makes a certificate pays for the import.
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    # The only look at the calendar: a certificate is made for people's time, not for a test's.
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
