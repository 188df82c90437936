"""Stores that the Java broker wrote (``interop/store/golden.py`` made them): we answer as it did,
and what we write for the same messages is the same bytes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import pytest
from interop.remoting import Answer, Refused
from interop.store.load import BATCHES, QUEUES
from interop.store.questions import ask_everything, plain
from tests.support.brokers import World

from firearrow.codec import lenient_json
from firearrow.codec.properties import find_property
from firearrow.codec.record import Record
from firearrow.features.delay import DueTimes, parse_levels
from firearrow.model import names
from firearrow.model.background import InlineBackground
from firearrow.model.clock import VirtualClock
from firearrow.model.message import Message
from firearrow.store import checkpoint
from firearrow.store.disk import RealDisk
from firearrow.store.filestore import FileStore
from firearrow.store.recovery import open_store
from firearrow.store.settings import StoreSettings

GOLDEN = Path(__file__).parents[2] / "golden"
VERSION = "5.5.0"
SIZES = {
    "mappedFileSizeCommitLog": "mapped_file_size_commit_log",
    "mappedFileSizeConsumeQueue": "mapped_file_size_consume_queue",
    "mapperFileSizeBatchConsumeQueue": "mapper_file_size_batch_consume_queue",
    "maxHashSlotNum": "max_hash_slot_num",
    "maxIndexNum": "max_index_num",
}
BATCH_ID = b"7F0000FF"  # how unique keys of batches begin; the next 16 digits name the batch


class Golden:
    """One store, unpacked."""

    def __init__(self, name: str, root: Path) -> None:
        with zipfile.ZipFile(GOLDEN / f"java-{VERSION}-{name}.zip") as archive:
            archive.extractall(root)
        self.store = root / "store"
        self.document = json.loads((root / "answers.json").read_bytes())
        settings, answers = self.document["settings"], self.document["answers"]
        self.sizes = {
            ours: settings[theirs] for theirs, ours in SIZES.items() if theirs in settings
        }
        self.queues = {name: count for name, count in QUEUES.items() if f"topic {name}" in answers}

    def config(self, name: str) -> Any:
        return lenient_json.loads((self.store / "config" / name).read_bytes())

    def files(self, folder: str) -> dict[str, bytes]:
        root = self.store / folder
        paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}

    @property
    def last_ms(self) -> int:
        return checkpoint.load(RealDisk(), f"{self.store}/checkpoint").log_time


@pytest.fixture(params=["stopped", "killed"])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    return Golden(request.param, tmp_path)


@pytest.fixture
def stopped(tmp_path: Path) -> Golden:
    return Golden("stopped", tmp_path)


class InProcess:
    """Asks a broker of this process, and lets time pass until it answers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._connection = world.connect()

    def call(self, code: int, ext: Mapping[str, object] | None = None, body: bytes = b"") -> Answer:
        opaque = self._connection.send(code, dict(ext or {}), body)
        for _ in range(1000):
            for frame in self._connection.received():
                if frame.header.opaque == opaque and frame.header.flag & 1:
                    remark = frame.header.remark or ""
                    return Answer(frame.code, frame.ext, remark, frame.body)
            self._world.clock.advance()
        raise AssertionError(f"request {code} is never answered")

    def ask(self, code: int, ext: Mapping[str, object] | None = None, body: bytes = b"") -> Answer:
        answer = self.call(code, ext, body)
        if answer.code:
            raise Refused(answer.remark)
        return answer


def open_world(golden: Golden) -> World:
    return World(golden.store, clock=VirtualClock(golden.last_ms), **golden.sizes)


def test_every_question_is_answered_as_java_did(golden: Golden) -> None:
    world = open_world(golden)
    answers = ask_everything(InProcess(world), golden.queues)
    world.stop()
    found = json.loads(json.dumps({key: plain(value) for key, value in answers.items()}))
    expected = golden.document["answers"]
    # Java gave delayed messages back after it was asked, and was killed before it saved offsets.
    unsure = {f"delay progress {level}" for level in range(1, 19)}
    if not (golden.store / "config" / "consumerOffset.json").exists():
        unsure.add("committed Orders@readers")
    different = {
        question: (found.get(question), expected[question])
        for question in expected.keys() - unsure
        if found.get(question) != expected[question]
    }
    assert len(expected) > 1000
    assert different == {}


def replay(golden: Golden, root: Path) -> FileStore:
    """Write what the log has again, with our store; it is closed afterwards."""
    java = open_world(golden)
    records = [record for _, record in walk(java.store)]
    java.store.disk.unlock()
    clock = VirtualClock(records[0].store_timestamp)
    due_times = DueTimes(parse_levels(java.settings.message_delay_level))
    store = open_store(
        str(root),
        StoreSettings(**golden.sizes),
        RealDisk(),
        clock,
        InlineBackground(),
        {names.SCHEDULE_TOPIC: due_times},
        lambda _: lambda topic: topic == BATCHES,
    )
    for _, group in groupby(records, key=_unit):
        messages = [*group]
        clock.jump_wall_clock(messages[0].store_timestamp - clock.now_ms())
        store.append_batch([_message(record) for record in messages])
    store.close()
    return store


def walk(store: FileStore) -> Iterator[tuple[int, Record]]:
    position = store.log.min_offset
    while position < store.log.end:
        record, following = store.log.scan(position)
        if record is not None:
            yield position, record
        position = following


def _unit(record: Record) -> tuple[bytes, int]:
    """What was appended at once: a batch, or one message."""
    unique = find_property(record.properties, b"UNIQ_KEY") or b""
    batch = unique[:24] if unique.startswith(BATCH_ID) else b""
    return batch, 0 if batch else record.physical_offset


def _message(record: Record) -> Message:
    return Message(
        topic=record.topic,
        queue_id=record.queue_id,
        body=record.body,
        properties=record.properties,
        born_timestamp=record.born_timestamp,
        born_host=record.born_host,
        flag=record.flag,
        sys_flag=record.sys_flag,
        reconsume_times=record.reconsume_times,
        prepared_offset=record.prepared_offset,
        store_host=record.store_host,
    )


def test_the_same_messages_become_the_same_files(stopped: Golden, tmp_path: Path) -> None:
    log, queues = stopped.files("commitlog"), stopped.files("consumequeue")
    batches = stopped.files("batchconsumequeue")
    index = [*stopped.files("index").values()]
    replay(stopped, tmp_path / "ours")
    stopped.store = tmp_path / "ours"
    assert stopped.files("commitlog") == log
    assert stopped.files("batchconsumequeue") == batches
    written = stopped.files("consumequeue")
    assert {name: data for name, data in written.items() if name in queues} == queues
    # Those of a topic that was deleted.
    assert {name.split("/")[0] for name in written.keys() - queues.keys()} == {"Gone"}
    assert [*stopped.files("index").values()] == index
    assert len(log) > 3
    assert len(queues) > 30
    assert len(index) > 3
    assert len(batches) > 3


def test_the_checkpoint_says_when_the_last_record_was_stored(stopped: Golden) -> None:
    saved = checkpoint.load(RealDisk(), f"{stopped.store}/checkpoint")
    java = open_world(stopped)
    last_phy, last = [*walk(java.store)][-1]
    java.stop()
    assert saved.log_time == last.store_timestamp
    assert saved.queues_time <= last.store_timestamp
    assert saved.clean_end == saved.dispatched == -1  # Java knows nothing of these
    ours = checkpoint.load(RealDisk(), f"{stopped.store}/checkpoint")
    assert ours.log_time == last.store_timestamp
    assert ours.clean_end == last_phy + last.size


@pytest.mark.parametrize(
    ("file", "table"),
    [
        ("topics.json", "topicConfigTable"),
        ("subscriptionGroup.json", "subscriptionGroupTable"),
        ("consumerOffset.json", "offsetTable"),
        ("delayOffset.json", "offsetTable"),
    ],
)
def test_tables_are_written_with_everything_that_java_wrote(
    stopped: Golden, file: str, table: str
) -> None:
    java = stopped.config(file)
    world = open_world(stopped)
    client = world.connect()
    client.produce("another")  # so that every table is written anew
    client.heartbeat("another-group", {"another": "*"})
    client.pull("another", group="another-group", commit=1)
    client.produce("another", properties="DELAY\x011\x02")
    world.clock.advance(3)
    world.stop()
    written = stopped.config(file)
    assert msgspec.json.decode((stopped.store / "config" / file).read_bytes()) == written
    missing = {
        name: (value, written[table].get(name))
        for name, value in java[table].items()
        if written[table].get(name) != value
    }
    if file == "delayOffset.json":
        missing = {level: pair for level, pair in missing.items() if pair[0]}  # 0: nothing yet
        missing.pop("1")  # one more was given back
    assert missing == {}
    assert java["dataVersion"].keys() == written["dataVersion"].keys()
