"""Remoting clients at the proxy's port: their requests go on to the broker that each is for
(``RemotingProtocolServer``), and what brokers ask of a client comes back to it.

For a client the proxy is name server and every broker at once: routes name the proxy in the place
of each broker. Which broker a request is for stands in its own fields (``bname``), as clients from
RocketMQ 5 on write it; older ones are served where a topic has one broker only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from firearrow.broker import heartbeat
from firearrow.codec import lenient_json
from firearrow.codec.addresses import join_address
from firearrow.features.pop.handles import HandleError, parse_handle
from firearrow.model import codes, names
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, Caller, Reply, Request
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.session import Route, answer
from firearrow.proxy.backend import BrokerTopic, NobodyKnows
from firearrow.proxy.remote.backend import HEART_BEAT, UNREGISTER_CLIENT, RemoteBackend
from firearrow.proxy.remote.topics import GET_ROUTEINFO_BY_TOPIC

CALL_S: Final = 3.0
SLACK_S: Final = 3.0  # beyond the time that the client lets a broker wait
ASKED_S: Final = 10.0  # what a broker asks of a client
WAIT_MS_MAX: Final = 120_000  # of a pull or a pop
TOPICS_MAX: Final = 1000  # of one client, whose brokers hear its heartbeats

PULL_MESSAGE, LITE_PULL_MESSAGE, POP_MESSAGE = 11, 361, 200050
GET_CONSUMER_LIST_BY_GROUP, GET_CONSUMER_CONNECTION_LIST = 38, 203
LOCK_BATCH_MQ, UNLOCK_BATCH_MQ = 41, 42
CHECK_CLIENT_CONFIG, QUERY_ASSIGNMENT, SET_MESSAGE_REQUEST_MODE = 46, 400, 401
QUERY_MESSAGE, BATCH_ACK_MESSAGE = 12, 200151

# Requests that name their broker, by the field that does.
_BNAME: Final = {
    10: "SEND_MESSAGE",
    PULL_MESSAGE: "PULL_MESSAGE",
    14: "QUERY_CONSUMER_OFFSET",
    15: "UPDATE_CONSUMER_OFFSET",
    29: "SEARCH_OFFSET_BY_TIMESTAMP",
    30: "GET_MAX_OFFSET",
    31: "GET_MIN_OFFSET",
    32: "GET_EARLIEST_MSG_STORETIME",
    36: "CONSUMER_SEND_MSG_BACK",
    37: "END_TRANSACTION",
    324: "SEND_REPLY_MESSAGE",
    LITE_PULL_MESSAGE: "LITE_PULL_MESSAGE",
    370: "RECALL_MESSAGE",
    POP_MESSAGE: "POP_MESSAGE",
    200051: "ACK_MESSAGE",
    200053: "CHANGE_MESSAGE_INVISIBLETIME",
    200054: "NOTIFICATION",
}
_SHORT_NAMES: Final = {
    310: "SEND_MESSAGE_V2",
    320: "SEND_BATCH_MESSAGE",
    325: "SEND_REPLY_MESSAGE_V2",
}

# What brokers ask of clients.
_ASKED: Final = {
    39: "CHECK_TRANSACTION_STATE",
    40: "NOTIFY_CONSUMER_IDS_CHANGED",
    220: "RESET_CONSUMER_CLIENT_OFFSET",
    221: "GET_CONSUMER_STATUS_FROM_CLIENT",
    307: "GET_CONSUMER_RUNNING_INFO",
    309: "CONSUME_MESSAGE_DIRECTLY",
    326: "PUSH_REPLY_MESSAGE_TO_CLIENT",
}

Ext = dict[str, Any]


class _Client:
    """One connection of a client."""

    def __init__(self, backend: RemoteBackend, caller: Caller, request: Request[Ext]) -> None:
        identity = str(request.language), request.version
        routes = {code: Route(name, Ext, self._asked) for code, name in _ASKED.items()}
        self._caller = caller
        self.channel = backend.connect(caller.remote, routes, identity)
        self.topics: set[str] = set()
        self.brokers: set[str] = set()  # that it deals with

    def _asked(self, request: Request[Ext]) -> Answer:
        """A broker asks the client something."""
        if request.one_way:
            self._caller.notify(request.code, request.fields, request.body)
            return None

        def answered(header: Header | None, body: bytes) -> None:
            if header is None:
                reply = Reply(codes.SYSTEM_ERROR, "the client does not answer")
            else:
                reply = Reply(header.code, header.remark, header.ext, body)
            answer(request, reply)

        self._caller.call(request.code, request.fields, request.body, ASKED_S, answered)
        return None


class Forwarding:
    """The requests of all remoting clients."""

    def __init__(self, backend: RemoteBackend, access_address: str = "") -> None:
        """``access_address``: where clients reach the proxy; empty: where this one did."""
        self._backend = backend
        self._access_address = access_address
        self._clients: dict[Caller, _Client] = {}

    def routes(self) -> Mapping[int, Route]:
        """By request code."""
        table: dict[int, tuple[str, Callable[[Request[Ext]], Answer]]] = {
            **{code: (name, self._by_name) for code, name in {**_BNAME, **_SHORT_NAMES}.items()},
            HEART_BEAT: ("HEART_BEAT", self._heart_beat),
            UNREGISTER_CLIENT: ("UNREGISTER_CLIENT", self._unregister),
            GET_CONSUMER_LIST_BY_GROUP: ("GET_CONSUMER_LIST_BY_GROUP", self._by_group),
            LOCK_BATCH_MQ: ("LOCK_BATCH_MQ", self._by_queues),
            UNLOCK_BATCH_MQ: ("UNLOCK_BATCH_MQ", self._by_queues),
            CHECK_CLIENT_CONFIG: ("CHECK_CLIENT_CONFIG", self._check),
            QUERY_MESSAGE: ("QUERY_MESSAGE", self._query),
            BATCH_ACK_MESSAGE: ("BATCH_ACK_MESSAGE", self._batch_ack),
            GET_ROUTEINFO_BY_TOPIC: ("GET_ROUTEINFO_BY_TOPIC", self._route),
            GET_CONSUMER_CONNECTION_LIST: ("GET_CONSUMER_CONNECTION_LIST", self._by_group),
            QUERY_ASSIGNMENT: ("QUERY_ASSIGNMENT", self._assignment),
            SET_MESSAGE_REQUEST_MODE: ("SET_MESSAGE_REQUEST_MODE", self._mode),
        }
        return {code: Route(name, Ext, handler) for code, (name, handler) in table.items()}

    def closed(self, caller: Caller) -> None:
        client = self._clients.pop(caller, None)
        if client is not None:
            client.channel.close()

    def _client(self, request: Request[Ext]) -> _Client:
        client = self._clients.get(request.peer)
        if client is None:
            client = self._clients[request.peer] = _Client(self._backend, request.peer, request)
        return client

    # -- to one broker

    def _by_name(self, request: Request[Ext]) -> Answer:
        """The broker stands in the request, or there is only one that it can be for."""
        fields = request.fields
        short = request.code in _SHORT_NAMES
        broker = fields.get("n" if short else "bname") or _of_handle(fields.get("extraInfo"))
        topic = fields.get("b" if short else "topic") or fields.get("originTopic")
        if broker:
            self._forward(request, str(broker))
        elif topic:
            self._by_topic(request, str(topic), only=True)
        elif not self._to_the_only_one(request):
            return Reply(codes.VERSION_NOT_SUPPORTED, _NO_BNAME)
        return None

    def _to_the_only_one(self, request: Request[Ext]) -> bool:
        """Forward to the broker that the client deals with, if it is one only."""
        known = self._client(request).brokers
        if len(known) != 1:
            return False
        self._forward(request, next(iter(known)))
        return True

    def _by_topic(self, request: Request[Ext], topic: str, *, only: bool = False) -> None:
        def found(places: list[BrokerTopic]) -> None:
            if isinstance(places, NobodyKnows):
                answer(request, Reply(codes.SYSTEM_ERROR, places.fault))
            elif not places:
                if not only or not self._to_the_only_one(request):
                    answer(request, Reply(codes.TOPIC_NOT_EXIST, f"topic {topic} has no broker"))
            elif only and len(places) > 1:
                answer(request, Reply(codes.VERSION_NOT_SUPPORTED, _NO_BNAME))
            else:
                self._forward(request, self._first([p.broker_name for p in places]))

        self._backend.topic(topic, found)

    def _by_queues(self, request: Request[Ext]) -> Answer:
        """A client asks for the queues of one broker at a time."""
        queues = _body(request).get("mqSet")
        first = queues[0] if isinstance(queues, list) and queues else {}
        broker = first.get("brokerName") if isinstance(first, dict) else None
        if not isinstance(broker, str):
            return Reply(codes.SYSTEM_ERROR, "the request names no queue")
        self._forward(request, broker)
        return None

    def _by_group(self, request: Request[Ext]) -> Answer:
        """Every broker of a group's topics knows its members: one that has heard of this one."""
        group, client = str(request.fields.get("consumerGroup", "")), self._client(request)
        if client.brokers:
            self._forward(request, self._first(sorted(client.brokers)))
        else:
            self._by_topic(request, names.RETRY_PREFIX + group)
        return None

    def _batch_ack(self, request: Request[Ext]) -> Answer:
        broker = _body(request).get("brokerName")
        if not isinstance(broker, str):
            return Reply(codes.SYSTEM_ERROR, "the request names no broker")
        self._forward(request, broker)
        return None

    def _check(self, request: Request[Ext]) -> Answer:
        """Any broker of the topic can tell whether an expression is one."""
        subscription = _body(request).get("subscriptionData")
        topic = subscription.get("topic") if isinstance(subscription, dict) else None
        self._by_topic(request, str(topic))
        return None

    def _assignment(self, request: Request[Ext]) -> Answer:
        self._by_topic(request, str(_body(request).get("topic", "")))
        return None

    def _first(self, brokers: list[str]) -> str:
        return next(filter(self._backend.reachable, brokers), brokers[0])

    def _forward(self, request: Request[Ext], broker: str) -> None:
        client = self._client(request)

        def answered(header: Header | None, body: bytes) -> None:
            if header is not None and header.code != codes.NO_ANSWER:
                client.brokers.add(broker)
            answer(request, _reply(header, body))

        client.channel.call(
            broker,
            request.code,
            request.fields,
            request.body,
            _patience_s(request),
            None if request.one_way else answered,
        )

    # -- to several

    def _heart_beat(self, request: Request[Ext]) -> Answer:
        try:
            beat = heartbeat.decode(request.body)
        except heartbeat.HeartbeatError as error:
            return Reply(codes.SYSTEM_ERROR, str(error))
        client = self._client(request)
        topics = {s.topic for consumer in beat.consumers for s in consumer.subscriptions}

        def found(brokers: set[str]) -> None:
            client.brokers |= brokers
            self._to_all(request, client.brokers, _best)

        self._backend.brokers_of(topics | client.topics, found)
        return None

    def _query(self, request: Request[Ext]) -> Answer:
        """A client asks each broker of the topic; here all of them have one address."""
        self._to_brokers_of(request, str(request.fields.get("topic", "")), _joined)
        return None

    def _mode(self, request: Request[Ext]) -> Answer:
        self._to_brokers_of(request, str(_body(request).get("topic", "")), _best)
        return None

    def _to_brokers_of(self, request: Request[Ext], topic: str, join: Join) -> None:
        def found(places: list[BrokerTopic]) -> None:
            if not places:
                answer(request, Reply(codes.TOPIC_NOT_EXIST, f"topic {topic} has no broker"))
            else:
                self._to_all(request, [place.broker_name for place in places], join)

        self._backend.topic(topic, found)

    def _unregister(self, request: Request[Ext]) -> Answer:
        self._to_all(request, self._client(request).brokers, _best)
        return None

    def _to_all(self, request: Request[Ext], brokers: Iterable[str], join: Join) -> None:
        """Answered when all have."""
        wanted = list(brokers)
        if not wanted:
            answer(request, Reply())
            return
        replies: list[Reply] = []

        def answered(header: Header | None, body: bytes) -> None:
            replies.append(_reply(header, body))
            if len(replies) == len(wanted):
                answer(request, join(replies))

        channel = self._client(request).channel
        for broker in wanted:
            channel.call(broker, request.code, request.fields, request.body, CALL_S, answered)

    # -- routes

    def _route(self, request: Request[Ext]) -> Answer:
        topic = str(request.fields.get("topic", ""))
        topics = self._client(request).topics
        quoted = request.version >= bodies.STANDARD_JSON_SINCE or (
            str(request.fields.get("acceptStandardJsonOnly")).lower() == "true"
        )

        def answered(header: Header | None, body: bytes) -> None:
            if header is None:
                reply = Reply(codes.SYSTEM_ERROR, "no name server answers")
            elif header.code != codes.SUCCESS:
                reply = Reply(header.code, header.remark)
            else:
                if len(topics) < TOPICS_MAX:
                    topics.add(topic)
                host, port = request.peer.local
                shown = join_address(self._access_address or host, port)
                reply = shown_route(body, shown, quoted=quoted)
            answer(request, reply)

        self._backend.name_servers.ask(GET_ROUTEINFO_BY_TOPIC, {"topic": topic}, answered)
        return None


_NO_BNAME: Final = (
    "Request doesn't have field bname, and there are several brokers: use a client of RocketMQ 5"
)


Join = Callable[[list[Reply]], Reply]


def _best(replies: list[Reply]) -> Reply:
    """Well when one broker said so. Without ext fields: they are about one broker, and would make a
    client leave out of its next heartbeat what only this one knows."""
    best = min(replies, key=lambda reply: reply.code != codes.SUCCESS)
    return Reply(best.code, best.remark)


def _joined(replies: list[Reply]) -> Reply:
    """The messages of all brokers."""
    found = [reply for reply in replies if reply.code == codes.SUCCESS]
    if not found:
        return replies[0]
    return Reply(codes.SUCCESS, found[0].remark, found[0].ext, b"".join(r.body for r in found))


def _of_handle(text: object) -> str:
    """The broker of a popped message, as its handle says."""
    try:
        return parse_handle(str(text)).broker_name if text else ""
    except HandleError:
        return ""


def shown_route(body: bytes, address: str, *, quoted: bool) -> Reply:
    """A route with the proxy in the place of every broker."""
    try:
        route = lenient_json.loads(body)
        brokers = [_shown_broker(data, address, quoted) for data in route.pop("brokerDatas")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Reply(codes.SYSTEM_ERROR, f"unreadable route from a name server: {error}")
    rest = bodies.encode(route)[1:]
    comma = b"," if rest != b"}" else b""
    return Reply(body=b'{"brokerDatas":[' + b",".join(brokers) + b"]" + comma + rest)


def _shown_broker(data: dict[str, Any], address: str, quoted: bool) -> bytes:
    addresses = {int(broker_id): address for broker_id in data.pop("brokerAddrs")}
    shown = bodies.broker_addresses(addresses, quoted=quoted)
    return b'{"brokerAddrs":' + shown + b"," + bodies.encode(data)[1:]


def _reply(header: Header | None, body: bytes) -> Reply:
    if header is None or header.code == codes.NO_ANSWER:
        remark = header.remark if header is not None else None
        return Reply(codes.SYSTEM_ERROR, remark or "the broker does not answer")
    return Reply(header.code, header.remark, header.ext, body)


def _patience_s(request: Request[Ext]) -> float:
    """How long the broker may take: it holds a pull or a pop back as the client says."""
    if request.code in (PULL_MESSAGE, LITE_PULL_MESSAGE):
        return SLACK_S + _ms(request.fields.get("suspendTimeoutMillis")) / 1000
    if request.code == POP_MESSAGE:
        return SLACK_S + _ms(request.fields.get("pollTime")) / 1000
    return CALL_S


def _ms(value: object) -> int:
    try:
        return min(max(0, int(str(value))), WAIT_MS_MAX)
    except ValueError:
        return 0


def _body(request: Request[Ext]) -> dict[str, Any]:
    try:
        body = lenient_json.loads(request.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
