"""Who is connected, and questions that only a client can answer (behaviour.md 21.4)."""

from __future__ import annotations

from typing import Any, Final, Protocol

from firearrow.broker.groups import Groups
from firearrow.broker.members import Client, Members
from firearrow.codec.message_id import parse_offset_message_id
from firearrow.model import codes
from firearrow.protocol.remoting import bodies, requests
from firearrow.protocol.remoting.command import Answer, NoFields, Reply, Request
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.requests import (
    ClientOfGroup,
    ConsumeMessageDirectly,
    ConsumerGroup,
    ConsumerStatus,
    ProducerGroup,
)
from firearrow.protocol.remoting.session import answer
from firearrow.store.api import Store

RELAY_S: Final = 10.0
STATUS_S: Final = 5.0
RELAY_SINCE_VERSION: Final = 62  # 3.1.8


class ClientAdminSettings(Protocol):
    broker_name: str


class ClientAdmin:
    """Handlers."""

    def __init__(
        self, settings: ClientAdminSettings, store: Store, groups: Groups, members: Members
    ) -> None:
        self._settings = settings
        self._store = store
        self._groups = groups
        self._members = members

    # -- connections

    def consumers(self, request: Request[ConsumerGroup]) -> Answer:
        """GET_CONSUMER_CONNECTION_LIST (203)."""
        name = request.fields.consumer_group
        group = self._members.consumers.get(name)
        if group is None:
            return Reply(codes.CONSUMER_NOT_ONLINE, f"the consumer group[{name}] not online")
        body = {
            "connectionSet": [_connection(client) for client in group.clients.values()],
            "consumeFromWhere": group.consume_from,
            "consumeType": group.consume_type,
            "messageModel": group.message_model,
            "subscriptionTable": {
                topic: subscription.to_json() for topic, subscription in group.subscriptions.items()
            },
        }
        return Reply(body=bodies.encode(body))

    def producers(self, request: Request[ProducerGroup]) -> Answer:
        """GET_PRODUCER_CONNECTION_LIST (204)."""
        name = request.fields.producer_group
        clients = self._members.producers.get(name)
        if not clients:
            return Reply(codes.SYSTEM_ERROR, f"the producer group[{name}] not exist")
        connections = [_connection(client) for client in clients.values()]
        return Reply(body=bodies.encode({"connectionSet": connections}))

    def all_producers(self, request: Request[NoFields]) -> Answer:
        """GET_ALL_PRODUCER_INFO (328)."""
        table = {
            group: [
                {
                    "clientId": client.client_id,
                    "language": client.language,
                    "lastUpdateTimestamp": client.seen_ms,
                    "remoteIP": "/{}:{}".format(*client.caller.remote),
                    "version": client.version,
                }
                for client in clients.values()
            ]
            for group, clients in self._members.producers.items()
        }
        return Reply(body=bodies.encode({"data": table}))

    # -- relays

    def running_info(self, request: Request[ClientOfGroup]) -> Answer:
        """GET_CONSUMER_RUNNING_INFO (307)."""
        fields = request.fields
        ext = {
            "clientId": fields.client_id,
            "consumerGroup": fields.consumer_group,
            "jstackEnable": str(fields.jstack_enable).lower(),
        }
        return self._relay(request, fields.consumer_group, fields.client_id, ext, b"")

    def consume_directly(self, request: Request[ConsumeMessageDirectly]) -> Answer:
        """CONSUME_MESSAGE_DIRECTLY (309): the broker adds the message."""
        fields = request.fields
        body = b""
        if fields.msg_id:
            place = parse_offset_message_id(fields.msg_id)
            record = self._store.record(place[1]) if place else None
            if record is None:
                return Reply(codes.SYSTEM_ERROR, f"no message with the id {fields.msg_id} is here")
            body = record
        ext = {
            "brokerName": self._settings.broker_name,
            "consumerGroup": fields.consumer_group,
        }
        for name, value in (
            ("clientId", fields.client_id),
            ("msgId", fields.msg_id),
            ("topic", fields.topic),
        ):
            if value is not None:
                ext[name] = value
        return self._relay(request, fields.consumer_group, fields.client_id or "", ext, body)

    def _relay(
        self, request: Request[Any], group: str, client_id: str, ext: dict[str, str], body: bytes
    ) -> Answer:
        members = self._members.consumers.get(group)
        client = members.find_client(client_id) if members else None
        if client is None:
            return Reply(codes.SYSTEM_ERROR, f"The Consumer <{group}> <{client_id}> not online")
        if client.version < RELAY_SINCE_VERSION:
            return Reply(
                codes.SYSTEM_ERROR,
                f"The Consumer <{client_id}> Version <{client.version}> too low to finish, "
                "please upgrade it to V3_1_8_SNAPSHOT",
            )

        def done(header: Header | None, result: bytes) -> None:
            if header is None:
                reply = Reply(
                    codes.CONSUME_MSG_TIMEOUT,
                    f"consumer <{group}> <{client_id}> does not answer",
                )
            else:
                answer_ext = {k: str(v) for k, v in (header.ext or {}).items()}
                reply = Reply(header.code, header.remark, answer_ext or None, result)
            answer(request, reply)

        client.caller.call(request.code, ext, body, RELAY_S, done)
        return None

    def status(self, request: Request[ConsumerStatus]) -> Answer:
        """INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223): asks every member, or one."""
        fields = request.fields
        group = self._members.consumers.get(fields.group)
        clients = list(group.clients.values()) if group else []
        if fields.client_addr:
            clients = [c for c in clients if c.client_id == fields.client_addr]
        if not clients:
            return Reply(
                codes.SYSTEM_ERROR, f"No Any Consumer online in the group [{fields.group}]"
            )
        table: dict[str, bytes] = {}
        remaining = len(clients)

        def one(client: Client, header: Header | None, body: bytes) -> None:
            nonlocal remaining
            remaining -= 1
            start = body.find(b":") + 1
            if header is not None and header.code == 0 and body[:1] == b"{" and start:
                # Passed through unread: its keys are objects.
                table[client.client_id] = body[start:-1]
            if not remaining:
                rows = b",".join(bodies.encode(k) + b":" + v for k, v in table.items())
                answer(request, Reply(body=b'{"consumerTable":{' + rows + b"}}"))

        ext = {"group": fields.group, "topic": fields.topic}
        for client in clients:
            client.caller.call(
                requests.GET_CONSUMER_STATUS_FROM_CLIENT,
                ext,
                b"",
                STATUS_S,
                lambda header, body, client=client: one(client, header, body),  # type: ignore[misc]
            )
        return None


def _connection(client: Client) -> dict[str, Any]:
    host, port = client.caller.remote
    return {
        "clientAddr": f"{host}:{port}",
        "clientId": client.client_id,
        "language": client.language,
        "version": client.version,
    }
