"""Signed gRPC calls: who may call where ``grpcAuthenticationEnabled`` is set."""

from __future__ import annotations

import hashlib
import hmac
import logging
from pathlib import Path

import pytest
from tests.support.grpc import Client, GrpcWorld

from firearrow.config import BrokerSettings
from firearrow.config_values import ConfigError
from firearrow.plan import read_users
from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.pb import admin_pb2, health_pb2
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.proxy.authentication import Authenticator

DATE = "20240101T000000Z"


@pytest.fixture
def grpc(grpc: GrpcWorld) -> GrpcWorld:
    """The same, asking for signatures."""
    grpc.proxy.authenticator = Authenticator({"shop": "SK", "other": "ÄÖ"}, grpc.world.clock)
    grpc.methods = grpc.proxy.methods()
    return grpc


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


def signed(secret: str, date: str = DATE) -> str:
    return hmac.new(secret.encode(), date.encode(), hashlib.sha1).hexdigest()


def sign(client: Client, user: str = "shop", secret: str = "SK", date: str = DATE) -> None:
    client.metadata |= {
        "x-mq-date-time": date,
        "authorization": f"MQv2-HMAC-SHA1 Credential={user}, SignedHeaders=x-mq-date-time, "
        f"Signature={signed(secret, date)}",
    }


def test_the_example_of_the_protocol() -> None:
    assert signed("SK") == hmac.new(b"SK", b"20240101T000000Z", "sha1").hexdigest()


@pytest.mark.parametrize(
    "credential",
    ["shop", "shop//Rocketmq", "shop/cn-hangzhou/RocketMQ"],  # Java, Go, C++
)
@pytest.mark.parametrize("upper", [True, False])
def test_a_signed_call_passes(client: Client, credential: str, upper: bool) -> None:
    sign(client, credential)
    if upper:
        signature = signed("SK")
        authorization = client.metadata["authorization"]
        client.metadata["authorization"] = authorization.replace(signature, signature.upper())
    assert client.produce("orders").status.code == v2.OK
    _, (got,) = client.receive("orders")
    assert client.ack(got).status.code == v2.OK


def test_a_date_is_a_text_as_any(client: Client) -> None:
    """Rust's has another form, and most are local time with a Z."""
    sign(client, "other", "ÄÖ", "2024-01-01T00:00:00.123+08:00")
    assert client.produce("orders").status.code == v2.OK


GOOD = f"MQv2-HMAC-SHA1 Credential=shop, SignedHeaders=x-mq-date-time, Signature={signed('SK')}"


@pytest.mark.parametrize(
    ("authorization", "date"),
    [
        (None, DATE),
        (GOOD, None),
        (GOOD, ""),
        (GOOD, "20240102T000000Z"),
        (GOOD.replace("shop", "nobody"), DATE),
        (GOOD.replace("shop", "other"), DATE),
        (GOOD.replace("shop", ""), DATE),
        (GOOD.replace(signed("SK"), signed("sk")), DATE),
        (GOOD.replace(signed("SK"), ""), DATE),
        (GOOD.replace(signed("SK"), "xyz"), DATE),
        (GOOD.replace("Signature", "Signatur"), DATE),
        ("MQv2-HMAC-SHA1", DATE),
        ("", DATE),
        (f"MQv2-HMAC-SHA1 Credential=nobody, Signature={signed('nobody')}", DATE),
    ],
)
def test_a_call_that_is_not_signed_is_refused(
    client: Client, authorization: str | None, date: str | None
) -> None:
    for name, value in (("authorization", authorization), ("x-mq-date-time", date)):
        if value is not None:
            client.metadata[name] = value
    answer = client.produce("orders")
    assert answer.status.code == v2.UNAUTHORIZED
    assert answer.status.message


def test_streams_are_refused_too(client: Client) -> None:
    receive, _ = client.receive("orders")
    assert receive.ended
    assert client.status_of(receive) == v2.UNAUTHORIZED
    pull = client.start("PullMessage", rpc.PullMessageRequest())
    assert client.messages("PullMessage", pull)[0].status.code == v2.UNAUTHORIZED
    settings = v2.Settings(client_type=v2.PRODUCER)
    settings.publishing.SetInParent()
    telemetry = client.wire.open("/apache.rocketmq.v2.MessagingService/Telemetry", client.metadata)
    (command,) = client.messages("Telemetry", telemetry)
    assert command.status.code == v2.UNAUTHORIZED
    assert telemetry.ended


def test_the_admin_service_is_behind_it_and_health_is_not(grpc: GrpcWorld) -> None:
    wire = grpc.wire()
    stats = wire.open("/apache.rocketmq.v2.Admin/GetProxyRuntimeStats")
    wire.write(stats, b"", end=True)
    (data,) = stats.raw_messages()
    answer = admin_pb2.GetProxyRuntimeStatsResponse.FromString(data)
    assert answer.status.code == v2.UNAUTHORIZED
    level = wire.open("/apache.rocketmq.v2.Admin/ChangeLogLevel")
    wire.write(level, b"", end=True)
    assert level.grpc_status == calls.UNAUTHENTICATED
    health = wire.open("/grpc.health.v1.Health/Check")
    wire.write(health, health_pb2.HealthCheckRequest().SerializeToString(), end=True)
    assert health.grpc_status == calls.OK


def test_the_log_says_it_once_a_minute(
    grpc: GrpcWorld, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    sign(client, secret="wrong")
    for _ in range(20):
        client.produce("orders")
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "'shop'" in line
    grpc.world.clock.advance(61)
    client.produce("orders")
    assert "refused 21 gRPC calls" in caplog.text


# -- the file


def users_of(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "users.json"
    path.write_text(text)
    settings = BrokerSettings()
    settings.grpc_users_file = str(path)
    return read_users(settings)


def test_a_file_of_users(tmp_path: Path) -> None:
    assert users_of(tmp_path, '{"shop": "SK"}') == {"shop": "SK"}


@pytest.mark.parametrize("text", ["", "[]", '{"shop": 5}', '{"": "x"}', '{"shop": ""}'])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"users\.json"):
        users_of(tmp_path, text)


def test_users_must_be_somewhere(tmp_path: Path) -> None:
    settings = BrokerSettings()
    with pytest.raises(ConfigError, match="grpcUsersFile"):
        read_users(settings)
    settings.grpc_users_file = str(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match=r"nothing\.json"):
        read_users(settings)
