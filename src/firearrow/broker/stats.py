"""Counts and rates: totals, rates over 10, 60 and 600 s, and per-key counters (behaviour.md 20)."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from firearrow.model.clock import Clock

SAMPLE_S: Final = 1.0
SAMPLES: Final = 601  # ten minutes and the one before


class Totals(NamedTuple):
    """Everything counted since the start."""

    at_s: float
    put: int
    found: int  # pulls that found something
    missed: int  # pulls that found nothing
    transferred: int  # messages handed out


class Day(NamedTuple):
    """Totals at the last local midnight and the one before."""

    put_at_morning: int
    got_at_morning: int
    put_yesterday: int
    got_yesterday: int


class BrokerStats:
    """Plain integers on the hot path; what is shown is computed when asked for."""

    def __init__(self, clock: Clock, cluster: str = "DefaultCluster") -> None:
        self._clock = clock
        self.cluster = cluster
        self.started_ms = clock.now_ms()
        self.put = 0
        self.put_bytes = 0
        self.refused = 0
        self.found = 0
        self.missed = 0
        self.transferred = 0
        self.by_topic: dict[str, array[int]] = {}  # messages and bytes stored
        self.by_group: dict[tuple[str, str], list[int]] = {}  # messages and bytes handed out
        self.sent_back: dict[tuple[str, str], int] = {}
        self._samples: deque[Totals] = deque(maxlen=SAMPLES)
        self._by_key = KeyWindows(clock)
        self._day = Day(0, 0, 0, 0)
        self._day_number = self._local_day()

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def start(self) -> None:
        self._samples.append(self.totals())
        self._by_key.sample(self)
        self.today()
        self._clock.call_later(SAMPLE_S, self.start)

    def totals(self) -> Totals:
        return Totals(self._clock.monotonic(), self.put, self.found, self.missed, self.transferred)

    def stored(self, topic: str, count: int, size: int) -> None:
        self.stored_in(self.of_topic(topic), count, size)

    def of_topic(self, topic: str) -> array[int]:
        """Messages and bytes stored of one topic; for ``stored_in``."""
        counters = self.by_topic.get(topic)
        if counters is None:  # numbers side by side: of very many topics all are out of sight
            counters = self.by_topic[topic] = array("q", (0, 0))
        return counters

    def stored_in(self, counters: array[int], count: int, size: int) -> None:
        """``stored`` for a topic whose counters are at hand."""
        self.put += count
        self.put_bytes += size
        counters[0] += count
        counters[1] += size

    def delivered(self, topic: str, group: str, count: int, size: int) -> None:
        self.found += 1
        self.transferred += count
        counters = self.by_group.get((topic, group))
        if counters is None:
            counters = self.by_group[topic, group] = [0, 0]
        counters[0] += count
        counters[1] += size

    def rates(self) -> dict[str, str]:
        """Three numbers each, over 10, 60 and 600 s, as GET_BROKER_RUNTIME_INFO shows them."""
        now = self.totals()
        spans = [self._since(now, seconds) for seconds in (10, 60, 600)]

        def show(pick: int) -> str:
            return " ".join(
                str((now[pick] - then[pick]) / max(now.at_s - then.at_s, 1e-3)) for then in spans
            )

        total = " ".join(
            str(
                (now.found + now.missed - then.found - then.missed)
                / max(now.at_s - then.at_s, 1e-3)
            )
            for then in spans
        )
        return {
            "putTps": show(1),
            "getFoundTps": show(2),
            "getMissTps": show(3),
            "getTotalTps": total,
            "getTransferredTps": show(4),
        }

    def _local_day(self) -> int:
        return time.localtime(self._clock.now_ms() / 1000).tm_yday

    def today(self) -> Day:
        """Totals at midnight; noticed at the first look of a day."""
        day = self._local_day()
        if day != self._day_number:
            self._day_number = day
            before = self._day
            self._day = Day(
                self.put, self.transferred, before.put_at_morning, before.got_at_morning
            )
        return self._day

    def consume_rate(self, group: str, topics: set[str]) -> float:
        """Messages a second handed to a group in the last minute."""
        rates = (
            self._by_key.rate("GROUP_GET_NUMS", f"{topic}@{name}")
            for topic, name in self.by_group
            if name == group and (not topics or topic in topics)
        )
        return sum(rates, 0.0)

    def counters(self) -> Iterator[tuple[str, str, int]]:
        """(name, key, total) of everything VIEW_BROKER_STATS_DATA can be asked for."""
        for topic, (count, size) in self.by_topic.items():
            yield "TOPIC_PUT_NUMS", topic, count
            yield "TOPIC_PUT_SIZE", topic, size
        for (topic, group), (count, size) in self.by_group.items():
            yield "GROUP_GET_NUMS", f"{topic}@{group}", count
            yield "GROUP_GET_SIZE", f"{topic}@{group}", size
        for (topic, group), count in self.sent_back.items():
            yield "SNDBCK_PUT_NUMS", f"{topic}@{group}", count
        yield "BROKER_PUT_NUMS", self.cluster, self.put
        yield "BROKER_GET_NUMS", self.cluster, self.transferred

    def windows(self, name: str, key: str) -> dict[str, dict[str, float]] | None:
        """Minute, hour and day of one counter; ``None`` when there is no such counter."""
        return self._by_key.windows(self, name, key)

    def _since(self, now: Totals, seconds: int) -> Totals:
        for sample in reversed(self._samples):
            if now.at_s - sample.at_s >= seconds:
                return sample
        return self._samples[0] if self._samples else now


class KeyWindows:
    """Sums of counters over the last minute, hour and day.

    The counters themselves only grow. What they were is remembered every ten seconds for the
    minute, every ten minutes for the hour, every hour for the day, as RocketMQ samples them.
    """

    STEPS_S: Final = {"statsMinute": (10, 7), "statsHour": (600, 7), "statsDay": (3600, 25)}

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_s = dict.fromkeys(self.STEPS_S, clock.monotonic())
        self._snapshots: dict[str, deque[tuple[float, dict[tuple[str, str], int]]]] = {
            window: deque(maxlen=count) for window, (_, count) in self.STEPS_S.items()
        }

    def sample(self, stats: BrokerStats) -> None:
        """Remember the counters where it is time to."""
        now = self._clock.monotonic()
        due = [window for window, at in self._due_s.items() if at <= now]
        if not due:
            return
        snapshot = {(name, key): total for name, key, total in stats.counters()}
        for window in due:
            self._snapshots[window].append((now, snapshot))
            self._due_s[window] = now + self.STEPS_S[window][0]

    def windows(
        self, stats: BrokerStats, name: str, key: str
    ) -> dict[str, dict[str, float]] | None:
        total = next((t for n, k, t in stats.counters() if (n, k) == (name, key)), None)
        if total is None:
            return None
        now = self._clock.monotonic()
        result = {}
        for window, snapshots in self._snapshots.items():
            at, oldest = snapshots[0] if snapshots else (now, {})
            amount = total - oldest.get((name, key), 0)
            rate = amount / (now - at) if now > at else 0.0
            result[window] = {"avgpt": 0.0, "sum": amount, "tps": round(rate, 2)}
        return result

    def rate(self, name: str, key: str) -> float:
        """A second, over the last minute."""
        snapshots = self._snapshots["statsMinute"]
        if len(snapshots) < 2:
            return 0.0
        (first_s, first), (last_s, last) = snapshots[0], snapshots[-1]
        amount = last.get((name, key), 0) - first.get((name, key), 0)
        return amount / (last_s - first_s)
