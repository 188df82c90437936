"""LITE_SUBSCRIPTION_CTL: clients, or proxies for them, say which lite topics they want
(``LiteSubscriptionCtlProcessor``)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from firearrow.broker.groups import Groups
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.features.lite import rules
from firearrow.features.lite.events import Events
from firearrow.features.lite.placing import Placing
from firearrow.features.lite.popping import Orders
from firearrow.features.lite.registry import QuotaError, Registry, Subscriber
from firearrow.model import codes, names
from firearrow.protocol.remoting import lite_requests
from firearrow.protocol.remoting.command import Answer, Caller, NoFields, Reply, Request
from firearrow.protocol.remoting.lite_requests import Change, OffsetOption
from firearrow.protocol.remoting.session import answer
from firearrow.store.api import Store

log = logging.getLogger(__name__)

_ADDS: Final = frozenset({lite_requests.PARTIAL_ADD, lite_requests.COMPLETE_ADD})
_ACTIONS: Final = _ADDS | {lite_requests.PARTIAL_REMOVE, lite_requests.COMPLETE_REMOVE}


class _Refused(Exception):  # noqa: N818 - an answer, not a defect
    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.remark)
        self.reply = reply


class Subscriptions:
    """The handler."""

    def __init__(
        self,
        store: Store,
        groups: Groups,
        offsets: ConsumerOffsets,
        registry: Registry,
        events: Events,
        orders: Orders,
        placing: Placing,
    ) -> None:
        self._store = store
        self._groups = groups
        self._offsets = offsets
        self._registry = registry
        self._events = events
        self._orders = orders
        self._placing = placing
        registry.restarted = self._restart

    def handle(self, request: Request[NoFields]) -> Answer:
        """LITE_SUBSCRIPTION_CTL (200071). Changes count up to the first that is refused."""
        if not request.body:
            return Reply(codes.ILLEGAL_OPERATION, "Request body is null.")
        try:
            changes = lite_requests.read_changes(request.body)
        except (ValueError, msgspec.ValidationError) as error:
            return Reply(codes.SYSTEM_ERROR, f"unreadable subscriptions: {error}")
        if not changes:
            return Reply(codes.ILLEGAL_OPERATION, "LiteSubscriptionCtlRequestBody is empty.")
        self._next(request, changes, 0)
        return None

    def _next(self, request: Request[NoFields], changes: list[Change], index: int) -> None:
        """Apply one change after the other: where a topic's queues lie may have to be asked."""
        if index == len(changes):
            answer(request, Reply())
            return
        change = changes[index]

        def placed(own: Callable[[str], bool]) -> None:
            try:
                self._apply(change, own, request.peer)
            except _Refused as refused:
                answer(request, refused.reply)
                return
            except QuotaError as error:
                answer(request, Reply(codes.LITE_SUBSCRIPTION_QUOTA_EXCEEDED, str(error)))
                return
            self._next(request, changes, index + 1)

        if change.action in _ADDS and change.topic:
            self._placing.of_parent(change.topic, placed)
        else:
            placed(lambda lite_topic: False)

    def _apply(self, change: Change, own: Callable[[str], bool], peer: Caller) -> None:
        client_id, group, topic = change.client_id, change.group, change.topic
        blank = [
            name
            for name, value in (("clientId", client_id), ("group", group), ("topic", topic))
            if not (value or "").strip()
        ]
        if blank or change.action not in _ACTIONS or not client_id or not group or not topic:
            log.warning("a lite subscription without %s is passed over", blank or "an action")
            return
        if change.action == lite_requests.COMPLETE_REMOVE:
            self._registry.remove_client(client_id)
            return
        lite_topics = [lite_topic for lite_topic in change.lite_topics or () if lite_topic]
        wanted = dict.fromkeys(names.lite_queue(topic, lite_topic) for lite_topic in lite_topics)
        if change.action == lite_requests.PARTIAL_REMOVE:
            self._remove(self._registry.renew(client_id, group, topic, None), list(wanted))
            return
        self._check_consumable(group)
        active = [queue for queue in wanted if self._active(queue, own)]
        if change.action == lite_requests.COMPLETE_ADD:
            self._replace(self._registry.renew(client_id, group, topic, peer), active)
            return
        self._registry.check_quota()
        if rules.is_wildcard(self._groups.table.get(group)):
            raise _Refused(
                Reply(
                    codes.ILLEGAL_OPERATION,
                    "subscribe lite operation is not supported for this group",
                )
            )
        subscriber = self._registry.renew(client_id, group, topic, peer)
        for queue in active:
            self._add(subscriber, queue, change.offset_option)

    def _check_consumable(self, name: str) -> None:
        group = self._groups.find(name)
        if group is None or not group.consume_enable:
            raise _Refused(
                Reply(codes.ILLEGAL_OPERATION, "Consumer group is not allowed to consume.")
            )

    def _active(self, queue: str, own: Callable[[str], bool]) -> bool:
        """Whether the lite topic belongs here, or has messages here all the same."""
        parts = names.lite_parts(queue)
        return parts is not None and (own(parts[1]) or self._store.max_offset(queue, 0) > 0)

    def _add(self, subscriber: Subscriber, queue: str, option: OffsetOption | None) -> None:
        if rules.is_exclusive(self._groups.table.get(subscriber.group)):
            self._registry.exclude(subscriber, queue)
        if option is not None:
            self._begin_at(queue, subscriber.group, option)
        self._registry.add(subscriber, queue)

    def _remove(self, subscriber: Subscriber, queues: list[str]) -> None:
        group = self._groups.table.get(subscriber.group)
        for queue in queues:
            self._registry.remove(subscriber, queue, restart=rules.resets_when_unsubscribed(group))

    def _replace(self, subscriber: Subscriber, queues: list[str]) -> None:
        group = self._groups.table.get(subscriber.group)
        if rules.is_wildcard(group):
            self._registry.add_wildcard(subscriber)
            return
        if rules.is_exclusive(group):
            queues = [q for q in queues if not self._registry.held_by_another(subscriber, q)]
        self._registry.replace(subscriber, queues)

    # -- where a subscription begins

    def _restart(self, queue: str, group: str) -> None:
        self._set_offset(queue, group, 0)

    def _begin_at(self, queue: str, group: str, option: OffsetOption) -> None:
        committed = self._offsets.find(queue, group, 0)
        target = None
        if option.type == lite_requests.POLICY:
            if option.value == lite_requests.POLICY_MIN:
                target = 0
            elif option.value == lite_requests.POLICY_MAX:
                target = self._store.max_offset(queue, 0)
        elif option.type == lite_requests.OFFSET:
            target = max(0, option.value)
        elif option.type == lite_requests.TAIL_N and committed is not None:
            target = max(0, committed - max(0, option.value))
        if target is not None and target != committed:
            self._set_offset(queue, group, target)

    def _set_offset(self, queue: str, group: str, offset: int) -> None:
        self._offsets.reset(queue, group, 0, offset)
        self._orders.clear((queue, group, 0))
        self._events.dispatch(queue, group)
