"""The Admin service's questions about messages and single clients."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

from firearrow.codec import lenient_json
from firearrow.codec.message_id import offset_message_id
from firearrow.codec.record import Record, RecordError, decode_record, split_records
from firearrow.model.clock import Clock
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import admin_pb2 as rpc
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy import checks, convert
from firearrow.proxy.admin.brokers import Answers, Brokers, Table, where
from firearrow.proxy.admin.service import Unary, refused
from firearrow.proxy.backend import Backend, BrokerTopic
from firearrow.proxy.checks import milliseconds
from firearrow.proxy.clients import Client, Clients
from firearrow.proxy.encoding import delivered
from firearrow.proxy.refusal import Refusal, status
from firearrow.proxy.relays import Relays
from firearrow.proxy.sending import Sending

QUERY_MESSAGE: Final = 12
RUNNING_INFO: Final = 307
CONSUME_DIRECTLY: Final = 309
MESSAGES_MAX: Final = 64
FOREVER_MS: Final = 2**53
OPERATOR_ID: Final = "firearrow-admin"


class Inspection:
    """See ``service.Admin``."""

    def __init__(
        self,
        clients: Clients,
        backend: Backend,
        brokers: Brokers,
        sending: Sending,
        relays: Relays,
        clock: Clock,
    ) -> None:
        self._clients = clients
        self._backend = backend
        self._brokers = brokers
        self._sending = sending
        self._relays = relays
        self._clock = clock

    def unary(self) -> Unary:
        return {
            "QueryMessage": (rpc.ListMessageRequest, rpc.ListMessageResponse, self.messages),
            "PrintThreadStackTrace": (
                rpc.PrintThreadStackTraceRequest,
                rpc.PrintThreadStackTraceResponse,
                self.stack,
            ),
            "VerifyMessage": (rpc.VerifyMessageRequest, rpc.VerifyMessageResponse, self.verify),
            "AdminSendMessage": (
                rpc.AdminSendMessageRequest,
                rpc.AdminSendMessageResponse,
                self.send,
            ),
            "GetConsumerRunningInfo": (
                rpc.GetConsumerRunningInfoRequest,
                rpc.GetConsumerRunningInfoResponse,
                self.running_info,
            ),
        }

    # -- messages

    def messages(self, call: Call, request: rpc.ListMessageRequest) -> None:
        """By message id or by key; a search by time alone is ``mqadmin queryMsgByOffset``'s."""
        topic, kind = checks.topic_name(request.topic), request.WhichOneof("search_key")
        if kind not in ("message_id", "message_key"):
            raise Refusal(v2.NOT_IMPLEMENTED, "messages are found by message_id or message_key")
        begin_ms = milliseconds(request.begin_timestamp)
        end_ms = milliseconds(request.end_timestamp) or FOREVER_MS
        count = min(request.max_message_nums or MESSAGES_MAX, MESSAGES_MAX)

        def done(found: list[Record]) -> None:
            response = rpc.ListMessageResponse(status=status())
            if not found:
                response.status.CopyFrom(status(v2.MESSAGE_NOT_FOUND, "there is no such message"))
            now = self._clock.now_ms()
            for record in found[:count]:
                response.messages.append(_message(record, topic, now))
            call.answer(response)

        self._find(
            (call, rpc.ListMessageResponse),
            topic,
            request.message_id or request.message_key,
            done,
            unique=kind == "message_id",
            times=(begin_ms, end_ms),
        )

    def _find(
        self,
        answering: tuple[Call, Any],
        topic: str,
        key: str,
        done: Callable[[list[Record]], None],
        *,
        unique: bool,
        times: tuple[int, int] = (0, FOREVER_MS),
    ) -> None:
        ext = {
            "topic": topic,
            "key": key,
            "maxNum": str(MESSAGES_MAX),
            "beginTimestamp": str(times[0]),
            "endTimestamp": str(times[1]),
        }
        if unique:
            ext["_UNIQUE_KEY_QUERY"] = "true"

        def answered(answers: Answers) -> None:
            records = []
            for _, body in answers.values():
                for data in split_records(body):
                    try:
                        records.append(decode_record(data))
                    except RecordError:
                        continue
            done(records)

        def found(places: list[BrokerTopic]) -> None:
            call, response = answering
            try:
                self._brokers.ask_all(where(places, topic), QUERY_MESSAGE, ext, answered)
            except Refusal as refusal:
                call.answer(response(status=refusal.status))

        self._backend.topic(topic, found)

    def send(self, call: Call, request: rpc.AdminSendMessageRequest) -> None:
        message = v2.Message(
            topic=request.topic,
            body=request.body,
            user_properties=request.user_properties,
            system_properties=request.system_properties,
        )
        system = message.system_properties
        if request.HasField("tag"):
            system.tag = request.tag
        if request.HasField("key"):
            system.keys.append(request.key)
        if not system.message_id:
            system.message_id = uuid.uuid4().hex.upper()
        if not system.HasField("born_timestamp"):
            convert.set_time(system.born_timestamp, self._clock.now_ms())

        def sent(response: service_pb2.SendMessageResponse) -> None:
            message_id = response.entries[0].message_id if response.entries else ""
            answer = rpc.AdminSendMessageResponse(status=response.status, message_id=message_id)
            call.answer(answer)

        inner = _Inner(call, sent, service_pb2.SendMessageResponse)
        self._sending.send(inner, service_pb2.SendMessageRequest(messages=[message]))

    # -- clients

    def stack(self, call: Call, request: rpc.PrintThreadStackTraceRequest) -> None:
        client = self._clients.find(request.client_id)

        def answered(command: service_pb2.TelemetryCommand | None) -> None:
            response = rpc.PrintThreadStackTraceResponse(status=_of_client(command))
            if command is not None:
                response.thread_stack_trace = command.thread_stack_trace.thread_stack_trace
            call.answer(response)

        def told(header: Header | None, table: Table) -> None:
            refusal = refused(header)
            response = rpc.PrintThreadStackTraceResponse(
                status=refusal.status if refusal else status()
            )
            if refusal is None:
                response.thread_stack_trace = str(table.get("jstack") or "")
            call.answer(response)

        if client is not None:
            self._relays.ask(client, _print_stack, answered)
        else:
            group = checks.group_name(request.group)
            self._ask_remoting(group, request.client_id, told, stack=True)

    def running_info(self, call: Call, request: rpc.GetConsumerRunningInfoRequest) -> None:
        """A gRPC client has no command for it: what this proxy knows of it."""
        client = self._clients.find(request.client_id)

        def told(header: Header | None, table: Table) -> None:
            refusal = refused(header)
            response = rpc.GetConsumerRunningInfoResponse(
                status=refusal.status if refusal else status()
            )
            if refusal is None:
                _set_running_info(response.consumer_running_info, table)
            call.answer(response)

        if client is not None and client.settings is not None:
            response = rpc.GetConsumerRunningInfoResponse(status=status())
            _set_known(response.consumer_running_info, client)
            call.answer(response)
        else:
            group = checks.group_name(request.group)
            self._ask_remoting(group, request.client_id, told, stack=False)

    def _ask_remoting(
        self,
        group: str,
        client_id: str,
        done: Callable[[Header | None, Table], None],
        *,
        stack: bool,
    ) -> None:
        ext = {
            "consumerGroup": group,
            "clientId": client_id,
            "jstackEnable": str(stack).lower(),
        }

        def answered(answers: Answers) -> None:
            good = [(h, body) for h, body in answers.values() if refused(h) is None]
            header, body = good[0] if good else next(iter(answers.values()), (None, b""))
            try:
                table = lenient_json.loads(body) if body else {}
            except ValueError:
                table = {}
            done(header, table)

        self._brokers.of_group(
            group, lambda brokers: self._brokers.ask_all(brokers, RUNNING_INFO, ext, answered)
        )

    def verify(self, call: Call, request: rpc.VerifyMessageRequest) -> None:
        """Let a client consume a message once, outside of its queue."""
        topic, group = checks.topic_name(request.topic), checks.group_name(request.group)

        def done(result: v2.Status) -> None:
            call.answer(rpc.VerifyMessageResponse(status=result))

        def found(records: list[Record]) -> None:
            client = self._clients.find(request.client_id)
            if not records:
                done(status(v2.MESSAGE_NOT_FOUND, "there is no such message"))
            elif client is not None:
                message = _message(records[0], topic, self._clock.now_ms())
                command = service_pb2.VerifyMessageCommand(message=message)

                def make(nonce: str) -> service_pb2.TelemetryCommand:
                    command.nonce = nonce
                    return service_pb2.TelemetryCommand(verify_message_command=command)

                self._relays.ask(client, make, lambda answer: done(_of_client(answer)))
            else:
                self._verify_remoting(group, request.client_id, records[0], done)

        answering = (call, rpc.VerifyMessageResponse)
        self._find(answering, topic, request.message_id, found, unique=True)

    def _verify_remoting(
        self, group: str, client_id: str, record: Record, done: Callable[[v2.Status], None]
    ) -> None:
        ext = {
            "consumerGroup": group,
            "clientId": client_id,
            "msgId": offset_message_id(record.store_host, record.physical_offset),
        }

        def answered(answers: Answers) -> None:
            good = [body for header, body in answers.values() if refused(header) is None]
            if not good:
                refusal = refused(next(iter(answers.values()), (None, b""))[0])
                done(refusal.status if refusal else status(v2.INTERNAL_SERVER_ERROR))
                return
            try:
                result = str(lenient_json.loads(good[0]).get("consumeResult"))
            except (ValueError, AttributeError):
                result = ""
            fine = result == "CR_SUCCESS"
            done(status() if fine else status(v2.FAILED_TO_CONSUME_MESSAGE, result))

        self._brokers.of_group(
            group, lambda brokers: self._brokers.ask_all(brokers, CONSUME_DIRECTLY, ext, answered)
        )


class _Inner:
    """A call inside of another: its answer goes to a callback."""

    def __init__(self, outer: Call, done: Callable[[Any], None], response: Any) -> None:
        self.remote = outer.remote
        self.local = outer.local
        self.metadata = {**outer.metadata, "x-mq-client-id": OPERATOR_ID}
        self.deadline_s = outer.deadline_s
        self.ended = False
        self.cancelled: Callable[[], None] | None = None
        self._outer = outer
        self._done = done
        self._response = response

    def field(self, name: str) -> str:
        return self.metadata.get(name, "")

    def send(self, *messages: Any) -> None:
        for message in messages:
            self._done(message)

    def end(self, code: int = 0, text: str = "") -> None:
        if not self.ended:
            self.ended = True
            self._outer.end(code, text)

    def answer(self, message: Any) -> None:
        self.ended = True
        if isinstance(message, bytes):
            message = self._response.FromString(message)
        self._done(message)


def _message(record: Record, topic: str, now_ms: int) -> v2.Message:
    return v2.Message.FromString(delivered(record, topic, None, now_ms).data)


def _print_stack(nonce: str) -> service_pb2.TelemetryCommand:
    command = service_pb2.PrintThreadStackTraceCommand(nonce=nonce)
    return service_pb2.TelemetryCommand(print_thread_stack_trace_command=command)


def _of_client(command: service_pb2.TelemetryCommand | None) -> v2.Status:
    if command is None:
        return status(v2.PROXY_TIMEOUT, "the client does not answer")
    if not command.HasField("status") or command.status.code == v2.OK:
        return status()
    return command.status


def _set_known(info: rpc.ConsumerRunningInfo, client: Client) -> None:
    settings = client.settings
    assert settings is not None
    info.properties["PROP_CLIENT_VERSION"] = settings.user_agent.version
    info.properties["PROP_CONSUME_TYPE"] = v2.ClientType.Name(settings.client_type)
    for entry in settings.subscription.subscriptions:
        info.subscriptions[entry.topic.name].CopyFrom(entry.expression)


def _set_running_info(info: rpc.ConsumerRunningInfo, table: Table) -> None:
    for key, value in (table.get("properties") or {}).items():
        info.properties[str(key)] = str(value)
    for row in table.get("subscriptionSet") or []:
        expression = info.subscriptions[str(row.get("topic"))]
        expression.type = v2.SQL if row.get("expressionType") == "SQL92" else v2.TAG
        expression.expression = str(row.get("subString") or "*")
    for key, row in (table.get("mqTable") or {}).items():
        queue = lenient_json.loads(str(key).encode())
        item = info.message_queue_table.add()
        item.message_queue.topic.name = str(queue.get("topic"))
        item.message_queue.broker.name = str(queue.get("brokerName"))
        item.message_queue.id = int(queue.get("queueId") or 0)
        process = item.process_queue_info
        process.commit_offset = int(row.get("commitOffset") or 0)
        process.cached_msg_min_offset = int(row.get("cachedMsgMinOffset") or 0)
        process.cached_msg_max_offset = int(row.get("cachedMsgMaxOffset") or 0)
        process.cached_msg_count = int(row.get("cachedMsgCount") or 0)
        process.locked = bool(row.get("locked"))
        process.dropped = bool(row.get("droped"))
        process.last_pull_timestamp = int(row.get("lastPullTimestamp") or 0)
        process.last_consume_timestamp = int(row.get("lastConsumeTimestamp") or 0)
    for topic, row in (table.get("statusTable") or {}).items():
        entry = info.consume_status_table[str(topic)]
        entry.receive_rt = float(row.get("pullRT") or 0)
        entry.receive_tps = float(row.get("pullTPS") or 0)
        entry.consume_rt = float(row.get("consumeRT") or 0)
        entry.consume_ok_tps = float(row.get("consumeOKTPS") or 0)
        entry.consume_failed_tps = float(row.get("consumeFailedTPS") or 0)
        entry.consume_failed_msgs = int(row.get("consumeFailedMsgs") or 0)
