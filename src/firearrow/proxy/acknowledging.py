"""AckMessage: the request as it is read, what the broker says of each message, the answer."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Final, NamedTuple

from firearrow.features.pop.handles import NORMAL
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.protobuf import BYTES, key, part, varint
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy import checks
from firearrow.proxy.backend import Done
from firearrow.proxy.clients import Client, Clients
from firearrow.proxy.inflight import Renewals
from firearrow.proxy.receipts import Receipt, parse_receipt, unexpired
from firearrow.proxy.refusal import OK, Refusal, of_remoting, status
from firearrow.proxy.sending import CALL_S, overall

ACK_MESSAGE: Final = 200051
HEADS_KNOWN_MAX: Final = 1024

_Request, _Entry = rpc.AckMessageRequest, rpc.AckMessageEntry
_Response, _Result = rpc.AckMessageResponse, rpc.AckMessageResultEntry
_GROUP: Final = key(_Request.GROUP_FIELD_NUMBER, BYTES)[0]
_TOPIC: Final = key(_Request.TOPIC_FIELD_NUMBER, BYTES)[0]
_ENTRIES: Final = key(_Request.ENTRIES_FIELD_NUMBER, BYTES)[0]
# The answer's entries begin as the request's do.
_MESSAGE_ID: Final = key(_Entry.MESSAGE_ID_FIELD_NUMBER, BYTES)[0]
_HANDLE: Final = key(_Entry.RECEIPT_HANDLE_FIELD_NUMBER, BYTES)[0]


# -- the request


class Entry(NamedTuple):
    """One message. ``shown``: id and receipt handle, as the answer repeats them."""

    message_id: str
    receipt_handle: str
    lite_topic: str
    shown: bytes


class Acks(NamedTuple):
    """An AckMessageRequest."""

    topic: str
    group: str
    entries: list[Entry]


def read_acks(data: bytes) -> Acks:
    """Read a request. The usual one, of one message and with short names, is read by hand.

    Raises:
        Exception: as protobuf raises them.
    """
    try:
        topic_at = 2 + data[1]
        entry_at = topic_at + 2 + data[topic_at + 1]
        size, at = data[entry_at + 1], entry_at + 2
        if size >= 0x80:
            size, at = size & 0x7F | data[at] << 7, at + 1
        handle_at = at + 2 + data[at + 1]
        end = handle_at + 2 + data[handle_at + 1]
        usual = (
            data[0] == _GROUP
            and data[topic_at] == _TOPIC
            and data[entry_at] == _ENTRIES
            and data[at] == _MESSAGE_ID
            and data[handle_at] == _HANDLE
            and end == len(data) == at + size
            # None of the other lengths has a second byte.
            and (data[1] | data[topic_at + 1] | data[at + 1] | data[handle_at + 1]) < 0x80
        )
    except IndexError:
        usual = False
    if not usual:
        return _read_any(data)
    topic, group = _names(data[:entry_at])
    message_id, handle = data[at + 2 : handle_at], data[handle_at + 2 :]
    return Acks(topic, group, [Entry(message_id.decode(), handle.decode(), "", data[at:])])


@lru_cache(maxsize=HEADS_KNOWN_MAX)
def _names(head: bytes) -> tuple[str, str]:
    request = _Request.FromString(head)
    return request.topic.name, request.group.name


def _read_any(data: bytes) -> Acks:
    request = _Request.FromString(data)
    return Acks(
        request.topic.name, request.group.name, [_entry(entry) for entry in request.entries]
    )


def _entry(entry: rpc.AckMessageEntry) -> Entry:
    message_id, handle = entry.message_id, entry.receipt_handle
    shown = part(_Result.MESSAGE_ID_FIELD_NUMBER, message_id.encode())
    shown += part(_Result.RECEIPT_HANDLE_FIELD_NUMBER, handle.encode())
    return Entry(message_id, handle, entry.lite_topic, shown)


# -- the answer

# Encoded by hand: that is several times faster than to put messages together.
_RESULTS: Final = key(_Response.ENTRIES_FIELD_NUMBER, BYTES)
_OVERALL_OK: Final = part(_Response.STATUS_FIELD_NUMBER, OK.SerializeToString())
_RESULT_OK: Final = part(_Result.STATUS_FIELD_NUMBER, OK.SerializeToString())


def _encoded(entries: list[Entry], results: list[v2.Status]) -> bytes:
    total = overall(results)
    pieces = [
        _OVERALL_OK
        if total is OK
        else part(_Response.STATUS_FIELD_NUMBER, total.SerializeToString())
    ]
    for entry, result in zip(entries, results, strict=True):
        shown = _RESULT_OK
        if result is not OK:
            shown = part(_Result.STATUS_FIELD_NUMBER, result.SerializeToString())
        pieces += (_RESULTS, varint(len(entry.shown) + len(shown)), entry.shown, shown)
    return b"".join(pieces)


class _Answer:
    """Gathers what becomes of each message of a call."""

    __slots__ = ("_call", "_entries", "_missing", "_results")

    def __init__(self, call: Call, entries: list[Entry]) -> None:
        self._call = call
        self._entries = entries
        self._results = [OK] * len(entries)
        self._missing = len(entries)

    def take(self, index: int, result: v2.Status) -> None:
        self._results[index] = result
        self._missing -= 1
        if not self._missing:
            self._call.answer(_encoded(self._entries, self._results))

    def answered(self, index: int, header: Header | None, body: bytes) -> None:
        """By the broker."""
        self.take(index, result_of(header, "ack failed: status is abnormal"))


def result_of(header: Header | None, text: str) -> v2.Status:
    """What a broker's answer means; ``text`` where it says no more than that it failed."""
    if header is not None and header.code == codes.SUCCESS:
        return OK
    refusal = of_remoting(header.code if header else -1, header.remark if header else None)
    return status(refusal.code, refusal.text or text)


def _nobody(header: Header | None, body: bytes) -> None:
    pass


class Acknowledging:
    """AckMessage, and acknowledgements that the proxy gives itself."""

    def __init__(self, clients: Clients, clock: Clock, renewals: Renewals) -> None:
        self._clients = clients
        self._clock = clock
        self._renewals = renewals

    def ack(self, call: Call, request: Acks) -> None:
        client = self._clients.of(call)
        topic = checks.topic_named(request.topic)
        group = checks.group_named(request.group)
        entries = request.entries
        if not entries:
            raise Refusal(v2.INTERNAL_SERVER_ERROR, "ack message result is empty")
        answer = _Answer(call, entries)
        now_ms = self._clock.now_ms()
        for number, entry in enumerate(entries):
            try:
                receipt = self.newest(
                    client, group, entry.message_id, entry.receipt_handle, entry.lite_topic
                )
                unexpired(receipt, now_ms)
                self.acknowledge(client, group, topic, receipt, partial(answer.answered, number))
            except Refusal as refusal:
                answer.take(number, refusal.status)

    def newest(
        self, client: Client, group: str, message_id: str, text: str, lite_topic: str
    ) -> Receipt:
        """The newest receipt of the message; it is renewed no longer."""
        receipt = parse_receipt(text)
        if lite_topic and not receipt.lite_topic:  # another proxy's
            receipt = receipt._replace(lite_topic=lite_topic)
        return self._renewals.take(client.client_id, group, message_id, receipt)

    def acknowledge(
        self, client: Client, group: str, topic: str, receipt: Receipt, done: Done | None
    ) -> None:
        """Acknowledge at the broker; ``done`` hears what it answers."""
        handle = receipt.handle
        stored = topic if handle.retry_flag == NORMAL else receipt.topic(topic, group)
        if not receipt.lite_topic:
            client.channel.acknowledge(stored, group, handle, CALL_S, done or _nobody)
            return
        ext = {
            "consumerGroup": group,
            "topic": stored,
            "queueId": str(handle.queue_id),
            "extraInfo": handle.text(),
            "offset": str(handle.offset),
            "liteTopic": receipt.lite_topic,
        }
        client.channel.call(handle.broker_name, ACK_MESSAGE, ext, b"", CALL_S, done or _nobody)
