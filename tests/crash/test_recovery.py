"""What a crash leaves in the files, case by case, and what the next start makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firearrow.codec import tables
from firearrow.codec.record import decode_record, split_records
from firearrow.model.background import InlineBackground
from firearrow.model.clock import VirtualClock
from firearrow.model.message import Message
from firearrow.store.configfiles import ConfigUnreadable
from firearrow.store.disk import RealDisk
from firearrow.store.filestore import FileStore
from firearrow.store.recovery import open_store
from firearrow.store.settings import StoreSettings

FILE_BYTES = 64 * 1024

TABLE = tables.reader(dict[str, Any])


class Machine:
    """A store whose process can be killed and started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = VirtualClock()
        self.background = InlineBackground()
        self.store = self._open()

    def _open(self) -> FileStore:
        settings = StoreSettings(
            mapped_file_size_commit_log=FILE_BYTES, mapped_file_size_consume_queue=20_000
        )
        store = open_store(str(self.root), settings, RealDisk(), self.clock, self.background)
        store.start()
        return store

    def kill(self) -> None:
        """Nothing is written any more; what the kernel has stays."""
        self.store.disk.unlock()
        self.clock, self.background = VirtualClock(self.clock.now_ms()), InlineBackground()

    def restart(self) -> None:
        self.store = self._open()

    def append(self, queue_id: int, count: int = 1, topic: str = "T") -> None:
        for _ in range(count):
            text = b"%d" % self.store.max_offset(topic, queue_id)
            message = Message(topic, queue_id, text, b"", 1, bytes(8))
            assert self.store.append(message).physical_offset >= 0

    def bodies(self, queue_id: int) -> list[int]:
        """What a consumer reads of the queue, from its beginning."""
        found: list[int] = []
        while True:
            read = self.store.read("T", queue_id, len(found), 32)
            if not read.count:
                return found
            found += [int(decode_record(r).body) for r in split_records(read.records)]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "store")
    yield machine
    machine.kill()


def test_a_queue_that_lost_entries_in_its_middle_keeps_those_before(machine: Machine) -> None:
    machine.append(0, 10)
    machine.store.close()
    machine.restart()
    machine.append(0, 3)
    machine.kill()
    file = machine.root / "consumequeue" / "T" / "0" / f"{0:020d}"
    with file.open("r+b") as queue:
        queue.truncate(5 * 20)
        queue.truncate(20_000)
    for _ in range(2):  # after the crash, and after a clean stop
        machine.restart()
        assert machine.store.min_offset("T", 0) == 0
        assert machine.store.max_offset("T", 0) == 13
        assert machine.bodies(0)[:5] == list(range(5))
        assert machine.store.read("T", 0, 10, 3).count == 3
        machine.store.close()


def test_a_missing_file_of_the_log_hides_only_itself(machine: Machine) -> None:
    machine.append(0, 2000)
    assert len(machine.store.log.files) == 3
    machine.store.close()
    (machine.root / "commitlog" / f"{FILE_BYTES:020d}").unlink()
    machine.restart()
    first = machine.bodies(0)
    assert first == list(range(len(first)))
    assert first
    gap = machine.store.read("T", 0, len(first), 32)
    assert (gap.status, gap.next_offset) == ("MESSAGE_WAS_REMOVING", len(first) + 32)
    assert machine.store.max_offset("T", 0) == 2000
    last = machine.store.read("T", 0, 1999, 1)
    assert last.count == 1
    machine.append(0)
    assert machine.store.max_offset("T", 0) == 2001


def test_two_files_that_have_no_size_yet_are_no_error(machine: Machine) -> None:
    """A power failure may come when the log's file and the one made ahead are only names."""
    machine.store.close()
    for start in (0, FILE_BYTES):
        (machine.root / "commitlog" / f"{start:020d}").touch()
    machine.restart()
    machine.append(0)
    assert machine.bodies(0) == [0]


def test_notes_survive_a_kill_and_the_clean_stop_after_it(machine: Machine) -> None:
    machine.store.note_config("topics.json", b'{"topicName":"A"}')
    machine.kill()
    journal = machine.root / "config" / "topics.json.journal"
    with journal.open("ab") as file:
        file.write(b'\n{"topicName":"torn')
    machine.restart()
    machine.store.note_config("topics.json", b'{"topicName":"B"}')
    assert machine.store.config_notes("topics.json", TABLE) == [
        {"topicName": "A"},
        {"topicName": "B"},
    ]
    machine.store.close()  # nobody saved the file
    machine.restart()
    assert machine.store.config_notes("topics.json", TABLE) == [
        {"topicName": "A"},
        {"topicName": "B"},
    ]
    machine.store.save_config("topics.json", [b'{"saved":1}'])
    machine.store.close()
    machine.restart()
    assert machine.store.config_notes("topics.json", TABLE) == []
    assert machine.store.load_config("topics.json", TABLE) == {"saved": 1}


def test_a_table_that_nobody_can_read_is_not_replaced(machine: Machine) -> None:
    config = machine.root / "config"
    (config / "topics.json").write_bytes(b"")
    (config / "topics.json.bak").write_bytes(b'{"old":1}')
    assert machine.store.load_config("topics.json", TABLE) == {"old": 1}
    (config / "topics.json").write_bytes(b'{"new":')
    assert machine.store.load_config("topics.json", TABLE) == {"old": 1}
    (config / "topics.json.bak").unlink()
    with pytest.raises(ConfigUnreadable, match=r"repair it, or remove it"):
        machine.store.load_config("topics.json", TABLE)


def test_a_second_store_in_the_same_process_is_kept_out_too(machine: Machine) -> None:
    disk = RealDisk()
    assert not disk.lock(str(machine.root / "lock"))
    disk.unlock()
    assert not RealDisk().lock(str(machine.root / "lock"))
