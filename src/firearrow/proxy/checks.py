"""What a request may contain: names and messages (``GrpcValidator``, ``SendMessageActivity``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from firearrow.codec.properties import NAME_END, VALUE_END, find_property
from firearrow.codec.record import Record
from firearrow.model import names
from firearrow.model.clock import Clock
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.proxy.refusal import Refusal

USER_PROPERTIES_MAX: Final = 128
NAMES_KNOWN_MAX: Final = 4096
NAME_KNOWN_CHARS_MAX: Final = 255
PROPERTY_BYTES_MAX: Final = 16 * 1024
GROUP_BYTES_MAX: Final = 64
DELAY_MS_MAX: Final = 24 * 3600 * 1000
RECOVERY_S_MAX: Final = 3600
INVISIBLE_MS_MIN: Final = 10_000  # of a receive
INVISIBLE_MS_MAX: Final = 12 * 3600 * 1000
LITE_TOPIC_BYTES_MAX: Final = 64

_lite_topic = re.compile(r"[a-zA-Z0-9_-]+").fullmatch
_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search

# ``MessageConst.STRING_HASH_SET``: users may not set these, and do not see them on delivery.
RESERVED: Final = frozenset(
    """
    TRACE_ON MSG_REGION KEYS TAGS WAIT DELAY RETRY_TOPIC REAL_TOPIC REAL_QID TRAN_MSG PGROUP
    MIN_OFFSET MAX_OFFSET BUYER_ID ORIGIN_MESSAGE_ID TRANSFER_FLAG CORRECTION_FLAG MQ2_FLAG
    RECONSUME_TIME UNIQ_KEY MAX_RECONSUME_TIMES CONSUME_START_TIME POP_CK POP_CK_OFFSET
    1ST_POP_TIME TRAN_PREPARED_QUEUE_OFFSET DUP_INFO EXTEND_UNIQ_INFO INSTANCE_ID CORRELATION_ID
    REPLY_TO_CLIENT TTL ARRIVE_TIME PUSH_REPLY_TIME CLUSTER MSG_TYPE INNER_MULTI_QUEUE_OFFSET
    TIMER_DELAY_MS TIMER_DELAY_SEC TIMER_DELIVER_MS TIMER_ENQUEUE_MS TIMER_DEQUEUE_MS
    TIMER_ROLL_TIMES TIMER_OUT_MS TIMER_DEL_UNIQKEY TIMER_DELAY_LEVEL __BORNHOST BORN_TIMESTAMP
    DLQ_ORIGIN_TOPIC DLQ_ORIGIN_MESSAGE_ID __CRC32# __LITE_TOPIC _SYS_MSG_PRIORITY_
    """.split()  # noqa: SIM905 - sixty names are easier to read so
)


def _known(fault: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """Remembers what was found out about names; not about those that are only long."""
    remembered = lru_cache(maxsize=NAMES_KNOWN_MAX)(fault)
    return lambda name: (remembered if len(name) <= NAME_KNOWN_CHARS_MAX else fault)(name)


@_known
def _topic_fault(name: str) -> str | None:
    error = names.topic_error(name)
    if error is None and len(name) > names.TOPIC_CHARS_MAX:
        error = f"The specified topic is longer than topic max length {names.TOPIC_CHARS_MAX}."
    if error is None and (
        name in names.SYSTEM_TOPICS or name.startswith(names.SYSTEM_TOPIC_PREFIX)
    ):
        error = "cannot access system topic"
    return error


@_known
def _group_fault(name: str) -> str | None:
    error = names.group_error(name)
    if error is None and name.startswith(names.SYSTEM_GROUP_PREFIX):
        error = "cannot use system consumer group"
    return error


def topic_name(topic: v2.Resource) -> str:
    """The name of a topic that clients may use.

    Raises:
        Refusal: ILLEGAL_TOPIC.
    """
    return topic_named(topic.name)


def topic_named(name: str) -> str:
    """The same, of a name that was read already."""
    error = _topic_fault(name)
    if error is not None:
        raise Refusal(v2.ILLEGAL_TOPIC, error)
    return name


def group_name(group: v2.Resource) -> str:
    """The name of a group that clients may use.

    Raises:
        Refusal: ILLEGAL_CONSUMER_GROUP.
    """
    return group_named(group.name)


def group_named(name: str) -> str:
    """The same, of a name that was read already."""
    error = _group_fault(name)
    if error is not None:
        raise Refusal(v2.ILLEGAL_CONSUMER_GROUP, error)
    return name


def lite_topic(name: str) -> None:
    """Check the name of a lite topic.

    Raises:
        Refusal: ILLEGAL_LITE_TOPIC.
    """
    if not name.strip():
        raise Refusal(v2.ILLEGAL_LITE_TOPIC, "lite topic cannot be the char sequence of whitespace")
    if len(name.encode()) > LITE_TOPIC_BYTES_MAX:
        raise Refusal(
            v2.ILLEGAL_LITE_TOPIC, f"lite topic exceed the max size {LITE_TOPIC_BYTES_MAX}"
        )
    if not _lite_topic(name):
        raise Refusal(
            v2.ILLEGAL_LITE_TOPIC,
            "lite topic can only contain alphanumeric characters, hyphens(-), and underscores(_)",
        )


def message_body(body: bytes, bytes_max: int) -> None:
    """Check a message's body.

    Raises:
        Refusal: MESSAGE_BODY_EMPTY or MESSAGE_BODY_TOO_LARGE.
    """
    if not body:
        raise Refusal(v2.MESSAGE_BODY_EMPTY, "message body cannot be empty")
    if len(body) > bytes_max:
        raise Refusal(
            v2.MESSAGE_BODY_TOO_LARGE,
            f"message body cannot exceed the max {bytes_max}, it has {len(body)}",
        )


def message_identity(message_id: str) -> None:
    """Check a message's id.

    Raises:
        Refusal: ILLEGAL_MESSAGE_ID.
    """
    if not message_id.strip():
        raise Refusal(v2.ILLEGAL_MESSAGE_ID, "message id cannot be blank")
    if NAME_END in message_id or VALUE_END in message_id:  # more properties than one
        raise Refusal(v2.ILLEGAL_MESSAGE_ID, "message id cannot contain control character")


def message(
    message: v2.Message,
    system: v2.SystemProperties,
    message_id: str,
    body: bytes,
    clock: Clock,
    body_bytes_max: int,
) -> None:
    """Check one message to send, in the proxy's order. Its system properties are given, since each
    reading of them from the message costs; id and body may be gone from it.

    Raises:
        Refusal: with the code that says what is wrong.
    """
    message_body(body, body_bytes_max)
    user_properties = message.user_properties
    tag, keys = system.tag, system.keys
    if user_properties:
        _user_properties(user_properties)
    if tag:
        _text(tag, v2.ILLEGAL_MESSAGE_TAG, "tag", forbidden="|")
    for key in keys:
        _text(key, v2.ILLEGAL_MESSAGE_KEY, "key")
    if user_properties or tag or keys:
        _property_bytes([*user_properties, *user_properties.values(), tag, *keys])
    message_identity(message_id)
    for what, text in (("trace context", system.trace_context), ("born host", system.born_host)):
        if _control(text):
            raise Refusal(v2.BAD_REQUEST, f"{what} cannot contain control character")
    if (
        system.HasField("orphaned_transaction_recovery_duration")
        and system.orphaned_transaction_recovery_duration.seconds > RECOVERY_S_MAX
    ):
        raise Refusal(v2.BAD_REQUEST, f"the recovery duration exceeds the max {RECOVERY_S_MAX} s")
    if system.HasField("delivery_timestamp"):
        at_ms = milliseconds(system.delivery_timestamp)
        if at_ms - clock.now_ms() > DELAY_MS_MAX:
            raise Refusal(
                v2.ILLEGAL_DELIVERY_TIME,
                f"the max delay time of message is too large, max is {DELAY_MS_MAX}",
            )
    group = system.message_group
    if group:
        if len(group.encode()) >= GROUP_BYTES_MAX:
            raise Refusal(
                v2.ILLEGAL_MESSAGE_GROUP, f"message group exceeds the max {GROUP_BYTES_MAX} bytes"
            )
        _text(group, v2.ILLEGAL_MESSAGE_GROUP, "message group")
    if system.lite_topic:
        lite_topic(system.lite_topic)


def _user_properties(properties: Mapping[str, str]) -> None:
    if len(properties) > USER_PROPERTIES_MAX:
        raise Refusal(
            v2.MESSAGE_PROPERTIES_TOO_LARGE,
            f"too many user properties, max is {USER_PROPERTIES_MAX}",
        )
    for key, value in properties.items():
        if key in RESERVED:
            raise Refusal(v2.ILLEGAL_MESSAGE_PROPERTY_KEY, f"property is used by system: {key}")
        if _control(key) or _control(value):
            raise Refusal(
                v2.ILLEGAL_MESSAGE_PROPERTY_KEY, f"property {key!r} has a control character"
            )


def _text(text: str, code: v2.Code.ValueType, what: str, forbidden: str = "") -> None:
    if not text:
        return
    if not text.strip():
        raise Refusal(code, f"{what} cannot be the char sequence of whitespace")
    if forbidden and forbidden in text:
        raise Refusal(code, f"{what} cannot contain {forbidden}")
    if _control(text):
        raise Refusal(code, f"{what} cannot contain control character")


def _property_bytes(texts: list[str]) -> None:
    if sum(len(text.encode()) for text in texts) > PROPERTY_BYTES_MAX:
        raise Refusal(
            v2.MESSAGE_PROPERTIES_TOO_LARGE,
            f"the total size of user property is too large, max is {PROPERTY_BYTES_MAX}",
        )


def wanted_tags(expression: v2.FilterExpression) -> frozenset[bytes] | None:
    """The tags of which a message must have one itself, and not only the hash of one, by which
    brokers choose; ``None`` when any will do."""
    if expression.type == v2.SQL or expression.expression in ("", "*"):
        return None
    return frozenset(tag.strip().encode() for tag in expression.expression.split("||"))


def has_tag(record: Record, tags: frozenset[bytes]) -> bool:
    return (find_property(record.properties, b"TAGS") or b"") in tags


def milliseconds(moment: Any) -> int:
    """Of a Timestamp or a Duration."""
    return int(moment.seconds * 1000 + moment.nanos // 1_000_000)
