"""Settings of the name server (``NamesrvConfig``), RocketMQ's names in snake case."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from firearrow.codec.java_properties import Property
from firearrow.config_file import take_all
from firearrow.config_values import ConfigError, value_of

Natural = Annotated[int, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
# Shorter would be nothing but work.
ScanMs = Annotated[int, msgspec.Meta(ge=100)]


class NamesrvSettings(msgspec.Struct, rename="camel", kw_only=True):
    """Values are read each time they are needed, so an update counts at once, except for the
    port, the address and the files."""

    listen_port: Port = 9876
    bind_address: str = ""
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


FIELDS: Final = {field.encode_name: field for field in msgspec.structs.fields(NamesrvSettings)}

# Keys that mean something to a Java name server only.
WITHOUT_EFFECT: Final = re.compile(
    r".*ThreadPoolNums|.*ThreadPoolQueueCapacity|server\w+|client\w+|useEpollNativeSelector"
    r"|rocketmqHome|productEnvName|enableControllerInNamesrv|clusterTest"
)


def set_value(settings: NamesrvSettings, key: str, text: str) -> None:
    """Set one key from text.

    Raises:
        ConfigError: the text is no value for the key.
    """
    field = FIELDS[key]
    try:
        setattr(settings, field.name, value_of(field.type, text))
    except ConfigError as error:
        raise ConfigError(f"{key}={text}: {error}") from None


def load(text: str, path: str) -> tuple[NamesrvSettings, list[str]]:
    """Settings from a property file, and warnings about keys that are not known.

    Raises:
        ConfigError: a value that its key cannot have.
    """
    settings = NamesrvSettings()

    def take(found: Property) -> bool:
        if found.key not in FIELDS:
            return False
        set_value(settings, found.key, found.value)
        return True

    return settings, take_all(text, path, take, [*FIELDS], WITHOUT_EFFECT)
