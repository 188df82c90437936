"""What to run: from the command line's flags and a property file; flags go first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from firearrow import config, config_file
from firearrow.config import BrokerSettings
from firearrow.config_values import ConfigError
from firearrow.namesrv import settings as namesrv_config
from firearrow.namesrv.settings import NamesrvSettings
from firearrow.transport import tlsfile
from firearrow.transport.tls import ClientAuth, TlsMode, TlsPolicy

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_STORE: Final = "./firearrow-store"
DEFAULT_NAMESRV_PORT: Final = 9876
DEFAULT_PROXY_PORT: Final = 8081
PROXY_PORT_BELOW: Final = 2830  # 10911 and 8081


@dataclass
class Plan:
    """A process to be; port 0 is any free one."""

    settings: BrokerSettings
    store: str
    host: str = DEFAULT_HOST
    namesrv: bool = True
    broker: bool = True
    namesrv_port: int = DEFAULT_NAMESRV_PORT
    broker_port: int = 10911
    config_path: str | None = None
    tls: TlsPolicy = field(default_factory=TlsPolicy)
    warnings: list[str] = field(default_factory=list)
    namesrv_settings: NamesrvSettings = field(default_factory=NamesrvSettings)
    proxy_port: int | None = None  # None: no proxy

    @property
    def proxy_only(self) -> bool:
        """A proxy in front of brokers elsewhere."""
        return not self.namesrv and not self.broker

    @classmethod
    def from_options(
        cls,
        *,
        namesrv: bool,
        broker: bool,
        config: str | None,
        host: str | None,
        store: str | None = None,
        tls_mode: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        tls_test_certificate: bool,
        tls_config: str | None = None,
        namesrv_port: int | None = None,
        broker_port: int | None = None,
        proxy_port: int | None = None,
        namesrv_addr: str | None = None,
    ) -> Plan:
        """Read the file, then let the flags go before it.

        Raises:
            ConfigError: a file that cannot be read, or a value that its key cannot have.
        """
        settings, namesrv_settings, warnings = _read(config, of_broker=broker or not namesrv)
        tls, tls_warnings = _tls(tls_config, tls_mode, tls_cert, tls_key, tls_test_certificate)
        plan = cls(
            settings,
            store or settings.store_path_root_dir or DEFAULT_STORE,
            host or settings.bind_address or namesrv_settings.bind_address or DEFAULT_HOST,
            namesrv,
            broker,
            namesrv_settings.listen_port if namesrv_port is None else namesrv_port,
            settings.listen_port,
            config,
            tls,
            [*warnings, *tls_warnings],
            namesrv_settings,
        )
        plan._take_flags(broker_port, namesrv_addr)
        if broker:
            plan.proxy_port = _proxy_port(plan, proxy_port)
        elif plan.proxy_only:
            plan.proxy_port = _port_of_proxy_alone(settings, proxy_port)
        return plan

    def _take_flags(self, broker_port: int | None, namesrv_addr: str | None) -> None:
        """Flags that are settings stand in the settings too, where operators ask for them."""
        settings = self.settings
        settings.store_path_root_dir, settings.bind_address = self.store, self.host
        if namesrv_addr:
            config.set_value(settings, "namesrvAddr", namesrv_addr)
        if broker_port is not None:
            self.broker_port = broker_port
            if broker_port:
                config.set_value(settings, "listenPort", str(broker_port))


def _tls(
    path: str | None,
    mode: str | None,
    certificate: str | None,
    key: str | None,
    test_certificate: bool,
) -> tuple[TlsPolicy, list[str]]:
    policy, warnings = tlsfile.read(path) if path else (TlsPolicy(), [])
    policy = replace(
        policy,
        mode=TlsMode(mode) if mode else policy.mode,
        certificate=Path(certificate) if certificate else policy.certificate,
        key=Path(key) if key else policy.key,
        test_certificate=test_certificate or policy.test_certificate,
    )
    if policy.client_auth is ClientAuth.REQUIRE and policy.mode is not TlsMode.ENFORCING:
        warnings.append(
            f"tls.server.need.client.auth=require keeps nobody out who comes without TLS, which "
            f"--tls-mode {policy.mode.value} lets in: set --tls-mode enforcing"
        )
    return policy, warnings


def _proxy_port(plan: Plan, flag: int | None) -> int | None:
    """8081 beside the default broker port; it moves along with that, so that several brokers on a
    machine do not meet."""
    if flag is not None:
        return flag
    if plan.settings.grpc_server_port or not plan.broker_port:
        return plan.settings.grpc_server_port
    derived = plan.broker_port - PROXY_PORT_BELOW
    return derived if derived > 0 else None


def _port_of_proxy_alone(settings: BrokerSettings, flag: int | None) -> int:
    """The port; where there are no brokers to serve is told here."""
    if not settings.namesrv_addr:
        raise ConfigError("a proxy finds its brokers through name servers: give them with -n")
    if flag is not None:
        return flag
    return settings.grpc_server_port or DEFAULT_PROXY_PORT


def _read(
    path: str | None, *, of_broker: bool
) -> tuple[BrokerSettings, NamesrvSettings, list[str]]:
    settings, namesrv_settings = BrokerSettings(), NamesrvSettings()
    warnings: list[str] = []
    if path is not None:
        text = config_file.read(path)
        if of_broker and text.lstrip().startswith("{"):
            settings, warnings = _read_proxy_json(text, path)
        elif of_broker:
            settings, warnings = config_file.load(text, path)
        else:
            namesrv_settings, warnings = namesrv_config.load(text, path)
    return settings, namesrv_settings, warnings


# Keys of an rmq-proxy.json that count here -> the setting.
PROXY_KEYS: Final = {
    "namesrvAddr": "namesrvAddr",
    "grpcServerPort": "grpcServerPort",
    "maxMessageSize": "maxMessageSize",
    "authenticationEnabled": "grpcAuthenticationEnabled",
    "grpcUsersFile": "grpcUsersFile",
    "remotingAccessAddr": "brokerIP1",
}


def _read_proxy_json(text: str, path: str) -> tuple[BrokerSettings, list[str]]:
    """The file of RocketMQ's own proxy (``ProxyConfig``)."""
    settings = BrokerSettings()
    try:
        values = msgspec.json.decode(text, type=dict[str, Any])
        for key in PROXY_KEYS.keys() & values.keys():
            value = values[key]
            text = str(value).lower() if isinstance(value, bool) else str(value)
            config.set_value(settings, PROXY_KEYS[key], text)
    except (msgspec.MsgspecError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from None
    others = sorted(values.keys() - PROXY_KEYS.keys())
    warnings = [f"{path}: without effect here: {', '.join(others)}"] if others else []
    return settings, warnings


def read_users(settings: BrokerSettings) -> dict[str, str]:
    """Users and secrets of ``grpcUsersFile``.

    Raises:
        ConfigError: it is not there, or is none.
    """
    path = settings.grpc_users_file
    if not path:
        raise ConfigError(
            "grpcAuthenticationEnabled needs grpcUsersFile: a file with "
            '{"access key": "secret key", ...}'
        )
    try:
        users = msgspec.json.decode(Path(path).read_bytes(), type=dict[str, str])
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no JSON object of access and secret keys: {error}") from None
    if not all(users.keys()) or not all(users.values()):
        raise ConfigError(f"{path} has an empty access or secret key")
    return users
