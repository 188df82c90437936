"""Settings of a broker: RocketMQ's names and defaults, from a property file, flags and requests.

One table of keys (behaviour.md 22.3 and 22.4). In Python a key is its snake case; in files and in
GET_BROKER_CONFIG it is RocketMQ's own spelling.
"""

from __future__ import annotations

import difflib
import platform
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

FLUSH_TYPES: Final = ("ASYNC_FLUSH", "SYNC_FLUSH")


class ConfigError(ValueError):
    """A setting that cannot be; the text names file, line, key and what is allowed."""


class BrokerSettings(msgspec.Struct, rename="camel", kw_only=True):
    """Every setting with an effect. Read each time it is needed, so a change counts at once,
    except for addresses, ports, paths and file sizes, which count at the next start."""

    # who the broker is
    broker_name: str = msgspec.field(default_factory=platform.node)
    broker_cluster_name: str = "DefaultCluster"
    broker_id: int = 0
    broker_ip1: str = msgspec.field(default="", name="brokerIP1")
    broker_ip2: str = msgspec.field(default="", name="brokerIP2")
    listen_port: int = 10911
    ha_listen_port: int = 0  # 0: the listen port plus 1
    namesrv_addr: str = ""
    region_id: str = "DefaultRegion"
    broker_role: str = "ASYNC_MASTER"
    register_name_server_period: int = 30_000
    # what clients may do
    broker_permission: int = 6
    auto_create_topic_enable: bool = True
    auto_create_subscription_group: bool = True
    cluster_topic_enable: bool = True
    broker_topic_enable: bool = True
    default_topic_queue_nums: int = 8
    trace_topic_enable: bool = False
    msg_trace_topic_name: str = "RMQ_SYS_TRACE_TOPIC"
    trace_on: bool = True
    timer_wheel_enable: bool = True
    timer_max_delay_sec: int = 3 * 24 * 3600
    timer_precision_ms: int = 1000
    timer_roll_window_slot: int = 2 * 24 * 3600
    recall_message_enable: bool = False
    allow_recall_when_broker_not_writeable: bool = True
    validate_system_topic_when_update_topic: bool = True
    enable_mixed_message_type: bool = False
    reject_transaction_message: bool = False
    transaction_time_out: int = 6000
    transaction_check_interval: int = 30_000
    transaction_check_max: int = 15
    transaction_op_msg_max_size: int = 4096
    transaction_op_batch_interval: int = 3000
    start_accept_send_request_time_stamp: int = 0
    enable_property_filter: bool = False
    lite_pull_message_enable: bool = True
    reject_pull_consumer_enable: bool = False
    enable_register_producer: bool = True
    use_server_side_reset_offset: bool = True
    clear_retry_topic_when_delete_topic: bool = True
    config_black_list: str = "configBlackList;brokerConfigPath"
    # consumers
    long_polling_enable: bool = True
    short_polling_time_mills: int = 1000
    notify_consumer_ids_changed_enable: bool = True
    channel_expired_timeout: int = 120_000
    flush_consumer_offset_interval: int = 5000
    message_delay_level: str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"
    flush_delay_offset_interval: int = 10_000
    default_query_max_num: int = 32
    max_msgs_num_batch: int = 64
    # the store
    store_path_root_dir: str = ""
    mapped_file_size_commit_log: int = 1024 * 1024 * 1024
    mapped_file_size_consume_queue: int = 300_000 * 20
    max_message_size: int = 4 * 1024 * 1024
    flush_disk_type: str = "ASYNC_FLUSH"
    flush_interval_commit_log: int = 500
    sync_flush_timeout: int = 5000
    flush_interval_consume_queue: int = 1000
    flush_consume_queue_thorough_interval: int = 60_000
    max_transfer_bytes_on_message_in_memory: int = 256 * 1024
    max_transfer_count_on_message_in_memory: int = 32
    max_transfer_bytes_on_message_in_disk: int = 64 * 1024
    max_transfer_count_on_message_in_disk: int = 8
    max_filter_message_size: int = 16_000
    access_message_in_memory_max_ratio: int = 40
    message_index_enable: bool = True
    max_hash_slot_num: int = 5_000_000
    max_index_num: int = 20_000_000
    file_reserved_time: int = 72
    delete_when: str = "04"
    clean_resource_interval: int = 10_000
    delete_file_batch_max: int = 10
    clean_file_forcibly_enable: bool = True
    disk_max_used_space_ratio: int = 75
    disk_space_clean_forcibly_ratio: int = 85
    disk_space_warning_level_ratio: int = 90


_FIELDS: Final = {field.encode_name: field for field in msgspec.structs.fields(BrokerSettings)}

# Keys of RocketMQ that mean something to a Java broker and nothing here: its thread pools, memory
# management and features that are not served yet. A broker.conf that sets them is not warned about.
WITHOUT_EFFECT: Final = re.compile(
    r".*ThreadPoolNums|.*ThreadPoolQueueCapacity|waitTimeMills\w+|transientStorePool\w*|warmMapedFile\w*"
    r"|server\w+|client\w+|useEpollNativeSelector|transferMsgByHeap|useReentrantLockWhenPutMessage"
    r"|osPageCacheBusyTimeOutMills|brokerFastFailureEnable|storePathCommitLog|storePathConsumeQueue"
    r"|storePathIndex|storeCheckpoint|abortFile|forceRegister|diskFall\w+|rocketmqHome"
)

_ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "flushDiskType": FLUSH_TYPES,
    "brokerRole": ("ASYNC_MASTER", "SYNC_MASTER"),
}


def parse_properties_file(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, key, value) of a java.util.Properties file, with all its escapes."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, raw in lines:
        line = raw.lstrip()
        if not line or line[0] in "#!":
            continue
        while _continues(line):
            _, following = next(lines, (0, ""))
            line = line[:-1] + following.lstrip()
        match = re.match(r"((?:\\.|[^\\=:\s])*)\s*[=:]?\s*(.*)", line, re.DOTALL)
        assert match is not None
        yield number, _unescape(match[1]), _unescape(match[2]).rstrip()


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _unescape(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        return _ESCAPES.get(match[2], match[2])

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", replace, text)


def load(text: str, path: str) -> tuple[BrokerSettings, list[str]]:
    """Settings from a broker.conf, and warnings about keys that are not known.

    Raises:
        ConfigError: a value that its key cannot have.
    """
    settings = BrokerSettings()
    warnings = []
    for line, key, value in parse_properties_file(text):
        if key not in _FIELDS:
            if not WITHOUT_EFFECT.fullmatch(key):
                warnings.append(f"{path}, line {line}: {_unknown(key)}")
            continue
        try:
            set_value(settings, key, value)
        except ConfigError as error:
            raise ConfigError(f"{path}, line {line}: {error}") from None
    return settings, warnings


def _unknown(key: str) -> str:
    close = difflib.get_close_matches(key, _FIELDS, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{key} is not a setting of this broker and has no effect{hint}"


def set_value(settings: BrokerSettings, key: str, text: str) -> None:
    """Set one key from text.

    Raises:
        ConfigError: the text is no value for the key.
    """
    field = _FIELDS[key]
    if field.type is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key}={text}: must be true or false")
        value: Any = text.lower() == "true"
    elif field.type is int:
        try:
            value = int(text)
        except ValueError:
            raise ConfigError(f"{key}={text}: must be a whole number") from None
        if value < 0:
            raise ConfigError(f"{key}={text}: must not be negative")
    else:
        value = text
        if key in _ALLOWED and text not in _ALLOWED[key]:
            raise ConfigError(f"{key}={text}: must be one of {', '.join(_ALLOWED[key])}")
    setattr(settings, field.name, value)


def update(settings: BrokerSettings, wanted: Mapping[str, str]) -> dict[str, str]:
    """Take over what a client may change at run time (behaviour.md 21.5); what was changed.

    Unknown keys are left out, and a key with an impossible value keeps the one it has.

    Raises:
        PermissionError: a key is on the black list; nothing is changed.
    """
    forbidden = {*settings.config_black_list.split(";"), "configBlackList", "rocketmqHome"}
    if not forbidden.isdisjoint(wanted):
        raise PermissionError("Can not update config in black list.")
    changed = {}
    for key, text in wanted.items():
        if key in _FIELDS:
            try:
                set_value(settings, key, text)
            except ConfigError:
                continue
            changed[key] = text
    return changed


def as_properties(settings: BrokerSettings) -> dict[str, Any]:
    """Every key and its value, RocketMQ's names in order."""
    values = msgspec.to_builtins(settings)
    return {key: values[key] for key in sorted(values)}


def replace_in_file(text: str, changed: Mapping[str, str]) -> str:
    """A property file with some values changed, or added at its end; everything else stays."""
    remaining = dict(changed)
    lines = []
    for line in text.splitlines():
        key = re.match(r"\s*([^#!=:\s][^=:\s]*)", line)
        if key and key[1] in remaining:
            line = f"{key[1]}={remaining.pop(key[1])}"
        lines.append(line)
    lines += [f"{key}={value}" for key, value in remaining.items()]
    return "\n".join([*lines, ""])
