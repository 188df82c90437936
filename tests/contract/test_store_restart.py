"""What a store is after a clean stop and after a kill, over files and over memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.stores import HOST, LOG_FILE_BYTES, Harness, message, records

from firearrow.codec.record import MAGIC_END_OF_FILE
from firearrow.store.commitlog import WrongFileSize
from firearrow.store.filestore import StoreLocked


@pytest.fixture(params=["real", "memory"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(request.param, tmp_path / "store")
    harness.open()
    yield harness
    harness.close()


@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", "SYNC_FLUSH"])
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("waited_s", [0, 2, 70])
def test_everything_is_there_again(at: Harness, clean: bool, waited_s: float, flush: str) -> None:
    at.store.settings.flush_disk_type = flush
    v6 = bytes(range(16)) + (1234).to_bytes(4)
    for n in range(60):
        at.put(f"{n} ".ljust(700, "."), tag=f"t{n}", keys=f"k{n}", queue_id=n % 2)
        at.put(f"long {n}", "%RETRY%" + "g" * 200, born_host=HOST if n % 2 else v6)
        if n % 10 == 0:
            at.store.append_batch([message(f"batch {n}.{m}", "batches") for m in range(12)])
            at.clock.advance(waited_s / 3)
    at.put("due later", "delayed")
    at.clock.advance(0)
    queues = sorted(at.store.queues())
    before = {queue: at.read_all(*queue) for queue in queues}
    codes = {queue: [e.tags_code for e in at.store.entries(*queue, 0, 10)] for queue in queues}
    assert sum(map(len, before.values())) == 60 + 60 + 72 + 1
    log_range = at.store.commit_log_range()
    for _ in range(2):
        at.restart(clean=clean)
        assert sorted(at.store.queues()) == queues
        assert {queue: at.read_all(*queue) for queue in queues} == before
        found = {queue: [e.tags_code for e in at.store.entries(*queue, 0, 10)] for queue in queues}
        assert found == codes
        assert at.store.commit_log_range() == log_range
        assert [at.query(f"k{n}")[0].split()[0] for n in (0, 31, 59)] == ["0", "31", "59"]
    for queue in queues:
        put = at.store.append(message("next", *queue))
        assert put.queue_offset == len(before[queue])
        log_range = (log_range[0], put.end)
    assert at.store.commit_log_range() == log_range


@pytest.mark.parametrize("clean", [True, False])
def test_an_empty_store_opens_again(at: Harness, clean: bool) -> None:
    at.restart(clean=clean)
    at.restart(clean=clean)
    assert list(at.store.queues()) == []
    assert at.put("x").physical_offset == 0


def test_abort_stands_there_as_long_as_the_store_is_open(at: Harness) -> None:
    assert at.disk.size(f"{at.root}/abort") > 0
    at.close()
    assert at.disk.size(f"{at.root}/abort") < 0
    at.open()


def test_without_checkpoint_and_queues_the_log_tells_everything(at: Harness) -> None:
    sent = at.fill_files(2)
    at.put("x", "U", 3)
    at.clock.advance(61)
    at.kill()
    at.disk.remove(f"{at.root}/checkpoint")
    for topic, queue_id in (("T", 0), ("U", 3)):
        directory = f"{at.root}/consumequeue/{topic}/{queue_id}"
        for name in at.disk.names(directory):
            at.disk.remove(f"{directory}/{name}")
    at.open()
    assert len(at.read_all()) == sent
    assert at.read("U", 3) == ["x"]


@pytest.mark.parametrize("at_byte", [0, 4, 28, 87, 90])
def test_a_damaged_record_ends_the_log(at: Harness, at_byte: int) -> None:
    """Size, magic, position, body length, body: each is checked."""
    ends = [at.put(f"{n}" * 20).end for n in range(5)]
    at.kill()
    path = f"{at.root}/commitlog/{0:020d}"
    position = ends[2] + at_byte
    byte = at.disk.read(path)[position]
    at.disk.write_at(path, position, bytes([byte ^ 0x55]), LOG_FILE_BYTES)
    at.open()
    assert at.read() == ["0" * 20, "1" * 20, "2" * 20]
    assert at.store.commit_log_range()[1] == ends[2]
    assert at.put("new").queue_offset == 3
    assert at.read()[3:] == ["new"]


def test_files_of_another_size_are_refused_with_the_setting_to_change(at: Harness) -> None:
    at.put("x")
    at.close()
    with pytest.raises(WrongFileSize, match=f"set mappedFileSizeCommitLog={LOG_FILE_BYTES}"):
        at.open(mapped_file_size_commit_log=LOG_FILE_BYTES * 2)
    at.open(mapped_file_size_commit_log=LOG_FILE_BYTES)
    assert at.read() == ["x"]


def test_a_store_has_one_user(at: Harness) -> None:
    with pytest.raises(StoreLocked, match="--store"):
        at.open()
    at.put("x")
    at.restart(clean=True)
    assert at.read() == ["x"]


@pytest.mark.slow
def test_another_process_is_kept_out(tmp_path: Path) -> None:
    at = Harness("real", tmp_path / "store")
    at.open()
    program = (
        "import sys; from firearrow.store.disk import RealDisk; "
        "print(RealDisk().lock(sys.argv[1] + '/lock'))"
    )

    def lock_elsewhere() -> str:
        command = [sys.executable, "-c", program, at.root]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert lock_elsewhere() == "False"
    at.close()
    assert lock_elsewhere() == "True"


@pytest.mark.parametrize("clean", [True, False])
def test_the_end_of_a_file_with_every_remainder(at: Harness, clean: bool) -> None:
    """The second record fits exactly when 8 bytes remain behind it; else a filler is there."""
    at.close()
    record_bytes = 91 + len("T") + len("body")
    step = 1 if at.kind == "memory" else 9  # syncing files takes its time
    for remaining in range(8, record_bytes + 24, step):
        at.root = f"{at.root.rpartition('/')[0]}/r{remaining}"
        at.open(mapped_file_size_commit_log=4096)
        first = at.put("x" * (4096 - remaining - 92))
        assert first.end == 4096 - remaining
        second = at.put("body")
        fits = record_bytes + 8 <= remaining
        assert second.physical_offset == (first.end if fits else 4096)
        third = at.put("third")
        at.restart(clean=clean)
        assert at.store.commit_log_range() == (0, third.end)
        found = records(b"".join(at.store.read("T", 0, n, 1).records for n in range(3)))
        assert [r.body[:5] for r in found] == [b"xxxxx", b"body", b"third"]
        if not fits:
            filler = at.disk.read_at(f"{at.root}/commitlog/{0:020d}", first.end, 8)
            assert filler == remaining.to_bytes(4) + MAGIC_END_OF_FILE.to_bytes(4)
        assert at.put("next").physical_offset >= third.end
        at.close()
    at.open()
