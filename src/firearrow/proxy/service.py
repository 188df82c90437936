"""The table of the service's methods: each RPC, what it reads, who answers it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from firearrow.codec.record import decode_record
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.calls import Call, Inbox, Method
from firearrow.protocol.grpc.health import Health
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.reflection import Reflection
from firearrow.protocol.remoting.command import Answer, NoFields, Request
from firearrow.protocol.remoting.lite_requests import NOTIFY_UNSUBSCRIBE_LITE
from firearrow.protocol.remoting.requests import CHECK_TRANSACTION_STATE
from firearrow.protocol.remoting.session import Route
from firearrow.proxy import checks, lite, topics
from firearrow.proxy.acknowledging import read_acks
from firearrow.proxy.admin.brokers import Brokers
from firearrow.proxy.admin.inspection import Inspection
from firearrow.proxy.admin.service import Admin
from firearrow.proxy.authentication import Authenticator
from firearrow.proxy.backend import Backend, BrokerTopic, missing
from firearrow.proxy.clients import CONSUMERS, Client, Clients
from firearrow.proxy.delivering import end_receive
from firearrow.proxy.drafts import DraftSettings
from firearrow.proxy.encoding import delivered
from firearrow.proxy.flow import Flow
from firearrow.proxy.pulling import Pulling
from firearrow.proxy.receiving import Receiving
from firearrow.proxy.refusal import Refusal, status
from firearrow.proxy.relays import Relays
from firearrow.proxy.sending import Sending, Transaction
from firearrow.proxy.settings import Telemetry, TelemetrySettings

log = logging.getLogger(__name__)

SERVICE_NAME: Final = "apache.rocketmq.v2.MessagingService"
ADMIN_NAME: Final = "apache.rocketmq.v2.Admin"
SERVICE: Final = f"/{SERVICE_NAME}/"


class ProxySettings(DraftSettings, TelemetrySettings, Protocol):
    """Every setting that the proxy reads."""


class CheckTransaction(NoFields):
    """CHECK_TRANSACTION_STATE (39), from a broker."""

    tran_state_table_offset: int
    commit_log_offset: int
    bname: str = ""


class Proxy:
    """The service over some brokers."""

    def __init__(self, settings: ProxySettings, backend: Backend, clock: Clock) -> None:
        self._settings = settings
        self._backend = backend
        self._clock = clock
        self.clients = Clients(backend, clock)
        self.clients.routes_of = self._routes_of
        self._flow = Flow(clock)
        self._sending = Sending(self.clients, backend, clock, settings, self._flow)
        self._receiving = Receiving(self.clients, backend, clock, self._flow)
        self._pulling = Pulling(self.clients, backend, clock, self._flow)
        self._lite = lite.LiteSubscriptions(self.clients, backend, clock)
        self.health = Health([SERVICE_NAME, ADMIN_NAME])
        self.authenticator: Authenticator | None = None  # before ``methods``
        self._relays = Relays(clock)
        self._brokers = Brokers(backend)
        self.admin = Admin(self.clients, backend, self._brokers, clock, self._flow)
        self._inspection = Inspection(
            self.clients, backend, self._brokers, self._sending, self._relays, clock
        )

    def start(self) -> None:
        self.clients.start()
        self._flow.start()
        self._receiving.renewals.start()

    def stop(self) -> None:
        self.clients.stop()
        self._flow.stop()
        self._brokers.close()
        self._receiving.renewals.stop()

    def dismiss(self) -> None:
        """The server stops: answer whoever waits, and let nobody wait any more."""
        self.health.stop()
        self.health.dismiss()
        self._receiving.dismiss()
        self._pulling.dismiss()

    def methods(self) -> dict[str, Method]:
        """By path."""
        sending, receiving = self._sending, self._receiving
        unary: dict[str, tuple[Any, Any, Callable[[Call, Any], None]]] = {
            "QueryRoute": (rpc.QueryRouteRequest, rpc.QueryRouteResponse, self._query_route),
            "Heartbeat": (rpc.HeartbeatRequest, rpc.HeartbeatResponse, self._heartbeat),
            "QueryAssignment": (
                rpc.QueryAssignmentRequest,
                rpc.QueryAssignmentResponse,
                self._query_assignment,
            ),
            "ForwardMessageToDeadLetterQueue": (
                rpc.ForwardMessageToDeadLetterQueueRequest,
                rpc.ForwardMessageToDeadLetterQueueResponse,
                receiving.forward,
            ),
            "EndTransaction": (
                rpc.EndTransactionRequest,
                rpc.EndTransactionResponse,
                sending.end_transaction,
            ),
            "NotifyClientTermination": (
                rpc.NotifyClientTerminationRequest,
                rpc.NotifyClientTerminationResponse,
                self._terminate,
            ),
            "ChangeInvisibleDuration": (
                rpc.ChangeInvisibleDurationRequest,
                rpc.ChangeInvisibleDurationResponse,
                receiving.change_invisible,
            ),
            "RecallMessage": (
                rpc.RecallMessageRequest,
                rpc.RecallMessageResponse,
                sending.recall,
            ),
            **self._lite.unary(),
            **self._pulling.unary(),
        }
        table = {
            SERVICE + name: self._unary(request.FromString, response, handler)
            for name, (request, response, handler) in unary.items()
        }
        take, response = sending.take, rpc.SendMessageResponse
        table[SERVICE + "SendMessage"] = self._unary(sending.read, response, take)
        table[SERVICE + "AckMessage"] = self._unary(
            read_acks, rpc.AckMessageResponse, receiving.ack
        )
        table[SERVICE + "ReceiveMessage"] = Method(
            rpc.ReceiveMessageRequest.FromString, self._receive
        )
        table[SERVICE + "PullMessage"] = Method(rpc.PullMessageRequest.FromString, self._pull)
        table[SERVICE + "Telemetry"] = Method(
            rpc.TelemetryCommand.FromString, begin=self._open_telemetry
        )
        admin = {**self.admin.unary(), **self._inspection.unary()}
        for name, (request, response, handler) in admin.items():
            table[f"/{ADMIN_NAME}/{name}"] = self._unary(request.FromString, response, handler)
        services = [SERVICE_NAME, ADMIN_NAME, "grpc.health.v1.Health"]
        return {**table, **self.health.methods(), **Reflection(services).methods()}

    def _unary(
        self,
        parse: Callable[[bytes], Any],
        response: Any,
        handler: Callable[[Call, Any], None],
    ) -> Method:
        if self.authenticator is not None:
            handler = _behind(self.authenticator, handler)
        return Method(parse, _answering(handler, response))

    # -- streams

    def _strange(self, call: Call, response: Any) -> bool:
        """Whether a stream's caller is not known; then it is answered."""
        if self.authenticator is None:
            return False
        try:
            self.authenticator.check(call)
        except Refusal as refusal:
            call.send(response(status=refusal.status))
            call.end()
            return True
        return False

    def _pull(self, call: Call, request: rpc.PullMessageRequest) -> None:
        if not self._strange(call, rpc.PullMessageResponse):
            self._pulling.pull(call, request)

    def _open_telemetry(self, call: Call) -> Inbox:
        self._strange(call, rpc.TelemetryCommand)  # then nothing reaches the inbox
        return Telemetry(call, self.clients, self._backend, self._settings, self._relays.answered)

    def _receive(self, call: Call, request: rpc.ReceiveMessageRequest) -> None:
        if self._strange(call, rpc.ReceiveMessageResponse):
            return
        try:
            self._receiving.receive(call, request)
        except Refusal as refusal:
            end_receive(call, refusal.status, self._clock.now_ms())

    # -- routes

    def _query_route(self, call: Call, request: rpc.QueryRouteRequest) -> None:
        self.clients.of(call)
        name = checks.topic_name(request.topic)
        endpoints = topics.endpoints_for(request.endpoints, call.local)

        def found(places: list[BrokerTopic]) -> None:
            if not places:
                call.answer(rpc.QueryRouteResponse(status=missing(places, name).status))
                return
            response = rpc.QueryRouteResponse(status=status())
            for place in places:
                response.message_queues.extend(topics.queues(place, request.topic, endpoints))
            call.answer(response)

        self._backend.topic(name, found)

    def _query_assignment(self, call: Call, request: rpc.QueryAssignmentRequest) -> None:
        self.clients.of(call)
        name = checks.topic_name(request.topic)
        group_name = checks.group_name(request.group)
        endpoints = topics.endpoints_for(request.endpoints, call.local)

        def found(places: list[BrokerTopic], group: Group | None) -> None:
            if not places:
                call.answer(rpc.QueryAssignmentResponse(status=missing(places, name).status))
                return
            fifo = group is not None and group.consume_message_orderly and not lite.parent_of(group)
            response = rpc.QueryAssignmentResponse(status=status())
            for place in places:
                response.assignments.extend(
                    topics.assignments(place, request.topic, endpoints, fifo=fifo)
                )
            if not response.assignments:
                response.status.CopyFrom(status(v2.FORBIDDEN, "no readable queue"))
            call.answer(response)

        self._backend.topic(
            name,
            lambda places: self._backend.group(group_name, lambda group: found(places, group)),
        )

    # -- clients

    def _heartbeat(self, call: Call, request: rpc.HeartbeatRequest) -> None:
        client = self.clients.registered(call)
        if client.type in CONSUMERS:
            checks.group_name(request.group)
        elif client.type != v2.PRODUCER:
            raise Refusal(v2.UNRECOGNIZED_CLIENT_TYPE, v2.ClientType.Name(client.type))
        self.clients.register(client)
        call.answer(rpc.HeartbeatResponse(status=status()))

    def _terminate(self, call: Call, request: rpc.NotifyClientTerminationRequest) -> None:
        client = self.clients.registered(call)
        if client.type in CONSUMERS:
            checks.group_name(request.group)
        self.clients.remove(client)
        call.answer(rpc.NotifyClientTerminationResponse(status=status()))

    def _routes_of(self, client: Client) -> Mapping[int, Route]:
        """What brokers may ask of a client."""

        def check(request: Request[CheckTransaction]) -> Answer:
            fields, record = request.fields, decode_record(request.body)
            unique_key, message = delivered(record, record.topic, None, self._clock.now_ms())
            transaction = Transaction(
                fields.bname,
                fields.tran_state_table_offset,
                fields.commit_log_offset,
                unique_key,
            )
            command = rpc.TelemetryCommand()
            orphan = command.recover_orphaned_transaction_command
            orphan.message.ParseFromString(message)
            orphan.transaction_id = transaction.text()
            if not client.command(command):
                log.info(
                    "client %s has no stream to be asked about %s", client.client_id, unique_key
                )
            return None

        code = CHECK_TRANSACTION_STATE
        return {
            code: Route("CHECK_TRANSACTION_STATE", CheckTransaction, check),
            NOTIFY_UNSUBSCRIBE_LITE: lite.notices(client),
        }


def _behind(
    authenticator: Authenticator, handler: Callable[[Call, Any], None]
) -> Callable[[Call, Any], None]:
    def check(call: Call, request: Any) -> None:
        authenticator.check(call)
        handler(call, request)

    return check


def _answering(handler: Callable[[Call, Any], None], response: Any) -> Callable[[Call, Any], None]:
    """A refusal is an ordinary response with its status."""

    def answer(call: Call, request: Any) -> None:
        try:
            handler(call, request)
        except Refusal as refusal:
            if "status" in response.DESCRIPTOR.fields_by_name:
                call.answer(response(status=refusal.status))
            else:  # one of the Admin service alone
                call.end(calls.UNAUTHENTICATED, refusal.text)

    return answer
