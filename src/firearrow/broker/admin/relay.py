"""Requests that a client answers, passed on over its own connection (remoting.md 3.8)."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec

from firearrow.broker.members import Client, Members
from firearrow.codec import lenient_json
from firearrow.codec.message_id import parse_offset_message_id
from firearrow.model import codes
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.requests import (
    CONSUME_MESSAGE_DIRECTLY,
    GET_CONSUMER_RUNNING_INFO,
    GET_CONSUMER_STATUS_FROM_CLIENT,
    ClientOfGroup,
    ConsumeMessageDirectly,
    ConsumerStatus,
)
from firearrow.protocol.remoting.session import answer
from firearrow.store.api import Store

CLIENT_TIMEOUT_S: Final = 10.0
STATUS_TIMEOUT_S: Final = 5.0
# The first versions that know these requests (remoting.md 1.6).
RELAY_SINCE: Final = 62  # V3_1_8_SNAPSHOT
STATUS_SINCE: Final = 28  # V3_0_7_SNAPSHOT
_encode = msgspec.json.Encoder().encode


class Relay:
    """Handlers. A client's answer goes back as it is: its body is nobody's business here."""

    def __init__(self, store: Store, members: Members, broker_name: str) -> None:
        self._store = store
        self._members = members
        self._broker_name = broker_name

    def running_info(self, request: Request[ClientOfGroup]) -> Answer:
        """GET_CONSUMER_RUNNING_INFO (307)."""
        fields = request.fields
        ext = {
            "consumerGroup": fields.consumer_group,
            "clientId": fields.client_id,
            "jstackEnable": "true" if fields.jstack_enable else "false",
        }
        return self._pass_on(request, GET_CONSUMER_RUNNING_INFO, fields.client_id, ext)

    def consume_directly(self, request: Request[ConsumeMessageDirectly]) -> Answer:
        """CONSUME_MESSAGE_DIRECTLY (309): the message goes along, whatever its consumer did."""
        fields = request.fields
        ext = {"consumerGroup": fields.consumer_group, "brokerName": self._broker_name}
        for key, value in (
            ("clientId", fields.client_id),
            ("msgId", fields.msg_id),
            ("topic", fields.topic),
            ("topicSysFlag", fields.topic_sys_flag),
            ("groupSysFlag", fields.group_sys_flag),
        ):
            if value is not None:
                ext[key] = str(value)
        body = b""
        if fields.msg_id:
            place = parse_offset_message_id(fields.msg_id)
            record = None if place is None else self._store.record(place[1])
            if record is None:
                return Reply(codes.SYSTEM_ERROR, f"no message with the id {fields.msg_id} here")
            body = record
        return self._pass_on(request, CONSUME_MESSAGE_DIRECTLY, fields.client_id or "", ext, body)

    def _pass_on(
        self,
        request: Request[Any],
        code: int,
        client_id: str,
        ext: dict[str, str],
        body: bytes = b"",
    ) -> Answer:
        name = ext["consumerGroup"]
        group = self._members.consumers.get(name)
        client = group.find_client(client_id) if group else None
        if client is None:
            return Reply(codes.SYSTEM_ERROR, f"The Consumer <{name}> <{client_id}> not online")
        if client.version < RELAY_SINCE:
            return Reply(
                codes.SYSTEM_ERROR,
                f"The Consumer <{client_id}> Version <{client.version}> too low to finish, "
                "please upgrade it to V3_1_8_SNAPSHOT",
            )
        timed_out = f"consumer <{name}> <{client_id}> did not answer within {CLIENT_TIMEOUT_S:g} s"
        client.caller.call(
            code, ext, body, CLIENT_TIMEOUT_S, partial(_relayed, request, timed_out)
        )
        return None

    def consumer_status(self, request: Request[ConsumerStatus]) -> Answer:
        """INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223): what each member says of its offsets."""
        fields = request.fields
        group = self._members.consumers.get(fields.group)
        members = list(group.clients.values()) if group else []
        if not members:
            return Reply(
                codes.SYSTEM_ERROR,
                f"No Any Consumer online in the consumer group: [{fields.group}]",
            )
        old = next((client for client in members if client.version < STATUS_SINCE), None)
        if old is not None:
            return Reply(
                codes.SYSTEM_ERROR,
                f"the client does not support this feature. version={old.version}",
            )
        asked = (fields.client_addr or "").strip()
        chosen = [client for client in members if not asked or client.client_id == asked]
        _StatusRound(request, chosen).start({"topic": fields.topic, "group": fields.group})
        return None


def _relayed(request: Request[Any], timed_out: str, header: Header | None, body: bytes) -> None:
    if header is None:
        answer(request, Reply(codes.CONSUME_MSG_TIMEOUT, timed_out))
        return
    ext = {key: str(value) for key, value in (header.ext or {}).items()}
    answer(request, Reply(header.code, header.remark, ext or None, body))


class _StatusRound:
    """One question to several members; answered when the last of them has, or gave up."""

    def __init__(self, request: Request[ConsumerStatus], clients: list[Client]) -> None:
        self._request = request
        self._clients = clients
        self._open = len(clients)
        self._found: dict[str, bytes] = {}

    def start(self, ext: dict[str, str]) -> None:
        if not self._clients:
            self._finish()
        for client in self._clients:
            done = partial(self._answered, client.client_id)
            client.caller.call(GET_CONSUMER_STATUS_FROM_CLIENT, ext, b"", STATUS_TIMEOUT_S, done)

    def _answered(self, client_id: str, header: Header | None, body: bytes) -> None:
        if header is not None and header.code == codes.SUCCESS:
            self._found[client_id] = _queue_table(body)
        self._open -= 1
        if not self._open:
            self._finish()

    def _finish(self) -> None:
        rows = b",".join(_encode(name) + b":" + table for name, table in self._found.items())
        answer(self._request, Reply(body=b'{"consumerTable":{' + rows + b"}}"))


def _queue_table(body: bytes) -> bytes:
    """The map of queues in a client's answer, in the object-key form; empty when unreadable."""
    try:
        table = lenient_json.loads(body)["messageQueueTable"]
        rows = [key.encode() + b":%d" % offset for key, offset in table.items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return b"{}"
    return b"{" + b",".join(rows) + b"}"
