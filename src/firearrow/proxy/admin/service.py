"""The Admin service: what an operator may ask and do over gRPC. RocketMQ's own proxy has only its
messages; here each method is what brokers do for ``mqadmin``, over all brokers of a topic or
group."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from typing import Any, Final

import msgspec

import firearrow
from firearrow.codec import lenient_json
from firearrow.codec.addresses import join_address
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import admin_pb2 as rpc
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy import checks
from firearrow.proxy.admin.brokers import Answers, Brokers, Table, bodies, failure, where
from firearrow.proxy.backend import Backend, BrokerTopic
from firearrow.proxy.checks import milliseconds
from firearrow.proxy.clients import CONSUMERS, Clients
from firearrow.proxy.convert import set_time
from firearrow.proxy.flow import Flow
from firearrow.proxy.refusal import Refusal, of_remoting, status
from firearrow.proxy.topics import TYPE_ATTRIBUTE, accepted_types

CONSUME_STATS: Final = 208
RESET_OFFSET: Final = 222
CONSUME_TIME_SPAN: Final = 303
LEVELS: Final = {
    rpc.ChangeLogLevelRequest.TRACE: logging.DEBUG,
    rpc.ChangeLogLevelRequest.DEBUG: logging.DEBUG,
    rpc.ChangeLogLevelRequest.INFO: logging.INFO,
    rpc.ChangeLogLevelRequest.WARN: logging.WARNING,
    rpc.ChangeLogLevelRequest.ERROR: logging.ERROR,
}
log = logging.getLogger("firearrow")

Unary = dict[str, tuple[Any, Any, Callable[[Call, Any], None]]]


class Admin:
    """Topics, groups and the proxy itself; see ``inspection`` for messages and clients."""

    def __init__(
        self, clients: Clients, backend: Backend, brokers: Brokers, clock: Clock, flow: Flow
    ) -> None:
        self._clients = clients
        self._flow = flow
        self._backend = backend
        self._brokers = brokers
        self._clock = clock
        self.connections: Callable[[], int] = int  # the composition connects it

    def unary(self) -> Unary:
        handlers: dict[str, Callable[[Call, Any], None]] = {
            "ChangeLogLevel": self.change_log_level,
            "DescribeTopicStatus": self.topic,
            "ListSubscription": self.subscriptions,
            "DescribeSubscription": self.client_subscriptions,
            "DeleteSubscription": self.delete_subscription,
            "DescribeGroupAccumulation": self.accumulation,
            "ListConsumerConnection": self.consumers,
            "ResetGroupOffset": self.reset,
            "GetTopicRoute": self.route,
            "QueryTimeSpan": self.time_span,
            "GetProxyRuntimeStats": self.stats,
        }
        return {
            name: (getattr(rpc, f"{name}Request"), getattr(rpc, f"{name}Response"), handler)
            for name, handler in handlers.items()
        }

    # -- the proxy

    def change_log_level(self, call: Call, request: rpc.ChangeLogLevelRequest) -> None:
        level = LEVELS.get(request.level, logging.INFO)
        before = logging.getLevelName(log.getEffectiveLevel())
        log.setLevel(level)
        remark = f"the log level is {logging.getLevelName(level)}, it was {before}"
        log.warning("%s", remark)
        call.answer(rpc.ChangeLogLevelResponse(remark=remark))

    def stats(self, call: Call, request: rpc.GetProxyRuntimeStatsRequest) -> None:
        kinds = [client.type for client in self._clients]
        taken, given = self._flow.per_second()
        call.answer(
            rpc.GetProxyRuntimeStatsResponse(
                status=status(),
                proxy_name=platform.node(),
                version=firearrow.__version__,
                in_tps=taken,
                out_tps=given,
                connections=self.connections(),
                producers=kinds.count(v2.PRODUCER),
                consumers=sum(kind in CONSUMERS for kind in kinds),
            )
        )

    # -- topics

    def topic(self, call: Call, request: rpc.DescribeTopicStatusRequest) -> None:
        name = checks.topic_name(request.topic)

        def found(places: list[BrokerTopic]) -> None:
            where(places, name)
            topic = places[0].topic
            types = accepted_types(topic)
            response = rpc.DescribeTopicStatusResponse(status=status(), tags=topic.attributes)
            if len(types) == 1:
                response.topic_message_type = types[0]
            response.tags.setdefault(TYPE_ATTRIBUTE, "NORMAL")
            call.answer(response)

        self._with_places(call, rpc.DescribeTopicStatusResponse, name, found)

    def route(self, call: Call, request: rpc.GetTopicRouteRequest) -> None:
        """``TopicRouteData`` in JSON."""
        name = checks.topic_name(request.topic)

        def found(places: list[BrokerTopic]) -> None:
            where(places, name)
            addresses: dict[str, dict[str, str]] = {}
            for place in places:
                table = addresses.setdefault(place.broker_name, {})
                table[str(place.broker_id)] = join_address(*place.address)
            queues = {
                place.broker_name: {
                    "brokerName": place.broker_name,
                    "perm": place.topic.perm,
                    "readQueueNums": place.topic.read_queues,
                    "topicSysFlag": place.topic.sys_flag,
                    "writeQueueNums": place.topic.write_queues,
                }
                for place in places
            }
            data = {
                "brokerDatas": [
                    {"brokerAddrs": table, "brokerName": broker}
                    for broker, table in addresses.items()
                ],
                "queueDatas": list(queues.values()),
            }
            text = msgspec.json.encode(data).decode()
            call.answer(rpc.GetTopicRouteResponse(status=status(), topic_route_data=text))

        self._with_places(call, rpc.GetTopicRouteResponse, name, found)

    def _with_places(
        self,
        call: Call,
        response: Any,
        topic: str,
        found: Callable[[list[BrokerTopic]], None],
    ) -> None:
        def with_places(places: list[BrokerTopic]) -> None:
            try:
                found(places)
            except Refusal as refusal:
                call.answer(response(status=refusal.status))

        self._backend.topic(topic, with_places)

    # -- subscriptions

    def subscriptions(self, call: Call, request: rpc.ListSubscriptionRequest) -> None:
        topic = checks.topic_name(request.topic) if request.HasField("topic") else ""
        response = rpc.ListSubscriptionResponse(status=status())

        def add(group: str, online: Table, topics: list[str]) -> None:
            table = online.get("subscriptionTable") or {}
            model = _model(online)
            for name in sorted({*table, *topics}):
                if (topic and name != topic) or name == "%RETRY%" + group:
                    continue
                info = response.subscription_info.add(message_model=model)
                info.group.name, info.topic.name = group, name
                info.online = name in table
                info.subscription_consistency = self._consistent(group, name)
                _set_subscription(info, table.get(name) or {})

        def next_of(groups: list[str]) -> None:
            if not groups:
                call.answer(response)
                return
            group, *rest = groups

            def with_online(online: Table) -> None:
                def with_topics(topics: list[str]) -> None:
                    add(group, online, topics)
                    next_of(rest)

                self._brokers.topics_of(group, with_topics)

            self._brokers.online(group, with_online)

        if request.HasField("group"):
            next_of([checks.group_name(request.group)])
        elif topic:
            self._brokers.groups_of(topic, next_of)
        else:
            raise Refusal(v2.BAD_REQUEST, "give a topic, a group, or both")

    def _consistent(self, group: str, topic: str) -> bool:
        """Whether the gRPC clients of this proxy subscribe to the topic in one way."""
        found = {
            (entry.expression.type == v2.SQL, entry.expression.expression or "*")
            for client in self._clients
            if client.group == group and client.settings is not None
            for entry in client.settings.subscription.subscriptions
            if entry.topic.name == topic
        }
        return len(found) <= 1

    def client_subscriptions(self, call: Call, request: rpc.DescribeSubscriptionRequest) -> None:
        """Of remoting clients brokers know only their group's subscriptions."""
        if not request.HasField("group"):
            raise Refusal(v2.BAD_REQUEST, "give a group")
        group = checks.group_name(request.group)
        topic = checks.topic_name(request.topic) if request.HasField("topic") else ""
        response = rpc.DescribeSubscriptionResponse(status=status())

        def with_online(online: Table) -> None:
            for row in online.get("connectionSet") or []:
                for name, subscription in self._subscribed(row, online).items():
                    if topic and name != topic:
                        continue
                    entry = response.client_subscription_info.add()
                    self._set_client(entry.client_info, row, _model(online))
                    info = entry.subscription_info
                    info.group.name, info.topic.name = group, name
                    info.online, info.message_model = True, _model(online)
                    info.subscription_consistency = self._consistent(group, name)
                    _set_subscription(info, subscription)
            call.answer(response)

        self._brokers.online(group, with_online)

    def _subscribed(self, row: Table, online: Table) -> Table:
        client = self._clients.find(str(row.get("clientId")))
        if client is None or client.settings is None:
            table: Table = online.get("subscriptionTable") or {}
            return table
        return {
            entry.topic.name: {
                "subString": entry.expression.expression or "*",
                "expressionType": "SQL92" if entry.expression.type == v2.SQL else "TAG",
                "subVersion": client.registered_ms,
            }
            for entry in client.settings.subscription.subscriptions
        }

    def delete_subscription(self, call: Call, request: rpc.DeleteSubscriptionRequest) -> None:
        raise Refusal(
            v2.NOT_IMPLEMENTED,
            "subscriptions are what clients say: stop them, then delete the group with "
            "mqadmin deleteSubGroup",
        )

    def consumers(self, call: Call, request: rpc.ListConsumerConnectionRequest) -> None:
        group = checks.group_name(request.group)

        def with_online(online: Table) -> None:
            response = rpc.ListConsumerConnectionResponse(status=status())
            for row in online.get("connectionSet") or []:
                subscribed = self._subscribed(row, online)
                if not request.topic.name or request.topic.name in subscribed:
                    self._set_client(response.client_info.add(), row, _model(online))
            call.answer(response)

        self._brokers.online(group, with_online)

    def _set_client(
        self, info: rpc.ClientInfo, row: Table, model: rpc.MessageModel.ValueType
    ) -> None:
        info.client_id = str(row.get("clientId"))
        info.language = str(row.get("language") or "")
        info.version = str(row.get("version") or "")
        info.egress_ip = str(row.get("clientAddr") or "").rpartition(":")[0]
        info.message_model = model
        client = self._clients.find(info.client_id)
        if client is not None and client.settings is not None:
            agent = client.settings.user_agent
            info.language = v2.Language.Name(agent.language)
            info.version, info.hostname = agent.version, agent.hostname

    # -- progress

    def accumulation(self, call: Call, request: rpc.DescribeGroupAccumulationRequest) -> None:
        group = checks.group_name(request.group)
        topics = [checks.topic_name(topic) for topic in request.topics]
        response = rpc.DescribeGroupAccumulationResponse(status=status())
        ext = {"consumerGroup": group, "topicList": ";".join(topics)}

        def answered(answers: Answers) -> None:
            refusal = failure(answers)
            if refusal is not None:
                call.answer(rpc.DescribeGroupAccumulationResponse(status=refusal.status))
                return
            for table in bodies(answers):
                for key, row in (table.get("offsetTable") or {}).items():
                    topic = str(lenient_json.loads(key.encode()).get("topic"))
                    _accumulate(response.topic_accumulation[topic], row)
                    _accumulate(response.accumulation, row)
            now = self._clock.now_ms()
            for sums in (response.accumulation, *response.topic_accumulation.values()):
                if sums.accumulation and sums.last_consume_timestamp:
                    set_time(sums.deliver_delay_time, now - sums.last_consume_timestamp)
            call.answer(response)

        self._brokers.of_group(
            group, lambda brokers: self._brokers.ask_all(brokers, CONSUME_STATS, ext, answered)
        )

    def reset(self, call: Call, request: rpc.ResetGroupOffsetRequest) -> None:
        group, topic = checks.group_name(request.group), checks.topic_name(request.topic)
        if not request.HasField("reset_timestamp"):
            raise Refusal(v2.BAD_REQUEST, "give the time to go back to")
        ext = {
            "group": group,
            "topic": topic,
            "timestamp": str(milliseconds(request.reset_timestamp)),
            "isForce": "true",
        }

        def answered(answers: Answers) -> None:
            refusal = failure(answers)
            result = refusal.status if refusal is not None else status()
            call.answer(rpc.ResetGroupOffsetResponse(status=result))

        self._with_places(
            call,
            rpc.ResetGroupOffsetResponse,
            topic,
            lambda places: self._brokers.ask_all(where(places, topic), RESET_OFFSET, ext, answered),
        )

    def time_span(self, call: Call, request: rpc.QueryTimeSpanRequest) -> None:
        group = checks.group_name(request.group)
        topics = [checks.topic_name(topic) for topic in request.topics]
        response = rpc.QueryTimeSpanResponse(status=status())

        def next_of(topics: list[str]) -> None:
            if not topics:
                call.answer(response)
                return
            topic, *rest = topics

            def answered(answers: Answers) -> None:
                for table in bodies(answers):
                    for row in table.get("consumeTimeSpanSet") or []:
                        _add_span(response, row)
                next_of(rest)

            def found(places: list[BrokerTopic]) -> None:
                ext = {"group": group, "topic": topic}
                self._brokers.ask_all(where(places, topic), CONSUME_TIME_SPAN, ext, answered)

            self._with_places(call, rpc.QueryTimeSpanResponse, topic, found)

        if topics:
            next_of(topics)
        else:
            self._brokers.topics_of(group, next_of)


def _model(online: Table) -> rpc.MessageModel.ValueType:
    if online.get("messageModel") == "BROADCASTING":
        return rpc.BROADCASTING
    return rpc.CLUSTERING


def _set_subscription(info: rpc.SubscriptionInfo, subscription: Table) -> None:
    sql = subscription.get("expressionType") == "SQL92"
    info.expression.type = v2.SQL if sql else v2.TAG
    info.expression.expression = str(subscription.get("subString") or "*")
    set_time(info.last_update_timestamp, int(subscription.get("subVersion") or 0))


def _accumulate(
    sums: rpc.DescribeGroupAccumulationResponse.GroupAccumulation, row: dict[str, int]
) -> None:
    behind = row["brokerOffset"] - row["consumerOffset"]
    in_flight = max(0, row.get("pullOffset", 0) - row["consumerOffset"])
    sums.accumulation += behind
    sums.inflight_messages += min(in_flight, behind)
    sums.ready_messages = sums.accumulation - sums.inflight_messages
    sums.last_consume_timestamp = max(sums.last_consume_timestamp, row["lastTimestamp"])


def _add_span(response: rpc.QueryTimeSpanResponse, row: Table) -> None:
    queue = row.get("messageQueue") or {}
    span = response.queue_time_span_list.add(
        min_timestamp=int(row.get("minTimeStamp") or 0),
        max_timestamp=int(row.get("maxTimeStamp") or 0),
        consume_timestamp=int(row.get("consumeTimeStamp") or 0),
        delay_time_ms=int(row.get("delayTime") or 0),
    )
    span.message_queue.topic.name = str(queue.get("topic"))
    span.message_queue.broker.name = str(queue.get("brokerName"))
    span.message_queue.id = int(queue.get("queueId") or 0)


def refused(header: Header | None) -> Refusal | None:
    """Why a broker did not do it."""
    if header is not None and header.code == codes.SUCCESS:
        return None
    return of_remoting(header.code if header else -1, header.remark if header else None)
