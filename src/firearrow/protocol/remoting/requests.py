"""Ext fields of every request the servers answer, one struct a request (remoting.md section 3).

Attribute names say what a field means; the wire name is its camel case unless ``name=`` says
otherwise. A field without a default is mandatory. Numbers and booleans travel as strings and are
read as such (C++ sends some as JSON numbers, which is read too).
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, field

from firearrow.protocol.remoting.command import Fields, NoFields

# What goes into a record as it is has to fit there.
Int32 = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
Int64 = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]

# -- sending


class SendMessage(Fields):
    """SEND_MESSAGE (10), SEND_REPLY_MESSAGE (324): the long names; Go uses them."""

    producer_group: str
    topic: str
    queue_id: Int32
    born_timestamp: Int64
    default_topic: str = "TBW102"
    default_topic_queues: Int32 = field(default=4, name="defaultTopicQueueNums")
    sys_flag: Int32 = 0
    flag: Int32 = 0
    properties: str | None = None
    reconsume_times: Int32 | None = None
    unit_mode: bool | None = None
    max_reconsume_times: int | None = None
    batch: bool | None = None


class SendMessageV2(Fields):
    """SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320), SEND_REPLY_MESSAGE_V2 (325)."""

    producer_group: str = field(name="a")
    topic: str = field(name="b")
    queue_id: Int32 = field(name="e")
    born_timestamp: Int64 = field(name="g")
    default_topic: str = field(default="TBW102", name="c")
    default_topic_queues: Int32 = field(default=4, name="d")
    sys_flag: Int32 = field(default=0, name="f")
    flag: Int32 = field(default=0, name="h")
    properties: str | None = field(default=None, name="i")
    reconsume_times: Int32 | None = field(default=None, name="j")
    unit_mode: bool | None = field(default=None, name="k")
    max_reconsume_times: int | None = field(default=None, name="l")
    batch: bool | None = field(default=None, name="m")


class ConsumerSendMessageBack(Fields):
    """CONSUMER_SEND_MSG_BACK (36). ``offset`` is physical."""

    offset: int
    group: str
    delay_level: int
    origin_msg_id: str | None = None
    origin_topic: str | None = None
    unit_mode: bool | None = None
    max_reconsume_times: int | None = None


class EndTransaction(Fields):
    """END_TRANSACTION (37)."""

    producer_group: str
    tran_state_table_offset: int
    commit_log_offset: int
    commit_or_rollback: int
    from_transaction_check: bool | None = None
    msg_id: str | None = None
    transaction_id: str | None = None
    topic: str | None = None


class RedriveDeadLetters(Fields):
    """REDRIVE_DEAD_LETTERS (7100), Firearrow's own. ``to`` is ``topic`` or ``group``."""

    group: str
    to: str = "topic"
    max_messages: int = 256


class ResumeCheckHalfMessage(Fields):
    """RESUME_CHECK_HALF_MESSAGE (323). ``msg_id`` is the offset id."""

    msg_id: str
    topic: str | None = None


# -- pulling and offsets


class PullMessage(Fields):
    """PULL_MESSAGE (11), LITE_PULL_MESSAGE (361)."""

    consumer_group: str
    topic: str
    queue_id: int
    queue_offset: int
    max_messages: int = field(name="maxMsgNums")
    sys_flag: int
    commit_offset: int = 0
    suspend_timeout_ms: int = field(default=0, name="suspendTimeoutMillis")
    subscription: str | None = None
    sub_version: int = 0
    expression_type: str | None = None
    max_bytes: int | None = field(default=None, name="maxMsgBytes")
    lo: bool | None = None  # false: of a static topic, a queue and offset of this broker's store


class QueueOfGroup(Fields):
    """QUERY_CONSUMER_OFFSET (14)."""

    consumer_group: str
    topic: str
    queue_id: int
    set_zero_if_not_found: bool | None = None
    lo: bool | None = None


class UpdateConsumerOffset(Fields):
    """UPDATE_CONSUMER_OFFSET (15)."""

    consumer_group: str
    topic: str
    queue_id: int | None = None
    commit_offset: int | None = None
    lo: bool | None = None


class QueueOfTopic(Fields):
    """GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32)."""

    topic: str
    queue_id: int
    lo: bool | None = None


class SearchOffset(Fields):
    """SEARCH_OFFSET_BY_TIMESTAMP (29)."""

    topic: str
    queue_id: int
    timestamp: int
    boundary_type: str | None = None
    lite_topic: str | None = None
    lo: bool | None = None


class RecallMessage(Fields):
    """RECALL_MESSAGE (370)."""

    topic: str
    recall_handle: str = ""
    producer_group: str | None = None


# -- queries


class ViewMessageById(Fields):
    """VIEW_MESSAGE_BY_ID (33). ``offset`` is physical."""

    offset: int
    topic: str | None = None


class QueryMessage(Fields):
    """QUERY_MESSAGE (12)."""

    topic: str
    key: str
    max_count: int = field(name="maxNum")
    begin_ms: int = field(name="beginTimestamp")
    end_ms: int = field(name="endTimestamp")
    unique_key: str | None = field(default=None, name="_UNIQUE_KEY_QUERY")
    index_type: str | None = None


class QueryConsumeQueue(Fields):
    """QUERY_CONSUME_QUEUE (321)."""

    topic: str
    queue_id: int
    index: int
    count: int
    consumer_group: str | None = None


# -- clients


class UnregisterClient(Fields):
    """UNREGISTER_CLIENT (35)."""

    client_id: str = field(name="clientID")
    producer_group: str | None = None
    consumer_group: str | None = None


class ConsumerGroup(Fields):
    """GET_CONSUMER_LIST_BY_GROUP (38), GET_CONSUMER_CONNECTION_LIST (203)."""

    consumer_group: str


class ProducerGroup(Fields):
    """GET_PRODUCER_CONNECTION_LIST (204)."""

    producer_group: str


class ClientOfGroup(Fields):
    """GET_CONSUMER_RUNNING_INFO (307)."""

    consumer_group: str
    client_id: str
    jstack_enable: bool = False


class ConsumeMessageDirectly(Fields):
    """CONSUME_MESSAGE_DIRECTLY (309)."""

    consumer_group: str
    client_id: str | None = None
    msg_id: str | None = None
    broker_name: str | None = None
    topic: str | None = None
    topic_sys_flag: int | None = None
    group_sys_flag: int | None = None


# -- topics and groups


class CreateTopic(Fields):
    """UPDATE_AND_CREATE_TOPIC (17), UPDATE_AND_CREATE_STATIC_TOPIC (513). Go and C++ leave some
    keys out."""

    topic: str
    default_topic: str | None = None
    read_queues: int = field(default=8, name="readQueueNums")
    write_queues: int = field(default=8, name="writeQueueNums")
    perm: int = 6
    filter_type: str = field(default="SINGLE_TAG", name="topicFilterType")
    sys_flag: int | None = field(default=None, name="topicSysFlag")
    order: bool = False
    attributes: str | None = None
    force: bool | None = None


class TopicName(Fields):
    """DELETE_TOPIC_IN_BROKER (215), GET_TOPIC_CONFIG (351), GET_TOPIC_STATS_INFO (202),
    QUERY_TOPIC_CONSUME_BY_WHO (300), REGISTER_TOPIC_IN_NAMESRV (217)."""

    topic: str
    lo: bool | None = None


class TablePage(Fields):
    """GET_ALL_TOPIC_CONFIG (21), GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201)."""

    topic_seq: int | None = None
    max_topics: int | None = field(default=None, name="maxTopicNum")
    group_seq: int | None = None
    max_groups: int | None = field(default=None, name="maxGroupNum")
    data_version: str | None = None


class GroupName(Fields):
    """GET_SUBSCRIPTIONGROUP_CONFIG (352), QUERY_TOPICS_BY_CONSUMER (343)."""

    group: str


class DeleteGroup(Fields):
    """DELETE_SUBSCRIPTIONGROUP (207)."""

    group: str = field(name="groupName")
    clean_offset: bool = False


class GroupForbidden(Fields):
    """UPDATE_AND_GET_GROUP_FORBIDDEN (353)."""

    group: str
    topic: str
    readable: bool | None = None


class TopicOfGroup(Fields):
    """QUERY_CONSUME_TIME_SPAN (303), QUERY_SUBSCRIPTION_BY_CONSUMER (345)."""

    group: str
    topic: str | None = None


class ConsumeStats(Fields):
    """GET_CONSUME_STATS (208)."""

    consumer_group: str
    topic: str | None = None
    topic_list: str | None = None


class BrokerConsumeStats(Fields):
    """GET_BROKER_CONSUME_STATS (317)."""

    is_order: bool = False


class ResetOffset(Fields):
    """INVOKE_BROKER_TO_RESET_OFFSET (222)."""

    topic: str
    group: str
    timestamp: int = -1
    is_force: bool = False
    queue_id: int = -1
    offset: int | None = None


class ConsumerStatus(Fields):
    """INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223)."""

    topic: str
    group: str
    client_addr: str | None = None


class CorrectionOffset(Fields):
    """QUERY_CORRECTION_OFFSET (308)."""

    topic: str
    compare_group: str
    filter_groups: str | None = None


class CloneGroupOffset(Fields):
    """CLONE_GROUP_OFFSET (314)."""

    src_group: str
    dest_group: str
    topic: str | None = None
    offline: bool = False


class ViewBrokerStats(Fields):
    """VIEW_BROKER_STATS_DATA (315)."""

    stats_name: str
    stats_key: str


# -- name server


class GetRoute(Fields):
    """GET_ROUTEINFO_BY_TOPIC (105)."""

    topic: str
    accept_standard_json_only: bool | None = None
    zone_mode: str | None = field(default=None, name="__ZONE_MODE")
    zone_name: str | None = field(default=None, name="__ZONE_NAME")


class PutKvConfig(Fields):
    """PUT_KV_CONFIG (100)."""

    namespace: str | None = None
    key: str | None = None
    value: str | None = None


class KvKey(Fields):
    """GET_KV_CONFIG (101), DELETE_KV_CONFIG (102)."""

    namespace: str
    key: str


class KvNamespace(Fields):
    """GET_KVLIST_BY_NAMESPACE (219)."""

    namespace: str


class RegisterBroker(Fields):
    """REGISTER_BROKER (103)."""

    broker_name: str
    broker_addr: str
    cluster_name: str
    broker_id: int
    ha_server_addr: str | None = None
    heartbeat_timeout_ms: int | None = field(default=None, name="heartbeatTimeoutMillis")
    enable_acting_master: bool | None = None
    compressed: bool = False
    body_crc32: int = 0
    zone_name: str | None = field(default=None, name="__ZONE_NAME")


class BrokerOfCluster(Fields):
    """UNREGISTER_BROKER (104), QUERY_DATA_VERSION (322)."""

    broker_name: str
    broker_addr: str
    cluster_name: str
    broker_id: int


class BrokerHeartbeat(Fields):
    """BROKER_HEARTBEAT (904)."""

    cluster_name: str
    broker_addr: str
    broker_name: str
    broker_id: int | None = None


class BrokerMemberGroup(Fields):
    """GET_BROKER_MEMBER_GROUP (901)."""

    cluster_name: str
    broker_name: str


class BrokerName(Fields):
    """WIPE_WRITE_PERM_OF_BROKER (205), ADD_WRITE_PERM_OF_BROKER (327)."""

    broker_name: str


class DeleteTopicInNamesrv(Fields):
    """DELETE_TOPIC_IN_NAMESRV (216)."""

    topic: str
    cluster_name: str | None = None


class ClusterName(Fields):
    """GET_TOPICS_BY_CLUSTER (224)."""

    cluster: str


# -- the table: request code -> name and ext fields

REQUESTS: Final[dict[int, tuple[str, type[Fields]]]] = {
    10: ("SEND_MESSAGE", SendMessage),
    11: ("PULL_MESSAGE", PullMessage),
    12: ("QUERY_MESSAGE", QueryMessage),
    14: ("QUERY_CONSUMER_OFFSET", QueueOfGroup),
    15: ("UPDATE_CONSUMER_OFFSET", UpdateConsumerOffset),
    17: ("UPDATE_AND_CREATE_TOPIC", CreateTopic),
    18: ("UPDATE_AND_CREATE_TOPIC_LIST", NoFields),
    21: ("GET_ALL_TOPIC_CONFIG", TablePage),
    25: ("UPDATE_BROKER_CONFIG", NoFields),
    26: ("GET_BROKER_CONFIG", NoFields),
    28: ("GET_BROKER_RUNTIME_INFO", NoFields),
    29: ("SEARCH_OFFSET_BY_TIMESTAMP", SearchOffset),
    30: ("GET_MAX_OFFSET", QueueOfTopic),
    31: ("GET_MIN_OFFSET", QueueOfTopic),
    32: ("GET_EARLIEST_MSG_STORETIME", QueueOfTopic),
    33: ("VIEW_MESSAGE_BY_ID", ViewMessageById),
    34: ("HEART_BEAT", NoFields),
    35: ("UNREGISTER_CLIENT", UnregisterClient),
    36: ("CONSUMER_SEND_MSG_BACK", ConsumerSendMessageBack),
    37: ("END_TRANSACTION", EndTransaction),
    38: ("GET_CONSUMER_LIST_BY_GROUP", ConsumerGroup),
    41: ("LOCK_BATCH_MQ", NoFields),
    42: ("UNLOCK_BATCH_MQ", NoFields),
    43: ("GET_ALL_CONSUMER_OFFSET", NoFields),
    45: ("GET_ALL_DELAY_OFFSET", NoFields),
    46: ("CHECK_CLIENT_CONFIG", NoFields),
    100: ("PUT_KV_CONFIG", PutKvConfig),
    101: ("GET_KV_CONFIG", KvKey),
    102: ("DELETE_KV_CONFIG", KvKey),
    103: ("REGISTER_BROKER", RegisterBroker),
    104: ("UNREGISTER_BROKER", BrokerOfCluster),
    105: ("GET_ROUTEINFO_BY_TOPIC", GetRoute),
    106: ("GET_BROKER_CLUSTER_INFO", NoFields),
    200: ("UPDATE_AND_CREATE_SUBSCRIPTIONGROUP", NoFields),
    201: ("GET_ALL_SUBSCRIPTIONGROUP_CONFIG", TablePage),
    202: ("GET_TOPIC_STATS_INFO", TopicName),
    203: ("GET_CONSUMER_CONNECTION_LIST", ConsumerGroup),
    204: ("GET_PRODUCER_CONNECTION_LIST", ProducerGroup),
    205: ("WIPE_WRITE_PERM_OF_BROKER", BrokerName),
    206: ("GET_ALL_TOPIC_LIST_FROM_NAMESERVER", NoFields),
    207: ("DELETE_SUBSCRIPTIONGROUP", DeleteGroup),
    208: ("GET_CONSUME_STATS", ConsumeStats),
    215: ("DELETE_TOPIC_IN_BROKER", TopicName),
    216: ("DELETE_TOPIC_IN_NAMESRV", DeleteTopicInNamesrv),
    217: ("REGISTER_TOPIC_IN_NAMESRV", TopicName),
    219: ("GET_KVLIST_BY_NAMESPACE", KvNamespace),
    222: ("INVOKE_BROKER_TO_RESET_OFFSET", ResetOffset),
    223: ("INVOKE_BROKER_TO_GET_CONSUMER_STATUS", ConsumerStatus),
    224: ("GET_TOPICS_BY_CLUSTER", ClusterName),
    225: ("UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST", NoFields),
    300: ("QUERY_TOPIC_CONSUME_BY_WHO", TopicName),
    303: ("QUERY_CONSUME_TIME_SPAN", TopicOfGroup),
    304: ("GET_SYSTEM_TOPIC_LIST_FROM_NS", NoFields),
    305: ("GET_SYSTEM_TOPIC_LIST_FROM_BROKER", NoFields),
    306: ("CLEAN_EXPIRED_CONSUMEQUEUE", NoFields),
    307: ("GET_CONSUMER_RUNNING_INFO", ClientOfGroup),
    308: ("QUERY_CORRECTION_OFFSET", CorrectionOffset),
    309: ("CONSUME_MESSAGE_DIRECTLY", ConsumeMessageDirectly),
    310: ("SEND_MESSAGE_V2", SendMessageV2),
    311: ("GET_UNIT_TOPIC_LIST", NoFields),
    312: ("GET_HAS_UNIT_SUB_TOPIC_LIST", NoFields),
    313: ("GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST", NoFields),
    314: ("CLONE_GROUP_OFFSET", CloneGroupOffset),
    315: ("VIEW_BROKER_STATS_DATA", ViewBrokerStats),
    316: ("CLEAN_UNUSED_TOPIC", NoFields),
    317: ("GET_BROKER_CONSUME_STATS", BrokerConsumeStats),
    318: ("UPDATE_NAMESRV_CONFIG", NoFields),
    319: ("GET_NAMESRV_CONFIG", NoFields),
    320: ("SEND_BATCH_MESSAGE", SendMessageV2),
    321: ("QUERY_CONSUME_QUEUE", QueryConsumeQueue),
    322: ("QUERY_DATA_VERSION", BrokerOfCluster),
    323: ("RESUME_CHECK_HALF_MESSAGE", ResumeCheckHalfMessage),
    324: ("SEND_REPLY_MESSAGE", SendMessage),
    325: ("SEND_REPLY_MESSAGE_V2", SendMessageV2),
    327: ("ADD_WRITE_PERM_OF_BROKER", BrokerName),
    328: ("GET_ALL_PRODUCER_INFO", NoFields),
    329: ("DELETE_EXPIRED_COMMITLOG", NoFields),
    343: ("QUERY_TOPICS_BY_CONSUMER", GroupName),
    345: ("QUERY_SUBSCRIPTION_BY_CONSUMER", TopicOfGroup),
    351: ("GET_TOPIC_CONFIG", TopicName),
    352: ("GET_SUBSCRIPTIONGROUP_CONFIG", GroupName),
    353: ("UPDATE_AND_GET_GROUP_FORBIDDEN", GroupForbidden),
    361: ("LITE_PULL_MESSAGE", PullMessage),
    370: ("RECALL_MESSAGE", RecallMessage),
    513: ("UPDATE_AND_CREATE_STATIC_TOPIC", CreateTopic),
    901: ("GET_BROKER_MEMBER_GROUP", BrokerMemberGroup),
    904: ("BROKER_HEARTBEAT", BrokerHeartbeat),
    907: ("GET_BROKER_HA_STATUS", NoFields),
    7100: ("REDRIVE_DEAD_LETTERS", RedriveDeadLetters),
}

# Calls of ours to clients and brokers.
REDRIVE_DEAD_LETTERS: Final = 7100
CHECK_TRANSACTION_STATE: Final = 39
NOTIFY_CONSUMER_IDS_CHANGED: Final = 40
RESET_CONSUMER_CLIENT_OFFSET: Final = 220
GET_CONSUMER_STATUS_FROM_CLIENT: Final = 221
GET_CONSUMER_RUNNING_INFO: Final = 307
CONSUME_MESSAGE_DIRECTLY: Final = 309
PUSH_REPLY_MESSAGE_TO_CLIENT: Final = 326
NOTIFY_MIN_BROKER_ID_CHANGE: Final = 905
