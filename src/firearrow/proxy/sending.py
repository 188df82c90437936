"""SendMessage, EndTransaction, RecallMessage (``SendMessageActivity``, ``ProducerProcessor``)."""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple, Protocol

from firearrow.codec.addresses import join_address
from firearrow.codec.hashes import java_hash
from firearrow.codec.message_id import parse_offset_message_id
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy import checks, convert
from firearrow.proxy.backend import Backend, BrokerTopic, missing
from firearrow.proxy.clients import Client, Clients
from firearrow.proxy.refusal import Refusal, of_remoting, status
from firearrow.proxy.topics import accepted_types, type_name

CALL_S: Final = 2.0
SEND_MESSAGE_V2: Final = 310
END_TRANSACTION: Final = 37
RECALL_MESSAGE: Final = 370
_COMMIT, _ROLLBACK, _UNKNOWN = "8", "12", "0"
_RESOLUTIONS: Final = {v2.COMMIT: _COMMIT, v2.ROLLBACK: _ROLLBACK}
_STORED: Final = frozenset(
    {
        codes.SUCCESS,
        codes.FLUSH_DISK_TIMEOUT,
        codes.FLUSH_SLAVE_TIMEOUT,
        codes.SLAVE_NOT_AVAILABLE,
    }
)


class SendingSettings(Protocol):
    max_message_size: int


class Transaction(NamedTuple):
    """A transaction id says where the half message lies, so that any proxy can end it, also after
    a restart; Java's keeps that in memory for 30 s."""

    broker_name: str
    queue_offset: int
    physical_offset: int
    unique_key: str

    def text(self) -> str:
        return (
            f"{self.queue_offset:X}-{self.physical_offset:X}-{self.unique_key}@{self.broker_name}"
        )


def parse_transaction(text: str) -> Transaction:
    """Read a transaction id.

    Raises:
        Refusal: it is blank, or none of ours.
    """
    if not text.strip():
        raise Refusal(v2.INVALID_TRANSACTION_ID, "transaction id cannot be blank")
    identity, _, broker = text.partition("@")
    parts = identity.split("-", 2)
    try:
        queue_offset, physical = int(parts[0], 16), int(parts[1], 16)
        return Transaction(broker, queue_offset, physical, parts[2])
    except (IndexError, ValueError):
        raise Refusal(v2.INTERNAL_SERVER_ERROR, "cannot found transaction data") from None


class WriteQueue(NamedTuple):
    broker_name: str
    queue_id: int


def consistent_hash(value: int, buckets: int) -> int:
    """Guava's ``Hashing.consistentHash``: the queue of a message group."""
    state, candidate = value & 0xFFFFFFFFFFFFFFFF, 0
    while True:
        state = (2862933555777941757 * state + 1) & 0xFFFFFFFFFFFFFFFF
        following = int((candidate + 1) / ((((state >> 33) & 0x7FFFFFFF) + 1) / 2147483648.0))
        if not 0 <= following < buckets:
            return candidate
        candidate = following


class Sending:
    """The producers' requests."""

    def __init__(
        self, clients: Clients, backend: Backend, clock: Clock, settings: SendingSettings
    ) -> None:
        self._clients = clients
        self._backend = backend
        self._clock = clock
        self._settings = settings
        self._turn = itertools.count()

    # -- SendMessage

    def send(self, call: Call, request: rpc.SendMessageRequest) -> None:
        client = self._clients.of(call)
        if not request.messages:
            raise Refusal(v2.MESSAGE_CORRUPTED, "no message to send")
        first = request.messages[0]
        topic = checks.topic_name(first.topic)
        if any(message.topic != first.topic for message in request.messages[1:]):
            raise Refusal(v2.MESSAGE_CORRUPTED, "topic in message is not same")
        now = self._clock.now_ms()
        for message in request.messages:
            checks.message(message, now, self._settings.max_message_size)
        send = _Send(call, len(request.messages))

        def found(places: list[BrokerTopic]) -> None:
            try:
                self._check_type(places, first)
                for index, message in enumerate(request.messages):
                    queue = self._queue(places, message.system_properties.message_group)
                    self._store(client, topic, queue, message, send, index)
            except Refusal as refusal:
                call.answer(rpc.SendMessageResponse(status=refusal.status))

        self._backend.topic(topic, found)

    def _check_type(self, places: list[BrokerTopic], message: v2.Message) -> None:
        if not places:
            raise missing(places, message.topic.name)
        topic = places[0].topic
        kind = _type_of(message)
        if kind not in accepted_types(topic):
            raise Refusal(
                v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE,
                "TopicMessageType validate failed, the expected type is "
                f"{type_name(topic)}, but actual type is {v2.MessageType.Name(kind)}",
            )

    def _queue(self, places: list[BrokerTopic], group: str) -> WriteQueue:
        queues = [
            WriteQueue(place.broker_name, number)
            for place in sorted(places, key=lambda place: place.broker_name)
            if place.topic.writable and place.broker_id == 0
            for number in range(place.topic.write_queues)
        ]
        if not queues:
            raise Refusal(v2.FORBIDDEN, "no writable queue")
        if group:
            return queues[consistent_hash(java_hash(group), len(queues))]
        chosen = queues[next(self._turn) % len(queues)]
        reachable = self._backend.reachable
        if not reachable(chosen.broker_name):
            others = [queue for queue in queues if reachable(queue.broker_name)] or queues
            chosen = others[next(self._turn) % len(others)]
        return chosen

    def _store(
        self,
        client: Client,
        topic: str,
        queue: WriteQueue,
        message: v2.Message,
        send: _Send,
        index: int,
    ) -> None:
        properties = convert.properties_of(message, join_address(*client.remote))
        ext = {
            "a": topic,
            "b": topic,
            "c": "TBW102",
            "d": "4",
            "e": str(queue.queue_id),
            "f": str(convert.sys_flag_of(message)),
            "g": properties["BORN_TIMESTAMP"],
            "h": "0",
            "i": convert.property_text(properties),
            "j": "0",
            "k": "false",
            "m": "false",
        }
        half = message.system_properties.message_type == v2.TRANSACTION

        def stored(header: Header | None, body: bytes) -> None:
            send.done(index, _entry(header, queue.broker_name, half))

        client.channel.call(queue.broker_name, SEND_MESSAGE_V2, ext, message.body, CALL_S, stored)

    # -- EndTransaction

    def end_transaction(self, call: Call, request: rpc.EndTransactionRequest) -> None:
        client = self._clients.of(call)
        topic = checks.topic_name(request.topic)
        transaction = parse_transaction(request.transaction_id)
        ext = {
            "producerGroup": topic,
            "tranStateTableOffset": str(transaction.queue_offset),
            "commitLogOffset": str(transaction.physical_offset),
            "commitOrRollback": _RESOLUTIONS.get(request.resolution, _UNKNOWN),
            "fromTransactionCheck": str(request.source == v2.SOURCE_SERVER_CHECK).lower(),
            "msgId": request.message_id,
            "transactionId": transaction.unique_key,
        }
        if request.resolution not in _RESOLUTIONS:  # brokers do not answer that
            call.answer(rpc.EndTransactionResponse(status=status()))
            return

        def ended(header: Header | None, body: bytes) -> None:
            if header is not None and header.code == codes.SUCCESS:
                call.answer(rpc.EndTransactionResponse(status=status()))
            else:
                call.answer(rpc.EndTransactionResponse(status=_refusal(header).status))

        client.channel.call(transaction.broker_name, END_TRANSACTION, ext, b"", CALL_S, ended)

    # -- RecallMessage

    def recall(self, call: Call, request: rpc.RecallMessageRequest) -> None:
        client = self._clients.of(call)
        topic = checks.topic_name(request.topic)

        def found(places: list[BrokerTopic]) -> None:
            if not places or v2.DELAY not in accepted_types(places[0].topic):
                refusal = Refusal(
                    v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE, "only delayed messages can be recalled"
                )
                call.answer(rpc.RecallMessageResponse(status=refusal.status))
                return
            ext = {
                "producerGroup": topic,
                "topic": topic,
                "recallHandle": request.recall_handle,
            }
            client.channel.call(places[0].broker_name, RECALL_MESSAGE, ext, b"", CALL_S, recalled)

        def recalled(header: Header | None, body: bytes) -> None:
            if header is not None and header.code == codes.SUCCESS:
                message_id = (header.ext or {}).get("msgId", "")
                call.answer(rpc.RecallMessageResponse(status=status(), message_id=message_id))
            else:
                call.answer(rpc.RecallMessageResponse(status=_refusal(header).status))

        self._backend.topic(topic, found)


class _Send:
    """Collects the results of one request's messages."""

    def __init__(self, call: Call, count: int) -> None:
        self._call = call
        self._entries: list[rpc.SendResultEntry | None] = [None] * count
        self._missing = count

    def done(self, index: int, entry: rpc.SendResultEntry) -> None:
        if self._entries[index] is not None:
            return
        self._entries[index] = entry
        self._missing -= 1
        if not self._missing:
            entries = [entry for entry in self._entries if entry is not None]
            response = rpc.SendMessageResponse(status=overall([e.status for e in entries]))
            response.entries.extend(entries)
            self._call.answer(response)


def overall(statuses: list[v2.Status]) -> v2.Status:
    """The one status of all, or MULTIPLE_RESULTS."""
    if all(each.code == statuses[0].code for each in statuses):
        return statuses[0]
    return status(v2.MULTIPLE_RESULTS)


def _entry(header: Header | None, broker_name: str, half: bool) -> rpc.SendResultEntry:
    if header is None or header.code not in _STORED:
        return rpc.SendResultEntry(status=_refusal(header).status)
    if header.code != codes.SUCCESS:
        return rpc.SendResultEntry(status=of_remoting(header.code, header.remark).status)
    ext = header.ext or {}
    unique_key, queue_offset = ext.get("transactionId", ""), int(ext.get("queueOffset", 0))
    transaction = unique_key
    place = parse_offset_message_id(ext.get("msgId", ""))
    if half and place is not None:
        transaction = Transaction(broker_name, queue_offset, place[1], unique_key).text()
    return rpc.SendResultEntry(
        status=status(),
        message_id=unique_key,
        transaction_id=transaction,
        offset=queue_offset,
        recall_handle=ext.get("recallHandle", ""),
    )


def _refusal(header: Header | None) -> Refusal:
    return of_remoting(header.code, header.remark) if header is not None else of_remoting(-1, None)


def _type_of(message: v2.Message) -> v2.MessageType.ValueType:
    """The type that the message really has, whatever it says (``parseFromMessageProperty``)."""
    system = message.system_properties
    if system.message_type == v2.TRANSACTION:
        return v2.TRANSACTION
    if system.HasField("delivery_timestamp"):
        return v2.DELAY
    if system.message_group:
        return v2.FIFO
    if system.HasField("priority"):
        return v2.PRIORITY
    return v2.LITE if system.lite_topic else v2.NORMAL
