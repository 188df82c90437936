"""What a broker popped for a ReceiveMessage, on its way to the client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Protocol

from firearrow.codec.properties import find_property
from firearrow.codec.record import Record, RecordError, decode_record, split_records
from firearrow.features.pop.handles import Handle, HandleError, parse_handle, retry_flag
from firearrow.features.pop.popping import Popped
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
from firearrow.proxy.receipts import Receipt, parse_receipt
from firearrow.proxy.refusal import OK, of_remoting, status

log = logging.getLogger(__name__)

Candidate = tuple[Record, str]  # a popped message and its receipt handle
ATTEMPTS_OF_NO_GROUP: Final = 17
_MESSAGE: Final = rpc.ReceiveMessageResponse.MESSAGE_FIELD_NUMBER
_OK: Final = rpc.ReceiveMessageResponse(status=OK).SerializeToString()
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
        """The broker's answer."""
        self._guard(self._answered, header, body)

    def found(self, popped: Popped) -> None:
        """What the broker of this process popped."""
        self._guard(self._deliver, partial(_handed_over, popped, self._place.broker_name))

    def _guard(self, work: Callable[..., None], *arguments: Any) -> None:
        """Nothing that goes wrong may reach the broker, which wakes others in the same step."""
        self._done(self)
        try:
            work(*arguments)
        except Exception as error:
            log.error(
                "a receive of topic %s by group %s failed; its messages come back after their "
                "invisible time. This is a defect, please report it",
                self._topic,
                self._group_name,
                exc_info=error,
            )
            self._call.end(calls.INTERNAL, f"{type(error).__name__}: {error}")

    def dismiss(self) -> None:
        """End the call without waiting for the broker; what it pops yet comes back soon."""
        nothing = status(v2.MESSAGE_NOT_FOUND, "the server stops")
        end_receive(self._call, nothing, self._clock.now_ms())

    def _answered(self, header: Header | None, body: bytes) -> None:
        now = self._clock.now_ms()
        if header is None or header.code in _NOTHING:
            end_receive(self._call, status(v2.MESSAGE_NOT_FOUND, "no new message"), now)
        elif header.code == codes.POLLING_FULL:
            end_receive(self._call, status(v2.TOO_MANY_REQUESTS, "polling full"), now)
        elif header.code != codes.SUCCESS:
            end_receive(self._call, of_remoting(header.code, header.remark).status, now)
        else:
            read = lite.popped if self._client.lite else partial(_of_answer, self._topic)
            self._deliver(partial(read, header.ext or {}, body, self._place.broker_name))

    def _deliver(self, candidates: Callable[[], Iterator[Candidate]]) -> None:
        call = self._call
        wanted = self._wanted(candidates())
        if call.ended:
            for _, text in wanted:
                receipt = parse_receipt(text)
                self._receiving.release(self._client, self._group_name, self._topic, receipt)
            return
        now = self._clock.now_ms()
        responses = self._responses(wanted, now)
        if responses:
            self._receiving.flow.given += len(responses)
            call.send(_OK, *responses, _time(now))
            call.end()
        else:
            end_receive(call, status(v2.MESSAGE_NOT_FOUND, "no match message"), now)

    def _wanted(self, candidates: Iterator[Candidate]) -> list[Candidate]:
        tags, attempts = None if self._client.lite else self._tags, self._attempts
        wanted = []
        for candidate in candidates:
            record, text = candidate
            if tags is not None and not checks.has_tag(record, tags):
                # It only has the hash of a wanted tag.
                self._receiving.acknowledge(
                    self._client, self._group_name, self._topic, parse_receipt(text), None
                )
            elif record.reconsume_times >= attempts:
                self._bury(record, parse_receipt(text))
            else:
                wanted.append(candidate)
        return wanted

    def _responses(self, wanted: list[Candidate], now: int) -> list[bytes]:
        """The messages as the client gets them; one that cannot be shown keeps no other back, and
        ends among the dead letters as what nobody acknowledges."""
        topic, auto_renew = self._topic, self._request.auto_renew
        responses = []
        for record, text in wanted:
            try:
                message_id, data = delivered(record, topic, text, now)
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
                receipt = parse_receipt(text)
                inflight = Inflight(self._client, self._group_name, topic, receipt, now)
                self._receiving.renewals.add(message_id, inflight)
            responses.append(part(_MESSAGE, data))
        return responses

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


# -- what was popped, with receipt handles


def _handed_over(popped: Popped, broker_name: str) -> Iterator[Candidate]:
    for taken in popped.parts:
        # Up to the offset all of them have the same handle: see ``Handle.text``.
        common = (
            f"{taken.start_offset} {popped.pop_ms} {popped.invisible_ms} {popped.revive_queue} "
            f"{taken.retry_flag} {broker_name} {taken.queue_id}"
        )
        for data, offset in zip(split_records(taken.records), taken.offsets, strict=True):
            try:
                record = decode_record(data)
            except RecordError:
                continue
            yield record, f"{common} {offset} {record.physical_offset}"


def _of_answer(
    topic: str, ext: dict[str, Any], body: bytes, broker_name: str
) -> Iterator[Candidate]:
    """The same, of a broker's answer to POP_MESSAGE."""
    starts = _starts(str(ext.get("startOffsetInfo", "")))
    pop_ms, invisible_ms = int(ext["popTime"]), int(ext["invisibleTime"])
    revive_queue = int(ext["reviveQid"])
    for data in split_records(body):
        try:
            record = decode_record(data)
        except RecordError:
            continue
        handle = None
        if record.topic == topic and b"POP_CK\x01" in record.properties:
            handle = _stored_handle(find_property(record.properties, b"POP_CK"))
        if handle is None:
            flag, queue_id, offset = retry_flag(record.topic), record.queue_id, record.queue_offset
            start = starts.get((flag, queue_id), offset)
            handle = Handle(
                start, pop_ms, invisible_ms, revive_queue, flag, broker_name, queue_id, offset
            )
        yield record, f"{handle.text()} {record.physical_offset}"


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
