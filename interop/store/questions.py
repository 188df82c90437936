"""Everything that a client or an operator can ask about a store, asked over the protocol."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from interop.remoting import Answer

from firearrow.codec.properties import parse_properties
from firearrow.codec.record import Record, decode_record, split_records
from firearrow.codec.sysflags import SYS_INNER_BATCH

SCHEDULE = "SCHEDULE_TOPIC_XXXX"
SCHEDULE_QUEUES = 18
ASKER = "asker"
FOUND_MAX = 60
FOREVER_MS = 2**63 - 1
SETTLE_SECONDS_MAX = 20

Answers = dict[str, Any]  # question -> answer


class Asked(Protocol):
    """Who is asked: a broker at the other end of a connection, or in a test."""

    def call(
        self, code: int, ext: Mapping[str, object] | None = None, body: bytes = b""
    ) -> Answer: ...

    def ask(
        self, code: int, ext: Mapping[str, object] | None = None, body: bytes = b""
    ) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue as a consumer sees it: its records, first offset first."""

    records: list[bytes]
    decoded: list[Record]


def await_dispatch(remote: Asked) -> None:
    """Wait until everything that was accepted is readable and found by key."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while True:
        answer = remote.call(28)  # refused in a Java broker's first second
        if answer.code == 0 and answer.json()["table"]["dispatchBehindBytes"] == "0":
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the broker stays behind its own log")
        time.sleep(0.05)


def bounds(remote: Asked, topic: str, queue_id: int) -> tuple[int, int]:
    fields = {"topic": topic, "queueId": queue_id}
    low, high = (int(remote.ask(code, fields).ext["offset"]) for code in (31, 30))
    return low, high


def read_queue(remote: Asked, topic: str, queue_id: int) -> Queue:
    """Pull everything."""
    offset, high = bounds(remote, topic, queue_id)
    records: list[bytes] = []
    while offset < high:
        fields = {
            "consumerGroup": ASKER,
            "topic": topic,
            "queueId": queue_id,
            "queueOffset": offset,
            "maxMsgNums": 32,
            "sysFlag": 4,
            "commitOffset": 0,
            "suspendTimeoutMillis": 0,
            "subscription": "*",
            "subVersion": 0,
        }
        answer = remote.call(11, fields)
        if answer.code not in (0, 19, 20, 21):
            raise RuntimeError(f"pull of {topic} {queue_id}: {answer.code} {answer.remark}")
        records += split_records(answer.body)
        following = int(answer.ext["nextBeginOffset"])
        if following <= offset:
            raise RuntimeError(f"pull of {topic} {queue_id} stays at {offset}: {answer.remark}")
        offset = following
    return Queue(records, [decode_record(record, check_crc=True) for record in records])


def ask_everything(remote: Asked, topics: Mapping[str, int]) -> Answers:
    """The answers to all questions about the queues of these topics, and about the whole store."""
    await_dispatch(remote)
    answers: Answers = {}
    read_queue(remote, next(iter(topics)), 0)  # makes the asking group
    for topic, queues in {**topics, SCHEDULE: SCHEDULE_QUEUES}.items():
        for queue_id in range(queues):
            queue = read_queue(remote, topic, queue_id)
            answers.update(_of_queue(remote, topic, queue_id, queue))
    answers.update(_of_store(remote))
    return answers


def _of_queue(remote: Asked, topic: str, queue_id: int, queue: Queue) -> Answers:
    where = f"{topic[:20]} {queue_id}"
    fields = {"topic": topic, "queueId": queue_id}
    answers: Answers = {
        f"bounds {where}": bounds(remote, topic, queue_id),
        f"earliest {where}": remote.call(32, fields).ext.get("timestamp"),
    }
    for n, record in enumerate(queue.records):
        answers[f"record {where} {n}"] = record
    for decoded in queue.decoded[::17]:
        viewed = remote.call(33, {"offset": decoded.physical_offset})
        answers[f"by id {where} {decoded.queue_offset}"] = (viewed.code, viewed.body)
    whole = any(record.sys_flag & SYS_INNER_BATCH for record in queue.decoded)
    for n, entry in enumerate(_entries(remote, topic, queue_id, [queue] if whole else [])):
        answers[f"entry {where} {n}"] = entry
    for moment in _moments(queue):
        # The upper end of a time that no batch has is the first one or none to Java.
        for boundary in ("lower",) if whole else ("lower", "upper"):
            asked = {**fields, "timestamp": moment, "boundaryType": boundary}
            answers[f"{boundary} {where} {moment}"] = remote.ask(29, asked).ext["offset"]
    for key in _keys(queue):
        answers[f"key {topic[:20]} {key}"] = find_key(remote, topic, key)
    for tag in sorted({tag for n in queue.decoded if (tag := _tag(n))}):
        answers[f"tag {topic[:20]} {tag}"] = find_key(remote, topic, tag, indexType="T")
    return answers


def _entries(
    remote: Asked, topic: str, queue_id: int, whole: list[Queue]
) -> Iterator[tuple[int, int, int]]:
    """(physical offset, size, tags code) of every entry; an answer ends where a file does. With
    whole batches an entry stands for several offsets, so each is asked for."""
    index, high = bounds(remote, topic, queue_id)
    for queue in whole:
        for record in queue.decoded:
            fields = {"topic": topic, "queueId": queue_id, "index": record.queue_offset, "count": 1}
            (entry,) = remote.ask(321, fields).json()["queueData"]
            yield entry["physicOffset"], entry["physicSize"], entry["tagsCode"]
        return
    while index < high:
        fields = {"topic": topic, "queueId": queue_id, "index": index, "count": 500}
        page = remote.ask(321, fields).json()["queueData"]
        for entry in page:
            yield entry["physicOffset"], entry["physicSize"], entry["tagsCode"]
        if not page:
            raise RuntimeError(f"no entries of {topic} {queue_id} from {index} of {high}")
        index += len(page)


def _moments(queue: Queue) -> list[int]:
    """Times at, just before, just after and between what is stored, and far away."""
    stored = sorted({record.store_timestamp for record in queue.decoded})
    chosen = {0, 1, 4_000_000_000_000}
    for moment in stored[:3] + stored[:: max(1, len(stored) // 6)] + stored[-3:]:
        chosen |= {moment - 1, moment, moment + 1}
    return sorted(chosen)


def _keys(queue: Queue) -> Iterator[str]:
    for record in queue.decoded[::13]:
        properties = parse_properties(record.properties)
        yield properties["UNIQ_KEY"]
        yield from properties.get("KEYS", "").split()
    yield "no-such-key"


def _tag(record: Record) -> str:
    return parse_properties(record.properties).get("TAGS", "")


def find_key(remote: Asked, topic: str, key: str, **more: str) -> list[int]:
    """Physical offsets of the newest records with a key. After a crash Java has one twice, which
    is among the 64 that an answer may have."""
    fields = {"topic": topic, "key": key, "maxNum": 64, "beginTimestamp": 0, **more}
    answer = remote.call(12, {**fields, "endTimestamp": FOREVER_MS})
    found = {decode_record(record).physical_offset for record in split_records(answer.body)}
    return sorted(found)[-FOUND_MAX:]


def _of_store(remote: Asked) -> Answers:
    runtime = remote.ask(28).json()["table"]
    answers: Answers = {"first offset of the log": runtime["commitLogMinOffset"]}
    for name, config in remote.ask(21).json()["topicConfigTable"].items():
        answers[f"topic {name}"] = config
    for name, config in remote.ask(201).json()["subscriptionGroupTable"].items():
        answers[f"group {name}"] = config
    for key, offsets in _offsets(remote).items():
        answers[f"committed {key}"] = offsets
    for group in sorted({key.rpartition("@")[2] for key in _offsets(remote)}):
        topics = remote.ask(343, {"group": group}).json()["topicList"] or []
        answers[f"topics of {group}"] = sorted(topics)
    for level, offset in remote.ask(45).json()["offsetTable"].items():
        if offset:
            answers[f"delay progress {level}"] = offset
    return answers


def _offsets(remote: Asked) -> dict[str, Any]:
    return dict(remote.ask(43).json()["offsetTable"])


def plain(answer: Any) -> Any:
    """The answer as JSON keeps it: bytes, which stand in the log, as their size and CRC."""
    if isinstance(answer, bytes):
        return f"{len(answer)} bytes, CRC {zlib.crc32(answer):08x}"
    if isinstance(answer, list | tuple):
        return [plain(item) for item in answer]
    return answer


def differences(expected: Answers, found: Answers) -> list[str]:
    """What is answered differently, or by one of them only."""
    return [
        f"{question}: {_shown(expected.get(question))} became {_shown(found.get(question))}"
        for question in {**expected, **found}
        if expected.get(question) != found.get(question)
    ]


def _shown(answer: Any) -> str:
    text = str(decode_record(answer)) if isinstance(answer, bytes) else str(answer)
    return text if len(text) < 300 else text[:300] + "..."
