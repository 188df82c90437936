"""SEND_MESSAGE, SEND_MESSAGE_V2, SEND_BATCH_MESSAGE: checks, the store, the answer."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from copy import copy
from typing import Any, Final, Protocol

import msgspec

from firearrow.broker.flushed import FlushedAnswers
from firearrow.broker.logical import Placed
from firearrow.broker.send_checks import SendChecks, SendCheckSettings, SendFields
from firearrow.broker.stats import BrokerStats
from firearrow.broker.tails import KEYS, UNIQUE_KEY, Tails
from firearrow.broker.topics import Topics
from firearrow.broker.writer import Writer
from firearrow.codec.batch import (
    INNER_COUNT,
    INNER_COUNT_MAX,
    BatchError,
    decode_batch,
    with_inner_number,
)
from firearrow.codec.message_id import UniqueIds
from firearrow.codec.properties import find_property
from firearrow.codec.sysflags import SYS_INNER_BATCH, SYS_NEED_UNWRAP
from firearrow.model import codes, names
from firearrow.model.clock import Clock
from firearrow.model.message import Message
from firearrow.model.topic import Topic
from firearrow.protocol.remoting.command import LANGUAGE, VERSION, Answer, Reply, Request
from firearrow.store.api import Put, PutStatus, Store

# Put status -> response code (behaviour.md 1.5).
PUT_CODES: Final = {
    PutStatus.OK: codes.SUCCESS,
    PutStatus.FLUSH_DISK_TIMEOUT: codes.FLUSH_DISK_TIMEOUT,
    PutStatus.SERVICE_NOT_AVAILABLE: codes.SERVICE_NOT_AVAILABLE,
    PutStatus.CREATE_FILE_FAILED: codes.SYSTEM_ERROR,
    PutStatus.MESSAGE_ILLEGAL: codes.MESSAGE_ILLEGAL,
    PutStatus.PROPERTIES_SIZE_EXCEEDED: codes.MESSAGE_ILLEGAL,
    PutStatus.WHEEL_TIMER_MSG_ILLEGAL: codes.MESSAGE_ILLEGAL,
    PutStatus.WHEEL_TIMER_NOT_ENABLE: codes.SYSTEM_ERROR,
    PutStatus.LMQ_CONSUME_QUEUE_NUM_EXCEEDED: codes.LMQ_QUOTA_EXCEEDED,
    PutStatus.NO_PERMISSION: codes.NO_PERMISSION,
}

_FRAME = struct.Struct(">II")
_IDENTITY_CHARS: Final = 16
_VERSION: Final = f',"version":{VERSION}}}'
_quote = msgspec.json.Encoder().encode


class SendSettings(SendCheckSettings, Protocol):
    broker_cluster_name: str
    flush_disk_type: str
    max_message_size: int


class RetryRules(Protocol):
    """The retry room's say in a send to ``%RETRY%group`` (behaviour.md 1.6)."""

    def divert(self, fields: SendFields, message: Message, version: int) -> Message | Reply: ...


class Sender:
    """Answers every kind of send."""

    def __init__(
        self,
        settings: SendSettings,
        store: Store,
        writer: Writer,
        topics: Topics,
        clock: Clock,
        stats: BrokerStats,
        store_host: bytes,
        process_id: int,
        retry: RetryRules,
    ) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._tails = Tails(writer.marked)
        self._known_tail = self._tails.get
        self._checks = SendChecks(settings, topics, clock)
        self._refuse = self._checks.refuse
        self._lane = topics.plain.get
        self._logical = topics.logical
        self._stats = stats
        self._count = stats.stored_in
        self._retry = retry
        self._flushed = FlushedAnswers(store, clock)
        self._unique_ids = UniqueIds(store_host, process_id, clock.now_ms)
        self._host_hex = store_host.hex().upper()
        self._success: Callable[..., Answer] = self._frame
        region = settings.region_id
        trace = "true" if settings.trace_on else "false"
        quoted = _quote(region).decode()
        self._ext_head = (
            f'"extFields":{{"MSG_REGION":{quoted},"TRACE_ON":"{trace}","msgId":"{self._host_hex}'
        )
        self._tail = f'"flag":1,"language":"{LANGUAGE}","opaque":'
        self.added = (  # to the properties of every message
            f"CLUSTER\x01{settings.broker_cluster_name}\x02"
            f"MSG_REGION\x01{region}\x02TRACE_ON\x01{trace}\x02"
        )

    def in_process(self) -> Sender:
        """The same one for callers in this process: a success is a value for them, and no frame to
        be written and read again."""
        other = copy(self)
        other._success = other._reply
        return other

    def handle(self, request: Request[SendFields]) -> Answer:
        """Answer one send. The common case is done in this call alone: it is the hottest code."""
        fields = request.fields
        lane = self._lane(fields.topic)
        queue_id = fields.queue_id
        if (
            lane is None
            or fields.batch
            or not 0 <= queue_id < lane.write_queues
            or self._settings.start_accept_send_request_time_stamp
        ):
            return self._handle_with_care(request)
        head, _, tail = (fields.properties or "").partition("\x02")
        keys = ""
        if head[:5] == KEYS:
            keys = head + "\x02"
            head, _, tail = tail.partition("\x02")
        known = self._known_tail(tail)
        if known is None or head[:9] != UNIQUE_KEY:
            return self._send_one(request, lane.name, queue_id)
        message = Message(
            lane.name,
            queue_id,
            request.body,
            (keys + head).encode() + known,
            fields.born_timestamp,
            request.peer.remote_packed,
            fields.flag,
            fields.sys_flag,
            fields.reconsume_times or 0,
        )
        place = lane.place
        if place is None:
            place = lane.place = self._store.place(lane.name)
            lane.counters = self._stats.of_topic(lane.name)
        put = self._store.append_at(place, message)
        return self._stored(request, message, put, lane.counters, queue_id, head[9:])

    def _handle_with_care(self, request: Request[SendFields]) -> Answer:
        placed: Placed | None = None
        if self._logical and request.fields.topic in self._logical:
            found = self._place(request)
            if isinstance(found, Reply):
                return found
            placed = found
        checked = self._checks.check(request.fields)
        if isinstance(checked, Reply):
            return checked
        topic, queue_id = checked
        if request.fields.batch:
            return self._send_batch(request, topic, queue_id, placed)
        if topic.compacted:
            properties = (request.fields.properties or "").encode()
            refusal = self._checks.refuse_compacted([(properties, request.body)])
            if refusal is not None:
                return refusal
        return self._send_one(request, topic.name, queue_id, placed)

    def _place(self, request: Request[SendFields]) -> Placed | Reply:
        """Let the request name a queue of the store in place of a static topic's logical queue."""
        fields = request.fields
        placed = self._logical[fields.topic].place(fields.queue_id)
        if isinstance(placed, Reply):
            return self._refuse(placed.code, placed.remark or "")
        request.fields = msgspec.structs.replace(fields, queue_id=placed.queue_id)
        return placed

    # -- one message

    def _send_one(
        self,
        request: Request[SendFields],
        topic: str,
        queue_id: int,
        placed: Placed | None = None,
    ) -> Answer:
        fields = request.fields
        given = fields.properties or ""
        properties, unique_key = self._complete(given)
        stored = properties.encode()
        self._tails.learn(given, stored)
        message = Message(
            topic,
            queue_id,
            request.body,
            stored,
            fields.born_timestamp,
            request.peer.remote_packed,
            fields.flag,
            fields.sys_flag,
            fields.reconsume_times or 0,
        )
        if topic.startswith(names.RETRY_PREFIX):
            diverted = self._retry.divert(fields, message, request.version)
            if isinstance(diverted, Reply):
                return Reply(diverted.code, diverted.remark, self._checks.ext)
            message = diverted
        put = self._writer.put(message)
        if placed is not None:
            queue_id, put = placed.shown(put)
        counters = self._stats.of_topic(topic)
        return self._stored(request, message, put, counters, queue_id, unique_key)

    def _stored(
        self,
        request: Request[SendFields],
        message: Message,
        put: Put,
        counters: array[int],
        queue_id: int,
        unique_key: str,
        inner: int = 0,
    ) -> Answer:
        """The answer for a record that was stored; ``inner`` messages in it make a batch."""
        if put.physical_offset < 0:
            return self.refused(put)
        if put.duplicate:
            queue_id = put.queue_id
        else:
            self._count(counters, inner or 1, put.end - put.physical_offset)
        identity = f"{put.physical_offset:016X}"
        if inner:  # tells a producer that one id is the id of all
            identity += f'","batchUniqId":"{_inside(unique_key)}'
        if put.recall_handle:
            identity += f'","recallHandle":"{put.recall_handle}'
        if self._settings.flush_disk_type == "SYNC_FLUSH" and b"WAIT\x01false" not in (
            message.properties
        ):
            self._answer_flushed(request, put.end, identity, queue_id, put.queue_offset, unique_key)
            return None
        return self._success(request.opaque, identity, queue_id, put.queue_offset, unique_key)

    def _complete(self, properties: str) -> tuple[str, str]:
        """Add what the broker adds; the property string and the message's unique key."""
        if properties and properties[-1] != "\x02":
            properties += "\x02"
        if "TRACE_ON\x01" in properties or "POP_CK\x01" in properties:
            properties = _without_broker_properties(properties)
        start = properties.find("UNIQ_KEY\x01")
        if start < 0 or (start > 0 and properties[start - 1] != "\x02"):
            unique_key = self._unique_ids.next()
            return f"{properties}UNIQ_KEY\x01{unique_key}\x02{self.added}", unique_key
        unique_key = properties[start + 9 : properties.index("\x02", start)]
        return properties + self.added, unique_key

    def _reply(
        self, opaque: int, identity: str, queue_id: int, offset: int, unique_key: str
    ) -> Answer:
        if len(identity) != _IDENTITY_CHARS:  # it says more than where the message lies
            return self._frame(opaque, identity, queue_id, offset, unique_key)
        return Reply(
            codes.SUCCESS,
            None,
            {
                "msgId": self._host_hex + identity,
                "queueId": str(queue_id),
                "queueOffset": str(offset),
                "transactionId": unique_key,
            },
        )

    def _frame(
        self, opaque: int, identity: str, queue_id: int, offset: int, unique_key: str
    ) -> bytes:
        """The response frame, written directly: this is the hottest line of the broker."""
        if not unique_key.isalnum():
            unique_key = _inside(unique_key)
        header = (
            f'{{"code":0,{self._ext_head}{identity}","queueId":"{queue_id}","queueOffset":"'
            f'{offset}","transactionId":"{unique_key}"}},{self._tail}{opaque}{_VERSION}'
        ).encode()
        size = len(header)
        return _FRAME.pack(size + 4, size) + header

    def _answer_flushed(
        self,
        request: Request[Any],
        end: int,
        identity: str,
        queue_id: int,
        offset: int,
        unique_key: str,
    ) -> None:
        if not request.one_way:
            frame = self._frame(request.opaque, identity, queue_id, offset, unique_key)
            self._flushed.add(request.peer, end, frame)

    def refused(self, put: Put) -> Reply:
        """The answer for a message that the store did not take."""
        self._stats.refused += 1
        return self._refuse(PUT_CODES[put.status], f"{put.status.value}: {put.reason}")

    # -- batches

    def _send_batch(
        self,
        request: Request[SendFields],
        topic: Topic,
        queue_id: int,
        placed: Placed | None = None,
    ) -> Answer:
        fields = request.fields
        envelope = (fields.properties or "").encode()
        refusal = self._batch_refusal(topic.name, request.body, envelope)
        if refusal is not None:
            return self._refuse(codes.MESSAGE_ILLEGAL, refusal)
        try:
            items = decode_batch(request.body)
        except BatchError as error:
            return self._refuse(codes.MESSAGE_ILLEGAL, str(error))
        whole = topic.batched and find_property(envelope, b"UNIQ_KEY") is not None
        if topic.compacted:
            records = [(item.properties, item.body) for item in items]
            keyless = self._checks.refuse_compacted(
                [(envelope, request.body)] if whole else records
            )
            if keyless is not None:
                return keyless
        if whole:
            return self._send_inner_batch(request, topic.name, queue_id, len(items), placed)
        messages = [
            Message(
                topic=topic.name,
                queue_id=queue_id,
                body=item.body,
                properties=item.properties,
                born_timestamp=fields.born_timestamp,
                born_host=request.peer.remote_packed,
                flag=item.flag,
                sys_flag=fields.sys_flag,
                reconsume_times=fields.reconsume_times or 0,
            )
            for item in items
        ]
        put = self._writer.put_batch(messages)
        if put.physical_offset < 0:
            return self.refused(put)
        if placed is not None:
            queue_id, put = placed.shown(put)
        if not put.duplicate:
            self._stats.stored(topic.name, len(messages), put.end - put.physical_offset)
        # The first one's host part stands in the response's template.
        identity = f",{self._host_hex}".join(f"{phy:016X}" for phy in put.physical_offsets)
        _, unique_key = self._complete(fields.properties or "")
        if self._settings.flush_disk_type == "SYNC_FLUSH":
            self._answer_flushed(request, put.end, identity, queue_id, put.queue_offset, unique_key)
            return None
        return self._success(request.opaque, identity, queue_id, put.queue_offset, unique_key)

    def _batch_refusal(self, topic: str, body: bytes, envelope: bytes) -> str | None:
        size_max = self._settings.max_message_size
        if len(topic) > names.TOPIC_CHARS_MAX or topic.startswith(names.RETRY_PREFIX):
            return f"a batch cannot be sent to topic {topic}"
        if len(body) > size_max:
            return f"the batch has {len(body)} bytes, maxMessageSize is {size_max}"
        if b"DELAY\x01" in envelope:
            return "a batch cannot be delayed"
        return None

    def _send_inner_batch(
        self,
        request: Request[SendFields],
        topic: str,
        queue_id: int,
        count: int,
        placed: Placed | None,
    ) -> Answer:
        """The whole batch as one record, which consumers take apart."""
        if count > INNER_COUNT_MAX:
            return self._refuse(
                codes.MESSAGE_ILLEGAL,
                f"the batch has {count} messages; to a topic with queue.type=BatchCQ it may have "
                f"{INNER_COUNT_MAX}",
            )
        fields = request.fields
        properties, unique_key = self._complete(fields.properties or "")
        message = Message(
            topic,
            queue_id,
            request.body,
            with_inner_number(properties.encode(), INNER_COUNT, count),
            fields.born_timestamp,
            request.peer.remote_packed,
            fields.flag,
            fields.sys_flag | SYS_INNER_BATCH | SYS_NEED_UNWRAP,
            fields.reconsume_times or 0,
        )
        put = self._writer.put(message)
        if placed is not None:
            queue_id, put = placed.shown(put)
        counters = self._stats.of_topic(topic)
        return self._stored(request, message, put, counters, queue_id, unique_key, count)


def _inside(text: str) -> str:
    """For between the quotes of a JSON string."""
    return _quote(text).decode()[1:-1]


_BROKER_PROPERTIES: Final = ("CLUSTER\x01", "MSG_REGION\x01", "TRACE_ON\x01", "POP_CK\x01")


def _without_broker_properties(properties: str) -> str:
    """A message that was stored before and is sent again carries what brokers set: renew it."""
    kept = [
        piece
        for piece in properties.split("\x02")
        if piece and not piece.startswith(_BROKER_PROPERTIES)
    ]
    return "\x02".join([*kept, ""])
