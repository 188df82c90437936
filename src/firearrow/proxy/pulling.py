"""PullMessage, UpdateOffset, GetOffset, QueryOffset: RocketMQ's own proxy knows their messages, but
does not serve them; here they mean what the broker's requests of remoting clients mean."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from firearrow.codec.record import RecordError, decode_record, split_records
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.protobuf import part
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy import checks
from firearrow.proxy.backend import Backend, BrokerTopic, missing
from firearrow.proxy.checks import milliseconds
from firearrow.proxy.clients import CALL_S, Clients
from firearrow.proxy.encoding import delivered
from firearrow.proxy.flow import Flow
from firearrow.proxy.refusal import OK, Refusal, of_remoting, status

log = logging.getLogger(__name__)

PULL_MESSAGE: Final = 11
QUERY_CONSUMER_OFFSET: Final = 14
UPDATE_CONSUMER_OFFSET: Final = 15
SEARCH_OFFSET: Final = 29
GET_MAX_OFFSET: Final = 30
GET_MIN_OFFSET: Final = 31

FLAG_SUSPEND: Final = 2
FLAG_SUBSCRIPTION: Final = 4
BATCH_MAX: Final = 32
POLLING_MS_MAX: Final = 20_000
RESERVE_MS: Final = 100  # for the answer to arrive before the deadline
_MESSAGE: Final = rpc.PullMessageResponse.MESSAGE_FIELD_NUMBER
_NOTHING: Final = frozenset({codes.PULL_NOT_FOUND, codes.PULL_RETRY_IMMEDIATELY})

# (name, request, response, handler)
Unary = dict[str, tuple[Any, Any, Callable[[Call, Any], None]]]


class Pulling:
    """Requests of consumers that keep their own offsets."""

    def __init__(self, clients: Clients, backend: Backend, clock: Clock, flow: Flow) -> None:
        self._clients = clients
        self._flow = flow
        self._backend = backend
        self._clock = clock
        self._waiting: set[Call] = set()  # for a broker's answer
        self._leaving = False

    def dismiss(self) -> None:
        """The server stops: no pull waits any more."""
        self._leaving = True
        for call in list(self._waiting):
            _end_pull(call, status(v2.MESSAGE_NOT_FOUND, "the server stops"))

    def unary(self) -> Unary:
        return {
            "UpdateOffset": (rpc.UpdateOffsetRequest, rpc.UpdateOffsetResponse, self.update),
            "GetOffset": (rpc.GetOffsetRequest, rpc.GetOffsetResponse, self.get),
            "QueryOffset": (rpc.QueryOffsetRequest, rpc.QueryOffsetResponse, self.query),
        }

    # -- PullMessage

    def pull(self, call: Call, request: rpc.PullMessageRequest) -> None:
        """A stream: a status, messages, and the offset to go on from where there is one."""
        try:
            self._pull(call, request)
        except Refusal as refusal:
            _end_pull(call, refusal.status)

    def _pull(self, call: Call, request: rpc.PullMessageRequest) -> None:
        client = self._clients.of(call)
        group = checks.group_name(request.group)
        topic = checks.topic_name(request.message_queue.topic)
        if request.offset < 0:
            raise Refusal(v2.ILLEGAL_OFFSET, f"the offset {request.offset} is below 0")
        polling_ms = self._polling_ms(call, request)
        expression = request.filter_expression
        ext = {
            "consumerGroup": group,
            "topic": topic,
            "queueId": str(request.message_queue.id),
            "queueOffset": str(request.offset),
            "maxMsgNums": str(min(max(1, request.batch_size), BATCH_MAX)),
            "sysFlag": str(FLAG_SUBSCRIPTION | (FLAG_SUSPEND if polling_ms else 0)),
            "suspendTimeoutMillis": str(polling_ms),
            "commitOffset": "0",
            "subscription": expression.expression or "*",
            "subVersion": "0",
            "expressionType": "SQL92" if expression.type == v2.SQL else "TAG",
        }

        def found(place: BrokerTopic) -> None:
            self._waiting.add(call)
            give_up = client.channel.poll(
                place.broker_name, PULL_MESSAGE, ext, b"", polling_ms / 1000 + CALL_S, answered
            )

            def left() -> None:
                self._waiting.discard(call)
                give_up()

            call.cancelled = left

        def answered(header: Header | None, body: bytes) -> None:
            self._waiting.discard(call)
            try:
                self._pulled(call, request, header, body)
            except Exception as error:  # it must not reach the broker, which wakes others too
                log.error(
                    "a pull of topic %s by group %s failed, and its client is told; this is a "
                    "defect, please report it",
                    topic,
                    group,
                    exc_info=error,
                )
                _end_pull(call, status(v2.INTERNAL_SERVER_ERROR, str(error)))

        self._with_queue(request.message_queue, found, lambda result: _end_pull(call, result))

    def _polling_ms(self, call: Call, request: rpc.PullMessageRequest) -> int:
        polling_ms = min(milliseconds(request.long_polling_timeout), POLLING_MS_MAX)
        if self._leaving:
            return 0
        if call.deadline_s is not None:
            left_ms = round((call.deadline_s - self._clock.monotonic()) * 1000)
            polling_ms = min(polling_ms, left_ms - RESERVE_MS)
        return max(0, polling_ms)

    def _pulled(
        self, call: Call, request: rpc.PullMessageRequest, header: Header | None, body: bytes
    ) -> None:
        if header is None:
            _end_pull(call, of_remoting(-1, None).status)
            return
        next_offset = int((header.ext or {}).get("nextBeginOffset", request.offset))
        if header.code == codes.PULL_OFFSET_MOVED:
            moved = f"offset {request.offset} is not in the queue, which goes on at {next_offset}"
            _end_pull(call, status(v2.ILLEGAL_OFFSET, moved), next_offset)
        elif header.code in _NOTHING:
            _end_pull(call, status(v2.MESSAGE_NOT_FOUND, "no new message"), next_offset)
        elif header.code == codes.SUCCESS:
            self._deliver(call, request, body, next_offset)
        else:
            _end_pull(call, _refused(header).status)

    def _deliver(
        self, call: Call, request: rpc.PullMessageRequest, body: bytes, next_offset: int
    ) -> None:
        topic, now = request.message_queue.topic.name, self._clock.now_ms()
        messages, tags = [], checks.wanted_tags(request.filter_expression)
        for data in split_records(body):
            try:
                record = decode_record(data)
            except RecordError:
                continue
            if tags is None or checks.has_tag(record, tags):
                messages.append(delivered(record, topic, None, now).data)
        if not messages:
            _end_pull(call, status(v2.MESSAGE_NOT_FOUND, "no match message"), next_offset)
            return
        responses = [part(_MESSAGE, message) for message in messages]
        self._flow.given += len(responses)
        last = rpc.PullMessageResponse(next_offset=next_offset)
        call.send(rpc.PullMessageResponse(status=OK), *responses, last)
        call.end()

    # -- offsets

    def update(self, call: Call, request: rpc.UpdateOffsetRequest) -> None:
        """The group goes on from here."""
        if request.offset < 0:
            raise Refusal(v2.ILLEGAL_OFFSET, f"the offset {request.offset} is below 0")
        ext = self._of_group(request.group, request.message_queue)
        ext["commitOffset"] = str(request.offset)

        def answered(result: v2.Status, offset: int) -> None:
            call.answer(rpc.UpdateOffsetResponse(status=result))

        self._ask(call, UPDATE_CONSUMER_OFFSET, ext, request.message_queue, answered)

    def get(self, call: Call, request: rpc.GetOffsetRequest) -> None:
        """Where the group goes on."""
        ext = self._of_group(request.group, request.message_queue)
        ext["setZeroIfNotFound"] = "false"

        def answered(result: v2.Status, offset: int) -> None:
            call.answer(rpc.GetOffsetResponse(status=result, offset=offset))

        self._ask(call, QUERY_CONSUMER_OFFSET, ext, request.message_queue, answered)

    def query(self, call: Call, request: rpc.QueryOffsetRequest) -> None:
        """A queue's first offset, the one behind its last, or that of a time."""
        ext = _of_queue(request.message_queue)
        code = GET_MIN_OFFSET
        if request.query_offset_policy == v2.END:
            code = GET_MAX_OFFSET
        elif request.query_offset_policy == v2.TIMESTAMP:
            if not request.HasField("timestamp"):
                raise Refusal(v2.BAD_REQUEST, "the policy TIMESTAMP needs a timestamp")
            code = SEARCH_OFFSET
            ext["timestamp"] = str(milliseconds(request.timestamp))

        def answered(result: v2.Status, offset: int) -> None:
            call.answer(rpc.QueryOffsetResponse(status=result, offset=offset))

        self._ask(call, code, ext, request.message_queue, answered)

    def _of_group(self, group: v2.Resource, queue: v2.MessageQueue) -> dict[str, str]:
        return {"consumerGroup": checks.group_name(group), **_of_queue(queue)}

    def _ask(
        self,
        call: Call,
        code: int,
        ext: dict[str, str],
        queue: v2.MessageQueue,
        done: Callable[[v2.Status, int], None],
    ) -> None:
        client = self._clients.of(call)

        def answered(header: Header | None, body: bytes) -> None:
            if header is None:
                done(of_remoting(-1, None).status, 0)
            elif header.code == codes.QUERY_NOT_FOUND:
                done(status(v2.OFFSET_NOT_FOUND, header.remark or ""), 0)
            elif header.code != codes.SUCCESS:
                done(_refused(header).status, 0)
            else:
                done(status(), int((header.ext or {}).get("offset", 0)))

        def found(place: BrokerTopic) -> None:
            client.channel.call(place.broker_name, code, ext, b"", CALL_S, answered)

        self._with_queue(queue, found, lambda result: done(result, 0))

    # -- queues

    def _with_queue(
        self,
        queue: v2.MessageQueue,
        found: Callable[[BrokerTopic], None],
        refused: Callable[[v2.Status], None],
    ) -> None:
        """Go on with the broker that has the queue."""

        def with_places(places: list[BrokerTopic]) -> None:
            try:
                place = _place_of(queue, places)
            except Refusal as refusal:
                refused(refusal.status)
            else:
                found(place)

        self._backend.topic(queue.topic.name, with_places)


def _of_queue(queue: v2.MessageQueue) -> dict[str, str]:
    return {"topic": checks.topic_name(queue.topic), "queueId": str(queue.id)}


def _place_of(queue: v2.MessageQueue, places: list[BrokerTopic]) -> BrokerTopic:
    topic, wanted = queue.topic.name, queue.broker.name
    if not places:
        raise missing(places, topic)
    if not wanted and len(places) == 1:
        wanted = places[0].broker_name
    place = next((p for p in places if p.broker_name == wanted), None)
    if place is None:
        raise Refusal(v2.BAD_REQUEST, f"topic {topic} does not lie on broker {wanted!r}")
    if not 0 <= queue.id < place.topic.read_queues:
        raise Refusal(
            v2.BAD_REQUEST,
            f"topic {topic} has no queue {queue.id}: it has {place.topic.read_queues} to read",
        )
    return place


def _refused(header: Header) -> Refusal:
    if header.code == codes.NO_PERMISSION:
        return Refusal(v2.FORBIDDEN, header.remark or "")
    return of_remoting(header.code, header.remark)


def _end_pull(call: Call, result: v2.Status, next_offset: int | None = None) -> None:
    call.send(rpc.PullMessageResponse(status=result))
    if next_offset is not None:
        call.send(rpc.PullMessageResponse(next_offset=next_offset))
    call.end()
