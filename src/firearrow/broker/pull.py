"""PULL_MESSAGE and LITE_PULL_MESSAGE (remoting.md 3.3, behaviour.md 2)."""

from __future__ import annotations

import struct
from functools import partial
from typing import Final, Protocol

import msgspec

from firearrow.broker.filters import Filters
from firearrow.broker.groups import Groups
from firearrow.broker.logical import Part
from firearrow.broker.long_poll import LongPoll
from firearrow.broker.members import Members
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.stats import BrokerStats
from firearrow.broker.subscription import TAG, ExpressionError, Subscription, SubscriptionCache
from firearrow.broker.topics import Topics
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.model.topic import PERM_READ, Topic
from firearrow.protocol.remoting.command import LANGUAGE, VERSION, Answer, Reply, Request
from firearrow.protocol.remoting.headers import encode_reply
from firearrow.protocol.remoting.requests import PullMessage
from firearrow.protocol.remoting.session import answer
from firearrow.store import api
from firearrow.store.api import Read, Store

FLAG_COMMIT_OFFSET: Final = 1
FLAG_SUSPEND: Final = 2
FLAG_SUBSCRIPTION: Final = 4

# ``forbiddenType`` of an answer 16.
_BROKER, _GROUP, _TOPIC, _BROADCAST, _SUBSCRIPTION = "1", "2", "3", "4", "5"
_LITE_PULL: Final = 361
OFFSET_RESET: Final = "OFFSET_RESET"

# Outcome of a read -> response code, where the offset asked for does not matter.
_READ_CODES: Final = {
    api.FOUND: codes.SUCCESS,
    api.NO_MATCHED_MESSAGE: codes.PULL_RETRY_IMMEDIATELY,
    api.MESSAGE_WAS_REMOVING: codes.PULL_RETRY_IMMEDIATELY,
    api.OFFSET_TOO_SMALL: codes.PULL_OFFSET_MOVED,
    api.OFFSET_OVERFLOW_ONE: codes.PULL_NOT_FOUND,
    api.OFFSET_OVERFLOW_BADLY: codes.PULL_OFFSET_MOVED,
    api.OFFSET_FOUND_NULL: codes.PULL_NOT_FOUND,
    OFFSET_RESET: codes.PULL_OFFSET_MOVED,
}

_FRAME = struct.Struct(">II")


class PullSettings(Protocol):
    broker_permission: int
    enable_property_filter: bool
    lite_pull_message_enable: bool
    long_polling_enable: bool
    reject_pull_consumer_enable: bool
    short_polling_time_mills: int


class Puller:
    """Answers pulls; those that find nothing and may wait go to the long poll."""

    def __init__(
        self,
        settings: PullSettings,
        store: Store,
        topics: Topics,
        groups: Groups,
        members: Members,
        offsets: ConsumerOffsets,
        filters: Filters,
        clock: Clock,
        stats: BrokerStats,
    ) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics
        self._groups = groups
        self._members = members
        self._offsets = offsets
        self._stats = stats
        self._filters = filters
        self._logical = topics.logical
        self._expressions = SubscriptionCache(filters.compile)
        self.long_poll = LongPoll(clock, self._resume, store.record)

    def handle(self, request: Request[PullMessage]) -> Answer:
        """First look at a pull."""
        fields = request.fields
        if fields.sys_flag & FLAG_COMMIT_OFFSET and fields.commit_offset >= 0:
            commit = True
        else:
            commit = False
        return self._pull(request, first=True, commit=commit)

    def _resume(self, request: Request[PullMessage]) -> None:
        """Second look, after a wait; it answers whatever it finds."""
        found = self._pull(request, first=False, commit=False)
        if found is not None and not request.one_way:
            if isinstance(found, Reply):
                found = encode_reply(request.opaque, found)
            request.peer.send(found)

    def dismiss(self) -> None:
        """The broker stops: answer whoever waits.

        With an error, since after one every client makes a pause. After "nothing found" it asks
        again at once, and Go's waits 30 s for the answer when the connection closes meanwhile.
        """
        for request in self.long_poll.take_all():
            answer(request, Reply(codes.SYSTEM_BUSY, "the broker is stopping"))

    def _pull(self, request: Request[PullMessage], *, first: bool, commit: bool) -> Answer:
        fields = request.fields
        if self._logical and fields.topic in self._logical and fields.lo is not False:
            return self._logical[fields.topic].pull(request, partial(self._pull_part, first=first))
        checked = self._check(request)
        if isinstance(checked, Reply):
            return checked
        topic, group, subscription = checked
        read = self._read(fields, subscription)
        if commit:
            self._offsets.commit(
                fields.topic, fields.consumer_group, fields.queue_id, fields.commit_offset
            )
        code = _code(read, fields.queue_offset)
        if code == codes.SUCCESS:
            self._stats.delivered(topic.name, group.name, read.count, len(read.records))
        elif code == codes.PULL_NOT_FOUND:
            self._stats.missed += 1
            if first and fields.sys_flag & FLAG_SUSPEND:
                self._park(request, fields, subscription)
                return None
        self._offsets.note_pull(
            fields.topic, fields.consumer_group, fields.queue_id, read.next_offset
        )
        return encode_pull(request.opaque, code, read, topic.sys_flag, group.sys_flag)

    def _pull_part(self, request: Request[PullMessage], part: Part, *, first: bool) -> Answer:
        """Of a static topic's logical queue, from a queue of this broker's store."""
        fields = part.fields
        checked = self._check(msgspec.structs.replace(request, fields=fields))
        if isinstance(checked, Reply):
            return checked
        topic, group, subscription = checked
        read = self._read(fields, subscription)
        if first and part.commit is not None:
            self._offsets.commit(topic.name, group.name, *part.commit)
        code, shown = part.shown(_code(read, fields.queue_offset), read)
        if code == codes.SUCCESS:
            self._stats.delivered(topic.name, group.name, read.count, len(read.records))
        elif code == codes.PULL_NOT_FOUND:
            self._stats.missed += 1
            if first and fields.sys_flag & FLAG_SUSPEND:
                self._park(request, fields, subscription)
                return None
        self._offsets.note_pull(topic.name, group.name, fields.queue_id, read.next_offset)
        flags = topic.sys_flag, group.sys_flag
        return encode_pull(request.opaque, code, shown, *flags, f'"offsetDelta":"{part.delta}",')

    def _park(
        self, request: Request[PullMessage], fields: PullMessage, subscription: Subscription
    ) -> None:
        """Let the request wait for a message in the queue of ``fields``, the store's."""
        wait_ms = (
            fields.suspend_timeout_ms
            if self._settings.long_polling_enable
            else self._settings.short_polling_time_mills
        )
        self.long_poll.park(
            fields.topic,
            fields.queue_id,
            request,
            fields.queue_offset,
            subscription.codes,
            subscription.match,
            wait_ms / 1000,
        )

    def _read(self, fields: PullMessage, subscription: Subscription) -> Read:
        reset = self._offsets.take_reset(fields.topic, fields.consumer_group, fields.queue_id)
        if reset is not None:
            return Read(
                OFFSET_RESET,
                reset,
                self._store.min_offset(fields.topic, fields.queue_id),
                self._store.max_offset(fields.topic, fields.queue_id),
            )
        return self._store.read(
            fields.topic,
            fields.queue_id,
            fields.queue_offset,
            fields.max_messages,
            tags_codes=subscription.codes,
            match=subscription.match,
        )

    # -- checks, in RocketMQ's order (behaviour.md 2.1)

    def _check(self, request: Request[PullMessage]) -> tuple[Topic, Group, Subscription] | Reply:
        fields = request.fields
        settings = self._settings
        if not settings.broker_permission & PERM_READ:
            return _forbidden("the broker does not permit pulling", _BROKER)
        if request.code == _LITE_PULL and not settings.lite_pull_message_enable:
            return _forbidden("the broker does not permit lite pulling", _BROKER)
        group = self._groups.table.get(fields.consumer_group) or self._groups.find(
            fields.consumer_group
        )
        if group is None:
            return Reply(
                codes.SUBSCRIPTION_GROUP_NOT_EXIST,
                f"subscription group [{fields.consumer_group}] does not exist",
            )
        if not group.consume_enable:
            return _forbidden(f"subscription group no permission, {group.name}", _GROUP)
        topic = self._topics.table.get(fields.topic) or self._topics.find(fields.topic)
        if topic is None:
            return Reply(
                codes.TOPIC_NOT_EXIST, f"topic[{fields.topic}] not exist, apply first please!"
            )
        if not topic.perm & PERM_READ:
            return _forbidden(f"the topic[{topic.name}] pulling message is forbidden", _TOPIC)
        if not 0 <= fields.queue_id < topic.read_queues:
            return Reply(
                codes.INVALID_PARAMETER,
                f"queueId[{fields.queue_id}] is illegal, topic:[{topic.name}] "
                f"topicConfig.readQueueNums:[{topic.read_queues}] "
                f"consumer:[{request.peer.remote[0]}]",
            )
        subscription = self._subscription(fields, group)
        if isinstance(subscription, Reply):
            return subscription
        if subscription.expression_type != TAG and not settings.enable_property_filter:
            return _disabled(subscription.expression_type)
        return topic, group, subscription

    def _subscription(self, fields: PullMessage, group: Group) -> Subscription | Reply:
        if fields.sys_flag & FLAG_SUBSCRIPTION:
            return self._own_subscription(fields)
        online = self._members.consumers.get(group.name)
        if online is None:
            return Reply(codes.SUBSCRIPTION_NOT_EXIST, "the consumer's group info not exist")
        if online.broadcasting and not group.consume_broadcast_enable:
            return _forbidden(
                f"the consumer group[{group.name}] can not consume by broadcast way", _BROADCAST
            )
        if self._groups.forbidden and not self._groups.may_read(group.name, fields.topic):
            return _forbidden(
                f"the consumer group[{group.name}] is forbidden for topic[{fields.topic}]",
                _SUBSCRIPTION,
            )
        subscription = online.subscriptions.get(fields.topic)
        if subscription is None:
            return Reply(
                codes.SUBSCRIPTION_NOT_EXIST,
                f"the consumer's subscription not exist: group {group.name} did not subscribe to "
                f"topic {fields.topic} (all members of a group must have the same subscriptions)",
            )
        if subscription.version < fields.sub_version:
            return Reply(codes.SUBSCRIPTION_NOT_LATEST, "the consumer's subscription not latest")
        if subscription.expression_type == TAG:
            return subscription
        filtering = self._filters.find(fields.topic, group.name)
        if filtering is None:
            return Reply(
                codes.FILTER_DATA_NOT_EXIST,
                "The broker's consumer filter data is not exist!Your expression may be wrong!",
            )
        if filtering.version < fields.sub_version:
            return Reply(
                codes.FILTER_DATA_NOT_LATEST, "the consumer's consumer filter data not latest"
            )
        return filtering

    def _own_subscription(self, fields: PullMessage) -> Subscription | Reply:
        """Of a pull that brings its expression along."""
        kind = fields.expression_type
        if kind not in (None, "", TAG) and not self._settings.enable_property_filter:
            return _disabled(kind)
        try:
            return self._expressions.get(fields.topic, fields.subscription, kind)
        except ExpressionError as error:
            return Reply(
                codes.SUBSCRIPTION_PARSE_FAILED,
                f"parse the consumer's subscription failed: {error}",
            )


def _disabled(kind: str | None) -> Reply:
    return Reply(
        codes.SYSTEM_ERROR, f"The broker does not support consumer to filter message by {kind}"
    )


def _forbidden(remark: str, kind: str) -> Reply:
    ext = {
        "forbiddenType": kind,
        "maxOffset": "0",
        "minOffset": "0",
        "nextBeginOffset": "0",
        "suggestWhichBrokerId": "0",
    }
    return Reply(codes.NO_PERMISSION, remark, ext)


def _code(read: Read, offset: int) -> int:
    code = _READ_CODES.get(read.status)
    if code is None:  # an empty or unknown queue: nothing yet at 0, moved elsewhere
        return codes.PULL_NOT_FOUND if offset == 0 else codes.PULL_OFFSET_MOVED
    return code


def encode_pull(
    opaque: int, code: int, read: Read, topic_flag: int, group_flag: int, more: str = ""
) -> bytes:
    """The response frame: always all six fields, since Java unboxes them; ``more`` JSON."""
    header = (
        f'{{"code":{code},"extFields":{{"groupSysFlag":"{group_flag}",'
        f'"maxOffset":"{read.max_offset}","minOffset":"{read.min_offset}",'
        f'"nextBeginOffset":"{read.next_offset}",{more}"suggestWhichBrokerId":"0",'
        f'"topicSysFlag":"{topic_flag}"}},"flag":1,"language":"{LANGUAGE}","opaque":{opaque},'
        f'"remark":"{read.status}","version":{VERSION}}}'
    ).encode()
    size = len(header)
    body = read.records
    return b"".join((_FRAME.pack(4 + size + len(body), size), header, body))
