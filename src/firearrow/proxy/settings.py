"""Telemetry: the settings a client sends, what it gets back, and commands to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from firearrow.model.group import Group
from firearrow.model.retry_policy import Customized, Exponential, read_retry_policy
from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.proxy import checks, lite
from firearrow.proxy.backend import Backend
from firearrow.proxy.clients import CONSUMERS, LITE_CONSUMERS, Client, Clients
from firearrow.proxy.convert import set_time
from firearrow.proxy.refusal import Refusal, status

PRODUCER_ATTEMPTS: Final = 3
PRODUCER_BACKOFF_MS: Final = (10, 1000, 2.0)  # initial, max, multiplier
RETRIES: Final = 16  # of a group that does not exist yet
RECEIVE_BATCH: Final = 32
POLLING_S_MAX: Final = 20


class TelemetrySettings(Protocol):
    max_message_size: int


class Telemetry:
    """One Telemetry stream; see ``calls.Inbox``."""

    def __init__(
        self,
        call: Call,
        clients: Clients,
        backend: Backend,
        settings: TelemetrySettings,
        answered: Callable[[rpc.TelemetryCommand], None],
    ) -> None:
        self._answered = answered
        self._call = call
        self._clients = clients
        self._backend = backend
        self._settings = settings

    def received(self, message: Any) -> None:
        command: rpc.TelemetryCommand = message
        if command.WhichOneof("command") != "settings":
            self._answered(command)
            return
        try:
            client = self._clients.of(self._call)
        except Refusal as refusal:
            self._call.send(rpc.TelemetryCommand(status=refusal.status))
            self._call.end()
            return
        try:
            self._take(client, command.settings)
        except Refusal as refusal:
            self._call.end(calls.INVALID_ARGUMENT, refusal.text)

    def half_closed(self) -> None:
        self._call.end()

    def _take(self, client: Client, settings: v2.Settings) -> None:
        if not settings.HasField("publishing") and not settings.HasField("subscription"):
            raise Refusal(v2.BAD_REQUEST, "there is no publishing or subscription data in settings")
        if settings.HasField("publishing"):
            for topic in settings.publishing.topics:
                checks.topic_name(topic)
        else:
            checks.group_name(settings.subscription.group)
            if settings.client_type not in CONSUMERS:
                raise Refusal(v2.UNRECOGNIZED_CLIENT_TYPE, v2.ClientType.Name(settings.client_type))
            self._backend.group(
                settings.subscription.group.name,
                lambda group: self._with_group(client, settings, group),
            )
            return
        self._accept(client, settings)

    def _with_group(self, client: Client, settings: v2.Settings, group: Group | None) -> None:
        try:
            lite.check_settings(settings, group)
        except Refusal as refusal:
            self._call.end(calls.INVALID_ARGUMENT, refusal.text)
            return
        if client.settings is None and settings.client_type in LITE_CONSUMERS:
            client.gone.append(lambda: lite.leave(client))
            self._call.cancelled = lambda: self._lost(client)
        self._accept(client, settings)

    def _lost(self, client: Client) -> None:
        """The stream broke: what waits for the client goes to others, until it comes back."""
        if client.stream is self._call:
            lite.leave(client)

    def _accept(self, client: Client, settings: v2.Settings) -> None:
        client.settings = settings
        client.stream = self._call
        self._clients.register(client)
        merged = v2.Settings()
        merged.CopyFrom(settings)
        merge(self._backend, merged, self._settings.max_message_size, self._answer)

    def _answer(self, merged: v2.Settings) -> None:
        self._call.send(rpc.TelemetryCommand(status=status(), settings=merged))


def merge(
    backend: Backend, settings: v2.Settings, body_bytes: int, done: Callable[[v2.Settings], None]
) -> None:
    """Fill in what the server decides (``GrpcClientSettingsManager``)."""
    settings.metric.on = False
    if settings.HasField("publishing"):
        _merge_producer(settings, body_bytes)
        done(settings)
        return

    def with_group(group: Group | None) -> None:
        merge_consumer(settings, group)
        done(settings)

    backend.group(settings.subscription.group.name, with_group)


def _merge_producer(settings: v2.Settings, body_bytes: int) -> None:
    initial_ms, max_ms, multiplier = PRODUCER_BACKOFF_MS
    settings.backoff_policy.max_attempts = PRODUCER_ATTEMPTS
    backoff = settings.backoff_policy.exponential_backoff
    set_time(backoff.initial, int(initial_ms))
    set_time(backoff.max, int(max_ms))
    backoff.multiplier = multiplier
    settings.publishing.max_body_size = body_bytes
    settings.publishing.validate_message_type = True


def merge_consumer(settings: v2.Settings, group: Group | None) -> None:
    """A group's own values; what the client sent stays where there is no group yet."""
    policy = settings.backoff_policy
    if group is not None or not policy.max_attempts:
        policy.max_attempts = (group.retry_max_times if group else RETRIES) + 1
    if group is not None or policy.WhichOneof("strategy") is None:
        set_backoff(policy, group.retry_policy if group else {})
    subscription = settings.subscription
    if group is not None or not subscription.HasField("fifo"):
        subscription.fifo = group.consume_message_orderly if group else False
    if group is not None or not subscription.receive_batch_size:
        subscription.receive_batch_size = RECEIVE_BATCH
    if group is not None or not subscription.HasField("long_polling_timeout"):
        set_time(subscription.long_polling_timeout, POLLING_S_MAX * 1000)
    subscription.lite_subscription_quota = lite.quota_of(group)
    subscription.max_lite_topic_size = checks.LITE_TOPIC_BYTES_MAX


def set_backoff(policy: v2.RetryPolicy, group_policy: dict[str, Any]) -> None:
    """From a group's configuration. One that makes no sense, which another broker may have, keeps
    nobody from consuming: the default holds."""
    try:
        wanted = read_retry_policy(group_policy)
    except ValueError:
        wanted = Customized()
    if isinstance(wanted, Exponential):
        backoff = policy.exponential_backoff
        set_time(backoff.initial, wanted.initial)
        set_time(backoff.max, wanted.max)
        backoff.multiplier = wanted.multiplier
        return
    policy.customized_backoff.ClearField("next")
    for time_ms in wanted.next:
        set_time(policy.customized_backoff.next.add(), time_ms)
