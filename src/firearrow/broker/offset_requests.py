"""Requests about offsets and queue bounds (remoting.md 3.4, behaviour.md 2.7)."""

from __future__ import annotations

from firearrow.broker.groups import Groups
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.topics import Topics
from firearrow.model import codes, names
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import (
    QueueOfGroup,
    QueueOfTopic,
    SearchOffset,
    UpdateConsumerOffset,
)
from firearrow.store.api import Store


class OffsetRequests:
    """Handlers; none of the queue questions checks that the topic exists."""

    def __init__(
        self, store: Store, topics: Topics, groups: Groups, offsets: ConsumerOffsets
    ) -> None:
        self._store = store
        self._topics = topics
        self._groups = groups
        self._offsets = offsets

    def query(self, request: Request[QueueOfGroup]) -> Answer:
        """QUERY_CONSUMER_OFFSET (14)."""
        fields = request.fields
        offset = self._offsets.find(fields.topic, fields.consumer_group, fields.queue_id)
        if offset is not None and offset >= 0:
            return Reply(ext={"offset": str(offset)})
        if fields.set_zero_if_not_found is not False and self._starts_hot(fields):
            return Reply(ext={"offset": "0"})
        return Reply(codes.QUERY_NOT_FOUND, "Not found, maybe this group consumer boot first")

    def _starts_hot(self, fields: QueueOfGroup) -> bool:
        """A young queue is consumed from its beginning, whatever the client prefers."""
        if self._store.min_offset(fields.topic, fields.queue_id) > 0:
            return False
        first = self._store.entries(fields.topic, fields.queue_id, 0, 1)
        return not first or self._store.is_hot(first[0].physical_offset)

    def update(self, request: Request[UpdateConsumerOffset]) -> Answer:
        """UPDATE_CONSUMER_OFFSET (15)."""
        fields = request.fields
        if fields.consumer_group not in self._groups.table and (
            self._groups.find(fields.consumer_group) is None
        ):
            return Reply(
                codes.SUBSCRIPTION_GROUP_NOT_EXIST, f"Group {fields.consumer_group} not exist!"
            )
        if self._topics.find(fields.topic) is None:
            return Reply(codes.TOPIC_NOT_EXIST, f"Topic {fields.topic} not exist!")
        if fields.queue_id is None:
            return Reply(codes.INVALID_PARAMETER, "QueueId is null")
        if fields.commit_offset is None:
            return Reply(codes.INVALID_PARAMETER, "Offset is null")
        pending = self._offsets.pending_reset(fields.topic, fields.consumer_group, fields.queue_id)
        if pending is not None:
            return Reply(remark="Offset has been previously reset")
        self._offsets.commit(
            fields.topic, fields.consumer_group, fields.queue_id, fields.commit_offset
        )
        return Reply()

    def max_offset(self, request: Request[QueueOfTopic]) -> Answer:
        """GET_MAX_OFFSET (30)."""
        fields = request.fields
        return Reply(ext={"offset": str(self._store.max_offset(fields.topic, fields.queue_id))})

    def min_offset(self, request: Request[QueueOfTopic]) -> Answer:
        """GET_MIN_OFFSET (31)."""
        fields = request.fields
        return Reply(ext={"offset": str(self._store.min_offset(fields.topic, fields.queue_id))})

    def search(self, request: Request[SearchOffset]) -> Answer:
        """SEARCH_OFFSET_BY_TIMESTAMP (29)."""
        fields = request.fields
        upper = (fields.boundary_type or "").lower() == "upper"
        topic = fields.topic
        if fields.lite_topic and fields.lite_topic.strip():
            topic = names.lite_queue(topic, fields.lite_topic)
        offset = self._store.search_offset(topic, fields.queue_id, fields.timestamp, upper=upper)
        return Reply(ext={"offset": str(offset)})

    def earliest(self, request: Request[QueueOfTopic]) -> Answer:
        """GET_EARLIEST_MSG_STORETIME (32)."""
        fields = request.fields
        first = self._store.min_offset(fields.topic, fields.queue_id)
        return Reply(
            ext={"timestamp": str(self._store.store_time(fields.topic, fields.queue_id, first))}
        )
