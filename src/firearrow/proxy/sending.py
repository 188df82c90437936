"""SendMessage, EndTransaction, RecallMessage (``SendMessageActivity``, ``ProducerProcessor``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

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
from firearrow.proxy.drafts import (
    Draft,
    Drafts,
    DraftSettings,
    Known,
    Recalled,
    made_again,
    send_fields,
)
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
        self._settings = settings
        self._direct = backend.direct
        self._drafts = Drafts(clock, settings, backend.direct)
        self._turn = itertools.count()
        self._targets: dict[str, _Target] = {}

    # -- SendMessage

    def read(self, data: bytes) -> Recalled | tuple[rpc.SendMessageRequest, bytes]:
        """A request, for ``take``.

        Raises:
            DecodeError: it is none.
        """
        return self._drafts.recall(data) or (rpc.SendMessageRequest.FromString(data), data)

    def take(self, call: Call, given: Recalled | tuple[rpc.SendMessageRequest, bytes]) -> None:
        """Answer a request. Messages that are known, for the broker of this process, are sent in
        this call alone: it is the hottest code of the proxy."""
        if len(given) == 2:
            self.send(call, *given)
            return
        client = self._clients.of(call)
        known, message_id, born_ms, body = given
        if not message_id.isalnum() or not 0 < len(body) <= self._settings.max_message_size:
            self._drafts.check(given)
        direct, stored, offset = self._direct, known.stored, None
        if direct is not None and stored is not None:
            lane = direct.lane(known.topic)
            if lane is not known.lane:
                self._find(known, lane)
            if lane is not None:
                queues = known.queues
                offset = direct.store(
                    lane,
                    queues[next(self._turn) % len(queues)],
                    body,
                    b"UNIQ_KEY\x01%b%b%d%b" % (message_id, stored[0], born_ms, stored[1]),
                    born_ms,
                    client.packed,
                    known.shape.sys_flag,
                )
        if offset is None:
            self._send(call, client, [made_again(given)])
            return
        self._flow.taken += 1
        if isinstance(offset, int):
            call.answer(stored_response(message_id, offset))
        else:
            refused = of_remoting(offset.code, offset.remark).status
            call.answer(_response(refused, _refused_entry(refused)))

    def _find(self, known: Known, lane: Any) -> None:
        """Find out where messages may go as long as their topic has this lane.

        Raises:
            Refusal: nowhere.
        """
        known.lane = None
        if lane is None:
            return
        shape, found = known.shape, list[list[BrokerTopic]]()
        self._backend.topic(shape.topic, found.append)  # known at once, of the broker here
        target = self._target(shape.topic, found[0])
        target.check_type(shape.kind)
        if shape.group or not target.queues:
            known.queues = [self._queue(target, shape.group).queue_id]
        else:
            known.queues = [queue.queue_id for queue in target.queues]
        known.lane = lane

    def send(self, call: Call, request: rpc.SendMessageRequest, data: bytes = b"") -> None:
        """Answer a request; ``data``: as it was written, if that is at hand."""
        client = self._clients.of(call)
        messages = request.messages
        if not messages:
            raise Refusal(v2.MESSAGE_CORRUPTED, "no message to send")
        first = messages[0]
        drafts = [self._drafts.make(first, client.address)]
        if data and drafts[0].again and len(messages) == 1:
            self._drafts.learn(data, drafts[0].shape)
        for message in messages[1:]:
            if message.topic != first.topic:
                raise Refusal(v2.MESSAGE_CORRUPTED, "topic in message is not same")
            drafts.append(self._drafts.make(message, client.address))
        self._send(call, client, drafts)

    def _send(self, call: Call, client: Client, drafts: list[Draft]) -> None:
        shape = drafts[0].shape

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
        return refused, _refused_entry(refused)
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


def _refused_entry(refused: v2.Status) -> bytes:
    return part(_ENTRY, rpc.SendResultEntry(status=refused).SerializeToString())


def stored_response(message_id: bytes, queue_offset: int) -> bytes:
    """The response for one ordinary message that was stored."""
    begin, between, size = _around(len(message_id))
    offset = varint(queue_offset)
    return b"".join(
        (
            _RESPONSE_OK_ENTRY,
            varint(size + len(offset)),
            begin,
            message_id,
            between,
            message_id,
            _OFFSET,
            offset,
        )
    )


_RESPONSE_OK_ENTRY: Final = _RESPONSE_OK + key(_ENTRY, BYTES)


@lru_cache(maxsize=128)
def _around(size: int) -> tuple[bytes, bytes, int]:
    """What stands before an id of a size, and before it as the transaction's; and the bytes of the
    entry but for its offset's."""
    begin, between = _ENTRY_OK + _MESSAGE_ID + varint(size), _TRANSACTION_ID + varint(size)
    return begin, between, len(begin) + len(between) + 2 * size + len(_OFFSET)


def _refusal(header: Header | None) -> Refusal:
    return of_remoting(header.code, header.remark) if header is not None else of_remoting(-1, None)
