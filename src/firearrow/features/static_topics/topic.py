"""One static topic, as sends and pulls ask it (``broker.logical.Logical``)."""

from __future__ import annotations

import itertools

import msgspec

from firearrow.broker.logical import Placed, PullHere
from firearrow.features.static_topics.mapping import Item, Mapping
from firearrow.features.static_topics.pulling import Pulling
from firearrow.model import codes
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import PullMessage


class StaticTopic:
    """A mapping that does not change; another one takes its place."""

    def __init__(self, mapping: Mapping, pulling: Pulling) -> None:
        self._mapping = mapping
        self._pulling = pulling
        self._led = itertools.cycle(sorted(mapping.led()))

    @property
    def info(self) -> msgspec.Raw:
        return msgspec.Raw(self._mapping.encode_info())

    @property
    def detail(self) -> msgspec.Raw:
        return msgspec.Raw(self._mapping.encode())

    def place(self, queue_id: int) -> Placed | Reply:
        if queue_id < 0:
            queue_id = next(self._led, queue_id)
        items = led_items(self._mapping, queue_id)
        if isinstance(items, Reply):
            return items
        leader = items[-1]
        return Placed(leader.queue_id, queue_id, leader.logical_within)

    def pull(self, request: Request[PullMessage], here: PullHere) -> Answer:
        items = led_items(self._mapping, request.fields.queue_id)
        if isinstance(items, Reply):
            return items
        return self._pulling.pull(request, items, here)


def led_items(mapping: Mapping, queue_id: int) -> list[Item] | Reply:
    """The items of a logical queue that this broker leads, or the answer to who asks it else."""
    items = mapping.items(queue_id)
    if items and items[-1].bname == mapping.bname:
        return items
    return Reply(
        codes.NOT_LEADER_FOR_QUEUE,
        f"{mapping.topic}-{queue_id} does not exit in request process of current broker "
        f"{mapping.bname}",
    )
