"""Transactions: messages that become visible when their producer says so, or never.

A half message waits in a topic of the broker's own. END_TRANSACTION turns it into the final message
or only marks it as finished; producers that say nothing are asked (behaviour of RocketMQ's
``EndTransactionProcessor`` and ``TransactionalMessageServiceImpl``, and their files).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from firearrow.broker.members import Members
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.rooms import BaseRoom
from firearrow.broker.send import PUT_CODES
from firearrow.broker.topics import Topics
from firearrow.broker.writer import Writer
from firearrow.codec.message_id import parse_offset_message_id
from firearrow.codec.properties import parse_properties
from firearrow.codec.record import RecordError, decode_record
from firearrow.codec.sysflags import SYS_TRANSACTION_COMMIT, SYS_TRANSACTION_ROLLBACK
from firearrow.features.transaction import half as forms
from firearrow.features.transaction.check import Checker, CheckSettings
from firearrow.features.transaction.counts import CountSettings, HalfCounts
from firearrow.features.transaction.half import Half
from firearrow.features.transaction.marks import Marks, MarkSettings
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.message import Message
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import (
    REQUESTS,
    EndTransaction,
    ResumeCheckHalfMessage,
)
from firearrow.protocol.remoting.session import Route
from firearrow.store.api import Put, PutStatus, Store

log = logging.getLogger(__name__)

NOT_FOUND: Final = "Find prepared transaction message failed"


class TransactionSettings(CheckSettings, CountSettings, MarkSettings, Protocol):
    reject_transaction_message: bool


class TransactionRoom(BaseRoom):
    """Takes half messages aside, ends transactions, asks about those that nobody ends."""

    marks = (b"TRAN_MSG\x01",)

    def __init__(
        self,
        settings: TransactionSettings,
        store: Store,
        writer: Writer,
        topics: Topics,
        offsets: ConsumerOffsets,
        members: Members,
        clock: Clock,
        store_host: bytes,
    ) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._clock = clock
        self._finished = Marks(settings, store, clock, store_host)
        self._counts = HalfCounts(settings, store, clock)
        self._checker = Checker(
            settings,
            store,
            topics,
            offsets,
            members,
            clock,
            self._finished,
            store_host,
            lambda topic: self._counts.add(topic, -1),
        )

    def routes(self) -> Mapping[int, Route]:
        return {
            37: Route(*REQUESTS[37], self.end),
            323: Route(*REQUESTS[323], self.resume),
        }

    def start(self) -> None:
        self._counts.load()
        self._checker.start()

    def stop(self) -> None:
        self._checker.stop()
        self._finished.flush()
        self._counts.save()

    # -- the half message

    def before_store(self, message: Message) -> Message | Put:
        properties = parse_properties(message.properties)
        if not forms.is_half(message, properties):
            return message
        if self._settings.reject_transaction_message:
            return Put(PutStatus.NO_PERMISSION, "sending transaction message is forbidden")
        # Past the rooms behind this one: a delay counts from the commit.
        put = self._store.append(forms.half_of(message, properties))
        if put.status is PutStatus.OK:
            self._counts.add(message.topic, 1)
        return put

    # -- its end

    def end(self, request: Request[EndTransaction]) -> Answer:
        """END_TRANSACTION (37). A producer that does not know is not answered."""
        fields = request.fields
        if fields.commit_or_rollback not in (SYS_TRANSACTION_COMMIT, SYS_TRANSACTION_ROLLBACK):
            return None
        half = self._half_at(fields.commit_log_offset)
        if half is None:
            return Reply(codes.SYSTEM_ERROR, NOT_FOUND)
        refusal = self._refusal(half, fields)
        if refusal is not None:
            log.warning(
                "transaction %s of %s is not ended: %s",
                half.properties.get(forms.UNIQUE_KEY),
                fields.producer_group,
                refusal.remark,
            )
            return refusal
        if fields.commit_or_rollback == SYS_TRANSACTION_COMMIT:
            put = self._writer.put(forms.final_of(half))
            if put.status is not PutStatus.OK:
                return Reply(PUT_CODES[put.status], f"{put.status.value}: {put.reason}")
        if not self._finished.knows(half.offset):  # said once more
            self._counts.add(half.topic, -1)
        for offset in self._checker.copies.ended(half.offset):
            self._finished.add(offset)
        if not request.one_way:
            self._finished.flush()  # who waits for the answer finds it true after a kill
        return Reply()

    def _half_at(self, physical_offset: int) -> Half | None:
        data = self._store.record(physical_offset)
        if data is None:
            return None
        try:
            return forms.read_half(decode_record(data))
        except RecordError:
            return None

    def _refusal(self, half: Half, fields: EndTransaction) -> Reply | None:
        if not fields.from_transaction_check and forms.ended_too_late(
            half, self._clock.now_ms(), self._settings.transaction_time_out
        ):
            return Reply(
                codes.ILLEGAL_OPERATION,
                f"later than its {forms.IMMUNITY}; the answer to a check decides",
            )
        if half.group != fields.producer_group:
            return Reply(codes.SYSTEM_ERROR, "The producer group wrong")
        if half.offset != fields.tran_state_table_offset:
            return Reply(codes.SYSTEM_ERROR, "The transaction state table offset wrong")
        return None

    def resume(self, request: Request[ResumeCheckHalfMessage]) -> Answer:
        """RESUME_CHECK_HALF_MESSAGE (323): ask again about a message that was given up."""
        place = parse_offset_message_id(request.fields.msg_id)
        data = self._store.record(place[1]) if place is not None else None
        half = forms.read_any(decode_record(data)) if data is not None else None
        if half is None:
            return Reply(codes.SYSTEM_ERROR, f"{request.fields.msg_id} is no half message")
        put = self._store.append(forms.resumed_copy(half))
        if put.status is not PutStatus.OK:
            return Reply(codes.SYSTEM_ERROR, f"{put.status.value}: {put.reason}")
        return Reply()
