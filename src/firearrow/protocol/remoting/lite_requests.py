"""Ext fields of the requests about lite topics (RocketMQ 5.5.0), and the body of subscriptions.

Their codes do not fit 16 bits: clients with binary headers send them cut (see ``headers``).
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import field

from firearrow.codec import lenient_json
from firearrow.protocol.remoting.command import Fields, NoFields

POP_LITE_MESSAGE: Final = 200070
LITE_SUBSCRIPTION_CTL: Final = 200071
NOTIFY_UNSUBSCRIBE_LITE: Final = 200073
GET_BROKER_LITE_INFO: Final = 200074
GET_PARENT_TOPIC_INFO: Final = 200075
GET_LITE_TOPIC_INFO: Final = 200076
GET_LITE_CLIENT_INFO: Final = 200077
GET_LITE_GROUP_INFO: Final = 200078
TRIGGER_LITE_DISPATCH: Final = 200079

PARTIAL_ADD: Final = "PARTIAL_ADD"
PARTIAL_REMOVE: Final = "PARTIAL_REMOVE"
COMPLETE_ADD: Final = "COMPLETE_ADD"
COMPLETE_REMOVE: Final = "COMPLETE_REMOVE"

# Types of an offset option, and values of a policy (``OffsetOption``).
POLICY: Final = "POLICY"
OFFSET: Final = "OFFSET"
TAIL_N: Final = "TAIL_N"
POLICY_LAST, POLICY_MIN, POLICY_MAX = 0, 1, 2


class PopLiteMessage(Fields):
    """POP_LITE_MESSAGE (200070). ``topic`` is the parent; times in ms."""

    client_id: str
    consumer_group: str
    topic: str
    max_messages: int = field(name="maxMsgNum")
    invisible_ms: int = field(name="invisibleTime")
    poll_ms: int = field(name="pollTime")
    born_ms: int = field(default=0, name="bornTime")
    attempt_id: str | None = None


class NotifyUnsubscribeLite(Fields):
    """NOTIFY_UNSUBSCRIBE_LITE (200073), from a broker."""

    lite_topic: str
    consumer_group: str
    client_id: str


class ParentTopic(Fields):
    """GET_PARENT_TOPIC_INFO (200075)."""

    topic: str


class LiteTopic(Fields):
    """GET_LITE_TOPIC_INFO (200076)."""

    parent_topic: str = ""
    lite_topic: str = ""


class LiteClient(Fields):
    """GET_LITE_CLIENT_INFO (200077)."""

    parent_topic: str = ""
    group: str = ""
    client_id: str = ""
    max_count: int = 1000


class LiteGroup(Fields):
    """GET_LITE_GROUP_INFO (200078). Without ``lite_topic``, about all of them."""

    group: str
    lite_topic: str | None = None
    top_k: int = 0


class LiteDispatch(Fields):
    """TRIGGER_LITE_DISPATCH (200079). Without ``client_id``, all clients of the group."""

    group: str
    client_id: str | None = None


LITE_REQUESTS: Final[dict[int, tuple[str, type[Fields]]]] = {
    POP_LITE_MESSAGE: ("POP_LITE_MESSAGE", PopLiteMessage),
    LITE_SUBSCRIPTION_CTL: ("LITE_SUBSCRIPTION_CTL", NoFields),
    GET_BROKER_LITE_INFO: ("GET_BROKER_LITE_INFO", NoFields),
    GET_PARENT_TOPIC_INFO: ("GET_PARENT_TOPIC_INFO", ParentTopic),
    GET_LITE_TOPIC_INFO: ("GET_LITE_TOPIC_INFO", LiteTopic),
    GET_LITE_CLIENT_INFO: ("GET_LITE_CLIENT_INFO", LiteClient),
    GET_LITE_GROUP_INFO: ("GET_LITE_GROUP_INFO", LiteGroup),
    TRIGGER_LITE_DISPATCH: ("TRIGGER_LITE_DISPATCH", LiteDispatch),
}


class OffsetOption(msgspec.Struct, frozen=True):
    """Where a new subscription begins: a policy, an offset, or so many messages back."""

    type: str = ""
    value: int = 0


class Change(msgspec.Struct, rename="camel", frozen=True):
    """One change of a client's subscriptions (``LiteSubscriptionDTO``)."""

    action: str | None = None
    client_id: str | None = None
    group: str | None = None
    topic: str | None = None
    lite_topics: list[str] | None = field(default=None, name="liteTopicSet")
    offset_option: OffsetOption | None = None
    version: int = 0


class _Body(msgspec.Struct):
    changes: list[Change] | None = field(default=None, name="subscriptionSet")


def read_changes(body: bytes) -> list[Change]:
    """The body of LITE_SUBSCRIPTION_CTL.

    Raises:
        ValueError: it cannot be read.
    """
    return msgspec.convert(lenient_json.loads(body), _Body).changes or []
