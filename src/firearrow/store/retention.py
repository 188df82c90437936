"""When files of the log go, and when the store refuses to grow (storage.md 5.8)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from firearrow.model.clock import is_cleaning_hour

if TYPE_CHECKING:
    from firearrow.store.filestore import FileStore
    from firearrow.store.settings import StoreSettings

log = logging.getLogger(__name__)

FIRST_RUN_S: Final = 60.0
MANUAL_RUNS: Final = 20
HOUR_MS: Final = 3_600_000


class Levels(NamedTuple):
    """Disk usage as shares, clamped as RocketMQ clamps them."""

    expire: float  # above: expired files go at any hour
    force: float  # above: files go whatever their age
    refuse: float  # above: nothing is appended


def levels(settings: StoreSettings) -> Levels:
    return Levels(
        _clamp(settings.disk_max_used_space_ratio, 10, 95),
        _clamp(settings.disk_space_clean_forcibly_ratio, 30, 85),
        _clamp(settings.disk_space_warning_level_ratio, 35, 90),
    )


def _clamp(percent: int, low: int, high: int) -> float:
    return min(max(percent, low), high) / 100


class Retention:
    """Deletes old files of one store, and what points to them."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._manual = 0
        self._full = False
        self._failing = False
        self._log_min = -1

    def start(self) -> None:
        self._store.clock.call_later(FIRST_RUN_S, self._tick)

    def run_now(self) -> None:
        """Run at the next look whatever the hour, as the admin command asks."""
        self._manual = MANUAL_RUNS
        self._try()

    def _tick(self) -> None:
        if self._store.closed:
            return
        self._try()
        interval_s = self._store.settings.clean_resource_interval / 1000
        self._store.clock.call_later(interval_s, self._tick)

    def _try(self) -> None:
        try:
            self.run()
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.error(
                    "cannot look for expired files in %s: %s. Nothing is deleted meanwhile; check "
                    "the disk",
                    self._store.root,
                    error.strerror,
                )
            self._failing = True

    def run(self) -> None:
        """Look once."""
        store, settings = self._store, self._store.settings
        usage = store.disk_usage().ratio
        limit = levels(settings)
        self._refuse_or_accept(usage > limit.refuse, usage)
        forced = usage > limit.force and settings.clean_file_forcibly_enable
        wanted = (
            forced
            or usage > limit.expire
            or usage < 0
            or self._manual > 0
            or is_cleaning_hour(settings.delete_when, store.clock.now_ms())
        )
        self._manual = max(0, self._manual - 1)
        if wanted:
            self._delete(forced)
        if store.log.min_offset != self._log_min:
            self._log_min = store.log.min_offset
            self._follow()

    def _refuse_or_accept(self, full: bool, usage: float) -> None:
        store = self._store
        if full and not self._full:
            log.error(
                "the disk of %s is %.0f %% full: messages are refused, reads go on. Free space, "
                "or lower fileReservedTime; diskSpaceWarningLevelRatio sets the limit",
                store.root,
                usage * 100,
            )
            store.refuse("disk", f"the disk is {usage * 100:.0f} % full")
        elif self._full and not full:
            log.warning("the disk of %s has space again: messages are accepted", store.root)
            store.refuse("disk", "")
        self._full = full

    def _delete(self, forced: bool) -> None:
        store, settings = self._store, self._store.settings
        oldest_kept_ms = store.clock.now_ms() - settings.file_reserved_time * HOUR_MS
        for _ in range(settings.delete_file_batch_max):
            if len(store.log.files) < 2:
                return
            file = store.log.files[0]
            if not forced and store.disk.modified_ms(file.path) > oldest_kept_ms:
                return
            if file.start + store.log.file_bytes > store.needed_from:
                return
            before = len(store.log.files)
            store.log.delete_first()
            if len(store.log.files) == before:
                return
            log.info("removed %s (%s)", file.path, "disk usage" if forced else "expired")

    def _follow(self) -> None:
        """Let consume queues and the key index follow the log's new beginning."""
        store = self._store
        for (topic, queue_id), queue in store.dispatcher.lists():
            before = queue.min_offset
            store.dispatcher.correct_min_offset(queue)
            if queue.min_offset != before:
                queue.shape.files.delete_before(topic, queue_id, queue.min_offset)
        for batches in store.dispatcher.batches.values():
            batches.follow()
        store.index.delete_before(store.log.min_offset)
