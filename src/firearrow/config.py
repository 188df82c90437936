"""Settings of a broker: RocketMQ's names and defaults, from a property file, flags and requests.

One table of keys (behaviour.md 22.3 and 22.4). In Python a key is its snake case; in files and in
GET_BROKER_CONFIG it is RocketMQ's own spelling.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from firearrow.config_values import (
    CHECKS,
    BrokerPort,
    ConfigError,
    Percent,
    Permission,
    Port,
    Positive,
    value_of,
)

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024


class BrokerSettings(msgspec.Struct, rename="camel", kw_only=True):
    """Every setting with an effect. Read each time it is needed, so a change counts at once,
    except for addresses, ports, paths and file sizes, which count at the next start."""

    # who the broker is
    broker_name: str = msgspec.field(default_factory=platform.node)
    broker_cluster_name: str = "DefaultCluster"
    broker_id: int = 0
    broker_ip1: str = msgspec.field(default="", name="brokerIP1")
    broker_ip2: str = msgspec.field(default="", name="brokerIP2")
    listen_port: BrokerPort = 10911
    grpc_server_port: Port = 0  # 0: the listen port minus 2830, so 8081 beside 10911
    # Firearrow's own: whether gRPC calls must be signed, and by whom (JSON, user -> secret).
    grpc_authentication_enabled: bool = False
    grpc_users_file: str = ""
    ha_listen_port: Port = 0  # 0: the listen port plus 1
    bind_address: str = ""
    namesrv_addr: str = ""
    region_id: str = "DefaultRegion"
    broker_role: str = "ASYNC_MASTER"
    register_name_server_period: Positive = 30_000
    # what clients may do
    broker_permission: Permission = 6
    auto_create_topic_enable: bool = True
    auto_create_subscription_group: bool = True
    cluster_topic_enable: bool = True
    broker_topic_enable: bool = True
    default_topic_queue_nums: Annotated[int, Meta(ge=1, le=65535)] = 8
    trace_topic_enable: bool = False
    msg_trace_topic_name: str = "RMQ_SYS_TRACE_TOPIC"
    trace_on: bool = True
    timer_wheel_enable: bool = True
    timer_max_delay_sec: int = 3 * 24 * 3600
    timer_precision_ms: Positive = 1000
    timer_roll_window_slot: int = 2 * 24 * 3600
    recall_message_enable: bool = False
    allow_recall_when_broker_not_writeable: bool = True
    validate_system_topic_when_update_topic: bool = True
    enable_mixed_message_type: bool = False
    reject_transaction_message: bool = False
    store_reply_message_enable: bool = True
    transaction_time_out: int = 6000
    transaction_check_interval: int = 30_000
    transaction_check_max: int = 15
    transaction_op_msg_max_size: int = 4096
    transaction_op_batch_interval: int = 3000
    transaction_metric_flush_interval: int = 10_000
    start_accept_send_request_time_stamp: int = 0
    enable_property_filter: bool = False
    dedup_keys_max: Positive = (
        1_000_000  # for all topics with dedup.window.ms; about 100 bytes each
    )
    filter_data_clean_time_span: Positive = 24 * 3600 * 1000
    lite_pull_message_enable: bool = True
    reject_pull_consumer_enable: bool = False
    enable_register_producer: bool = True
    use_server_side_reset_offset: bool = True
    clear_retry_topic_when_delete_topic: bool = True
    config_black_list: str = "configBlackList;brokerConfigPath"
    # consumers
    long_polling_enable: bool = True
    short_polling_time_mills: Positive = 1000
    notify_consumer_ids_changed_enable: bool = True
    channel_expired_timeout: Positive = 120_000
    flush_consumer_offset_interval: Positive = 5000
    message_delay_level: str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"
    flush_delay_offset_interval: Positive = 10_000
    default_query_max_num: Positive = 32
    max_msgs_num_batch: Positive = 64
    # pop consumption
    revive_queue_num: Annotated[int, Meta(ge=1, le=64)] = 8
    revive_interval: Positive = 1000
    skip_when_ck_re_put_reach_max_times: bool = msgspec.field(
        default=False, name="skipWhenCKRePutReachMaxTimes"
    )
    enable_retry_topic_v2: bool = False
    retrieve_message_from_pop_retry_topic_v1: bool = True
    pop_from_retry_probability: Annotated[int, Meta(ge=0, le=100)] = 20
    pop_from_retry_probability_for_priority: Annotated[int, Meta(ge=0, le=100)] = 0
    priority_order_asc: bool = True
    use_separate_retry_queue: bool = False
    pop_response_return_actual_retry_topic: bool = False
    init_pop_offset_by_check_msg_in_mem: bool = True
    max_pop_polling_size: Positive = 100_000
    pop_polling_size: Positive = 1024
    pop_long_polling_force_notify_interval: int = 800
    enable_notify_after_pop_order_lock_release: bool = True
    server_load_balancer_enable: bool = True
    default_message_request_mode: str = "PULL"
    default_pop_share_queue_num: Annotated[int, Meta(ge=-1)] = -1
    load_balance_poll_name_server_interval: Positive = 30_000
    forward_timeout: Positive = 3000
    # lite topics
    lite_event_check_interval: Positive = 10_000
    lite_ttl_check_interval: Positive = 120_000
    min_lite_ttl: Positive = msgspec.field(default=15 * 60 * 1000, name="minLiteTTl")
    lite_lag_latency_collect_enable: bool = False
    lite_lag_latency_top_k: Positive = 50
    lite_subscription_check_interval: Positive = 120_000
    lite_subscription_check_timeout_mills: Positive = 180_000
    max_lite_subscription_count: Positive = 100_000
    max_client_event_count: Positive = 100
    lite_event_full_dispatch_delay_time: Positive = 10_000
    lite_event_full_dispatch_delay_time_for_wildcard_group: Positive = 10_000
    # the store
    store_path_root_dir: str = ""
    mapped_file_size_commit_log: Annotated[int, Meta(ge=65536, le=0x7FFFFFFF)] = 1024 * 1024 * 1024
    mapped_file_size_consume_queue: Annotated[int, Meta(ge=20, le=0x7FFFFFFF)] = 300_000 * 20
    mapper_file_size_batch_consume_queue: Annotated[int, Meta(ge=46, le=0x7FFFFFFF)] = 300_000 * 46
    max_message_size: Annotated[int, Meta(ge=1, le=FRAME_BYTES_MAX)] = 4 * 1024 * 1024
    flush_disk_type: str = "ASYNC_FLUSH"
    flush_interval_commit_log: Positive = 500
    sync_flush_timeout: Positive = 5000
    flush_interval_consume_queue: Positive = 1000
    flush_consume_queue_thorough_interval: Positive = 60_000
    max_transfer_bytes_on_message_in_memory: Positive = 256 * 1024
    max_transfer_count_on_message_in_memory: Positive = 32
    max_transfer_bytes_on_message_in_disk: Positive = 64 * 1024
    max_transfer_count_on_message_in_disk: Positive = 8
    max_filter_message_size: Positive = 16_000
    access_message_in_memory_max_ratio: Percent = 40
    message_index_enable: bool = True
    enable_lmq: bool = False
    enable_multi_dispatch: bool = False
    enable_lmq_quota: bool = False
    max_lmq_consume_queue_num: Positive = 20_000
    max_hash_slot_num: Positive = 5_000_000
    max_index_num: Annotated[int, Meta(ge=2)] = 20_000_000
    enable_compaction: bool = True
    compaction_mapped_file_size: Annotated[int, Meta(ge=1, le=0x3FFFFFFF)] = 100 * 1024 * 1024
    compaction_cq_mapped_file_size: Annotated[int, Meta(ge=138, le=0x0FFFFFFF)] = 10 * 1024 * 1024
    compaction_schedule_internal: Positive = 15 * 60 * 1000
    max_offset_map_size: Positive = 100 * 1024 * 1024
    file_reserved_time: int = 72
    delete_when: str = "04"
    clean_resource_interval: Positive = 10_000
    delete_file_batch_max: Positive = 10
    clean_file_forcibly_enable: bool = True
    disk_max_used_space_ratio: Percent = 75
    disk_space_clean_forcibly_ratio: Percent = 85
    disk_space_warning_level_ratio: Percent = 90


FIELDS: Final = {field.encode_name: field for field in msgspec.structs.fields(BrokerSettings)}


def set_value(settings: BrokerSettings, key: str, text: str) -> None:
    """Set one key from text.

    Raises:
        ConfigError: the text is no value for the key.
    """
    field = FIELDS[key]
    try:
        value = value_of(field.type, text)
        complaint = CHECKS[key](value) if key in CHECKS else ""
        if complaint:
            raise ConfigError(complaint)
    except ConfigError as error:
        raise ConfigError(f"{key}={text}: {error}") from None
    setattr(settings, field.name, value)


# -- at run time


def update(
    settings: BrokerSettings,
    wanted: Mapping[str, str],
    save: Callable[[Mapping[str, str]], None] = lambda changed: None,
) -> dict[str, str]:
    """Take over what a client may change at run time; what was changed. Unknown keys are left out.

    ``save`` gets the changes before they count.

    Raises:
        PermissionError: a key is on the black list; nothing is changed.
        ConfigError: a value that its key cannot have, or ``save`` failed; nothing is changed.
    """
    forbidden = {*settings.config_black_list.split(";"), "configBlackList", "rocketmqHome"}
    if not forbidden.isdisjoint(wanted):
        raise PermissionError("Can not update config in black list.")
    changed = {key: text for key, text in wanted.items() if key in FIELDS}
    trial = msgspec.structs.replace(settings)
    for key, text in changed.items():
        set_value(trial, key, text)
    save(changed)
    for key, text in changed.items():
        set_value(settings, key, text)
    return changed


def as_properties(settings: BrokerSettings) -> dict[str, Any]:
    """Every key and its value, RocketMQ's names in order."""
    values = msgspec.to_builtins(settings)
    return {key: values[key] for key in sorted(values)}
