"""Names with a meaning, and the rules for the others (``TopicValidator``, ``Validators``)."""

from __future__ import annotations

import re
from typing import Final

RETRY_PREFIX: Final = "%RETRY%"
DLQ_PREFIX: Final = "%DLQ%"
LMQ_PREFIX: Final = "%LMQ%"
LITE_PREFIX: Final = "%LMQ%$"  # of the light queues of lite topics
SYSTEM_TOPIC_PREFIX: Final = "rmq_sys_"
SYSTEM_GROUP_PREFIX: Final = "CID_RMQ_SYS_"

AUTO_CREATE_TOPIC: Final = "TBW102"
SELF_TEST_TOPIC: Final = "SELF_TEST_TOPIC"
BENCHMARK_TOPIC: Final = "BenchmarkTest"
OFFSET_MOVED_EVENT: Final = "OFFSET_MOVED_EVENT"
SCHEDULE_TOPIC: Final = "SCHEDULE_TOPIC_XXXX"
TRANS_HALF_TOPIC: Final = "RMQ_SYS_TRANS_HALF_TOPIC"
TRANS_OP_HALF_TOPIC: Final = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
ROCKSDB_TRANS_HALF_TOPIC: Final = "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC"
ROCKSDB_TRANS_OP_HALF_TOPIC: Final = "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC"
TRANS_CHECK_MAX_TIME_TOPIC: Final = "TRANS_CHECK_MAX_TIME_TOPIC"
TRACE_TOPIC: Final = "RMQ_SYS_TRACE_TOPIC"
TIMER_TOPIC: Final = "rmq_sys_wheel_timer"
REPLY_TOPIC_SUFFIX: Final = "_REPLY_TOPIC"
REVIVE_TOPIC_PREFIX: Final = "rmq_sys_REVIVE_LOG_"
MEMBER_SYNC_TOPIC_PREFIX: Final = "rmq_sys_SYNC_BROKER_MEMBER_"

BUILT_IN_GROUPS: Final = (
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
)

# Topics that are the broker's own whatever the cluster is called.
SYSTEM_TOPICS: Final = frozenset(
    {
        AUTO_CREATE_TOPIC,
        SELF_TEST_TOPIC,
        BENCHMARK_TOPIC,
        OFFSET_MOVED_EVENT,
        SCHEDULE_TOPIC,
        TRANS_HALF_TOPIC,
        TRANS_OP_HALF_TOPIC,
        ROCKSDB_TRANS_HALF_TOPIC,
        ROCKSDB_TRANS_OP_HALF_TOPIC,
        TRANS_CHECK_MAX_TIME_TOPIC,
        TRACE_TOPIC,
    }
)

# Clients get NO_PERMISSION for these (behaviour.md 0.3).
CLIENTS_MAY_NOT_SEND_TO: Final = frozenset(
    {
        SCHEDULE_TOPIC,
        TRANS_HALF_TOPIC,
        TRANS_OP_HALF_TOPIC,
        TRANS_CHECK_MAX_TIME_TOPIC,
        SELF_TEST_TOPIC,
        OFFSET_MOVED_EVENT,
    }
)

TOPIC_CHARS_MAX: Final = 127
RETRY_TOPIC_CHARS_MAX: Final = 255
GROUP_CHARS_MAX: Final = 120

_legal = re.compile(r"[%|a-zA-Z0-9_-]+").fullmatch
_ALLOWED: Final = "contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"


def topic_error(topic: str) -> str | None:
    """Say why ``topic`` is not a legal topic name, or ``None``."""
    if not topic.strip():
        return "The specified topic is blank."
    if not _legal(topic):
        return f"The specified topic[{topic}] {_ALLOWED}"
    limit = (
        RETRY_TOPIC_CHARS_MAX if topic.startswith((RETRY_PREFIX, DLQ_PREFIX)) else TOPIC_CHARS_MAX
    )
    if len(topic) > limit:
        return f"The specified topic is longer than topic max length {limit}."
    return None


def group_error(group: str) -> str | None:
    """Say why ``group`` is not a legal group name, or ``None``."""
    if not group.strip():
        return "The specified group is blank."
    if not _legal(group):
        return f"The specified group[{group}] {_ALLOWED}"
    if len(group) > GROUP_CHARS_MAX:
        return f"The specified group is longer than group max length {GROUP_CHARS_MAX}."
    return None


def retry_topic(group: str) -> str:
    return RETRY_PREFIX + group


def dead_letter_topic(group: str) -> str:
    return DLQ_PREFIX + group


def pop_retry_topic(group: str, topic: str, *, v2: bool = False) -> str:
    """Where messages go that a group popped and did not acknowledge (``KeyBuilder``)."""
    return f"{RETRY_PREFIX}{group}{'+' if v2 else '_'}{topic}"


def lite_queue(parent: str, lite_topic: str) -> str:
    """The light message queue of a lite topic (``LiteUtil``)."""
    return f"{LITE_PREFIX}{parent}${lite_topic}"


def lite_parts(queue: str) -> tuple[str, str] | None:
    """Parent and lite topic of a light message queue, if it is one of a lite topic."""
    if not queue.startswith(LITE_PREFIX):
        return None
    parent, _, lite_topic = queue[len(LITE_PREFIX) :].partition("$")
    if not parent or not lite_topic or "$" in lite_topic:
        return None
    return parent, lite_topic


def lite_error(queue: str, lite_topic: str) -> str | None:
    """Say why ``lite_topic``, whose light queue is ``queue``, cannot be one, or ``None``."""
    if not _legal(lite_topic):
        return f"The specified lite topic[{lite_topic}] {_ALLOWED}"
    if len(queue.encode()) > RETRY_TOPIC_CHARS_MAX:
        return f"The lite topic's queue {queue} is longer than {RETRY_TOPIC_CHARS_MAX}."
    return None


def is_system_group(group: str) -> bool:
    return group.startswith(SYSTEM_GROUP_PREFIX)
