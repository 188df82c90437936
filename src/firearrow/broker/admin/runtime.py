"""The broker about itself: runtime, configuration, statistics (behaviour.md 20, 21.5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from firearrow.broker.stats import BrokerStats
from firearrow.config_values import ConfigError
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.topic import DataVersion
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import (
    VERSION_NAME,
    Answer,
    NoFields,
    Reply,
    Request,
)
from firearrow.protocol.remoting.requests import ViewBrokerStats
from firearrow.store.api import Store

log = logging.getLogger(__name__)

_POOLS: Final = {
    "send": 10_000,
    "pull": 100_000,
    "litePull": 100_000,
    "query": 20_000,
    "ack": 100_000,
}
_UNBOUNDED: Final = str(0x7FFFFFFF)

Update = Callable[[Mapping[str, str]], Mapping[str, str]]


class RuntimeAdmin:
    """Handlers. ``properties`` and ``update`` reach the settings; ``update`` raises
    ``PermissionError`` for what may not be changed, and ``ConfigError`` for what cannot be."""

    def __init__(
        self,
        store: Store,
        stats: BrokerStats,
        clock: Clock,
        properties: Callable[[], dict[str, Any]],
        update: Update,
        delay_progress: Callable[[], Mapping[int, tuple[int, int]]],
        other_state: Callable[[], Mapping[str, str]],
    ) -> None:
        self._store = store
        self._stats = stats
        self._clock = clock
        self._properties = properties
        self._update = update
        self._delay_progress = delay_progress
        self._other_state = other_state
        self._version = DataVersion()

    # -- configuration

    def get_config(self, request: Request[NoFields]) -> Answer:
        """GET_BROKER_CONFIG (26)."""
        return Reply(
            ext={"version": bodies.encode(self._version).decode()},
            body=bodies.properties_text(self._properties()),
        )

    def update_config(self, request: Request[NoFields]) -> Answer:
        """UPDATE_BROKER_CONFIG (25)."""
        try:
            changed = self._update(bodies.parse_properties_text(request.body))
        except PermissionError as error:
            return Reply(codes.NO_PERMISSION, str(error))
        except ConfigError as error:
            return Reply(codes.SYSTEM_ERROR, str(error))
        if changed:
            log.info("configuration changed by %s: %s", request.peer.remote[0], dict(changed))
            self._version = self._version.next(self._clock.now_ms())
        return Reply()

    # -- runtime

    def info(self, request: Request[NoFields]) -> Answer:
        """GET_BROKER_RUNTIME_INFO (28): all values are texts."""
        return Reply(body=bodies.kv_table(self._table()))

    def _table(self) -> dict[str, str]:
        stats, store = self._stats, self._store
        usage = store.disk_usage()
        _, high = store.commit_log_range()
        capacity = f"Total : {_size(usage.total_bytes)}, Free : {_size(usage.free_bytes)}."
        today = stats.today()
        table = {
            **store.runtime_info(),
            **stats.rates(),
            "bootTimestamp": str(stats.started_ms),
            "brokerActive": "true",
            "brokerVersionDesc": VERSION_NAME,
            "commitLogDirCapacity": capacity,
            "dispatchMaxBuffer": "0",
            "EndTransactionQueueSize": "0",
            "EndTransactionThreadPoolQueueCapacity": "100000",
            "getMessageEntireTimeMax": "0",
            "msgGetTotalTodayMorning": str(today.got_at_morning),
            "msgGetTotalTodayNow": str(stats.transferred),
            "msgGetTotalYesterdayMorning": str(today.got_yesterday),
            "msgPutTotalTodayMorning": str(today.put_at_morning),
            "msgPutTotalTodayNow": str(stats.put),
            "msgPutTotalYesterdayMorning": str(today.put_yesterday),
            "pageCacheLockTimeMills": "0",
            "putLatency99": "0.0",
            "putLatency999": "0.0",
            "putMessageAverageSize": str(stats.put_bytes / max(stats.put, 1)),
            "putMessageDistributeTime": _no_distribution(stats.put),
            "putMessageEntireTimeMax": "0",
            "putMessageFailedTimes": str(stats.refused),
            "putMessageSizeTotal": str(stats.put_bytes),
            "putMessageTimesTotal": str(max(stats.put, 1)),
            "remainHowManyDataToFlush": _size(high - store.flushed_offset()),
            "remainTransientStoreBufferNumbs": _UNBOUNDED,
            "runtime": _runtime((self._clock.now_ms() - stats.started_ms) // 1000),
            "startAcceptSendRequestTimeStamp": "0",
            "timerCongestNum": "0",
            "timerDequeueTps": "0.0",
            "timerEnqueueTps": "0.0",
            "timerOffsetBehind": "0",
            "timerReadBehind": "0",
            **self._other_state(),
        }
        for pool, places in _POOLS.items():
            table[f"{pool}ThreadPoolQueueSize"] = "0"
            table[f"{pool}ThreadPoolQueueCapacity"] = str(places)
            table[f"{pool}ThreadPoolQueueHeadWaitTimeMills"] = "0"
        for level, (offset, maximum) in self._delay_progress().items():
            table[f"scheduleMessageOffset_{level}"] = f"{offset},{maximum}"
        return dict(sorted(table.items()))

    def ha_status(self, request: Request[NoFields]) -> Answer:
        """GET_BROKER_HA_STATUS (907)."""
        return Reply(
            body=bodies.encode(
                {
                    "haConnectionInfo": [],
                    "inSyncSlaveNums": 0,
                    "master": True,
                    "masterCommitLogMaxOffset": self._store.commit_log_range()[1],
                }
            )
        )

    def delay_offsets(self, request: Request[NoFields]) -> Answer:
        """GET_ALL_DELAY_OFFSET (45)."""
        table = {level: offset for level, (offset, _) in self._delay_progress().items()}
        return Reply(body=bodies.encode({"offsetTable": table}))

    def broker_stats(self, request: Request[ViewBrokerStats]) -> Answer:
        """VIEW_BROKER_STATS_DATA (315)."""
        fields = request.fields
        windows = self._stats.windows(fields.stats_name, fields.stats_key)
        if windows is None:
            return Reply(
                codes.SYSTEM_ERROR,
                f"The stats <{fields.stats_name}> <{fields.stats_key}> not exist",
            )
        return Reply(body=bodies.encode(windows))


def _size(number: int) -> str:
    """As Java's ``UtilAll.getDiskPartition...``: two digits and a binary unit."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}" if unit != "B" else f"{number} B"
        value /= 1024
    return f"{value:.1f} TiB"


def _runtime(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    return f"[ {days} days, {hours} hours, {minutes} minutes, {rest} seconds ]"


def _no_distribution(total: int) -> str:
    """Latencies are not collected for each message; all stand in the first bucket."""
    names = (
        "<=0ms 0~10ms 10~50ms 50~100ms 100~200ms 200~500ms 500ms~1s 1~2s 2~3s 3~4s 4~5s 5~10s 10s~"
    )
    return " ".join(f"[{name}]:{0 if n else total}" for n, name in enumerate(names.split()))
