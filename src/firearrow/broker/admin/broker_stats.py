"""Sums and rates over the last minute, hour and day (behaviour.md 20.2).

The hot path only counts (``broker.stats``). Here the counters are looked at every 10 s, 10 min and
1 h; a window exists only for keys that were counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from firearrow.broker.stats import BrokerStats
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import ViewBrokerStats

TICK_S: Final = 10.0
TICKS_OF_HOUR: Final = 60  # a sample for the hour every 10 min
TICKS_OF_DAY: Final = 360  # one for the day every hour
MINUTE_SAMPLES: Final = 7
HOUR_SAMPLES: Final = 7
DAY_SAMPLES: Final = 25

Key = tuple[str, str]  # statistic and key, such as ("TOPIC_PUT_NUMS", "orders")


class _Sample(NamedTuple):
    at_ms: int
    total: int
    times: int


class _Window:
    """The samples of one key; the first is a zero one period ago, as Java has it."""

    def __init__(self) -> None:
        self.minute: deque[_Sample] = deque(maxlen=MINUTE_SAMPLES)
        self.hour: deque[_Sample] = deque(maxlen=HOUR_SAMPLES)
        self.day: deque[_Sample] = deque(maxlen=DAY_SAMPLES)


class Today(NamedTuple):
    """Totals of messages stored and handed out."""

    put: int = 0
    got: int = 0


class StatsWindows:
    """Samples the counters, and answers VIEW_BROKER_STATS_DATA."""

    def __init__(self, stats: BrokerStats, clock: Clock, cluster: str) -> None:
        self._stats = stats
        self._clock = clock
        self._cluster = cluster
        self._windows: dict[Key, _Window] = {}
        self._ticks = 0
        self._day = self._local_day()
        self.this_morning = Today()
        self.yesterday_morning = Today()

    def start(self) -> None:
        self._clock.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._roll_day()
        now = self._clock.now_ms()
        hour = self._ticks % TICKS_OF_HOUR == 0
        day = self._ticks % TICKS_OF_DAY == 0
        self._ticks += 1
        for key, total, times in self._counters():
            window = self._windows.get(key)
            if window is None:
                window = self._windows[key] = _Window()
            sample = _Sample(now, total, times)
            _add(window.minute, sample, 10_000)
            if hour:
                _add(window.hour, sample, 600_000)
            if day:
                _add(window.day, sample, 3_600_000)
        self.start()

    def _counters(self) -> Iterator[tuple[Key, int, int]]:
        stats = self._stats
        for topic, (count, size) in stats.by_topic.items():
            yield ("TOPIC_PUT_NUMS", topic), count, count
            yield ("TOPIC_PUT_SIZE", topic), size, count
        for (topic, group), (count, size) in stats.by_group.items():
            yield ("GROUP_GET_NUMS", f"{topic}@{group}"), count, count
            yield ("GROUP_GET_SIZE", f"{topic}@{group}"), size, count
        for (topic, group), count in stats.sent_back.items():
            yield ("SNDBCK_PUT_NUMS", f"{topic}@{group}"), count, count
        yield ("BROKER_PUT_NUMS", self._cluster), stats.put, stats.put
        yield ("BROKER_GET_NUMS", self._cluster), stats.transferred, stats.transferred

    def _local_day(self) -> int:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000).toordinal()

    def _roll_day(self) -> None:
        today = self._local_day()
        if today != self._day:
            self._day = today
            self.yesterday_morning = self.this_morning
            self.this_morning = Today(self._stats.put, self._stats.transferred)

    def consume_rate(self, topic: str, group: str) -> float:
        """Messages a second handed to the group, over the last minute."""
        window = self._windows.get(("GROUP_GET_NUMS", f"{topic}@{group}"))
        return 0.0 if window is None else float(_figures(window.minute)["tps"])

    def view(self, request: Request[ViewBrokerStats]) -> Answer:
        """VIEW_BROKER_STATS_DATA (315)."""
        fields = request.fields
        window = self._windows.get((fields.stats_name, fields.stats_key))
        if window is None:
            if not self._counted(fields.stats_name, fields.stats_key):
                return Reply(
                    codes.SYSTEM_ERROR,
                    f"The stats <{fields.stats_name}> <{fields.stats_key}> not exist",
                )
            window = _Window()  # counted, but not looked at yet
        body = {
            "statsDay": _figures(window.day),
            "statsHour": _figures(window.hour),
            "statsMinute": _figures(window.minute),
        }
        return Reply(body=bodies.encode(body))

    def _counted(self, name: str, key: str) -> bool:
        return any(known == (name, key) for known, _, _ in self._counters())


def _add(samples: deque[_Sample], sample: _Sample, period_ms: int) -> None:
    if not samples:
        samples.append(_Sample(sample.at_ms - period_ms, 0, 0))
    samples.append(sample)


def _figures(samples: deque[_Sample]) -> dict[str, Any]:
    if not samples:
        return {"avgpt": 0.0, "sum": 0, "tps": 0.0}
    first, last = samples[0], samples[-1]
    total, times = last.total - first.total, last.times - first.times
    elapsed = last.at_ms - first.at_ms
    return {
        "avgpt": total / times if times > 0 else 0.0,
        "sum": total,
        "tps": total * 1000 / elapsed if elapsed > 0 else 0.0,
    }
