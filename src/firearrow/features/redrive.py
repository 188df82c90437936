"""Redrive: dead letters go back to where they can be consumed again.

Dead letters stay where they are until retention; how far a group's were sent back is kept as a
consumer offset. It is a request of Firearrow's own, sent by ``firearrow redrive``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.rooms import BaseRoom
from firearrow.broker.topics import Topics
from firearrow.codec.properties import format_properties, parse_properties
from firearrow.codec.record import Record, RecordError, decode_record
from firearrow.codec.sysflags import SYS_TRANSACTION_MASK
from firearrow.model import codes, names
from firearrow.model.message import Message
from firearrow.model.topic import Topic
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import REQUESTS, RedriveDeadLetters
from firearrow.protocol.remoting.session import Route
from firearrow.store.api import Entry, Put, PutStatus, Store

log = logging.getLogger(__name__)

GROUP: Final = "CID_RMQ_SYS_REDRIVE"  # whose offsets say what was sent back
DEAD_LETTER_QUEUE: Final = 0
MESSAGES_MAX: Final = 256  # of one request: the loop is busy for some milliseconds
TO_TOPIC: Final = "topic"
TO_GROUP: Final = "group"
# What the first life of a message left on it.
LEFT_OUT: Final = (
    "RETRY_TOPIC",
    "REAL_TOPIC",
    "REAL_QID",
    "DELAY",
    "TRAN_MSG",
    "PGROUP",
    "WAIT",
    "CONSUME_START_TIME",
    "TIMER_OUT_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELAY_MS",
    "TIMER_DELIVER_MS",
)


class RedriveRoom(BaseRoom):
    """Answers REDRIVE_DEAD_LETTERS."""

    def __init__(self, store: Store, topics: Topics, offsets: ConsumerOffsets) -> None:
        self._store = store
        self._topics = topics
        self._offsets = offsets

    def routes(self) -> Mapping[int, Route]:
        code = 7100
        return {code: Route(*REQUESTS[code], self.redrive)}

    def redrive(self, request: Request[RedriveDeadLetters]) -> Answer:
        """REDRIVE_DEAD_LETTERS (7100): the next messages; ``moved``, ``skipped``, ``remaining``."""
        fields = request.fields
        dead_letters = names.dead_letter_topic(fields.group)
        if dead_letters not in self._topics.table:
            return Reply(codes.TOPIC_NOT_EXIST, f"group {fields.group} has no dead letters here")
        if fields.to not in (TO_TOPIC, TO_GROUP):
            return Reply(codes.INVALID_PARAMETER, f"to={fields.to}: must be topic or group")
        start = offset = self._position(dead_letters)
        count = max(0, min(fields.max_messages, MESSAGES_MAX))
        moved = skipped = 0
        refusal = ""
        for entry in self._entries(dead_letters, offset, count):
            put = self._send_back(entry, fields)
            if put is None:
                skipped += 1
            elif put.status is PutStatus.OK:
                moved += 1
            else:
                refusal = f"{put.status.value}: {put.reason}"
                break
            offset = entry.offset + 1
        if offset != start:
            self._offsets.commit(dead_letters, GROUP, DEAD_LETTER_QUEUE, offset)
            self._offsets.save()  # what was sent back is not sent again after a kill
        high = self._store.max_offset(dead_letters, DEAD_LETTER_QUEUE)
        ext = {"moved": str(moved), "skipped": str(skipped), "remaining": str(high - offset)}
        return Reply(codes.SYSTEM_ERROR if refusal else codes.SUCCESS, refusal or None, ext)

    def _position(self, topic: str) -> int:
        low = self._store.min_offset(topic, DEAD_LETTER_QUEUE)
        high = self._store.max_offset(topic, DEAD_LETTER_QUEUE)
        saved = self._offsets.find(topic, GROUP, DEAD_LETTER_QUEUE)
        return low if saved is None else min(max(saved, low), high)

    def _entries(self, topic: str, offset: int, count: int) -> list[Entry]:
        return self._store.entries(topic, DEAD_LETTER_QUEUE, offset, count) if count else []

    def _send_back(self, entry: Entry, fields: RedriveDeadLetters) -> Put | None:
        """``None`` when the message does not say where it came from, or that topic is gone."""
        data = self._store.record(entry.physical_offset)
        try:
            record = decode_record(data) if data is not None else None
        except RecordError:
            record = None
        if record is None:
            return None
        properties = parse_properties(record.properties)
        origin = properties.get("RETRY_TOPIC")
        topic = self._target(origin, fields)
        if origin is None or topic is None or not topic.write_queues:
            log.warning(
                "dead letter %d of group %s cannot go back: its topic is %s",
                entry.offset,
                fields.group,
                origin or "not known",
            )
            return None
        for name in LEFT_OUT:
            properties.pop(name, None)
        if fields.to == TO_GROUP:
            properties["RETRY_TOPIC"] = origin
        queue_id = entry.offset % topic.write_queues
        # Past the rooms: one that stores a message once within a time would leave it out.
        return self._store.append(_message(record, topic.name, queue_id, properties))

    def _target(self, origin: str | None, fields: RedriveDeadLetters) -> Topic | None:
        if fields.to == TO_GROUP:
            return self._topics.table.get(names.retry_topic(fields.group))
        return self._topics.table.get(origin) if origin else None


def _message(record: Record, topic: str, queue_id: int, properties: dict[str, str]) -> Message:
    """As if it were sent for the first time: no reconsume times."""
    return Message(
        topic=topic,
        queue_id=queue_id,
        body=record.body,
        properties=format_properties(properties),
        born_timestamp=record.born_timestamp,
        born_host=record.born_host,
        flag=record.flag,
        sys_flag=record.sys_flag & ~SYS_TRANSACTION_MASK,
    )
