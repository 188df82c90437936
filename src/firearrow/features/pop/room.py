"""The pop room: its parts put together, and the requests that they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from firearrow.broker.broker import Core
from firearrow.broker.rooms import BaseRoom
from firearrow.broker.subscription import TAG, ExpressionError, Subscription, SubscriptionCache
from firearrow.features.pop import answers
from firearrow.features.pop.acking import Acker, AckSettings, Outcome
from firearrow.features.pop.assignment import Assignments, AssignmentSettings
from firearrow.features.pop.checkpoints import ReviveTopic
from firearrow.features.pop.handles import Handle, HandleError, parse_handle
from firearrow.features.pop.offsets import OffsetSettings, PopOffsets, Queue
from firearrow.features.pop.order import Orders
from firearrow.features.pop.popping import MESSAGES_MAX, Pop, Popper, PopSettings
from firearrow.features.pop.receiving import (
    STOPPING,
    Received,
    Receiver,
    ReceiveSettings,
    interest_of,
)
from firearrow.features.pop.revive import Revive, ReviveSettings
from firearrow.features.pop.waiting import Waiting, WaitSettings
from firearrow.model import codes, names
from firearrow.model.message import Message
from firearrow.model.topic import PERM_READ, Topic
from firearrow.protocol.remoting import pop_requests
from firearrow.protocol.remoting.command import Answer, NoFields, Reply, Request
from firearrow.protocol.remoting.headers import encode_reply
from firearrow.protocol.remoting.pop_requests import (
    POP_REQUESTS,
    AckMessage,
    ChangeInvisibleTime,
    Notification,
    PeekMessage,
    PollingInfo,
    PopMessage,
)
from firearrow.protocol.remoting.session import Route, answer
from firearrow.store.api import Put

TOO_OLD_MS: Final = 500  # a request that comes so long after its poll time is over
INIT_MIN: Final = 0


class Settings(
    AckSettings,
    AssignmentSettings,
    OffsetSettings,
    PopSettings,
    ReceiveSettings,
    ReviveSettings,
    WaitSettings,
    Protocol,
):
    """Every setting that pop reads."""

    broker_cluster_name: str
    broker_permission: int
    timer_wheel_enable: bool
    pop_response_return_actual_retry_topic: bool
    enable_notify_after_pop_order_lock_release: bool


class Timed(Protocol):
    """Stores what comes later."""

    def put_at(self, message: Message, deliver_ms: int) -> Put:
        """Store a message that comes into its queue at that time (wall clock, ms)."""

    def delivered_until(self) -> int:
        """Every message that was timed for this (ms) or earlier is in its queue."""


class LiteAcks(Protocol):
    """Who acknowledges messages of lite topics."""

    def acknowledge(self, request: Request[AckMessage]) -> Answer: ...

    def change_invisible(self, request: Request[ChangeInvisibleTime]) -> Answer: ...


class PopRoom(BaseRoom):
    """Answers POP_MESSAGE, ACK_MESSAGE, BATCH_ACK_MESSAGE, CHANGE_MESSAGE_INVISIBLETIME,
    NOTIFICATION, POLLING_INFO, PEEK_MESSAGE, QUERY_ASSIGNMENT and SET_MESSAGE_REQUEST_MODE.

    For use inside the process: ``receiver`` pops with or without waiting, ``acker`` acknowledges
    and changes invisible times, ``waiting`` counts who waits.
    """

    def __init__(self, settings: Settings, core: Core, timed: Timed) -> None:
        self._settings = settings
        self._core = core
        self._clock = core.clock
        self.lite: LiteAcks | None = None
        self._expressions = SubscriptionCache(core.filters.compile)
        store, clock, host = core.store, core.clock, core.store_host
        name = names.REVIVE_TOPIC_PREFIX + settings.broker_cluster_name
        revive_topic = ReviveTopic(timed.put_at, name, host)
        self.waiting = Waiting(settings, clock)
        self.notices = Waiting(settings, clock)
        self.orders = Orders(store, core.topics, core.groups, clock)
        self.orders.released = self._free_by_time
        self.offsets = PopOffsets(settings, store, core.offsets)
        self.popper = Popper(
            settings,
            store,
            revive_topic,
            core.topics,
            self.offsets,
            self.orders,
            clock,
            core.stats,
        )
        self.receiver = Receiver(settings, store, self.popper, self.waiting, clock)
        self.acker = Acker(
            settings,
            store,
            revive_topic,
            core.topics,
            core.offsets,
            self.offsets,
            self.orders,
            clock,
            self._free,
        )
        self.revive = Revive(
            settings,
            store,
            core.topics,
            core.groups,
            core.offsets,
            clock,
            core.stats,
            revive_topic,
            host,
            timed.delivered_until,
        )

        self.assignments = Assignments(
            settings, store, core.topics, core.groups, core.members, core.cluster_queues
        )

    # -- the room

    def routes(self) -> Mapping[int, Route]:
        handlers: dict[int, Callable[[Request[Any]], Answer]] = {
            pop_requests.POP_MESSAGE: self.pop,
            pop_requests.ACK_MESSAGE: self.acknowledge,
            pop_requests.BATCH_ACK_MESSAGE: self.acknowledge_batch,
            pop_requests.CHANGE_MESSAGE_INVISIBLE_TIME: self.change_invisible,
            pop_requests.PEEK_MESSAGE: self.peek,
            pop_requests.NOTIFICATION: self.notification,
            pop_requests.POLLING_INFO: self.polling_info,
            pop_requests.QUERY_ASSIGNMENT: self.assignments.query,
            pop_requests.SET_MESSAGE_REQUEST_MODE: self.assignments.set_mode,
        }
        return {code: Route(*POP_REQUESTS[code], handler) for code, handler in handlers.items()}

    def start(self) -> None:
        store = self._core.store
        self.assignments.start()
        self.orders.start()
        self.revive.start()
        store.on_arrival(self.waiting.arrived)
        store.on_arrival(self.notices.arrived)

    def dismiss(self) -> None:
        self.waiting.wake_all()
        self.notices.wake_all()

    def stop(self) -> None:
        self.dismiss()
        self.revive.stop()
        self.orders.stop()

    def _free_by_time(self, queue: Queue) -> None:
        """The messages of an ordered batch are visible again."""
        if self._settings.enable_notify_after_pop_order_lock_release:
            self._free(queue)

    def _free(self, queue: Queue) -> None:
        """An ordered queue can be popped again."""
        topic, group, queue_id = queue
        if self._core.store.max_offset(topic, queue_id) > self.offsets.look(queue):
            for waiting in (self.waiting, self.notices):
                waiting.wake(topic, group, -1) or waiting.wake(topic, group, queue_id)

    # -- POP_MESSAGE

    def pop(self, request: Request[PopMessage]) -> Answer:
        """POP_MESSAGE (200050)."""
        fields = request.fields
        now_ms = self._clock.now_ms()
        until_ms = (fields.born_ms or now_ms) + fields.poll_ms
        if now_ms - until_ms > TOO_OLD_MS:
            return Reply(codes.POLLING_TIMEOUT, "the request is too old")
        wanted = self._check_pop(request)
        if isinstance(wanted, Reply):
            return wanted
        # A client whose clock is ahead waits no longer than it asked for.
        until_ms = min(until_ms, now_ms + fields.poll_ms)
        received = self.receiver.receive(
            wanted,
            until_ms if fields.poll_ms > 0 else 0,
            lambda: request.peer.closed,
            lambda later: self._answer_later(request, wanted, later),
        )
        return None if received is None else self._answer(request, wanted, received)

    def _answer_later(self, request: Request[PopMessage], wanted: Pop, received: Received) -> None:
        if not request.one_way and not request.peer.closed:
            encoded = self._answer(request, wanted, received)
            if encoded is not None:
                request.peer.send(encoded)

    def _answer(
        self, request: Request[PopMessage], wanted: Pop, received: Received
    ) -> bytes | None:
        """The frame of an answer; ``None`` when messages were handed over as values."""
        found = request.fields.found
        if received.code == codes.SUCCESS and callable(found):
            found(request.opaque, received.popped)
            return None
        return self._encode(request.opaque, wanted, received)

    def _encode(self, opaque: int, wanted: Pop, received: Received) -> bytes:
        if received.code != codes.SUCCESS:
            remark = received.remark or answers.NOTHING
            return encode_reply(
                opaque, Reply(received.code, remark, answers.times(received.popped))
            )
        actual = self._settings.pop_response_return_actual_retry_topic
        name = None if actual else self._settings.broker_name
        return answers.found(opaque, received.popped, wanted, name)

    def _check_pop(self, request: Request[PopMessage]) -> Pop | Reply:
        fields = request.fields
        if not self._settings.broker_permission & PERM_READ:
            return Reply(codes.NO_PERMISSION, "the broker does not permit popping")
        if fields.max_messages > MESSAGES_MAX:
            return Reply(
                codes.INVALID_PARAMETER,
                f"maxMsgNums is {fields.max_messages}, {MESSAGES_MAX} is the most",
            )
        if not self._settings.timer_wheel_enable:
            return Reply(
                codes.SYSTEM_ERROR, "pop message is forbidden because timerWheelEnable is false"
            )
        checked = self._check(request, fields.topic, fields.consumer_group, fields.queue_id)
        if isinstance(checked, Reply):
            return checked
        topic, group = checked
        subscription = self._subscription(topic, fields.expression, fields.expression_type)
        if isinstance(subscription, Reply):
            return subscription
        return Pop(
            group=group,
            topic=topic,
            queue_id=fields.queue_id,
            max_messages=max(0, fields.max_messages),
            invisible_ms=fields.invisible_ms,
            subscription=subscription,
            from_min=fields.init_mode == INIT_MIN,
            order=fields.order,
            attempt_id=fields.attempt_id,
            priority_factor=self._priority_factor(topic, group),
        )

    def _priority_factor(self, topic: Topic, group: str) -> int:
        found = self._core.groups.table.get(group) if topic.prioritized else None
        return 100 if found is None else int(found.attributes.get("priority.factor", 100))

    def _subscription(
        self, topic: Topic, expression: str | None, expression_type: str | None
    ) -> Subscription | Reply:
        try:
            return self._expressions.get(
                topic.name, expression or "*", expression_type if expression else TAG
            )
        except ExpressionError as error:
            return Reply(codes.SUBSCRIPTION_PARSE_FAILED, str(error))

    def _check(
        self, request: Request[Any], name: str, group_name: str, queue_id: int
    ) -> tuple[Topic, str] | Reply:
        """The topic and group of a request, or why it may not read there."""
        core = self._core
        topic = core.topics.find(name)
        if topic is None:
            return Reply(codes.TOPIC_NOT_EXIST, f"topic[{name}] not exist, apply first please!")
        if not topic.readable:
            return Reply(codes.NO_PERMISSION, f"the topic[{name}] peeking message is forbidden")
        if queue_id >= topic.read_queues:
            return Reply(
                codes.INVALID_PARAMETER,
                f"queueId[{queue_id}] is illegal, topic:[{name}] "
                f"topicConfig.readQueueNums:[{topic.read_queues}] "
                f"consumer:[{request.peer.remote[0]}]",
            )
        group = core.groups.table.get(group_name) or core.groups.find(group_name)
        if group is None:
            return Reply(
                codes.SUBSCRIPTION_GROUP_NOT_EXIST,
                f"subscription group [{group_name}] does not exist",
            )
        if not group.consume_enable:
            return Reply(codes.NO_PERMISSION, f"subscription group no permission, {group_name}")
        return topic, group.name

    def _check_reader(
        self, request: Request[PeekMessage] | Request[Notification] | Request[PollingInfo]
    ) -> tuple[Topic, str] | Reply:
        if not self._settings.broker_permission & PERM_READ:
            return Reply(codes.NO_PERMISSION, "the broker does not permit peeking")
        fields = request.fields
        return self._check(request, fields.topic, fields.consumer_group, fields.queue_id)

    # -- acknowledgements

    def acknowledge(self, request: Request[AckMessage]) -> Answer:
        """ACK_MESSAGE (200051)."""
        fields = request.fields
        if fields.lite_topic and self.lite is not None:
            return self.lite.acknowledge(request)
        refusal = self.acker.check(fields.topic, fields.queue_id, fields.offset, above=1)
        if refusal is not None:
            return Reply(refusal.code, refusal.remark)
        handle = fields.handle
        if handle.__class__ is not Handle:
            try:
                handle = parse_handle(fields.extra_info, fields.queue_id)
            except HandleError as error:
                return Reply(codes.SYSTEM_ERROR, str(error))
        return self._finish(
            request,
            self.acker.acknowledge(fields.topic, fields.consumer_group, fields.offset, handle),
        )

    def acknowledge_batch(self, request: Request[NoFields]) -> Answer:
        """BATCH_ACK_MESSAGE (200151)."""
        try:
            batch = answers.read_batch(request.body)
        except ValueError as error:
            return Reply(codes.SYSTEM_ERROR, f"unreadable batch of acknowledgements: {error}")
        if not batch:
            return Reply(codes.NO_MESSAGE, "the batch is empty")
        total = Outcome()
        for part in batch:
            outcome = self.acker.acknowledge_batch(
                part.topic, part.group, part.offsets, part.handle
            )
            if outcome.code != codes.SUCCESS:
                total = Outcome(outcome.code, outcome.remark, total.end)
            else:
                total.end = max(total.end, outcome.end)
        return self._finish(request, total)

    def change_invisible(self, request: Request[ChangeInvisibleTime]) -> Answer:
        """CHANGE_MESSAGE_INVISIBLETIME (200053)."""
        fields = request.fields
        if fields.lite_topic and self.lite is not None:
            return self.lite.change_invisible(request)
        refusal = self.acker.check(fields.topic, fields.queue_id, fields.offset, above=0)
        if refusal is not None:
            return Reply(refusal.code, refusal.remark)
        try:
            handle = parse_handle(fields.extra_info, fields.queue_id)
        except HandleError as error:
            return Reply(codes.SYSTEM_ERROR, str(error))
        changed = self.acker.change_invisible(
            fields.topic, fields.consumer_group, fields.offset, handle, fields.invisible_ms
        )
        if isinstance(changed, Outcome):
            ext = {"invisibleTime": "0", "popTime": "0", "reviveQid": "0"}
            return Reply(changed.code, changed.remark, ext)
        ext = {
            "invisibleTime": str(changed.invisible_ms),
            "popTime": str(changed.pop_ms),
            "reviveQid": str(changed.revive_queue),
        }
        return self._when_safe(request, Reply(ext=ext), changed.end)

    def _finish(self, request: Request[Any], outcome: Outcome) -> Answer:
        return self._when_safe(request, Reply(outcome.code, outcome.remark), outcome.end)

    def _when_safe(self, request: Request[Any], reply: Reply, end: int) -> Answer:
        if self._settings.flush_disk_type == "ASYNC_FLUSH" or not end:
            return reply
        self._core.store.when_durable(end, lambda durable: answer(request, reply))
        return None

    # -- looking

    def peek(self, request: Request[PeekMessage]) -> Answer:
        """PEEK_MESSAGE (200052)."""
        checked = self._check_reader(request)
        if isinstance(checked, Reply):
            return checked
        topic, group = checked
        fields = request.fields
        popped = self.popper.peek(topic, group, fields.queue_id, fields.max_messages)
        ext = answers.times(popped)
        if not popped.count:
            return Reply(codes.PULL_NOT_FOUND, answers.NOTHING, ext)
        body = b"".join(part.records for part in popped.parts)
        return Reply(remark=answers.FOUND, ext=ext, body=body)

    def notification(self, request: Request[Notification]) -> Answer:
        """NOTIFICATION (200054): says when there is something to pop."""
        checked = self._check_reader(request)
        if isinstance(checked, Reply):
            return checked
        return self._notice(request, *checked, last=False)

    def _notice(
        self, request: Request[Notification], topic: Topic, group: str, *, last: bool
    ) -> Reply | None:
        fields = request.fields
        found = self.popper.anything(
            topic, group, fields.queue_id, order=fields.order, attempt_id=fields.attempt_id
        )
        full = False
        if not found and not last and fields.poll_ms > 0:
            subscription = self._subscription(topic, fields.expression, fields.expression_type)
            interest = None
            if not isinstance(subscription, Reply):
                interest = interest_of(subscription, self._core.store)
            now_ms = self._clock.now_ms()
            held = self.notices.park(
                topic.name,
                group,
                fields.queue_id,
                min(fields.born_ms or now_ms, now_ms) + fields.poll_ms,
                interest,
                lambda: request.peer.closed,
                lambda last: self._notice_later(request, topic, group, last),
            )
            if held is None:
                return None
            full = held == "full"
        ext = {"hasMsg": answers.boolean(found), "pollingFull": answers.boolean(full)}
        return Reply(ext=ext)

    def _notice_later(
        self, request: Request[Notification], topic: Topic, group: str, last: bool
    ) -> None:
        if self.notices.stopped:
            answer(request, Reply(codes.SYSTEM_BUSY, STOPPING))
            return
        reply = self._notice(request, topic, group, last=last)
        if reply is not None:
            answer(request, reply)

    def polling_info(self, request: Request[PollingInfo]) -> Answer:
        """POLLING_INFO (200055): how many pops wait."""
        checked = self._check_reader(request)
        if isinstance(checked, Reply):
            return checked
        topic, group = checked
        count = self.waiting.waiting(topic.name, group, request.fields.queue_id)
        return Reply(ext={"pollingNum": str(count)})
