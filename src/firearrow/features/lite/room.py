"""The lite room: its parts put together, and the requests that they answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from firearrow.broker.admin.attributes import Attribute, number
from firearrow.broker.broker import Core
from firearrow.broker.rooms import BaseRoom
from firearrow.codec.properties import find_property
from firearrow.features.lite import rules
from firearrow.features.lite.admin import AdminSettings, LiteAdmin
from firearrow.features.lite.events import Events, EventSettings
from firearrow.features.lite.lifetime import Lifetime, LifetimeSettings
from firearrow.features.lite.placing import Placing, PlacingSettings
from firearrow.features.lite.popping import (
    MESSAGES_MAX,
    REVIVE_QUEUE,
    LitePopped,
    LitePopper,
    Offsets,
    Orders,
    Queue,
)
from firearrow.features.lite.registry import Registry, RegistrySettings
from firearrow.features.lite.subscriptions import Subscriptions
from firearrow.model import codes, names
from firearrow.model.message import Message
from firearrow.model.topic import PERM_READ
from firearrow.protocol.remoting import lite_requests
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.lite_requests import LITE_REQUESTS, PopLiteMessage
from firearrow.protocol.remoting.pop_requests import AckMessage, ChangeInvisibleTime
from firearrow.protocol.remoting.session import Route, answer
from firearrow.store import api, lmq
from firearrow.store.api import Put, PutStatus

log = logging.getLogger(__name__)

TOO_OLD_MS: Final = 500  # a request that comes so long after its poll time is over
STOPPING: Final = "the broker is stopping"
PROPERTY: Final = b"__LITE_TOPIC"


class Settings(
    AdminSettings, EventSettings, LifetimeSettings, PlacingSettings, RegistrySettings, Protocol
):
    """Every setting that lite topics read."""

    broker_permission: int
    enable_lmq: bool
    enable_lmq_quota: bool
    enable_multi_dispatch: bool
    lite_subscription_check_interval: int
    lite_subscription_check_timeout_mills: int


class Waiting(Protocol):
    """Parked requests (the pop room's kind), by client."""

    stopped: bool

    def park(
        self,
        topic: str,
        group: str,
        queue_id: int,
        until_ms: int,
        interest: None,
        closed: Callable[[], bool],
        resume: Callable[[bool], None],
    ) -> str | None: ...
    def wake(self, topic: str, group: str, queue_id: int) -> bool: ...
    def wake_all(self) -> None: ...


class LiteRoom(BaseRoom):
    """Answers POP_LITE_MESSAGE, LITE_SUBSCRIPTION_CTL and the queries about lite topics; puts
    messages of lite topics into their light queues."""

    marks = (PROPERTY + b"\x01", lmq.DISPATCH_MARK)
    topic_attributes: Mapping[str, Attribute] = {
        rules.EXPIRATION: Attribute(
            number(rules.NEVER, rules.EXPIRATION_MINUTES_MAX), changeable=True
        )
    }

    def __init__(
        self, settings: Settings, core: Core, offsets: Offsets, orders: Orders, waiting: Waiting
    ) -> None:
        self._settings = settings
        self._core = core
        self._clock = core.clock
        self._offsets = offsets
        self._orders = orders
        self._waiting = waiting
        self._dispatches = settings.enable_lmq and settings.enable_multi_dispatch
        self._running = False
        store, clock = core.store, core.clock
        self.registry = Registry(settings, core.groups, clock)
        self.events = Events(
            settings,
            store,
            core.groups,
            self.registry,
            clock,
            lambda client_id: waiting.wake(client_id, "", -1),
            lambda queue, group: self.popper.behind(queue, group),
        )
        self.registry.subscribed = self.events.subscribed
        self.registry.gone = self.events.gone
        self.popper = LitePopper(
            store, self.registry, self.events, offsets, orders, core.offsets, clock
        )
        orders.released = self.popper.released
        self.lifetime = Lifetime(
            settings, store, core.topics, core.groups, core.offsets, orders, self.registry, clock
        )
        placing = Placing(settings, core.cluster_queues)
        self._subscriptions = Subscriptions(
            store, core.groups, core.offsets, self.registry, self.events, orders, placing
        )
        self._admin = LiteAdmin(
            settings,
            store,
            core.topics,
            core.groups,
            core.offsets,
            self.registry,
            self.events,
            orders,
            self.lifetime,
            placing,
            clock,
        )

    # -- the room

    def routes(self) -> Mapping[int, Route]:
        handlers: dict[int, Callable[[Request[Any]], Answer]] = {
            lite_requests.POP_LITE_MESSAGE: self.pop,
            lite_requests.LITE_SUBSCRIPTION_CTL: self._subscriptions.handle,
            lite_requests.GET_BROKER_LITE_INFO: self._admin.broker,
            lite_requests.GET_PARENT_TOPIC_INFO: self._admin.parent,
            lite_requests.GET_LITE_TOPIC_INFO: self._admin.lite_topic,
            lite_requests.GET_LITE_CLIENT_INFO: self._admin.client,
            lite_requests.GET_LITE_GROUP_INFO: self._admin.group,
            lite_requests.TRIGGER_LITE_DISPATCH: self._admin.dispatch,
        }
        return {code: Route(*LITE_REQUESTS[code], handler) for code, handler in handlers.items()}

    def start(self) -> None:
        self._running = True
        store = self._core.store
        store.on_arrival(self.lifetime.arrived, prefix=names.LMQ_PREFIX)
        store.on_arrival(self.events.arrived, prefix=names.LITE_PREFIX)
        topics = self._core.topics
        topics.attribute_listeners.append(self._attributes_changed)
        for topic in topics.attributed:
            self._attributes_changed(topic)
        self._orders.start()
        self.events.start()
        self.lifetime.start()
        self._check_later()

    def dismiss(self) -> None:
        self._waiting.wake_all()

    def stop(self) -> None:
        self._running = False
        self.dismiss()
        self.events.stop()
        self.lifetime.stop()
        self._orders.stop()

    def _attributes_changed(self, name: str) -> None:
        if not self._dispatches and rules.is_parent(self._core.topics.attributed.get(name)):
            log.warning(
                "topic %s takes messages of lite topics, which this broker refuses: set "
                "enableLmq=true and enableMultiDispatch=true in broker.conf, and restart",
                name,
            )

    def _check_later(self) -> None:
        delay_s = self._settings.lite_subscription_check_interval / 1000
        self._clock.call_later(delay_s, self._check_subscriptions)

    def _check_subscriptions(self) -> None:
        if self._running:
            self.registry.remove_silent(self._settings.lite_subscription_check_timeout_mills)
            self._check_later()

    # -- messages on their way into the store

    def before_store(self, message: Message) -> Message | Put:
        """Send a message of a lite topic to its light queue."""
        lite_topic = (find_property(message.properties, PROPERTY) or b"").decode("utf-8", "replace")
        if lite_topic and not message.topic.startswith(("%", names.SYSTEM_TOPIC_PREFIX)):
            placed = self._placed(message, lite_topic)
            if isinstance(placed, Put):
                return placed
            message = placed
        return self._over_quota(message) or message

    def _placed(self, message: Message, lite_topic: str) -> Message | Put:
        if not self._dispatches:
            if rules.is_parent(self._core.topics.table.get(message.topic)):
                return Put(
                    PutStatus.MESSAGE_ILLEGAL,
                    "nobody would get a message of a lite topic: set enableLmq=true and "
                    "enableMultiDispatch=true in broker.conf",
                )
            return message
        queue = names.lite_queue(message.topic, lite_topic)
        error = names.lite_error(queue, lite_topic)
        if error is not None:
            return Put(PutStatus.MESSAGE_ILLEGAL, error)
        pieces = [p for p in message.properties.split(b"\x02") if p]
        pieces = [p for p in pieces if not p.startswith(lmq.DISPATCH_MARK)]
        properties = b"\x02".join([*pieces, lmq.DISPATCH_MARK + queue.encode(), b""])
        return msgspec.structs.replace(message, properties=properties)

    def _over_quota(self, message: Message) -> Put | None:
        settings = self._settings
        limit = settings.max_lmq_consume_queue_num
        if not settings.enable_lmq_quota or self.lifetime.light_queues < limit:
            return None
        for queue in lmq.wanted(message) if self._dispatches else ():
            if lmq.is_queue(queue) and not self._core.store.max_offset(queue, 0):
                return Put(
                    PutStatus.LMQ_CONSUME_QUEUE_NUM_EXCEEDED,
                    f"there are {limit} light message queues (maxLmqConsumeQueueNum)",
                )
        return None

    # -- POP_LITE_MESSAGE

    def pop(self, request: Request[PopLiteMessage]) -> Answer:
        """POP_LITE_MESSAGE (200070)."""
        fields = request.fields
        now_ms = self._clock.now_ms()
        until_ms = (fields.born_ms or now_ms) + fields.poll_ms
        refusal = self._refusal(fields)
        if now_ms - until_ms > TOO_OLD_MS:
            refusal = Reply(codes.POLLING_TIMEOUT, "the request is too old")
        if refusal is not None:
            return refusal
        # A client whose clock is ahead waits no longer than it asked for.
        return self._pop(request, min(until_ms, now_ms + fields.poll_ms), last=fields.poll_ms <= 0)

    def _pop(self, request: Request[PopLiteMessage], until_ms: int, *, last: bool) -> Reply | None:
        fields = request.fields
        popped = self.popper.pop(
            fields.client_id,
            fields.consumer_group,
            fields.max_messages,
            fields.invisible_ms,
            fields.attempt_id,
        )
        if popped.attempts:
            size = sum(map(len, popped.records))
            group, count = fields.consumer_group, len(popped.attempts)
            self._core.stats.delivered(fields.topic, group, count, size)
            ext = _times(fields, popped)
            return Reply(codes.SUCCESS, api.FOUND, ext, b"".join(popped.records))
        held = "last"
        if not last:
            resume = partial(self._again, request, until_ms)
            closed: Callable[[], bool] = lambda: request.peer.closed  # noqa: E731
            parked = self._waiting.park(fields.client_id, "", -1, until_ms, None, closed, resume)
            if parked is None:
                return None
            held = parked
        code = codes.POLLING_FULL if held == "full" else codes.POLLING_TIMEOUT
        return Reply(code, api.NO_MESSAGE_IN_QUEUE, _times(fields, popped))

    def _again(self, request: Request[PopLiteMessage], until_ms: int, last: bool) -> None:
        if self._waiting.stopped:
            answer(request, Reply(codes.SYSTEM_BUSY, STOPPING))
            return
        reply = self._pop(request, until_ms, last=last)
        if reply is not None:
            answer(request, reply)

    def _refusal(self, fields: PopLiteMessage) -> Reply | None:
        """Why the client may not pop there, in RocketMQ's order."""
        if not self._settings.broker_permission & PERM_READ:
            return Reply(codes.NO_PERMISSION, "the broker does not permit popping")
        if fields.max_messages > MESSAGES_MAX:
            return Reply(
                codes.INVALID_PARAMETER,
                f"maxMsgNum is {fields.max_messages}, {MESSAGES_MAX} is the most",
            )
        topic = self._core.topics.table.get(fields.topic)
        if topic is None:
            return _no_topic(fields.topic)
        if not topic.readable:
            return Reply(codes.NO_PERMISSION, f"the topic [{topic.name}] peeking is forbidden")
        if not rules.is_parent(topic):
            return Reply(codes.INVALID_PARAMETER, f"the topic [{topic.name}] type not match")
        group = self._core.groups.find(fields.consumer_group)
        if group is None:
            return Reply(
                codes.SUBSCRIPTION_GROUP_NOT_EXIST,
                f"subscription group [{fields.consumer_group}] does not exist",
            )
        if not group.consume_enable:
            return Reply(codes.NO_PERMISSION, f"subscription group no permission, {group.name}")
        if rules.parent_of(group) != topic.name:
            return Reply(
                codes.INVALID_PARAMETER, f"subscription bind topic not match, {group.name}"
            )
        return None

    # -- acknowledgements: requests of the pop room's that name a lite topic

    def acknowledge(self, request: Request[AckMessage]) -> Answer:
        """ACK_MESSAGE (200051) of a lite topic."""
        fields = request.fields
        checked = self._check_ack(fields)
        if isinstance(checked, Reply):
            return checked
        queue, pop_ms, revive_queue = checked
        if fields.queue_id != 0 or revive_queue != REVIVE_QUEUE:
            return Reply(codes.INVALID_PARAMETER, "ack queue illegal.")
        outcome = self.popper.acknowledge(queue, fields.offset, pop_ms)
        return Reply(outcome.code, outcome.remark)

    def change_invisible(self, request: Request[ChangeInvisibleTime]) -> Answer:
        """CHANGE_MESSAGE_INVISIBLETIME (200053) of a lite topic."""
        fields = request.fields
        checked = self._check_ack(fields)
        if isinstance(checked, Reply):
            return checked
        queue, pop_ms, revive_queue = checked
        visible_ms = self._clock.now_ms() + max(0, fields.invisible_ms)
        changed = self.popper.change_visible(
            queue, fields.offset, pop_ms, visible_ms, suspend=fields.suspend
        )
        ext = {"invisibleTime": "0", "popTime": "0", "reviveQid": "0"}
        if changed:
            ext = {
                "invisibleTime": str(visible_ms - pop_ms),
                "popTime": str(pop_ms),
                "reviveQid": str(revive_queue),
            }
        return Reply(ext=ext)

    def _check_ack(
        self, fields: AckMessage | ChangeInvisibleTime
    ) -> tuple[Queue, int, int] | Reply:
        """The queue, pop time and revive queue that the receipt handle names."""
        topic = self._core.topics.table.get(fields.topic)
        if topic is None:
            return _no_topic(fields.topic)
        if not 0 <= fields.queue_id < topic.read_queues:
            remark = f"queueId[{fields.queue_id}] is illegal, topic:[{topic.name}]"
            return Reply(codes.MESSAGE_ILLEGAL, remark)
        group = self._core.groups.table.get(fields.consumer_group)
        if rules.parent_of(group) != topic.name:
            return Reply(codes.INVALID_PARAMETER, "group type or bind topic not match.")
        queue = names.lite_queue(topic.name, fields.lite_topic or "")
        if fields.offset > self._core.store.max_offset(queue, 0):
            return Reply(codes.NO_MESSAGE, "ack offset illegal.")
        handle = fields.extra_info.split(" ")
        try:
            return (queue, fields.consumer_group, 0), int(handle[1]), int(handle[3])
        except (IndexError, ValueError):
            return Reply(codes.SYSTEM_ERROR, f"unreadable receipt handle {fields.extra_info!r}")


def _times(fields: PopLiteMessage, popped: LitePopped) -> dict[str, str]:
    """The ext fields of an answer; how often each message was handed out before."""
    return {
        "invisibleTime": str(fields.invisible_ms),
        "orderCountInfo": ";".join(map(str, popped.attempts)),
        "popTime": str(popped.pop_ms),
        "reviveQid": str(REVIVE_QUEUE),
    }


def _no_topic(name: str) -> Reply:
    return Reply(codes.TOPIC_NOT_EXIST, f"topic [{name}] not exist, apply first please!")
