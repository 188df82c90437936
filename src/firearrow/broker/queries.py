"""Finding messages: by physical offset, by key, by place in a consume queue (remoting.md 3.6)."""

from __future__ import annotations

from functools import partial
from typing import Final, Protocol

import msgspec

from firearrow.broker.members import Members
from firearrow.model import codes
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import QueryConsumeQueue, QueryMessage, ViewMessageById
from firearrow.protocol.remoting.session import answer
from firearrow.store.api import Store

TAG_INDEX: Final = "T"  # the key is a tag (since 5.5.0)
ENTRIES_MAX: Final = 10_000
_encode = msgspec.json.Encoder().encode


class QuerySettings(Protocol):
    default_query_max_num: int
    max_msgs_num_batch: int


class Queries:
    """Handlers for message queries."""

    def __init__(self, settings: QuerySettings, store: Store, members: Members) -> None:
        self._settings = settings
        self._store = store
        self._members = members

    def view(self, request: Request[ViewMessageById]) -> Answer:
        """VIEW_MESSAGE_BY_ID (33)."""
        record = self._store.record(request.fields.offset)
        if record is None:
            return Reply(
                codes.SYSTEM_ERROR, f"can not find message by the offset, {request.fields.offset}"
            )
        return Reply(body=record)

    def query(self, request: Request[QueryMessage]) -> Answer:
        """QUERY_MESSAGE (12): answered when the key index has caught up with the log."""
        fields = request.fields
        count = fields.max_count
        if (fields.unique_key or "").lower() == "true":
            count = self._settings.default_query_max_num
        count = min(max(count, 0), self._settings.max_msgs_num_batch)
        self._store.query_keys(
            fields.topic,
            f"T#{fields.key}" if fields.index_type == TAG_INDEX else fields.key,
            count,
            fields.begin_ms,
            fields.end_ms,
            partial(_answer_query, request),
        )
        return None

    def consume_queue(self, request: Request[QueryConsumeQueue]) -> Answer:
        """QUERY_CONSUME_QUEUE (321)."""
        fields = request.fields
        high = self._store.max_offset(fields.topic, fields.queue_id)
        low = self._store.min_offset(fields.topic, fields.queue_id)
        if high == 0 and (fields.topic, fields.queue_id) not in set(self._store.queues()):
            return Reply(codes.SYSTEM_ERROR, f"{fields.queue_id}@{fields.topic} is not exist!")
        body: dict[str, object] = {
            "maxQueueIndex": high,
            "minQueueIndex": low,
        }
        if fields.consumer_group:
            group = self._members.consumers.get(fields.consumer_group)
            subscription = group.subscriptions.get(fields.topic) if group else None
            if subscription is None:
                body["filterData"] = f"{fields.consumer_group}@{fields.topic} is not online!"
            else:
                body["filterData"] = "null"  # as text: Java has data only for SQL92
                body["subscriptionData"] = subscription.to_json()
        entries = self._store.entries(
            fields.topic, fields.queue_id, fields.index, min(max(fields.count, 0), ENTRIES_MAX)
        )
        body["queueData"] = [
            {
                "eval": False,  # Java says so whatever the subscription is
                "physicOffset": entry.physical_offset,
                "physicSize": entry.size,
                "tagsCode": entry.tags_code,
            }
            for entry in entries
        ]
        return Reply(body=_encode(body))


def _answer_query(
    request: Request[QueryMessage], records: list[bytes], updated_ms: int, updated_at: int
) -> None:
    ext = {"indexLastUpdateTimestamp": str(updated_ms), "indexLastUpdatePhyoffset": str(updated_at)}
    if records:
        answer(request, Reply(ext=ext, body=b"".join(records)))
    else:
        answer(
            request,
            Reply(codes.QUERY_NOT_FOUND, "can not find message, maybe time range not correct", ext),
        )
