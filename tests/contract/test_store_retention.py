"""What is removed when, and what a full disk means, over files and over memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.stores import HOUR_S, LOG_FILE_BYTES, Harness, message

from firearrow.store import api
from firearrow.store.api import PutStatus

RESERVED_H = 72
DAY_S = 24 * HOUR_S


@pytest.fixture(params=["real", "memory"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(request.param, tmp_path / "store")
    harness.open(clean_resource_interval=600_000)
    yield harness
    harness.close()


def log_files(at: Harness) -> list[str]:
    return at.disk.names(f"{at.root}/commitlog")


# -- by age


def test_expired_files_go_at_the_hour_of_cleaning(at: Harness) -> None:
    per_file = at.fill_files(4) // 3  # three are full
    at.clock.advance(RESERVED_H * HOUR_S)  # old enough, but it is not the hour
    at.put("new")
    assert at.store.commit_log_range()[0] == 0
    at.clock.advance(18 * HOUR_S)
    minimum = at.store.commit_log_range()[0]
    assert minimum == 3 * LOG_FILE_BYTES
    assert log_files(at)[0] == f"{minimum:020d}"
    low = at.store.min_offset("T", 0)
    assert low == pytest.approx(3 * per_file, abs=2)
    assert at.store.read("T", 0, 0, 32) == api.Read(
        api.OFFSET_TOO_SMALL, low, low, at.store.max_offset("T", 0)
    )
    assert at.read_all()[0].rstrip(".") == f"{low}"
    assert at.read_all()[-1] == "new"


def test_what_points_to_removed_messages_goes_too(at: Harness) -> None:
    for n in range(250):
        at.put(f"{n}", "U", keys=f"old{n}")  # an index file holds 199 keys
    sent = at.fill_files(3)
    assert at.query("old3", "U") == ["3"]
    at.clock.advance(RESERVED_H * HOUR_S)
    at.store.delete_expired()
    minimum = at.store.commit_log_range()[0]
    assert minimum > 0
    assert at.query("old3", "U") == []
    assert at.query(f"k{sent - 1}") == [f"{sent - 1}".ljust(1000, ".")]
    first_entries = at.disk.names(f"{at.root}/consumequeue/T/0")[0]
    low = at.store.min_offset("T", 0)
    assert int(first_entries) == low * 20 // 200 * 200
    assert at.store.min_offset("U", 0) == at.store.max_offset("U", 0) == 250
    assert at.store.read("U", 0, 250, 1).status == api.OFFSET_OVERFLOW_ONE
    assert at.put("next", "U").queue_offset == 250
    assert at.store.search_offset("T", 0, 0, upper=False) == low
    assert at.store.search_offset("T", 0, 0, upper=True) == low
    assert len(at.disk.names(f"{at.root}/index")) < 3


def test_the_last_file_is_never_removed(at: Harness) -> None:
    at.put("only")
    at.clock.advance(10 * DAY_S)
    assert at.read() == ["only"]


def test_at_most_so_many_files_at_once(at: Harness) -> None:
    at.store.settings.delete_file_batch_max = 2
    at.fill_files(5)
    at.clock.advance(RESERVED_H * HOUR_S)
    at.store.delete_expired()
    assert at.store.commit_log_range()[0] == 2 * LOG_FILE_BYTES


@pytest.mark.parametrize("clean", [True, False])
def test_a_restart_finds_the_same_beginning(at: Harness, clean: bool) -> None:
    at.put("early", "U")
    at.fill_files(3)
    at.clock.advance(RESERVED_H * HOUR_S)
    at.store.delete_expired()
    at.clock.advance(61)
    expected = [
        (at.store.min_offset(*queue), at.store.max_offset(*queue)) for queue in (("T", 0), ("U", 0))
    ]
    bodies = at.read_all()
    at.restart(clean=clean)
    found = [
        (at.store.min_offset(*queue), at.store.max_offset(*queue)) for queue in (("T", 0), ("U", 0))
    ]
    assert found == expected
    assert at.read_all() == bodies
    assert at.put("next", "U").queue_offset == 1


# -- by the disk's use


def test_above_75_percent_expired_files_go_at_any_hour(at: Harness) -> None:
    at.fill_files(2)
    at.clock.advance(RESERVED_H * HOUR_S - HOUR_S)
    at.fill_files(2)
    at.clock.advance(2 * HOUR_S)
    at.used(75)
    at.clock.advance(600)
    assert at.store.commit_log_range()[0] == 0
    at.used(76)
    at.clock.advance(600)
    assert at.store.commit_log_range()[0] == LOG_FILE_BYTES  # the next one was written later


def test_above_85_percent_files_go_whatever_their_age(at: Harness) -> None:
    at.fill_files(3)
    at.used(85)
    at.clock.advance(600)
    assert at.store.commit_log_range()[0] == 0
    at.store.settings.clean_file_forcibly_enable = False
    at.used(86)
    at.clock.advance(600)
    assert at.store.commit_log_range()[0] == 0
    at.store.settings.clean_file_forcibly_enable = True
    at.clock.advance(600)
    assert at.store.commit_log_range()[0] == 2 * LOG_FILE_BYTES
    assert at.put("x").status is PutStatus.OK


def test_above_90_percent_messages_are_refused(
    at: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    at.put("before")
    at.used(90)
    at.clock.advance(600)
    assert at.put("at 90").status is PutStatus.OK
    at.used(91)
    at.clock.advance(1200)
    for refused in (at.put("x"), at.store.append_batch([message("x"), message("y")])):
        assert refused.status is PutStatus.SERVICE_NOT_AVAILABLE
        assert "91 % full" in refused.reason
    assert at.read() == ["before", "at 90"]
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
    assert "fileReservedTime" in caplog.text
    at.used(50)
    at.clock.advance(600)
    assert at.put("after").status is PutStatus.OK
    assert "space again" in caplog.text


def test_levels_are_kept_within_bounds(at: Harness) -> None:
    at.fill_files(1)
    at.store.settings.disk_space_warning_level_ratio = 99  # as 90
    at.used(92)
    at.clock.advance(600)
    assert at.put("x").status is PutStatus.SERVICE_NOT_AVAILABLE
    at.store.settings.disk_space_warning_level_ratio = 1  # as 35
    at.used(34)
    at.clock.advance(600)
    assert at.put("x").status is PutStatus.OK


# -- no space at all


def test_without_space_messages_are_refused_and_reads_go_on(
    at: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    sent = 0
    at.put("first")
    at.disk.free_bytes = 0
    while (put := at.put(f"{sent}".ljust(1000, "."))).status is PutStatus.OK:
        sent += 1
        assert sent < 1000
    assert put.status is PutStatus.SERVICE_NOT_AVAILABLE
    at.clock.advance(30)
    assert at.put("x").status is PutStatus.SERVICE_NOT_AVAILABLE
    assert len(at.read_all()) == sent + 1
    complaints = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(complaints) == len({text.split(":")[0] for text in complaints}) <= 3
    assert all("free" in text for text in complaints)
    at.used(10)
    at.clock.advance(2)
    assert at.put("after").queue_offset == sent + 1
    assert at.read_all()[-1] == "after"
    at.clock.advance(61)
    at.restart(clean=False)
    assert at.read_all()[-1] == "after"


@pytest.mark.parametrize("clean", [True, False])
def test_a_store_that_filled_the_disk_opens_for_reading(at: Harness, clean: bool) -> None:
    sent = at.fill_files(1)
    at.disk.free_bytes = 0
    at.restart(clean=clean)
    assert len(at.read_all()) == sent
    while at.put("x" * 1000).status is PutStatus.OK:
        sent += 1
    at.restart(clean=True)
    assert len(at.read_all()) == sent
    at.used(10)
    at.clock.advance(2)
    assert at.put("after").queue_offset == sent
