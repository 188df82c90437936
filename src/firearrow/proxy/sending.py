"""SendMessage, EndTransaction, RecallMessage (``SendMessageActivity``, ``ProducerProcessor``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from firearrow.codec.hashes import consistent_hash, java_hash
from firearrow.codec.message_id import parse_offset_message_id
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.protobuf import BYTES, NUMBER, key, part, varint
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy import checks
from firearrow.proxy.backend import Backend, BrokerTopic, missing
from firearrow.proxy.clients import Client, Clients
from firearrow.proxy.drafts import Draft, Drafts, DraftSettings, send_fields
from firearrow.proxy.flow import Flow
from firearrow.proxy.refusal import OK, Refusal, of_remoting, status
from firearrow.proxy.topics import accepted_types, type_name

CALL_S: Final = 2.0
END_TRANSACTION: Final = 37
RECALL_MESSAGE: Final = 370
_COMMIT, _ROLLBACK, _UNKNOWN = "8", "12", "0"
_RESOLUTIONS: Final = {v2.COMMIT: _COMMIT, v2.ROLLBACK: _ROLLBACK}
TARGETS_MAX: Final = 10_000


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


Done = Callable[[v2.Status, bytes], None]  # what became of a message, and its encoded entry


class WriteQueue(NamedTuple):
    broker_name: str
    queue_id: int


class Sending:
    """The producers' requests."""

    def __init__(
        self,
        clients: Clients,
        backend: Backend,
        clock: Clock,
        settings: DraftSettings,
        flow: Flow,
    ) -> None:
        self._clients = clients
        self._flow = flow
        self._backend = backend
        self._drafts = Drafts(clock, settings)
        self._turn = itertools.count()
        self._targets: dict[str, _Target] = {}

    # -- SendMessage

    def send(self, call: Call, request: rpc.SendMessageRequest) -> None:
        client = self._clients.of(call)
        messages = request.messages
        if not messages:
            raise Refusal(v2.MESSAGE_CORRUPTED, "no message to send")
        first = messages[0]
        drafts = [self._drafts.make(first, client.address)]
        shape = drafts[0].shape
        for message in messages[1:]:
            if message.topic != first.topic:
                raise Refusal(v2.MESSAGE_CORRUPTED, "topic in message is not same")
            drafts.append(self._drafts.make(message, client.address))

        def found(places: list[BrokerTopic]) -> None:
            try:
                target = self._target(shape.topic, places)
                target.check_type(shape.kind)
                self._flow.taken += len(drafts)
                for draft, done in zip(drafts, _results(call, len(drafts)), strict=True):
                    self._store(client, self._queue(target, draft.shape.group), draft, done)
            except Refusal as refusal:
                call.answer(rpc.SendMessageResponse(status=refusal.status))

        self._backend.topic(shape.topic, found)

    def _target(self, topic: str, places: list[BrokerTopic]) -> _Target:
        target = self._targets.get(topic)
        if target is None or target.places is not places:
            if not places:
                raise missing(places, topic)
            if len(self._targets) >= TARGETS_MAX:
                self._targets.clear()
            target = self._targets[topic] = _Target(places)
        return target

    def _queue(self, target: _Target, group: str) -> WriteQueue:
        queues = target.queues
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

    def _store(self, client: Client, queue: WriteQueue, draft: Draft, done: Done) -> None:
        broker_name = queue.broker_name

        def stored(header: Header | None, body: bytes) -> None:
            done(*_result(header, broker_name, draft.shape.half))

        fields = send_fields(draft, queue.queue_id)
        client.channel.send(broker_name, fields, draft.body, CALL_S, stored)

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


class _Target:
    """What is sent to a topic, and where, as long as the topic is the same."""

    def __init__(self, places: list[BrokerTopic]) -> None:
        self.places = places
        self._topic = places[0].topic
        self._types = accepted_types(self._topic)
        self.queues = [
            WriteQueue(place.broker_name, number)
            for place in sorted(places, key=lambda place: place.broker_name)
            if place.topic.writable and place.broker_id == 0
            for number in range(place.topic.write_queues)
        ]

    def check_type(self, kind: v2.MessageType.ValueType) -> None:
        """Refuse a message of a type that the topic does not take.

        Raises:
            Refusal: MESSAGE_PROPERTY_CONFLICT_WITH_TYPE.
        """
        if kind not in self._types:
            raise Refusal(
                v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE,
                "TopicMessageType validate failed, the expected type is "
                f"{type_name(self._topic)}, but actual type is {v2.MessageType.Name(kind)}",
            )


def _results(call: Call, count: int) -> list[Done]:
    """What hears of each message's result; the last one answers the call."""
    if count == 1:
        return [lambda result, entry: call.answer(_response(result, entry))]
    results: dict[int, tuple[v2.Status, bytes]] = {}

    def done(index: int, result: v2.Status, entry: bytes) -> None:
        results.setdefault(index, (result, entry))
        if len(results) == count:
            statuses, entries = zip(*(results[number] for number in range(count)), strict=True)
            call.answer(_response(overall(list(statuses)), *entries))

    return [partial(done, index) for index in range(count)]


def _response(result: v2.Status, *entries: bytes) -> bytes:
    head = _RESPONSE_OK if result is OK else part(1, result.SerializeToString())
    return b"".join((head, *entries))


def overall(statuses: list[v2.Status]) -> v2.Status:
    """The one status of all, or MULTIPLE_RESULTS."""
    if all(each.code == statuses[0].code for each in statuses):
        return statuses[0]
    return status(v2.MULTIPLE_RESULTS)


# Encoded by hand: that is several times faster than to put messages together.
_RESPONSE_OK: Final = part(rpc.SendMessageResponse.STATUS_FIELD_NUMBER, OK.SerializeToString())
_ENTRY: Final = rpc.SendMessageResponse.ENTRIES_FIELD_NUMBER
_Entry = rpc.SendResultEntry
_ENTRY_OK: Final = part(_Entry.STATUS_FIELD_NUMBER, OK.SerializeToString())
_MESSAGE_ID: Final = key(_Entry.MESSAGE_ID_FIELD_NUMBER, BYTES)
_TRANSACTION_ID: Final = key(_Entry.TRANSACTION_ID_FIELD_NUMBER, BYTES)
_OFFSET: Final = key(_Entry.OFFSET_FIELD_NUMBER, NUMBER)


def _result(header: Header | None, broker_name: str, half: bool) -> tuple[v2.Status, bytes]:
    """What became of a message, and that as an entry of the response."""
    if header is None or header.code != codes.SUCCESS:
        refused = _refusal(header).status
        return refused, part(_ENTRY, rpc.SendResultEntry(status=refused).SerializeToString())
    ext = header.ext or {}
    unique_key = ext.get("transactionId", "")
    queue_offset = int(ext.get("queueOffset", 0))
    identity = transaction = unique_key.encode()
    place = parse_offset_message_id(ext.get("msgId", "")) if half else None
    if place is not None:
        named = Transaction(broker_name, queue_offset, place[1], unique_key)
        transaction = named.text().encode()
    recall = b""
    if "recallHandle" in ext:
        recall = part(_Entry.RECALL_HANDLE_FIELD_NUMBER, ext["recallHandle"].encode())
    fields = (
        *(_ENTRY_OK, _MESSAGE_ID, varint(len(identity)), identity),
        *(_TRANSACTION_ID, varint(len(transaction)), transaction),
        *(_OFFSET, varint(queue_offset), recall),
    )
    return OK, part(_ENTRY, b"".join(fields))


def _refusal(header: Header | None) -> Refusal:
    return of_remoting(header.code, header.remark) if header is not None else of_remoting(-1, None)
