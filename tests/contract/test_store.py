"""What the broker may expect of its store, over files and over memory: append, read, find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.stores import HOST, LOG_FILE_BYTES, Harness, message, records

from firearrow.codec.hashes import java_hash
from firearrow.store import api
from firearrow.store.api import PutStatus

KINDS = ("real", "memory")


@pytest.fixture(params=KINDS)
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(request.param, tmp_path / "store")
    harness.open()
    yield harness
    harness.close()


# -- append


def test_a_message_is_readable_at_once_and_whole(at: Harness) -> None:
    sent = message("hello", "T", 3, tag="a", keys="k", flag=7, sys_flag=0x100, reconsume_times=2)
    sent.prepared_offset = 99
    put = at.store.append(sent)
    assert (put.status, put.physical_offset, put.queue_offset) == (PutStatus.OK, 0, 0)
    read = at.store.read("T", 3, 0, 32)
    assert (read.status, read.count, read.next_offset) == (api.FOUND, 1, 1)
    (record,) = records(read.records)
    assert (record.topic, record.queue_id, record.body) == ("T", 3, b"hello")
    assert (record.flag, record.sys_flag, record.reconsume_times) == (7, 0x100, 2)
    assert (record.prepared_offset, record.properties) == (99, sent.properties)
    assert (record.born_timestamp, record.born_host) == (1, HOST)
    assert record.store_timestamp == put.store_timestamp == at.clock.now_ms()
    assert record.store_host == at.store.settings.store_host
    assert at.store.record(0) == read.records
    assert put.end == record.size == at.store.commit_log_range()[1]


def test_queues_count_for_themselves(at: Harness) -> None:
    for n in range(3):
        assert at.put(f"{n}", "T", 0).queue_offset == n
        assert at.put(f"{n}", "T", 1).queue_offset == n
        assert at.put(f"{n}", "U", 0).queue_offset == n
    assert at.read("T", 1) == ["0", "1", "2"]
    assert sorted(at.store.queues()) == [("T", 0), ("T", 1), ("U", 0)]
    assert (at.store.min_offset("T", 0), at.store.max_offset("T", 0)) == (0, 3)
    assert (at.store.min_offset("T", 9), at.store.max_offset("T", 9)) == (0, 0)


def test_store_times_never_go_back(at: Harness) -> None:
    first = at.put("a").store_timestamp
    at.clock.jump_wall_clock(-60_000)
    assert at.put("b").store_timestamp == first


@pytest.mark.parametrize("v6_store", [False, True])
def test_addresses_of_both_families(at: Harness, v6_store: bool) -> None:
    v6 = bytes(range(16)) + (1234).to_bytes(4)
    more: dict[str, Any] = {"store_host": v6} if v6_store else {}
    for born in (HOST, v6, HOST):
        at.put("x", born_host=born, **more)
    found = records(at.store.read("T", 0, 0, 32).records)
    assert [r.born_host for r in found] == [HOST, v6, HOST]
    assert [r.sys_flag & 0x10 for r in found] == [0, 0x10, 0]
    assert {r.sys_flag & 0x20 for r in found} == {0x20 if v6_store else 0}
    assert [at.store.store_time("T", 0, n) for n in range(3)] == [at.clock.now_ms()] * 3


def test_topics_that_need_the_second_version(at: Harness) -> None:
    for size in (127, 128, 255):
        topic = "%RETRY%".ljust(size, "x")
        at.put("body", topic)
        (record,) = records(at.store.read(topic, 0, 0, 1).records)
        assert (record.topic, record.version) == (topic, 1 if size == 127 else 2)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (message("x", "t" * 128), PutStatus.MESSAGE_ILLEGAL),
        (message("x", "%RETRY%".ljust(256, "x")), PutStatus.MESSAGE_ILLEGAL),
        (message("x" * 101), PutStatus.MESSAGE_ILLEGAL),
        (message("x", keys="k" * 32768), PutStatus.PROPERTIES_SIZE_EXCEEDED),
    ],
)
def test_what_is_too_large_is_refused(at: Harness, sent: Any, status: PutStatus) -> None:
    at.store.settings.max_message_size = 100
    put = at.store.append(sent)
    assert (put.status, put.physical_offset) == (status, -1)
    assert put.reason
    assert at.store.commit_log_range() == (0, 0)


def test_a_record_that_fits_in_no_file_is_refused(at: Harness) -> None:
    put = at.put("x" * LOG_FILE_BYTES)
    assert put.status is PutStatus.SERVICE_NOT_AVAILABLE
    assert "mappedFileSizeCommitLog" in put.reason
    assert at.put("small").physical_offset == 0


def test_a_batch_lies_together_or_not_at_all(at: Harness) -> None:
    at.put("before" * 2000)
    batch = [message(f"{n}" * 500) for n in range(9)]
    put = at.store.append_batch(batch)
    assert put.physical_offset == LOG_FILE_BYTES  # all of it in the next file
    assert (put.queue_offset, len(put.physical_offsets)) == (1, 9)
    found = records(at.store.read("T", 0, 1, 32).records)
    assert [r.physical_offset for r in found] == list(put.physical_offsets)
    assert put.end == at.store.commit_log_range()[1]
    refused = at.store.append_batch([message("fine"), message("x", keys="k" * 32768)])
    assert refused.status is PutStatus.PROPERTIES_SIZE_EXCEEDED
    assert at.store.append_batch([]).status is PutStatus.MESSAGE_ILLEGAL
    assert at.store.max_offset("T", 0) == 10
    assert at.store.commit_log_range()[1] == put.end


def test_listeners_hear_every_entry_in_log_order(at: Harness) -> None:
    heard: list[tuple[Any, ...]] = []
    delayed: list[int] = []
    at.store.on_arrival(lambda *arrival: heard.append(arrival[:4]))
    at.store.on_arrival(lambda *arrival: delayed.append(arrival[3]), "delayed")
    at.put("a", tag="red")
    at.put("b", "delayed")
    at.put("c")
    due = at.clock.now_ms() + 1000
    assert heard == [
        ("T", 0, 1, java_hash("red")),
        ("delayed", 0, 1, due),
        ("T", 0, 2, 0),
    ]
    assert delayed == [due]


# -- flush


def test_with_sync_flush_a_message_shows_when_it_is_on_the_disk(at: Harness) -> None:
    at.store.settings.flush_disk_type = "SYNC_FLUSH"
    heard: list[bool] = []
    put = at.put("x")
    at.store.when_durable(put.end, heard.append)
    assert (heard, at.read()) == ([], [])
    at.clock.advance(0)
    assert (heard, at.read()) == ([True], ["x"])
    assert at.store.flushed_offset() == put.end
    at.store.when_durable(put.end, heard.append)
    assert heard == [True, True]


def test_a_flush_that_takes_too_long_is_answered(at: Harness) -> None:
    at.store.settings.flush_disk_type = "SYNC_FLUSH"
    at.put("first")
    at.clock.advance(0)
    at.background.eager = False
    heard: list[bool] = []
    at.store.when_durable(at.put("x").end, heard.append)
    at.clock.advance(4.9)
    assert heard == []
    at.clock.advance(0.7)
    assert heard == [False]
    at.background.run()
    at.background.eager = True
    assert at.read() == ["first", "x"]


def test_with_async_flush_the_interval_decides(at: Harness) -> None:
    heard: list[bool] = []
    put = at.put("x")
    at.store.when_durable(put.end, heard.append)
    assert heard == [True]
    at.clock.advance(0.4)
    assert at.store.flushed_offset() == 0
    at.clock.advance(0.2)
    assert at.store.flushed_offset() == put.end


# -- read


def test_outcomes_where_nothing_is_found(at: Harness) -> None:
    at.put("x")
    read = at.store.read
    assert read("T", 5, 0, 32) == api.Read(api.NO_MATCHED_LOGIC_QUEUE, 0, 0, 0)
    assert read("T", 0, 1, 32) == api.Read(api.OFFSET_OVERFLOW_ONE, 1, 0, 1)
    assert read("T", 0, 7, 32) == api.Read(api.OFFSET_OVERFLOW_BADLY, 1, 0, 1)
    assert read("T", 0, -1, 32) == api.Read(api.OFFSET_TOO_SMALL, 0, 0, 1)


def test_a_read_is_limited_by_count_and_bytes(at: Harness) -> None:
    for n in range(40):
        at.put(f"{n}", tag="t")
    size = at.store.read("T", 0, 0, 1).records
    assert len(at.read(count=5)) == 5
    assert len(at.read(count=100)) == 32
    assert len(at.read(max_bytes=3 * len(size))) == 3
    assert at.read(max_bytes=1) == ["0"]
    settings = at.store.settings
    settings.max_transfer_bytes_on_message_in_memory = 2 * len(size)
    assert at.read() == ["0", "1"]
    settings.max_transfer_bytes_on_message_in_memory = 1
    assert at.read() == ["0"]


def test_cold_messages_have_limits_of_their_own(at: Harness) -> None:
    at.close()
    at.open(access_message_in_memory_max_ratio=0)
    for n in range(40):
        at.put(f"{n}")
    assert len(at.read()) == 8
    at.store.settings.max_transfer_bytes_on_message_in_disk = 3 * 95
    assert len(at.read()) == 3
    assert not at.store.is_hot(0)


def test_tags_and_filters_choose(at: Harness) -> None:
    for n in range(30):
        at.put(f"{n}", tag="even" if n % 2 == 0 else "odd")
    at.put("plain")
    even = {java_hash("even")}
    read = at.store.read("T", 0, 0, 5, tags_codes=even)
    assert [r.body for r in records(read.records)] == [b"0", b"2", b"4", b"6", b"8"]
    assert read.next_offset == 9
    read = at.store.read("T", 0, 0, 32, tags_codes={java_hash("none")})
    assert (read.status, read.next_offset) == (api.NO_MATCHED_MESSAGE, 31)
    seen: list[bytes] = []

    def ends_with_8(record: bytes) -> bool:
        (decoded,) = records(record)
        seen.append(decoded.body)
        return decoded.body.endswith(b"8")

    assert at.read(tags_codes=even, match=ends_with_8) == ["8", "18", "28"]
    assert len(seen) == 15
    assert at.read(match=lambda record: True, offset=29) == ["29", "plain"]


def test_entries_from_files_and_from_memory(at: Harness) -> None:
    for n in range(25):
        at.put(f"{n}", tag=f"t{n}")
    at.clock.advance(61)  # ten entries a file: two files are full
    for n in range(25, 28):
        at.put(f"{n}", tag=f"t{n}")
    for offset, count in ((0, 3), (8, 2), (24, 4), (26, 2)):
        entries = at.store.entries("T", 0, offset, count)
        assert [e.offset for e in entries] == list(range(offset, offset + count))
        assert [e.tags_code for e in entries] == [java_hash(f"t{e.offset}") for e in entries]
        assert all(records(at.store.record(e.physical_offset) or b"") for e in entries)
    assert [e.offset for e in at.store.entries("T", 0, 8, 5)] == [8, 9]  # to the end of a file
    assert at.store.entries("T", 0, 28, 5) == at.store.entries("T", 9, 0, 5) == []
    assert len(at.read(offset=0)) == 10
    assert at.read_all() == [f"{n}" for n in range(28)]


# -- find


def test_search_by_time(at: Harness) -> None:
    begin = at.clock.now_ms()
    for step in (0, 10, 0, 0, 10):  # at 0, 10, 10, 10, 20 ms
        at.clock.advance(step / 1000)
        at.put("x")
    lower = [at.store.search_offset("T", 0, begin + t, upper=False) for t in (-5, 0, 5, 10, 15, 20)]
    assert lower == [0, 0, 1, 1, 4, 4]
    upper = [at.store.search_offset("T", 0, begin + t, upper=True) for t in (-5, 0, 5, 10, 15, 20)]
    assert upper == [0, 0, 0, 3, 3, 4]
    assert at.store.search_offset("T", 0, begin + 21, upper=False) == 5
    assert at.store.search_offset("T", 0, begin + 21, upper=True) == 4
    assert at.store.search_offset("T", 9, begin, upper=False) == 0
    assert at.store.store_time("T", 0, 4) == begin + 20
    assert at.store.store_time("T", 0, 5) == -1


def test_keys_find_messages(at: Harness) -> None:
    begin = at.clock.now_ms()
    at.put("a", keys="one two", unique="U1")
    at.clock.advance(10)
    at.put("b", keys="two", unique="U2")
    at.put("other", "V", keys="two")
    assert at.query("one") == at.query("U1") == ["a"]
    assert at.query("two") == ["a", "b"]
    assert at.query("two", count=1) == ["b"]
    assert at.query("two", begin_ms=begin + 5000) == ["b"]
    assert at.query("two", end_ms=begin + 5000) == ["a"]
    assert at.query("two", "V") == ["other"]
    assert at.query("three") == []
    for n in range(300):  # more than an index file holds
        at.put(f"{n}", keys=f"k{n}")
    assert [at.query(f"k{n}") for n in (0, 150, 299)] == [["0"], ["150"], ["299"]]
    assert at.query("one") == ["a"]


# -- delete


@pytest.mark.parametrize("restart", ["not", "clean", "killed"])
def test_a_topic_that_is_deleted_begins_anew(at: Harness, restart: str) -> None:
    for n in range(25):
        at.put(f"old {n}")
        at.put("kept", "U")
    at.clock.advance(61)
    at.store.delete_topic("T")
    assert at.store.read("T", 0, 0, 32).status == api.NO_MATCHED_LOGIC_QUEUE
    assert at.put("new").queue_offset == 0
    if restart != "not":
        at.restart(clean=restart == "clean")
    assert at.read() == ["new"]
    assert at.put("next").queue_offset == 1
    assert at.store.max_offset("U", 0) == 25
    assert at.query("none") == []
