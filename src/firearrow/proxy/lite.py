"""Lite topics for gRPC clients: subscriptions, what was popped, and who lost one
(``LiteSubscriptionService``, ``ClientActivity``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from firearrow.codec.numbers import INT32_MAX
from firearrow.codec.properties import find_property
from firearrow.codec.record import Record, RecordError, decode_record, split_records
from firearrow.features.pop.handles import NORMAL, Handle
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.remoting import lite_requests
from firearrow.protocol.remoting.command import Answer, Request
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.lite_requests import NotifyUnsubscribeLite
from firearrow.protocol.remoting.session import Route
from firearrow.proxy import checks
from firearrow.proxy.backend import Backend, BrokerTopic, missing
from firearrow.proxy.clients import CALL_S, LITE_CONSUMERS, Client, Clients
from firearrow.proxy.receipts import Receipt
from firearrow.proxy.refusal import Refusal, of_remoting, status
from firearrow.store import lmq

_quota = re.compile(r"-1|[0-9]{1,19}").fullmatch
QUOTA_DEFAULT: Final = 2000
QUOTA_SLACK: Final = 300  # a client may be late with what it gave up
ADDS_PER_S_MAX: Final = 5000  # ``maxSyncLiteSubscriptionRate``
UNACKED_MAX: Final = 100  # ``maxLiteRenewNumPerChannel``
_encode = msgspec.json.Encoder().encode


def parent_of(group: Group | None) -> str:
    """The parent topic of a group that consumes lite topics; empty for any other group."""
    return group.attributes.get("lite.bind.topic", "") if group is not None else ""


def quota_of(group: Group | None) -> int:
    """How many lite topics one client of the group may subscribe to."""
    text = group.attributes.get("lite.sub.client.quota", "") if group is not None else ""
    return min(int(text), INT32_MAX) if _quota(text) else QUOTA_DEFAULT


def check_settings(settings: v2.Settings, group: Group | None) -> None:
    """Lite consumers go with groups that are bound to a parent, and only they.

    Raises:
        Refusal: ILLEGAL_CONSUMER_GROUP or ILLEGAL_TOPIC.
    """
    name, parent = settings.subscription.group.name, parent_of(group)
    if settings.client_type not in LITE_CONSUMERS:
        if parent:
            raise Refusal(v2.ILLEGAL_CONSUMER_GROUP, f"lite group must use LITE mode: {name}")
        return
    if group is None:
        raise Refusal(v2.ILLEGAL_CONSUMER_GROUP, f"group not found: {name}")
    if not parent:
        raise Refusal(v2.ILLEGAL_CONSUMER_GROUP, f"regular group cannot use LITE mode: {name}")
    for entry in list(settings.subscription.subscriptions)[:1]:
        _check_parent(name, parent, entry.topic.name)


def _check_parent(group: str, parent: str, topic: str) -> None:
    if topic != parent:
        raise Refusal(
            v2.ILLEGAL_TOPIC,
            f"lite group {group} is expected to bind topic {parent}, but actual is {topic}",
        )


def popped(ext: dict[str, Any], body: bytes, broker_name: str) -> Iterator[tuple[Record, str]]:
    """The messages of a POP_LITE_MESSAGE with their receipt handles, as their lite topics have
    them."""
    pop_ms, invisible_ms = int(ext["popTime"]), int(ext["invisibleTime"])
    revive_queue = int(ext["reviveQid"])
    attempts = str(ext.get("orderCountInfo") or "").split(";")
    for number, data in enumerate(split_records(body)):
        attempt = attempts[number] if number < len(attempts) else ""
        try:
            record = decode_record(data)
        except RecordError:
            continue
        places = lmq.places(record.topic, record.properties)
        lite_topic = (find_property(record.properties, b"__LITE_TOPIC") or b"").decode()
        if len(places) != 1 or not lite_topic:
            continue
        offset = places[0][1]
        handle = Handle(0, pop_ms, invisible_ms, revive_queue, NORMAL, broker_name, 0, offset)
        times = int(attempt) if attempt.isdecimal() else 0
        record = msgspec.structs.replace(record, queue_offset=offset, reconsume_times=times)
        yield record, Receipt(handle, record.physical_offset, lite_topic).text()


def leave(client: Client) -> None:
    """The client is gone: the brokers give its lite topics to others."""
    settings = client.settings
    if settings is None or settings.client_type not in LITE_CONSUMERS:
        return
    for entry in list(settings.subscription.subscriptions)[:1]:
        change = _change(client, client.group, entry.topic.name, "COMPLETE_REMOVE")
        for name in client.brokers:
            _call(client, name, change, lambda header, body: None)


def notices(client: Client) -> Route:
    """What answers a broker that takes a lite topic from the client."""

    def unsubscribed(request: Request[NotifyUnsubscribeLite]) -> Answer:
        command = rpc.TelemetryCommand()
        command.notify_unsubscribe_lite_command.lite_topic = request.fields.lite_topic
        client.command(command)
        return None

    return Route("NOTIFY_UNSUBSCRIBE_LITE", NotifyUnsubscribeLite, unsubscribed)


class LiteSubscriptions:
    """SyncLiteSubscription."""

    def __init__(self, clients: Clients, backend: Backend, clock: Clock) -> None:
        self._clients = clients
        self._backend = backend
        self._clock = clock
        self._second = 0  # of the clock, and how many adds came within it
        self._adds = 0

    def unary(self) -> dict[str, tuple[Any, Any, Callable[[Call, Any], None]]]:
        """The method, as the service lists it."""
        request, response = rpc.SyncLiteSubscriptionRequest, rpc.SyncLiteSubscriptionResponse
        return {"SyncLiteSubscription": (request, response, self.sync)}

    def sync(self, call: Call, request: rpc.SyncLiteSubscriptionRequest) -> None:
        client = self._clients.of(call)
        topic, group_name = checks.topic_name(request.topic), checks.group_name(request.group)
        adds = request.action == v2.PARTIAL_ADD
        for lite_topic in request.lite_topic_set if adds else ():
            checks.lite_topic(lite_topic)

        def with_group(group: Group | None) -> None:
            try:
                self._check(group, group_name, topic, len(request.lite_topic_set), adds=adds)
            except Refusal as refusal:
                call.answer(rpc.SyncLiteSubscriptionResponse(status=refusal.status))
                return
            self._backend.topic(topic, with_places)

        def with_places(places: list[BrokerTopic]) -> None:
            names = {place.broker_name for place in places if place.topic.readable}
            if not names:
                refusal = missing(places, topic)
                call.answer(rpc.SyncLiteSubscriptionResponse(status=refusal.status))
                return
            change = _change(
                client,
                group_name,
                topic,
                v2.LiteSubscriptionAction.Name(request.action),
                liteTopicSet=list(dict.fromkeys(request.lite_topic_set)),
                version=request.version,
                **(_option(request.offset_option) if adds else {}),
            )
            answers = _Answers(call, len(names))
            for name in names:
                _call(client, name, change, answers.take)

        self._backend.group(group_name, with_group)

    def _check(self, group: Group | None, name: str, topic: str, count: int, *, adds: bool) -> None:
        if group is None:
            raise Refusal(v2.ILLEGAL_CONSUMER_GROUP, f"group not found: {name}")
        _check_parent(name, parent_of(group), topic)
        quota = quota_of(group)
        if count > quota + QUOTA_SLACK:
            raise Refusal(
                v2.LITE_SUBSCRIPTION_QUOTA_EXCEEDED, f"lite subscription quota exceeded: {quota}"
            )
        if not adds:
            return
        second = int(self._clock.monotonic())
        self._adds = self._adds + 1 if second == self._second else 1
        self._second = second
        if self._adds > ADDS_PER_S_MAX:
            raise Refusal(
                v2.TOO_MANY_REQUESTS, f"more than {ADDS_PER_S_MAX} lite subscriptions a second"
            )


class _Answers:
    """Waits for all brokers; the first that refuses speaks for them."""

    def __init__(self, call: Call, count: int) -> None:
        self._call = call
        self._missing = count
        self._status = status()

    def take(self, header: Header | None, body: bytes) -> None:
        if header is None or header.code != codes.SUCCESS:
            refusal = of_remoting(header.code, header.remark) if header else of_remoting(-1, None)
            if self._status.code == v2.OK:
                self._status = refusal.status
        self._missing -= 1
        if not self._missing:
            self._call.answer(rpc.SyncLiteSubscriptionResponse(status=self._status))


def _change(client: Client, group: str, topic: str, action: str, **more: Any) -> bytes:
    """The body of a LITE_SUBSCRIPTION_CTL with one change."""
    change = {
        "action": action,
        "clientId": client.client_id,
        "group": group,
        "topic": topic,
        **more,
    }
    return _encode({"subscriptionSet": [change]})


def _option(option: v2.OffsetOption) -> dict[str, Any]:
    """Where a new subscription begins; nothing when the client does not say."""
    kind = option.WhichOneof("offset_type")
    if kind is None:
        return {}
    return {"offsetOption": {"type": kind.upper(), "value": int(getattr(option, kind))}}


def _call(client: Client, broker_name: str, body: bytes, done: Any) -> None:
    client.channel.call(broker_name, lite_requests.LITE_SUBSCRIPTION_CTL, {}, body, CALL_S, done)
