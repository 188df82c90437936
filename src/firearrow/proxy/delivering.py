"""What a broker popped for a ReceiveMessage, on its way to the client."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from firearrow.codec.properties import find_property
from firearrow.codec.record import Record, RecordError, decode_record, split_records
from firearrow.features.pop.handles import Handle, HandleError, parse_handle, retry_flag
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.protocol.grpc import calls
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.protobuf import part
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy import checks, convert, lite
from firearrow.proxy.backend import BrokerTopic
from firearrow.proxy.clients import Client
from firearrow.proxy.encoding import delivered
from firearrow.proxy.flow import Flow
from firearrow.proxy.inflight import Inflight, Renewals
from firearrow.proxy.receipts import Receipt
from firearrow.proxy.refusal import OK, of_remoting, status

log = logging.getLogger(__name__)

ATTEMPTS_OF_NO_GROUP: Final = 17
_MESSAGE: Final = rpc.ReceiveMessageResponse.MESSAGE_FIELD_NUMBER
_NOTHING: Final = frozenset({codes.POLLING_TIMEOUT, codes.PULL_NOT_FOUND, codes.NO_MESSAGE})


class Consuming(Protocol):
    """What becomes of messages that are not delivered, and of those that are."""

    renewals: Renewals
    flow: Flow

    def release(self, client: Client, group: str, topic: str, receipt: Receipt) -> None: ...

    def acknowledge(
        self, client: Client, group: str, topic: str, receipt: Receipt, done: Any
    ) -> None: ...

    def dead_letter(
        self, client: Client, group: str, topic: str, message_id: str, receipt: Receipt, done: Any
    ) -> None: ...


class Receive:
    """One ReceiveMessage that waits for the broker's answer."""

    def __init__(
        self,
        receiving: Consuming,
        done: Callable[[Receive], None],
        clock: Clock,
        call: Call,
        client: Client,
        request: rpc.ReceiveMessageRequest,
        place: BrokerTopic,
        group: Group | None,
    ) -> None:
        self._receiving = receiving
        self._done = done
        self._clock = clock
        self._call = call
        self._client = client
        self._request = request
        self._topic = request.message_queue.topic.name
        self._group_name = request.group.name
        self._place = place
        self._tags = checks.wanted_tags(request.filter_expression)
        self._attempts = group.retry_max_times + 1 if group else ATTEMPTS_OF_NO_GROUP

    def answered(self, header: Header | None, body: bytes) -> None:
        """The broker's answer. Nothing that goes wrong with it may reach the broker, which wakes
        others in the same step."""
        self._done(self)
        try:
            self._answered(header, body, self._clock.now_ms())
        except Exception as error:
            log.error(
                "a receive of %s by group %s failed; its messages come back after their invisible "
                "time",
                self._topic,
                self._group_name,
                exc_info=error,
            )
            self._call.end(calls.INTERNAL, f"{type(error).__name__}: {error}")

    def dismiss(self) -> None:
        """End the call without waiting for the broker; what it pops yet comes back soon."""
        nothing = status(v2.MESSAGE_NOT_FOUND, "the server stops")
        end_receive(self._call, nothing, self._clock.now_ms())

    def _answered(self, header: Header | None, body: bytes, now: int) -> None:
        if header is None or header.code in _NOTHING:
            end_receive(self._call, status(v2.MESSAGE_NOT_FOUND, "no new message"), now)
        elif header.code == codes.POLLING_FULL:
            end_receive(self._call, status(v2.TOO_MANY_REQUESTS, "polling full"), now)
        elif header.code != codes.SUCCESS:
            end_receive(self._call, of_remoting(header.code, header.remark).status, now)
        else:
            self._deliver(header.ext or {}, body, now)

    def _deliver(self, ext: dict[str, Any], body: bytes, now: int) -> None:
        call = self._call
        wanted = self._wanted(ext, body)
        if call.ended:
            for _, receipt in wanted:
                self._receiving.release(self._client, self._group_name, self._topic, receipt)
            return
        responses = self._responses(wanted, now)
        if responses:
            self._receiving.flow.given += len(responses)
            call.send(rpc.ReceiveMessageResponse(status=OK), *responses, _time(now))
            call.end()
        else:
            end_receive(call, status(v2.MESSAGE_NOT_FOUND, "no match message"), now)

    def _wanted(self, ext: dict[str, Any], body: bytes) -> list[tuple[Record, Receipt]]:
        if self._client.lite:
            return self._wanted_lite(ext, body)
        receipt_of, tags, attempts = self._receipts(ext), self._tags, self._attempts
        wanted = []
        for data in split_records(body):
            try:
                record = decode_record(data)
            except RecordError:
                continue
            receipt = receipt_of(record)
            if tags is not None and not checks.has_tag(record, tags):
                # It only has the hash of a wanted tag.
                self._receiving.acknowledge(
                    self._client, self._group_name, self._topic, receipt, None
                )
            elif record.reconsume_times >= attempts:
                self._bury(record, receipt)
            else:
                wanted.append((record, receipt))
        return wanted

    def _wanted_lite(self, ext: dict[str, Any], body: bytes) -> list[tuple[Record, Receipt]]:
        wanted = []
        for record, receipt in lite.popped(ext, body, self._place.broker_name):
            if record.reconsume_times >= self._attempts:
                self._bury(record, receipt)
            else:
                wanted.append((record, receipt))
        return wanted

    def _responses(self, wanted: list[tuple[Record, Receipt]], now: int) -> list[bytes]:
        """The messages as the client gets them; one that cannot be shown keeps no other back, and
        ends among the dead letters as what nobody acknowledges."""
        topic, auto_renew = self._topic, self._request.auto_renew
        responses = []
        for record, receipt in wanted:
            try:
                message_id, data = delivered(record, topic, receipt.text(), now)
            except Exception as error:
                log.error(
                    "the message at offset %d of queue %d of %s cannot be delivered by gRPC; read "
                    "it with a remoting client",
                    record.queue_offset,
                    record.queue_id,
                    record.topic,
                    exc_info=error,
                )
                continue
            if auto_renew:
                inflight = Inflight(self._client, self._group_name, topic, receipt, now)
                self._receiving.renewals.add(message_id, inflight)
            responses.append(part(_MESSAGE, data))
        return responses

    def _receipts(self, ext: dict[str, Any]) -> Callable[[Record], Receipt]:
        """What names each message of the broker's answer."""
        starts = _starts(str(ext.get("startOffsetInfo", "")))
        pop_ms, invisible_ms = int(ext["popTime"]), int(ext["invisibleTime"])
        revive_queue = int(ext["reviveQid"])
        topic, broker_name = self._topic, self._place.broker_name
        usual_flag = retry_flag(topic)

        def receipt(record: Record) -> Receipt:
            handle = None
            usual = record.topic == topic
            if usual and b"POP_CK\x01" in record.properties:
                handle = _stored_handle(find_property(record.properties, b"POP_CK"))
            if handle is None:
                flag = usual_flag if usual else retry_flag(record.topic)
                queue_id, offset = record.queue_id, record.queue_offset
                start = starts.get((flag, queue_id), offset)
                handle = Handle(
                    start, pop_ms, invisible_ms, revive_queue, flag, broker_name, queue_id, offset
                )
            return Receipt(handle, record.physical_offset)

        return receipt

    def _bury(self, record: Record, receipt: Receipt) -> None:
        """It was tried too often."""
        self._receiving.dead_letter(
            self._client,
            self._group_name,
            self._topic,
            _unique_key(record),
            receipt,
            lambda result: None,
        )


def _unique_key(record: Record) -> str:
    return (find_property(record.properties, b"UNIQ_KEY") or b"").decode("utf-8", "replace")


def _stored_handle(check_point: bytes | None) -> Handle | None:
    """What the broker wrote into a message of a retry topic; a client's own text is none."""
    if check_point is None:
        return None
    try:
        return parse_handle(check_point.decode("utf-8", "replace"))
    except HandleError:
        return None


def _starts(text: str) -> dict[tuple[str, int], int]:
    """``startOffsetInfo``: by retry flag and queue."""
    starts = {}
    for entry in text.split(";"):
        fields = entry.split(" ")
        if len(fields) >= 3:
            starts[fields[0], int(fields[1])] = int(fields[2])
    return starts


def end_receive(call: Call, result: v2.Status, now_ms: int) -> None:
    """A receive without messages: why, and when."""
    call.send(rpc.ReceiveMessageResponse(status=result), _time(now_ms))
    call.end()


def _time(now_ms: int) -> rpc.ReceiveMessageResponse:
    last = rpc.ReceiveMessageResponse()
    convert.set_time(last.delivery_timestamp, now_ms)
    return last
