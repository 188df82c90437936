"""Putting messages at the end of the log: checks, the record, its place in its queue."""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

import msgspec

from firearrow.codec.batch import INNER_BASE, INNER_COUNT_MAX, inner_count, with_inner_number
from firearrow.codec.hashes import body_crc
from firearrow.codec.record import Record, encode_record
from firearrow.codec.sysflags import (
    SYS_BORN_HOST_V6,
    SYS_INNER_BATCH,
    SYS_STORE_HOST_V6,
    SYS_TRANSACTION_PREPARED,
)
from firearrow.model.clock import Clock
from firearrow.model.message import Message
from firearrow.store import lmq
from firearrow.store.api import Put, PutStatus
from firearrow.store.batchqueue import unit_of
from firearrow.store.commitlog import CommitLog, LogFull
from firearrow.store.consumequeue import TopicShape
from firearrow.store.dispatch import Dispatcher
from firearrow.store.flush import Flusher
from firearrow.store.settings import StoreSettings

PROPERTIES_BYTES_MAX: Final = 32767
RETRY_TOPIC_BYTES_MAX: Final = 255

# Record heads for every mix of IPv4 and IPv6 addresses: total size ... body length.
_HEADS: Final = {
    (born, store): struct.Struct(f">iIiiiqqiq{born}sq{store}siqi")
    for born in (8, 20)
    for store in (8, 20)
}
_HEAD_V4 = _HEADS[8, 8]
_PROPERTIES_SIZE = struct.Struct(">H")
_V6_BITS: Final = SYS_BORN_HOST_V6 | SYS_STORE_HOST_V6
_RARE_BITS: Final = _V6_BITS | SYS_INNER_BATCH


class Appender:
    """The writing end of one store. What ``append`` needs is its own attribute: every hop is paid
    for each message."""

    def __init__(
        self,
        settings: StoreSettings,
        clock: Clock,
        commit_log: CommitLog,
        dispatcher: Dispatcher,
        flusher: Flusher,
    ) -> None:
        self._settings = settings
        self._now_ms = clock.now_ms
        self._log = commit_log
        self._dispatcher = dispatcher
        self._shapes = dispatcher.shapes
        self._unflushed = dispatcher.unflushed
        self._add_entry = dispatcher.add_entry
        self._tags_code = dispatcher.tags_code
        self._flusher = flusher
        self.dispatches = settings.enable_lmq and settings.enable_multi_dispatch
        self._dispatches = self.dispatches  # off while a message goes into its own queue
        self.last_timestamp = 0
        self.refusal = ""  # why nothing may be appended now
        self._refusals: dict[str, str] = {}

    def append(self, message: Message) -> Put:
        shape = self._shapes.get(message.topic)
        return self.append_at(shape or self._dispatcher.shape(message.topic), message)

    def append_at(self, shape: TopicShape, message: Message) -> Put:
        queue_id = message.queue_id
        queue = shape.queues[queue_id] if queue_id < len(shape.queues) else None
        body, properties = message.body, message.properties
        body_size, properties_size = len(body), len(properties)
        if (
            queue is None
            or properties_size > PROPERTIES_BYTES_MAX
            or body_size > self._settings.max_message_size
            or self.refusal
            or self._dispatches
        ):
            refusal = self._refusal(message)
            if refusal is not None:
                return refusal
            if self._dispatches:
                return self._append_dispatched(message)
            if queue is None and self._dispatcher.has_batches(message.topic):
                return self._append_batched(message)
            queue = self._dispatcher.queue(message.topic, message.queue_id)
            shape = queue.shape
        born_host = message.born_host
        store_host = message.store_host or self._settings.store_host
        head = _HEAD_V4
        sys_flag = message.sys_flag
        size = shape.overhead + body_size + properties_size
        if len(born_host) + len(store_host) != 16 or sys_flag & _RARE_BITS:
            if sys_flag & SYS_INNER_BATCH:
                return _no_batch_queues(message.topic)
            head = _HEADS[len(born_host), len(store_host)]
            size += len(born_host) + len(store_host) - 16
            sys_flag = _with_address_bits(sys_flag, born_host, store_host)
        commit_log = self._log
        phy = commit_log.end
        if phy + size > commit_log.easy_until:
            try:
                phy = commit_log.position(size)
            except LogFull as error:
                return Put(PutStatus.SERVICE_NOT_AVAILABLE, str(error))
        now = self._now_ms()
        if now < self.last_timestamp:
            now = self.last_timestamp
        else:
            self.last_timestamp = now
        counted = not sys_flag & SYS_TRANSACTION_PREPARED  # neither prepared nor rollback
        offset = queue.next_offset if counted else 0
        packed = head.pack(
            size,
            shape.magic,
            crc32(body) & 0x7FFFFFFF,
            queue_id,
            message.flag,
            offset,
            phy,
            sys_flag,
            message.born_timestamp,
            born_host,
            now,
            store_host,
            message.reconsume_times,
            message.prepared_offset,
            body_size,
        )
        part = _PROPERTIES_SIZE.pack(properties_size)
        start = phy - commit_log.buffer_start
        commit_log.buffer[start : start + size] = b"".join(
            (packed, body, shape.part, part, properties)
        )
        commit_log.end = phy + size
        if counted:
            queue.next_offset = offset + 1
            tags_code = 0
            if shape.tags_rule is not None or b"TAGS\x01" in properties:
                tags_code = self._tags_code(shape, properties, now)
            if self._settings.flush_disk_type == "ASYNC_FLUSH" and not self._unflushed:
                self._add_entry(queue, phy, size, tags_code)
            else:
                self._dispatcher.dispatch(queue, phy, size, tags_code)
        if not self._flusher.scheduled:
            self._flusher.schedule()
        return Put(PutStatus.OK, "", phy, phy + size, offset, now)

    def _append_batched(self, message: Message) -> Put:
        """To a batch queue: one record, be it one message or an inner batch of many."""
        queue = self._dispatcher.batch_queue(message.topic, message.queue_id)
        assert queue is not None
        counted = not message.sys_flag & SYS_TRANSACTION_PREPARED
        base = queue.next_offset if counted else 0
        properties = message.properties
        if message.sys_flag & SYS_INNER_BATCH:
            properties = with_inner_number(properties, INNER_BASE, base)
            if len(properties) > PROPERTIES_BYTES_MAX:
                return _properties_too_large(len(properties))
        store_host = message.store_host or self._settings.store_host
        hosts = len(message.born_host) + len(store_host) - 16
        size = queue.shape.overhead + len(message.body) + len(properties) + hosts
        try:
            phy = self._log.position(size)
        except LogFull as error:
            return Put(PutStatus.SERVICE_NOT_AVAILABLE, str(error))
        now = self.last_timestamp = max(self._now_ms(), self.last_timestamp)
        record = Record(
            size=size,
            version=1,
            body_crc=body_crc(message.body),
            queue_id=message.queue_id,
            flag=message.flag,
            queue_offset=base,
            physical_offset=phy,
            sys_flag=message.sys_flag,
            born_timestamp=message.born_timestamp,
            born_host=message.born_host,
            store_timestamp=now,
            store_host=store_host,
            reconsume_times=message.reconsume_times,
            prepared_offset=message.prepared_offset,
            body=message.body,
            topic=message.topic,
            properties=properties,
        )
        self._log.write(encode_record(record))
        if counted:
            unit = unit_of(record, self._tags_code(queue.shape, properties, now))
            queue.next_offset = unit.end
            self._dispatcher.dispatch_unit(queue, unit)
        if not self._flusher.scheduled:
            self._flusher.schedule()
        return Put(PutStatus.OK, "", phy, phy + size, base, now)

    def _append_plain(self, message: Message) -> Put:
        """Into its own queue only."""
        if self.dispatches and lmq.OFFSETS_MARK in message.properties:
            properties = lmq.without_offsets(message.properties)
            message = msgspec.structs.replace(message, properties=properties)
        return self._append_own(message)

    def _append_own(self, message: Message) -> Put:
        dispatches, self._dispatches = self._dispatches, False
        try:
            return self.append(message)
        finally:
            self._dispatches = dispatches

    def _append_dispatched(self, message: Message) -> Put:
        """Into its own queue, and at the end of each LMQ that it names."""
        wanted = lmq.wanted(message)
        if not wanted:
            return self._append_plain(message)
        queues = {n: self._dispatcher.queue(n, lmq.QUEUE_ID) for n in wanted if lmq.is_queue(n)}
        offsets = ",".join(str(queues[n].next_offset) if n in queues else "" for n in wanted)
        properties = lmq.with_offsets(message.properties, offsets)
        put = self._append_own(msgspec.structs.replace(message, properties=properties))
        if put.physical_offset < 0:
            return put
        shape = self._dispatcher.shape(message.topic)
        tags_code = self._tags_code(shape, properties, put.store_timestamp)
        for queue in queues.values():
            queue.next_offset += 1
            self._dispatcher.dispatch(
                queue, put.physical_offset, put.end - put.physical_offset, tags_code
            )
        return put

    def _refusal(self, message: Message) -> Put | None:
        """Why the message cannot be stored, if so (storage.md 2.7)."""
        error = _topic_error(message.topic)
        if error:
            return _illegal(error)
        if self.refusal:
            return Put(PutStatus.SERVICE_NOT_AVAILABLE, self.refusal)
        size = len(message.properties)
        if size > PROPERTIES_BYTES_MAX:
            return _properties_too_large(size)
        if len(message.body) > self._settings.max_message_size:
            return self._too_large(len(message.body))
        if message.sys_flag & SYS_INNER_BATCH:
            if not self._dispatcher.has_batches(message.topic):
                return _no_batch_queues(message.topic)
            if not inner_count(message.properties):
                return _illegal(f"INNER_NUM is no number from 1 to {INNER_COUNT_MAX}")
        return None

    def refuse(self, cause: str, reason: str) -> None:
        """Refuse messages for ``reason`` until the same cause has none."""
        self._refusals.pop(cause, None)
        if reason:
            self._refusals[cause] = reason
        self.refusal = "; ".join(self._refusals.values())

    def append_batch(self, messages: list[Message]) -> Put:
        if not messages:
            return _illegal("the batch is empty")
        total = 0
        for message in messages:
            refusal = self._refusal(message)
            if refusal is not None:
                return refusal
            shape = self._dispatcher.shape(message.topic)
            total += shape.overhead + len(message.body) + len(message.properties)
            total += len(message.born_host) - 8 + len(self._settings.store_host) - 8
        try:
            self._log.position(total)  # all of it fits in this file, or the next one is opened
        except LogFull as full:
            return Put(PutStatus.SERVICE_NOT_AVAILABLE, str(full))
        puts = [self._append_plain(message) for message in messages]
        result = puts[0]
        assert puts[-1].physical_offset >= 0, "a batch that was checked is stored whole"
        result.end = puts[-1].end
        result.physical_offsets = tuple(put.physical_offset for put in puts)
        return result

    def _too_large(self, size: int) -> Put:
        return _illegal(
            f"the message has {size} bytes, maxMessageSize is {self._settings.max_message_size}"
        )


def _illegal(reason: str) -> Put:
    return Put(PutStatus.MESSAGE_ILLEGAL, reason)


def _no_batch_queues(topic: str) -> Put:
    return _illegal(f"an inner batch, but topic {topic} has not the attribute queue.type=BatchCQ")


def _properties_too_large(size: int) -> Put:
    return Put(
        PutStatus.PROPERTIES_SIZE_EXCEEDED,
        f"{size} bytes of properties; the limit is {PROPERTIES_BYTES_MAX}",
    )


def _with_address_bits(sys_flag: int, born_host: bytes, store_host: bytes) -> int:
    sys_flag &= ~_V6_BITS
    if len(born_host) == 20:
        sys_flag |= SYS_BORN_HOST_V6
    if len(store_host) == 20:
        sys_flag |= SYS_STORE_HOST_V6
    return sys_flag


def _topic_error(topic: str) -> str:
    size = len(topic.encode())
    if size > RETRY_TOPIC_BYTES_MAX or (size > 127 and not topic.startswith("%RETRY%")):
        return f"the topic has {size} bytes"
    return ""
