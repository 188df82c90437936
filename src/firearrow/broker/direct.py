"""Sends of callers in this process, with neither a request nor an answer to be taken apart."""

from __future__ import annotations

from typing import Final

from firearrow.broker.send import Sender, SendSettings
from firearrow.broker.stats import BrokerStats
from firearrow.broker.tails import UNIQUE_KEY
from firearrow.broker.topics import Lane, Topics
from firearrow.broker.writer import Writer
from firearrow.codec.addresses import unpack_address
from firearrow.model.message import Message
from firearrow.protocol.remoting.command import Reply
from firearrow.protocol.remoting.session import failed
from firearrow.store.api import Store

SEND_MESSAGE_V2: Final = 310
# What makes the broker look through all of a message's properties.
_OF_BROKERS: Final = ("TRACE_ON\x01", "POP_CK\x01")


class DirectSends:
    """Takes what ``Sender.handle`` would take in its common case."""

    def __init__(
        self,
        settings: SendSettings,
        store: Store,
        writer: Writer,
        topics: Topics,
        stats: BrokerStats,
        sender: Sender,
    ) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        # As long as a topic is the same it has the same one; none when sends need a further look.
        self.lane = topics.plain.get
        self._stats = stats
        self._count = stats.stored_in
        self._sender = sender

    def completed(self, head: str, rest: str) -> tuple[bytes, bytes] | None:
        """What is stored of properties behind a unique key, in two parts around a number; ``None``
        when a message that has them is not ordinary."""
        text = f"{UNIQUE_KEY}{head}{rest}"
        if any(mark in text for mark in _OF_BROKERS):
            return None
        added = self._sender.added
        if self._writer.marked((text + added).encode()):
            return None
        return head.encode(), (rest + added).encode()

    def store(
        self,
        lane: Lane,
        queue_id: int,
        body: bytes,
        properties: bytes,
        born_ms: int,
        born_host: bytes,
        sys_flag: int,
    ) -> int | Reply | None:
        """Store a message with complete properties: its queue offset, or the refusal. ``None``:
        nothing is done, and ``Sender.handle`` must be asked."""
        settings = self._settings
        if (
            settings.flush_disk_type == "SYNC_FLUSH"
            or settings.start_accept_send_request_time_stamp
        ):
            return None
        place = lane.place
        if place is None:
            place = lane.place = self._store.place(lane.name)
            lane.counters = self._stats.of_topic(lane.name)
        message = Message(lane.name, queue_id, body, properties, born_ms, born_host, 0, sys_flag)
        try:
            put = self._store.append_at(place, message)
        except Exception as error:  # as of a request's handler
            return failed(SEND_MESSAGE_V2, unpack_address(born_host), error)
        if put.physical_offset < 0:
            return self._sender.refused(put)
        self._count(lane.counters, 1, put.end - put.physical_offset)
        return put.queue_offset
