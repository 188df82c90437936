"""Requests about who is connected (behaviour.md 21.4)."""

from __future__ import annotations

from typing import Any

from firearrow.broker.members import Client, Members
from firearrow.model import codes
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, NoFields, Reply, Request
from firearrow.protocol.remoting.requests import ConsumerGroup, ProducerGroup


class ClientAdmin:
    """Handlers."""

    def __init__(self, members: Members) -> None:
        self._members = members

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
            "subscriptionTable": {t: s.to_json() for t, s in group.subscriptions.items()},
        }
        return Reply(body=bodies.encode(body))

    def producers(self, request: Request[ProducerGroup]) -> Answer:
        """GET_PRODUCER_CONNECTION_LIST (204)."""
        name = request.fields.producer_group
        clients = self._members.producers.get(name)
        if clients is None:
            return Reply(codes.SYSTEM_ERROR, f"the producer group[{name}] not exist")
        found = [_connection(client) for client in clients.values()]
        return Reply(body=bodies.encode({"connectionSet": found}))

    def all_producers(self, request: Request[NoFields]) -> Answer:
        """GET_ALL_PRODUCER_INFO (328)."""
        data = {
            group: [
                {
                    "clientId": client.client_id,
                    "language": client.language,
                    "lastUpdateTimestamp": client.seen_ms,
                    "remoteIP": _address(client),
                    "version": client.version,
                }
                for client in clients.values()
            ]
            for group, clients in self._members.producers.items()
        }
        return Reply(body=bodies.encode({"data": data}))


def _connection(client: Client) -> dict[str, Any]:
    return {
        "clientAddr": _address(client),
        "clientId": client.client_id,
        "language": client.language,
        "version": client.version,
    }


def _address(client: Client) -> str:
    host, port = client.caller.remote
    return f"{host}:{port}"
