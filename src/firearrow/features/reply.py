"""Request and reply: a consumer's answer goes straight to the client that asked.

The request is an ordinary message whose properties name the client that waits. Its consumer sends
SEND_REPLY_MESSAGE to any broker that the requester has a producer's connection to; that broker
pushes the reply over it (``ReplyMessageProcessor``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol

from firearrow.broker.members import Members
from firearrow.broker.rooms import BaseRoom
from firearrow.broker.send_checks import SendChecks, SendCheckSettings, SendFields
from firearrow.broker.stats import BrokerStats
from firearrow.broker.topics import Topics
from firearrow.broker.writer import Writer
from firearrow.codec.addresses import unpack_address
from firearrow.codec.message_id import offset_message_id
from firearrow.codec.properties import format_properties, parse_properties
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.message import Message
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import PUSH_REPLY_MESSAGE_TO_CLIENT, REQUESTS
from firearrow.protocol.remoting.session import Route, answer
from firearrow.store.api import PutStatus

log = logging.getLogger(__name__)

PUSH_TIMEOUT_S: Final = 10.0  # ``Broker2Client.callClient``
REPLY_TO: Final = "REPLY_TO_CLIENT"
# Java's id of a reply that was delivered and not stored; clients want to decode something.
NOT_STORED: Final = {"msgId": "0", "queueOffset": "0"}


class ReplySettings(SendCheckSettings, Protocol):
    store_reply_message_enable: bool


class ReplyRoom(BaseRoom):
    """Answers SEND_REPLY_MESSAGE and SEND_REPLY_MESSAGE_V2."""

    def __init__(
        self,
        settings: ReplySettings,
        writer: Writer,
        topics: Topics,
        members: Members,
        clock: Clock,
        stats: BrokerStats,
        store_host: bytes,
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._members = members
        self._clock = clock
        self._stats = stats
        self._store_host = store_host
        self._checks = SendChecks(settings, topics, clock)

    def routes(self) -> Mapping[int, Route]:
        return {code: Route(*REQUESTS[code], self.reply) for code in (324, 325)}

    def reply(self, request: Request[SendFields]) -> Answer:
        """Store the reply, push it, and answer as the push went."""
        fields = request.fields
        checked = self._checks.check(fields)
        if isinstance(checked, Reply):
            return checked
        _, queue_id = checked
        properties = parse_properties((fields.properties or "").encode())
        stored = self._store(request, queue_id)
        client_id = properties.get(REPLY_TO)
        if client_id is None:
            return self._failed(stored, f"reply message properties[{REPLY_TO}] is null")
        requester = self._members.find_producer(client_id)
        if requester is None or requester.closed:
            return self._failed(
                stored, f"push reply message fail, channel of <{client_id}> not found."
            )
        properties["PUSH_REPLY_TIME"] = str(self._clock.now_ms())
        requester.call(
            PUSH_REPLY_MESSAGE_TO_CLIENT,
            self._push_fields(request, format_properties(properties).decode()),
            request.body,
            PUSH_TIMEOUT_S,
            partial(self._pushed, request, client_id, stored),
        )
        return None

    def _store(self, request: Request[SendFields], queue_id: int) -> dict[str, str]:
        """Keep a copy for operators, if wanted; what the answer says of it."""
        ext = {**self._checks.ext, "queueId": str(queue_id), **NOT_STORED}
        if not self._settings.store_reply_message_enable:
            return ext
        fields = request.fields
        put = self._writer.put(
            Message(
                fields.topic,
                queue_id,
                request.body,
                (fields.properties or "").encode(),
                fields.born_timestamp,
                request.peer.remote_packed,
                fields.flag,
                fields.sys_flag,
                fields.reconsume_times or 0,
            )
        )
        if put.status is not PutStatus.OK:
            log.warning(
                "a reply of topic %s is delivered, but not stored: %s %s. Set "
                "storeReplyMessageEnable=false if replies need not be kept, or check the disk",
                fields.topic,
                put.status.value,
                put.reason,
            )
            return ext
        self._stats.stored(fields.topic, 1, put.end - put.physical_offset)
        ext["msgId"] = offset_message_id(self._store_host, put.physical_offset)
        ext["queueOffset"] = str(put.queue_offset)
        return ext

    def _push_fields(self, request: Request[SendFields], properties: str) -> dict[str, str]:
        fields = request.fields
        return {
            "producerGroup": fields.producer_group,
            "topic": fields.topic,
            "defaultTopic": fields.default_topic,
            "defaultTopicQueueNums": str(fields.default_topic_queues),
            "queueId": str(fields.queue_id),
            "sysFlag": str(fields.sys_flag),
            "bornTimestamp": str(fields.born_timestamp),
            "flag": str(fields.flag),
            "properties": properties,
            "reconsumeTimes": str(fields.reconsume_times or 0),
            "unitMode": "true" if fields.unit_mode else "false",
            "bornHost": _text(request.peer.remote_packed),
            "storeHost": _text(self._store_host),
            "storeTimestamp": str(self._clock.now_ms()),
        }

    def _pushed(
        self,
        request: Request[SendFields],
        client_id: str,
        stored: dict[str, str],
        header: Any,
        _body: bytes,
    ) -> None:
        if header is not None and header.code == codes.SUCCESS:
            answer(request, Reply(ext=stored))
            return
        why = "it did not answer" if header is None else f"it answered {header.code}"
        log.warning(
            "a reply for client %s was not taken: %s. Who sent it is told; the client may have "
            "waited too short, raise the timeout of its requests",
            client_id,
            why,
        )
        answer(request, self._failed(stored, f"push reply message to {client_id} fail: {why}"))

    def _failed(self, stored: dict[str, str], remark: str) -> Reply:
        return Reply(codes.SYSTEM_ERROR, remark, stored)


def _text(address: bytes) -> str:
    host, port = unpack_address(address)
    return f"{host}:{port}"
