"""ReceiveMessage, ChangeInvisibleDuration, ForwardMessageToDeadLetterQueue."""

from __future__ import annotations

import logging
from typing import Any, Final, NamedTuple

from firearrow.features.pop.handles import Handle
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.lite_requests import POP_LITE_MESSAGE
from firearrow.protocol.remoting.pop_requests import PopMessage
from firearrow.proxy import checks, lite
from firearrow.proxy.acknowledging import Acknowledging, result_of
from firearrow.proxy.backend import Backend, BrokerTopic, Done, missing
from firearrow.proxy.checks import milliseconds
from firearrow.proxy.clients import Client, Clients
from firearrow.proxy.delivering import Receive, end_receive
from firearrow.proxy.flow import Flow
from firearrow.proxy.inflight import RENEW_INVISIBLE_MS, Inflight, Renewals
from firearrow.proxy.receipts import Receipt, unexpired
from firearrow.proxy.refusal import Refusal, status
from firearrow.proxy.sending import CALL_S
from firearrow.proxy.turns import Turns

CHANGE_INVISIBLE: Final = 200053
SEND_BACK: Final = 36

log = logging.getLogger(__name__)

POLLING_MS_MIN: Final = 5_000
POLLING_MS_MAX: Final = 20_000
RESERVE_MS: Final = 100  # ``longPollingReserveTimeInMillis``: for the answer to arrive
BATCH_MAX: Final = 32
RELEASE_MS: Final = 1000  # nobody takes it: it comes back soon
INIT_MODE_MAX: Final = 1
EVERY_QUEUE: Final = -1


class Receiving:
    """The consumers' requests."""

    def __init__(self, clients: Clients, backend: Backend, clock: Clock, flow: Flow) -> None:
        self._clients = clients
        self.flow = flow
        self._backend = backend
        self._clock = clock
        self.renewals = Renewals(clock, self._renew)
        self._turns = Turns(clock)
        self._acks = Acknowledging(clients, clock, self.renewals)
        self.ack = self._acks.ack
        self._waiting: set[Receive] = set()  # for a broker's answer
        self._leaving = False

    def dismiss(self) -> None:
        """The server stops: no receive waits any more."""
        self._leaving = True
        for receive in list(self._waiting):
            receive.dismiss()

    # -- ReceiveMessage

    def receive(self, call: Call, request: rpc.ReceiveMessageRequest) -> None:
        client = self._clients.of(call)
        wanted = Wanted(
            request,
            poll_ms=self._polling_ms(call, client, request),
            topic=checks.topic_name(request.message_queue.topic),
            group=checks.group_name(request.group),
            invisible_ms=_invisible_ms(request),
        )
        inflight = self.renewals.of_client(client.client_id, wanted.group) if client.lite else 0
        if inflight > lite.UNACKED_MAX:
            raise Refusal(
                v2.FORBIDDEN,
                f"the client has more than {lite.UNACKED_MAX} messages that are not acknowledged",
            )

        def with_group(group: Group | None) -> None:
            self._backend.topic(
                wanted.topic, lambda places: self._pop(call, client, wanted, places, group)
            )

        def begin() -> None:
            if call.ended:
                return
            try:
                self._backend.group(wanted.group, with_group)
            except Exception as error:  # as in a handler: it ends its call alone
                log.error("a receive by %s failed", call.remote, exc_info=error)
                call.end(calls.INTERNAL, f"{type(error).__name__}: {error}")

        self._turns.take(client, begin)

    def _pop(
        self,
        call: Call,
        client: Client,
        wanted: Wanted,
        places: list[BrokerTopic],
        group: Group | None,
    ) -> None:
        request, now_ms = wanted.request, self._clock.now_ms()
        try:
            if lite.parent_of(group) and not client.lite:
                # Nor before it has said what it is: it would get the parent's messages.
                raise Refusal(v2.UNRECOGNIZED_CLIENT_TYPE, "the group is for lite consumers")
            place = _readable(places, request.message_queue.broker.name, wanted.topic)
        except Refusal as refusal:
            end_receive(call, refusal.status, now_ms)
            return
        receive = Receive(
            self, self._waiting.discard, self._clock, call, client, request, place, group
        )
        if self._leaving:
            receive.dismiss()
            return
        self._waiting.add(receive)
        channel, name = client.channel, place.broker_name
        timeout_s = wanted.poll_ms / 1000 + CALL_S
        if client.lite:
            ext = wanted.of_lite(client.client_id, now_ms)
            give_up = channel.poll(name, POP_LITE_MESSAGE, ext, b"", timeout_s, receive.answered)
        else:
            fields = wanted.fields(now_ms, fifo=group is not None and group.consume_message_orderly)
            give_up = channel.pop(name, fields, timeout_s, receive.answered, receive.found)

        def left() -> None:
            self._waiting.discard(receive)
            give_up()

        call.cancelled = left

    def _polling_ms(self, call: Call, client: Client, request: rpc.ReceiveMessageRequest) -> int:
        left_ms = None
        if call.deadline_s is not None:
            left_ms = round((call.deadline_s - self._clock.monotonic()) * 1000)
        if request.HasField("long_polling_timeout"):
            polling_ms = milliseconds(request.long_polling_timeout)
        elif left_ms is not None:
            timeout = client.settings.request_timeout if client.settings else None
            polling_ms = left_ms - (milliseconds(timeout) // 2 if timeout else 1500)
        else:
            polling_ms = POLLING_MS_MAX
        polling_ms = min(max(polling_ms, POLLING_MS_MIN), POLLING_MS_MAX)
        if left_ms is not None and polling_ms > left_ms:
            if left_ms < POLLING_MS_MIN:
                new = call.metadata.get("x-mq-client-version", "") >= "5.0.3"
                raise Refusal(
                    v2.ILLEGAL_POLLING_TIME if new else v2.BAD_REQUEST,
                    f"the deadline is in {left_ms} ms, the min polling time is {POLLING_MS_MIN}",
                )
            polling_ms = left_ms
        return max(0, polling_ms - RESERVE_MS)

    def release(self, client: Client, group: str, topic: str, receipt: Receipt) -> None:
        """Nobody takes the message: let it come back soon."""
        inflight = Inflight(client, group, topic, receipt, receipt.handle.pop_ms)
        self._renew(inflight, RELEASE_MS, lambda renewed: None)

    # -- AckMessage

    def acknowledge(
        self, client: Client, group: str, topic: str, receipt: Receipt, done: Done | None
    ) -> None:
        """See ``Acknowledging``."""
        self._acks.acknowledge(client, group, topic, receipt, done)

    # -- ChangeInvisibleDuration

    def change_invisible(self, call: Call, request: rpc.ChangeInvisibleDurationRequest) -> None:
        client = self._clients.of(call)
        topic = checks.topic_name(request.topic)
        group = checks.group_name(request.group)
        invisible_ms = milliseconds(request.invisible_duration)
        if not 0 <= invisible_ms <= checks.INVISIBLE_MS_MAX:
            raise Refusal(
                v2.ILLEGAL_INVISIBLE_TIME,
                f"the invisible time of {invisible_ms} ms is not within 0 and "
                f"{checks.INVISIBLE_MS_MAX}",
            )
        receipt = self._acks.newest(
            client, group, request.message_id, request.receipt_handle, request.lite_topic
        )
        unexpired(receipt, self._clock.now_ms())
        inflight = Inflight(client, group, topic, receipt, receipt.handle.pop_ms)

        def changed(new: Receipt | None) -> None:
            if new is None:
                failed = status(
                    v2.INTERNAL_SERVER_ERROR, "changeInvisibleDuration failed: status is abnormal"
                )
                call.answer(rpc.ChangeInvisibleDurationResponse(status=failed))
            else:
                call.answer(
                    rpc.ChangeInvisibleDurationResponse(status=status(), receipt_handle=new.text())
                )

        self._renew(inflight, invisible_ms, changed, suspend=request.suspend)

    def _renew(
        self, inflight: Inflight, invisible_ms: int, done: Any, *, suspend: bool = False
    ) -> None:
        handle = inflight.receipt.handle
        try:
            topic = inflight.receipt.topic(inflight.topic, inflight.group)
        except Refusal:
            done(None)
            return
        ext = {
            "consumerGroup": inflight.group,
            "topic": topic,
            "queueId": str(handle.queue_id),
            "extraInfo": handle.text(),
            "offset": str(handle.offset),
            "invisibleTime": str(invisible_ms),
        }
        if inflight.receipt.lite_topic:
            ext |= {"liteTopic": inflight.receipt.lite_topic, "suspend": str(suspend).lower()}

        def answered(header: Header | None, body: bytes) -> None:
            done(_changed(inflight.receipt, header))

        inflight.client.channel.call(
            handle.broker_name, CHANGE_INVISIBLE, ext, b"", CALL_S, answered
        )

    # -- ForwardMessageToDeadLetterQueue

    def forward(self, call: Call, request: rpc.ForwardMessageToDeadLetterQueueRequest) -> None:
        client = self._clients.of(call)
        topic = checks.topic_name(request.topic)
        group = checks.group_name(request.group)
        if request.receipt_handle:
            receipt = self._acks.newest(
                client, group, request.message_id, request.receipt_handle, request.lite_topic
            )
        else:
            found = self.renewals.find(client.client_id, group, request.message_id)
            if found is None:
                raise Refusal(v2.INVALID_RECEIPT_HANDLE, "the message is not in work")
            receipt = self.renewals.take(client.client_id, group, request.message_id, found)

        def forwarded(result: v2.Status) -> None:
            call.answer(rpc.ForwardMessageToDeadLetterQueueResponse(status=result))

        self.dead_letter(client, group, topic, request.message_id, receipt, forwarded)

    def dead_letter(
        self, client: Client, group: str, topic: str, message_id: str, receipt: Receipt, done: Any
    ) -> None:
        """Copy a message to the group's dead letters, then acknowledge it.

        Raises:
            Refusal: the receipt does not say where the message lies.
        """
        if receipt.physical_offset < 0:
            raise Refusal(v2.INVALID_RECEIPT_HANDLE, "commit log offset is empty")
        ext = {
            "offset": str(receipt.physical_offset),
            "group": group,
            "delayLevel": "-1",
            "originMsgId": message_id,
            "originTopic": topic,
            "unitMode": "false",
            "maxReconsumeTimes": "0",
        }

        def answered(header: Header | None, body: bytes) -> None:
            result = result_of(header, "")
            if result.code == v2.OK:
                self.acknowledge(client, group, topic, receipt, None)
            done(result)

        client.channel.call(receipt.handle.broker_name, SEND_BACK, ext, b"", CALL_S, answered)


def _invisible_ms(request: rpc.ReceiveMessageRequest) -> int:
    if request.auto_renew:
        return RENEW_INVISIBLE_MS
    invisible_ms = milliseconds(request.invisible_duration)
    if not checks.INVISIBLE_MS_MIN <= invisible_ms <= checks.INVISIBLE_MS_MAX:
        raise Refusal(
            v2.ILLEGAL_INVISIBLE_TIME,
            f"the invisible time of {invisible_ms} ms is not within "
            f"{checks.INVISIBLE_MS_MIN} and {checks.INVISIBLE_MS_MAX}",
        )
    return invisible_ms


class Wanted(NamedTuple):
    """What a receive asks a broker for."""

    request: rpc.ReceiveMessageRequest
    topic: str
    group: str
    invisible_ms: int
    poll_ms: int

    @property
    def _count(self) -> int:
        return min(max(1, self.request.batch_size), BATCH_MAX)

    def fields(self, now_ms: int, *, fifo: bool) -> PopMessage:
        expression = self.request.filter_expression
        return PopMessage(
            self.group,
            self.topic,
            EVERY_QUEUE,
            self._count,
            self.invisible_ms,
            self.poll_ms,
            now_ms,
            INIT_MODE_MAX,
            "SQL92" if expression.type == v2.SQL else "TAG",
            expression.expression or "*",
            fifo,
            self.request.attempt_id or None,
        )

    def of_lite(self, client_id: str, now_ms: int) -> dict[str, str]:
        ext = {
            "consumerGroup": self.group,
            "topic": self.topic,
            "invisibleTime": str(self.invisible_ms),
            "pollTime": str(self.poll_ms),
            "bornTime": str(now_ms),
            "clientId": client_id,
            "maxMsgNum": str(self._count),
        }
        if self.request.attempt_id:
            ext["attemptId"] = self.request.attempt_id
        return ext


def _readable(places: list[BrokerTopic], broker_name: str, topic: str) -> BrokerTopic:
    if not places:
        raise missing(places, topic)
    readable = [p for p in places if p.topic.readable and p.topic.read_queues > 0]
    if not readable:
        raise Refusal(v2.FORBIDDEN, "no readable queue")
    return next((p for p in readable if p.broker_name == broker_name), readable[0])


def _changed(receipt: Receipt, header: Header | None) -> Receipt | None:
    """The receipt after a change of the invisible time."""
    if header is None or header.code != codes.SUCCESS:
        return None
    ext, old = header.ext or {}, receipt.handle
    handle = Handle(
        old.offset,
        int(ext.get("popTime", 0)),
        int(ext.get("invisibleTime", 0)),
        int(ext.get("reviveQid", old.revive_queue)),
        old.retry_flag,
        old.broker_name,
        old.queue_id,
        old.offset,
    )
    return receipt._replace(handle=handle)
