"""Questions about a logical queue's offsets: put together from those of its items, here and at
other brokers (``AdminBrokerProcessor``, ``ConsumerManageProcessor``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Mapping as Table
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from firearrow.broker.offsets import ConsumerOffsets
from firearrow.features.static_topics import mapping
from firearrow.features.static_topics.elsewhere import Elsewhere, offset_in
from firearrow.features.static_topics.mapping import Item
from firearrow.features.static_topics.table import Mappings
from firearrow.features.static_topics.topic import led_items
from firearrow.model import codes
from firearrow.protocol.remoting.command import Answer, Handler, Reply, Request
from firearrow.protocol.remoting.requests import (
    QueueOfGroup,
    QueueOfTopic,
    SearchOffset,
    UpdateConsumerOffset,
)
from firearrow.protocol.remoting.session import Route, answer
from firearrow.store.api import Store

QUERY_CONSUMER_OFFSET: Final = 14
UPDATE_CONSUMER_OFFSET: Final = 15
SEARCH_OFFSET_BY_TIMESTAMP: Final = 29
GET_MAX_OFFSET: Final = 30
GET_MIN_OFFSET: Final = 31
GET_EARLIEST_MSG_STORETIME: Final = 32

F = TypeVar("F", QueueOfGroup, QueueOfTopic, SearchOffset, UpdateConsumerOffset)
Found = Callable[[int], None]


class LogicalOffsets:
    """Stands before the handlers of these requests, for the queues of static topics."""

    def __init__(
        self, mappings: Mappings, store: Store, offsets: ConsumerOffsets, elsewhere: Elsewhere
    ) -> None:
        self._mappings = mappings
        self._store = store
        self._offsets = offsets
        self._elsewhere = elsewhere

    def before(self, routes: Table[int, Route]) -> dict[int, Route]:
        handlers: dict[int, Callable[[Request[Any], list[Item], Handler], Answer]] = {
            QUERY_CONSUMER_OFFSET: self._query,
            UPDATE_CONSUMER_OFFSET: self._update,
            SEARCH_OFFSET_BY_TIMESTAMP: self._search,
            GET_MAX_OFFSET: self._max,
            GET_MIN_OFFSET: self._min,
            GET_EARLIEST_MSG_STORETIME: self._earliest,
        }
        return {
            code: routes[code]._replace(handler=partial(self._handle, look, routes[code].handler))
            for code, look in handlers.items()
        }

    def _handle(
        self,
        look: Callable[[Request[Any], list[Item], Handler], Answer],
        physical: Handler,
        request: Request[Any],
    ) -> Answer:
        fields = request.fields
        known = self._mappings.get(fields.topic)
        if known is None or fields.lo is False or fields.queue_id is None:
            return physical(request)
        items = led_items(known, fields.queue_id)
        if isinstance(items, Reply):
            return items
        return look(request, items, physical)

    # -- consumer offsets

    def _query(
        self, request: Request[QueueOfGroup], items: list[Item], physical: Handler
    ) -> Answer:
        """Of the newest item where the group has one."""
        fields = request.fields
        if len(items) == 1 and items[0].logic_offset == 0:
            return physical(_at(request, queue_id=items[0].queue_id))
        asked = iter([item for item in reversed(items) if item.decided])

        def next_one() -> None:
            item = next(asked, None)
            if item is None:
                remark = "Not found, maybe this group consumer boot first"
                answer(request, Reply(codes.QUERY_NOT_FOUND, remark))
            elif self._elsewhere.is_here(item):
                offset = self._offsets.find(fields.topic, fields.consumer_group, item.queue_id)
                told(item, -1 if offset is None else offset)
            else:
                of_item = msgspec.structs.replace(
                    fields, queue_id=item.queue_id, set_zero_if_not_found=False
                )
                self._ask(request, item, of_item, QUERY_CONSUMER_OFFSET, partial(told, item))

        def told(item: Item, offset: int) -> None:
            if offset >= 0:
                _answer(request, item.logical(offset))
            else:
                next_one()

        next_one()
        return None

    def _update(
        self, request: Request[UpdateConsumerOffset], items: list[Item], physical: Handler
    ) -> Answer:
        """At the broker that has the item with the offset."""
        fields = request.fields
        if fields.commit_offset is None:
            return physical(request)
        item = mapping.at(items, fields.commit_offset)
        if item is None:
            return _undecided(fields.topic)
        offset = item.physical(fields.commit_offset)
        if self._elsewhere.is_here(item):
            return physical(_at(request, queue_id=item.queue_id, commit_offset=offset))
        there = msgspec.structs.replace(fields, queue_id=item.queue_id, commit_offset=offset)

        def told(code: int, ext: dict[str, Any], body: bytes) -> None:
            answer(request, Reply())

        failed = partial(answer, request)
        self._elsewhere.ask(item.bname, UPDATE_CONSUMER_OFFSET, there, told, failed)
        return None

    # -- bounds

    def _max(self, request: Request[QueueOfTopic], items: list[Item], physical: Handler) -> Answer:
        return self._bound(request, mapping.last(items), GET_MAX_OFFSET, Item.logical)

    def _min(self, request: Request[QueueOfTopic], items: list[Item], physical: Handler) -> Answer:
        earliest = mapping.at(items, 0)
        return self._bound(request, earliest, GET_MIN_OFFSET, Item.logical_within)

    def _bound(
        self,
        request: Request[QueueOfTopic],
        item: Item | None,
        code: int,
        logical: Callable[[Item, int], int],
    ) -> Answer:
        if item is None:
            return _undecided(request.fields.topic)
        self._physical_bound(
            request, item, code, lambda offset: _answer(request, logical(item, offset))
        )
        return None

    def _physical_bound(self, request: Request[Any], item: Item, code: int, found: Found) -> None:
        topic = request.fields.topic
        if self._elsewhere.is_here(item):
            bound = self._store.max_offset if code == GET_MAX_OFFSET else self._store.min_offset
            found(bound(topic, item.queue_id))
        else:
            self._ask(request, item, QueueOfTopic(topic, item.queue_id), code, found)

    def _earliest(
        self, request: Request[QueueOfTopic], items: list[Item], physical: Handler
    ) -> Answer:
        """Of the first item; as RocketMQ, also when it has no message any more."""
        item = mapping.at(items, 0)
        if item is None:
            return _undecided(request.fields.topic)
        if self._elsewhere.is_here(item):
            return physical(_at(request, queue_id=item.queue_id))
        there = QueueOfTopic(request.fields.topic, item.queue_id)

        def told(code: int, ext: dict[str, Any], body: bytes) -> None:
            answer(request, Reply(ext={"timestamp": str(ext.get("timestamp", -1))}))

        failed = partial(answer, request)
        self._elsewhere.ask(item.bname, GET_EARLIEST_MSG_STORETIME, there, told, failed)
        return None

    # -- by time

    def _search(
        self, request: Request[SearchOffset], items: list[Item], physical: Handler
    ) -> Answer:
        """From the first message that is not older; ``upper``: up to the last one that is not
        younger, so the one before the first that is younger."""
        decided = [item for item in items if item.decided]
        if not decided:
            return _undecided(request.fields.topic)
        if (request.fields.boundary_type or "").lower() == "upper":
            self._search_upper(request, reversed(decided))
        else:
            self._search_lower(request, decided)
        return None

    def _search_lower(self, request: Request[SearchOffset], items: list[Item]) -> None:
        item, *newer = items

        def found(offset: int) -> None:
            if not newer:
                _answer(request, item.logical(offset))
                return
            self._physical_bound(
                request,
                item,
                GET_MAX_OFFSET,
                lambda end: (
                    _answer(request, item.logical(offset))
                    if offset < end
                    else self._search_lower(request, newer)
                ),
            )

        self._first_from(request, item, request.fields.timestamp, found)

    def _search_upper(self, request: Request[SearchOffset], items: Iterable[Item]) -> None:
        item, *older = items

        def found(first_younger: int) -> None:
            self._physical_bound(
                request,
                item,
                GET_MIN_OFFSET,
                lambda low: (
                    _answer(request, item.logical(max(first_younger - 1, low)))
                    if first_younger > low or not older
                    else self._search_upper(request, older)
                ),
            )

        self._first_from(request, item, request.fields.timestamp + 1, found)

    def _first_from(
        self, request: Request[SearchOffset], item: Item, timestamp: int, found: Found
    ) -> None:
        """The item's first physical offset that is not older; its end if all are."""
        topic = request.fields.topic
        if self._elsewhere.is_here(item):
            found(self._store.search_offset(topic, item.queue_id, timestamp, upper=False))
        else:
            there = SearchOffset(topic, item.queue_id, timestamp)
            self._ask(request, item, there, SEARCH_OFFSET_BY_TIMESTAMP, found)

    # -- other brokers

    def _ask(
        self,
        request: Request[Any],
        item: Item,
        fields: QueueOfGroup | QueueOfTopic | SearchOffset,
        code: int,
        found: Found,
    ) -> None:
        """``found`` with the offset that another broker answers; -1 when it knows none."""

        def told(code: int, ext: dict[str, Any], body: bytes) -> None:
            offset = offset_in(ext) if code == codes.SUCCESS else -1
            if offset < 0 and code == codes.SUCCESS:
                remark = f"broker {item.bname} answers {code} without an offset"
                answer(request, Reply(codes.SYSTEM_ERROR, remark))
            else:
                found(offset)

        expected = codes.QUERY_NOT_FOUND
        self._elsewhere.ask(item.bname, code, fields, told, partial(answer, request), expected)


def _at(request: Request[F], **changes: int) -> Request[F]:
    """The request in terms of the store's queues."""
    fields = msgspec.structs.replace(request.fields, **changes)
    return msgspec.structs.replace(request, fields=fields)


def _answer(request: Request[Any], offset: int) -> None:
    answer(request, Reply(ext={"offset": str(offset)}))


def _undecided(topic: str) -> Reply:
    return Reply(codes.SYSTEM_ERROR, f"the queue of {topic} is being moved and has no offsets yet")
