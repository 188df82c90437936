"""Settings of the name server (``NamesrvConfig``), RocketMQ's names in snake case."""

from __future__ import annotations

from typing import Annotated

import msgspec

Natural = Annotated[int, msgspec.Meta(ge=0)]
# Shorter would be nothing but work.
ScanMs = Annotated[int, msgspec.Meta(ge=100)]


class NamesrvSettings(msgspec.Struct, rename="camel", kw_only=True):
    """Values are read each time they are needed, so an update counts at once."""

    order_message_enable: bool = False
    return_order_topic_config_to_broker: bool = True
    scan_not_active_broker_interval: ScanMs = 5000  # ms
    support_acting_master: bool = False
    enable_all_topic_list: bool = True
    enable_topic_list: bool = True
    notify_min_broker_id_changed: bool = False
    need_wait_for_service: bool = False
    wait_seconds_for_service: Natural = 45
    delete_topic_with_broker_registration: bool = False
    un_register_broker_queue_capacity: Natural = 3000
    kv_config_path: str = ""
    config_store_path: str = ""
    config_black_list: str = "configBlackList;configStorePath;kvConfigPath"
