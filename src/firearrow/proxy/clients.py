"""The gRPC clients of this proxy: their settings, their channels to the brokers, their life.

A client is known by its id (header ``x-mq-client-id``). What it registers (Telemetry settings) is
passed on to the brokers as remoting heartbeats over a channel of its own, so that brokers see
ordinary producers and consumers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from firearrow.codec.addresses import join_address, pack_address
from firearrow.model.clock import Clock
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.remoting.session import Route
from firearrow.proxy.backend import Backend, Channel
from firearrow.proxy.refusal import Refusal

log = logging.getLogger(__name__)

EXPIRE_S: Final = 120.0  # ``channelExpiredTimeout``
SCAN_S: Final = 5.0
CALL_S: Final = 2.0
HEART_BEAT: Final = 34
UNREGISTER_CLIENT: Final = 35
CLIENTS_MAX: Final = 100_000
_encode = msgspec.json.Encoder().encode

CONSUMERS: Final = {
    v2.PUSH_CONSUMER: "CONSUME_PASSIVELY",
    v2.SIMPLE_CONSUMER: "CONSUME_ACTIVELY",
    v2.PULL_CONSUMER: "CONSUME_ACTIVELY",
    v2.LITE_PUSH_CONSUMER: "CONSUME_PASSIVELY",
    v2.LITE_SIMPLE_CONSUMER: "CONSUME_ACTIVELY",
}
LITE_CONSUMERS: Final = frozenset({v2.LITE_PUSH_CONSUMER, v2.LITE_SIMPLE_CONSUMER})


class Client:
    """One client. ``stream`` is its newest Telemetry call, for commands to it."""

    channel: Channel

    def __init__(self, client_id: str, remote: tuple[str, int]) -> None:
        self.client_id = client_id
        self.remote = remote
        self.address = join_address(*remote)
        self.packed = pack_address(*remote)
        self.settings: v2.Settings | None = None
        self.stream: Call | None = None
        self.seen_s = 0.0
        self.registered_ms = 0
        self.gone: list[Callable[[], None]] = []
        self.brokers: set[str] = set()  # that know of it

    @property
    def type(self) -> v2.ClientType.ValueType:
        return self.settings.client_type if self.settings else v2.CLIENT_TYPE_UNSPECIFIED

    @property
    def group(self) -> str:
        return self.settings.subscription.group.name if self.settings else ""

    @property
    def lite(self) -> bool:
        """Whether it consumes lite topics."""
        return self.type in LITE_CONSUMERS

    def command(self, command: rpc.TelemetryCommand) -> bool:
        """Send a command; whether there was a stream to send it on."""
        if self.stream is None or self.stream.ended:
            return False
        self.stream.send(command)
        return True


RoutesOf = Callable[[Client], Mapping[int, Route]]


class Clients:
    """All clients, by id."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self._clients: dict[str, Client] = {}
        # What brokers may ask of a client; the composition connects it.
        self.routes_of: RoutesOf = lambda client: {}
        self._running = False

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def start(self) -> None:
        self._running = True
        self._clock.call_later(SCAN_S, self._scan)

    def stop(self) -> None:
        self._running = False
        for client in self:
            self.remove(client)

    # -- who calls

    def find(self, client_id: str) -> Client | None:
        """A client that called this proxy."""
        return self._clients.get(client_id)

    def of(self, call: Call) -> Client:
        """The caller, with a channel.

        Raises:
            Refusal: it does not say who it is, or there are too many.
        """
        client_id = call.field("x-mq-client-id")
        client = self._clients.get(client_id)
        if client is None:
            if not client_id.strip():
                raise Refusal(v2.CLIENT_ID_REQUIRED, "client id cannot be empty")
            if len(self._clients) >= CLIENTS_MAX:
                raise Refusal(v2.TOO_MANY_REQUESTS, f"{CLIENTS_MAX} clients are connected")
            client = Client(client_id, call.remote)
            client.channel = self._backend.connect(call.remote, self.routes_of(client))
            self._clients[client_id] = client
        client.seen_s = self._clock.monotonic()
        return client

    def registered(self, call: Call) -> Client:
        """The caller, if it has said what it is.

        Raises:
            Refusal: it has no settings.
        """
        client = self.of(call)
        if client.settings is None:
            raise Refusal(
                v2.UNRECOGNIZED_CLIENT_TYPE, "cannot find client settings for this client"
            )
        return client

    # -- towards the brokers

    def register(self, client: Client) -> None:
        """Tell the brokers of the client, now and at each of its heartbeats."""
        settings = client.settings
        if settings is None:
            return
        client.registered_ms = self._clock.now_ms()
        body: dict[str, Any] = {
            "clientID": client.client_id,
            "consumerDataSet": [],
            "producerDataSet": [],
        }
        if settings.HasField("subscription"):
            body["consumerDataSet"].append(_consumer(client, settings))
        else:
            # The group of a gRPC producer is the topic it sends to.
            body["producerDataSet"] = [
                {"groupName": topic.name} for topic in settings.publishing.topics
            ]
        data = _encode(body)

        def found(names: set[str]) -> None:
            client.brokers |= names
            for name in names:
                client.channel.call(name, HEART_BEAT, {}, data, CALL_S, lambda header, body: None)

        self._backend.brokers_of(_topics(settings), found)

    def remove(self, client: Client) -> None:
        """The client is gone: the brokers hear of it, and what waits for it is let go."""
        if self._clients.pop(client.client_id, None) is None:
            return
        for gone in client.gone:
            gone()
        for ext in _groups(client):
            for name in client.brokers:
                client.channel.call(
                    name, UNREGISTER_CLIENT, ext, b"", CALL_S, lambda header, body: None
                )
        client.channel.close()

    def _scan(self) -> None:
        if not self._running:
            return
        oldest_s = self._clock.monotonic() - EXPIRE_S
        for client in self:
            if client.seen_s < oldest_s:
                log.info("client %s is gone: nothing heard for %d s", client.client_id, EXPIRE_S)
                self.remove(client)
        self._clock.call_later(SCAN_S, self._scan)


def _consumer(client: Client, settings: v2.Settings) -> dict[str, Any]:
    return {
        "groupName": client.group,
        "consumeType": CONSUMERS.get(client.type, "CONSUME_ACTIVELY"),
        "messageModel": "LITE_SELECTIVE" if client.lite else "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET",
        "unitMode": False,
        "subscriptionDataSet": [
            {
                "topic": entry.topic.name,
                "subString": entry.expression.expression or "*",
                "subVersion": client.registered_ms,
                "expressionType": "SQL92" if entry.expression.type == v2.SQL else "TAG",
            }
            for entry in settings.subscription.subscriptions
        ],
    }


def _topics(settings: v2.Settings) -> list[str]:
    if settings.HasField("subscription"):
        return [entry.topic.name for entry in settings.subscription.subscriptions]
    return [topic.name for topic in settings.publishing.topics]


def _groups(client: Client) -> Iterator[dict[str, str]]:
    if client.settings is None:
        return
    if client.settings.HasField("subscription"):
        yield {"clientID": client.client_id, "consumerGroup": client.group}
    for topic in client.settings.publishing.topics:
        yield {"clientID": client.client_id, "producerGroup": topic.name}
