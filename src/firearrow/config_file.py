"""Property files: reading and changing them, and what is said about keys that are no settings."""

from __future__ import annotations

import contextlib
import difflib
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from firearrow.codec import java_properties
from firearrow.codec.java_properties import Property
from firearrow.config import FIELDS, BrokerSettings, set_value
from firearrow.config_values import ConfigError

# Keys of RocketMQ that mean something to a Java broker and nothing here: its thread pools, memory
# management and the like. A broker.conf that sets them is not warned about.
WITHOUT_EFFECT: Final = re.compile(
    r".*ThreadPoolNums|.*ThreadPoolQueueCapacity|waitTimeMills\w+|transientStorePool\w*|warmMapedFile\w*"
    r"|server(?!LoadBalancer)\w+|client\w+|useEpollNativeSelector|transferMsgByHeap|useReentrantLockWhenPutMessage"
    r"|osPageCacheBusyTimeOutMills|brokerFastFailureEnable|forceRegister|diskFall\w+|rocketmqHome"
    r"|enablePopLog|enableLitePopLog|enablePopBufferMerge|enablePopBatchAck|popCk\w+|popConsumer\w+|append(Ack|Ck)Async"
    r"|compactionThreadNum|reviveMaxSlow|reviveScanTime|popPollingMap\w+"
)

# Places that another broker may have moved; here they are always in the root directory.
_PLACES: Final = {
    "storePathCommitLog": "commitlog",
    "storePathConsumeQueue": "consumequeue",
    "storePathIndex": "index",
    "storeCheckpoint": "checkpoint",
    "abortFile": "abort",
}
# Values that change what a broker promises, and that nothing here would keep.
_NOT_SERVED: Final = {
    ("aclEnable", "true"): "access control",
    ("authenticationEnabled", "true"): "access control",
    ("authorizationEnabled", "true"): "access control",
    ("enableControllerMode", "true"): "failover by a controller",
    ("enableDLegerCommitLog", "true"): "a log of DLedger's format",
    ("enableSlaveActingMaster", "true"): "replication",
    ("storeType", "defaultRocksDB"): "a store in RocksDB",
}
_NOT_SERVED_KEYS: Final = frozenset(key for key, _ in _NOT_SERVED)


def read(path: str) -> str:
    """The text of a property file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return java_properties.decode(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def load(text: str, path: str) -> tuple[BrokerSettings, list[str]]:
    """Settings from a broker.conf, and warnings about keys that are not known.

    Raises:
        ConfigError: a value that its key cannot have.
    """
    settings = BrokerSettings()
    places: list[Property] = []  # judged at the end: the root directory may stand below them

    def take(found: Property) -> bool:
        if found.key in FIELDS:
            set_value(settings, found.key, found.value)
        elif found.key in _PLACES:
            places.append(found)
        elif found.key in _NOT_SERVED_KEYS:
            _refuse_what_is_not_served(found)
        else:
            return False
        return True

    warnings = take_all(text, path, take, [*FIELDS], WITHOUT_EFFECT)
    for found in places:
        with _told_where(path, found):
            _check_place(settings, found)
    if settings.broker_role == "SYNC_MASTER":
        warnings.append(f"{path}: brokerRole=SYNC_MASTER waits for nobody, there are no slaves yet")
    return settings, warnings


def take_all(
    text: str,
    path: str,
    take: Callable[[Property], bool],
    known: list[str],
    ignored: re.Pattern[str],
) -> list[str]:
    """Give every setting to ``take``; warn, with the line, about those that it does not take.

    Raises:
        ConfigError: what ``take`` raised, with file and line.
    """
    warnings = []
    for found in java_properties.parse(text):
        with _told_where(path, found):
            taken = take(found)
        if taken or ignored.fullmatch(found.key):
            continue
        close = difflib.get_close_matches(found.key, known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        warnings.append(
            f"{path}, line {found.line}: {found.key} is not a setting here and has no effect{hint}"
        )
    return warnings


@contextlib.contextmanager
def _told_where(path: str, found: Property) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}, line {found.line}: {error}") from None


def _refuse_what_is_not_served(found: Property) -> None:
    what = _NOT_SERVED.get((found.key, found.value))
    if what is not None:
        raise ConfigError(
            f"{found.key}={found.value}: {what} is not served yet; "
            "remove the line to run without it"
        )


def _check_place(settings: BrokerSettings, found: Property) -> None:
    name = _PLACES[found.key]
    place = posixpath.join(settings.store_path_root_dir, name)
    if posixpath.normpath(found.value) != posixpath.normpath(place):
        raise ConfigError(
            f"{found.key}={found.value}: it is always {name} in storePathRootDir; "
            f"move it to {place} and remove the line"
        )


# -- writing


def save(path: str, changed: Mapping[str, str]) -> None:
    """Write changed settings into a property file; the rest of it stays as it is.

    Raises:
        ConfigError: it cannot be read or written.
    """
    try:
        write(Path(path), java_properties.replace(read(path), changed).encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def write(path: Path, data: bytes) -> None:
    """Replace a file in one step that a power failure does not tear; links stay links."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        if path.exists():
            os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
