"""The timer room: takes timed messages aside, answers RECALL_MESSAGE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from firearrow.broker.rooms import BaseRoom
from firearrow.broker.stats import BrokerStats
from firearrow.broker.topics import Topics
from firearrow.broker.writer import Writer
from firearrow.codec.numbers import whole_number
from firearrow.codec.properties import find_property, format_properties, parse_properties
from firearrow.codec.sysflags import SYS_TRANSACTION_MASK
from firearrow.features.timer.due import (
    MARKS,
    TIMER_PROPERTIES,
    Due,
    due,
    due_at,
    has_delay_level,
)
from firearrow.features.timer.recall import (
    DELETE_KEY,
    TOMBSTONE_TAG,
    Handle,
    HandleError,
    decode_handle,
    delete_key,
    encode_handle,
)
from firearrow.features.timer.wheel import Clockwork, WheelSettings
from firearrow.model import codes, names
from firearrow.model.clock import Clock
from firearrow.model.message import Message
from firearrow.model.topic import PERM_WRITE
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import RecallMessage
from firearrow.protocol.remoting.session import Route
from firearrow.store.api import Put, PutStatus, Store
from firearrow.store.timerapi import PendingTimers

# Redeliveries, and the many acknowledgements of popped messages: nobody sent them.
_NEVER_RECALLED: Final = (names.RETRY_PREFIX, names.REVIVE_TOPIC_PREFIX)
_COMMIT: Final = 8  # transaction bits of a committed message
# As after a send: the tombstone is stored, whatever else was not confirmed in time.
_STORED: Final = frozenset({PutStatus.OK, PutStatus.FLUSH_DISK_TIMEOUT})


class TimerRoomSettings(WheelSettings, Protocol):
    allow_recall_when_broker_not_writeable: bool
    broker_name: str
    broker_permission: int
    recall_message_enable: bool
    region_id: str
    start_accept_send_request_time_stamp: int


class TimerRoom(BaseRoom):
    """Messages with TIMER_DELAY_SEC, TIMER_DELAY_MS or TIMER_DELIVER_MS."""

    marks = MARKS

    def __init__(
        self,
        settings: TimerRoomSettings,
        store: Store,
        files: PendingTimers,
        writer: Writer,
        topics: Topics,
        clock: Clock,
        stats: BrokerStats,
    ) -> None:
        self._settings = settings
        self._store = store
        self._files = files
        self._writer = writer
        self._topics = topics
        self._clock = clock
        self._stats = stats
        self.clockwork = Clockwork(settings, store, files, clock)

    def routes(self) -> Mapping[int, Route]:
        return {370: Route("RECALL_MESSAGE", RecallMessage, self.recall)}

    def start(self) -> None:
        if self._settings.timer_wheel_enable:
            self.clockwork.start()

    def stop(self) -> None:
        if self._settings.timer_wheel_enable:
            self.clockwork.stop()

    # -- taking aside

    def before_store(self, message: Message) -> Message | Put:
        properties = message.properties
        if message.topic == names.TIMER_TOPIC or b"TIMER_OUT_MS\x01" in properties:
            return message
        if message.sys_flag & SYS_TRANSACTION_MASK not in (0, _COMMIT):
            return message
        if has_delay_level(properties):
            return _without_timer(message)
        when = due(properties, self._clock.now_ms(), self._settings)
        if when is None:
            return message
        refusal = self._refused(when)
        if refusal is not None:
            return refusal
        if when.slot_ms:
            return self._set_aside(message, when.slot_ms)
        if find_property(properties, DELETE_KEY.encode()) is not None:
            return Put(PutStatus.WHEEL_TIMER_MSG_ILLEGAL, "the message was delivered already")
        return message

    def _refused(self, when: Due) -> Put | None:
        if not self._settings.timer_wheel_enable:
            return Put(PutStatus.WHEEL_TIMER_NOT_ENABLE, "timerWheelEnable is false")
        if when.refusal:
            return Put(PutStatus.WHEEL_TIMER_MSG_ILLEGAL, when.refusal)
        return None

    def put_at(self, message: Message, deliver_ms: int) -> Put:
        """Store another room's message, which comes at ``deliver_ms``: its TIMER_DELIVER_MS. What
        ``Writer.put`` does, for one whose properties are known: it has no others that a room looks
        at, none of ``_set_aside``, and ends as properties do."""
        when = due_at(deliver_ms, self._clock.now_ms(), self._settings)
        refusal = self._refused(when)
        if refusal is not None:
            return refusal
        if when.slot_ms:
            message.properties += (
                f"TIMER_OUT_MS\x01{when.slot_ms}\x02REAL_TOPIC\x01{message.topic}\x02"
                f"REAL_QID\x01{message.queue_id}\x02"
            ).encode()
            message.topic = names.TIMER_TOPIC
            message.queue_id = 0
        return self._store.append(message)

    def delivered_until(self) -> int:
        """Every message that was timed for this (ms) or earlier is in its queue."""
        return self.clockwork.delivered_until()

    def _set_aside(self, message: Message, slot_ms: int) -> Put:
        properties = parse_properties(message.properties)
        properties["TIMER_OUT_MS"] = str(slot_ms)
        properties["REAL_TOPIC"] = message.topic
        properties["REAL_QID"] = str(message.queue_id)
        put = self._store.append(
            msgspec.structs.replace(
                message,
                topic=names.TIMER_TOPIC,
                queue_id=0,
                properties=format_properties(properties),
            )
        )
        if not message.topic.startswith(_NEVER_RECALLED):
            unique_key = properties.get("UNIQ_KEY", "")
            put.recall_handle = encode_handle(
                Handle(message.topic, self._settings.broker_name, str(slot_ms + 1), unique_key)
            )
        return put

    # -- taking back

    def recall(self, request: Request[RecallMessage]) -> Answer:
        """RECALL_MESSAGE (370): a tombstone in the message's own tick."""
        fields = request.fields
        refusal = self._refusal(fields)
        if refusal is not None:
            return Reply(*refusal, {"MSG_REGION": self._settings.region_id})
        handle = decode_handle(fields.recall_handle)
        now = self._clock.now_ms()
        properties = {
            "TAGS": TOMBSTONE_TAG,
            DELETE_KEY: delete_key(handle.topic, handle.unique_key),
            "UNIQ_KEY": handle.unique_key,
            "TIMER_DELIVER_MS": handle.deliver_ms,
            "BORN_TIMESTAMP": str(now),
            "PGROUP": fields.producer_group or "",
        }
        put = self._writer.put(
            Message(
                topic=handle.topic,
                queue_id=0,
                body=b"0",
                properties=format_properties(properties),
                born_timestamp=now,
                born_host=request.peer.remote_packed,
            )
        )
        region = {"MSG_REGION": self._settings.region_id}
        if put.status not in _STORED:
            return Reply(codes.SYSTEM_ERROR, "recall failed, execute error", region)
        self._stats.stored(handle.topic, 1, put.end - put.physical_offset)
        return Reply(ext={**region, "msgId": handle.unique_key})

    def _refusal(self, fields: RecallMessage) -> tuple[int, str] | None:
        """(code, remark) of what speaks against it, in RocketMQ's order and words."""
        settings = self._settings
        now = self._clock.now_ms()
        if not settings.recall_message_enable:
            return codes.NO_PERMISSION, "recall failed, operation is forbidden"
        writable = settings.broker_permission & PERM_WRITE
        if now < settings.start_accept_send_request_time_stamp or not (
            writable or settings.allow_recall_when_broker_not_writeable
        ):
            return codes.SERVICE_NOT_AVAILABLE, "recall failed, broker service not available"
        if fields.topic not in self._topics.table:
            remark = f"recall failed, the topic[{fields.topic}] not exist"
            return codes.TOPIC_NOT_EXIST, remark
        try:
            handle = decode_handle(fields.recall_handle)
        except HandleError as error:
            return codes.ILLEGAL_OPERATION, str(error)
        if handle.topic != fields.topic:
            return codes.ILLEGAL_OPERATION, "recall failed, topic not match"
        if handle.broker_name != settings.broker_name:
            return codes.ILLEGAL_OPERATION, "recall failed, broker service not available"
        left_ms = (whole_number(handle.deliver_ms) or 0) - now
        if not 0 < left_ms < settings.timer_max_delay_sec * 1000:
            return codes.ILLEGAL_OPERATION, "recall failed, timestamp invalid"
        return None

    def state(self) -> dict[str, str]:
        """The timer's share of GET_BROKER_RUNTIME_INFO."""
        files = self._files
        behind = self._store.max_offset(names.TIMER_TOPIC, 0) - files.queue_offset
        late_s = max(0, self._clock.now_ms() - files.read_ms) // 1000 if files.used else 0
        return {
            "timerCongestNum": str(self.clockwork.pending.total),
            "timerOffsetBehind": str(max(0, behind)),
            "timerReadBehind": str(late_s),
        }


def _without_timer(message: Message) -> Message:
    """A delay level goes before every timer property."""
    properties = parse_properties(message.properties)
    for name in TIMER_PROPERTIES:
        properties.pop(name, None)
    return msgspec.structs.replace(message, properties=format_properties(properties))
