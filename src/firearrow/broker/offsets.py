"""Consumer offsets: committed, pulled, and pending resets; kept in ``consumerOffset.json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from firearrow.codec import tables
from firearrow.model import names
from firearrow.model.clock import Clock
from firearrow.model.topic import DataVersion
from firearrow.store.api import Store

OFFSETS_FILE: Final = "consumerOffset.json"
LMQ_OFFSETS_FILE: Final = "lmqConsumerOffset.json"  # instead, with enableLmq
# ``consumerOffsetUpdateVersionStep``: the version grows once in so many commits.
VERSION_STEP: Final = 500
_encode = msgspec.json.Encoder().encode


class OffsetSettings(Protocol):
    flush_consumer_offset_interval: int
    enable_lmq: bool


class OffsetsTable(msgspec.Struct, rename="camel"):
    """``consumerOffset.json``: ``topic@group`` -> queue -> offset. A light message queue has but
    one queue, and ``lmqConsumerOffset.json`` says the offset alone."""

    data_version: DataVersion | None = None
    offset_table: dict[str, dict[int, int] | None] | None = None
    lmq_offset_table: dict[str, int] | None = None


class Note(msgspec.Struct, array_like=True):
    """A change; without an offset, the group is forgotten. ``end``: as in ``note_ahead``."""

    topic: str
    group: str
    queue_id: int | None
    offset: int | None
    end: int = 0


class ConsumerOffsets:
    """Next offset to consume, by (topic, group) and queue. A commit may go backwards."""

    def __init__(self, settings: OffsetSettings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self.committed: dict[tuple[str, str], dict[int, int]] = {}
        self.pulled: dict[tuple[str, str], dict[int, int]] = {}
        self._resets: dict[tuple[str, str], dict[int, int]] = {}
        self.version = DataVersion()
        self._commits = 0
        self._dirty = False
        self._file = OFFSETS_FILE

    def load(self) -> None:
        self._file = LMQ_OFFSETS_FILE if self._settings.enable_lmq else OFFSETS_FILE
        read = tables.reader(OffsetsTable)
        saved = self._store.load_config(self._file, read)
        saved = saved or self._store.load_config(OFFSETS_FILE, read) or OffsetsTable()
        self.version = saved.data_version or DataVersion()
        for key, queues in (saved.offset_table or {}).items():
            topic, at, group = key.partition("@")
            if at and queues:
                self.committed[topic, group] = queues
        for key, offset in (saved.lmq_offset_table or {}).items():
            topic, _, group = key.partition("@")
            self.committed[topic, group] = {0: offset}
        for note in self._store.config_notes(self._file, tables.reader(Note)):
            self._load_note(note)

    def _load_note(self, note: Note) -> None:
        key, queue_id = (note.topic, note.group), note.queue_id
        if queue_id is None or note.offset is None:
            self.committed.pop(key, None)
            return
        queues = self.committed.setdefault(key, {})
        if note.end <= self._store.commit_log_range()[1]:
            queues[queue_id] = note.offset
        elif queue_id in queues:  # nor may it count when the log has grown
            self._note(*key, queue_id, queues[queue_id])

    def start(self) -> None:
        self._clock.call_later(self._settings.flush_consumer_offset_interval / 1000, self._tick)

    def _tick(self) -> None:
        self.save()
        self.start()

    def save(self) -> None:
        """Write the file if anything changed since the last time."""
        if self._dirty:
            self._dirty = False
            self._store.save_config(self._file, self.chunks())

    def chunks(self) -> Iterator[bytes]:
        yield b'{"dataVersion":' + _encode(self.version) + b',"offsetTable":{'
        separator = b""
        light = {}
        for topic, group in list(self.committed):  # it may change meanwhile
            queues = self.committed.get((topic, group))
            if queues is None:
                continue
            lmq = self._settings.enable_lmq and group.startswith(names.LMQ_PREFIX)
            if lmq and queues.keys() == {0}:
                light[f"{topic}@{group}"] = queues[0]
                continue
            yield separator + _encode(f"{topic}@{group}") + b":" + _encode(queues)
            separator = b","
        yield b"}"
        if self._settings.enable_lmq:
            yield b',"lmqOffsetTable":' + _encode(light)
        yield b"}"

    def commit(self, topic: str, group: str, queue_id: int, offset: int) -> None:
        """Store the offset, unless a reset of this queue still waits for the consumer."""
        key = (topic, group)
        if self._resets and queue_id in self._resets.get(key, ()):
            return
        queues = self.committed.get(key)
        if queues is None:
            queues = self.committed[key] = {}
        if queues.get(queue_id) != offset:
            queues[queue_id] = offset
            self._dirty = True
        self._commits += 1
        if self._commits % VERSION_STEP == 0:
            self.version = self.version.next(self._clock.now_ms())

    def commit_noted(self, topic: str, group: str, queue_id: int, offset: int) -> None:
        """The same, and a kill before the next save does not lose it: for offsets that the broker
        itself moves on, where going back would hand messages out twice."""
        key = (topic, group)
        before = self.committed.get(key, {}).get(queue_id)
        self.commit(topic, group, queue_id, offset)
        if before != offset and self.committed.get(key, {}).get(queue_id) == offset:
            self._note(topic, group, queue_id, offset)

    def note_ahead(self, topic: str, group: str, queue_id: int, offset: int, end: int) -> None:
        """Let the next broker go on from ``offset``, if its log goes up to ``end`` or further."""
        if self.pending_reset(topic, group, queue_id) is None:
            self._note(topic, group, queue_id, offset, end)

    def _note(self, topic: str, group: str, queue_id: int, offset: int, *end: int) -> None:
        self._store.note_config(self._file, _encode((topic, group, queue_id, offset, *end)))

    def note_pull(self, topic: str, group: str, queue_id: int, next_offset: int) -> None:
        """Remember how far the group was served; shown by consume statistics."""
        key = (topic, group)
        queues = self.pulled.get(key)
        if queues is None:
            queues = self.pulled[key] = {}
        queues[queue_id] = next_offset

    def find(self, topic: str, group: str, queue_id: int) -> int | None:
        """The committed offset; a pending reset goes first; ``None`` when there is neither."""
        pending = self.pending_reset(topic, group, queue_id)
        if pending is not None:
            return pending
        queues = self.committed.get((topic, group))
        return None if queues is None else queues.get(queue_id)

    # -- resets by the server

    def reset(self, topic: str, group: str, queue_id: int, offset: int) -> None:
        """Set the offset now and hand it to the consumer with its next pull."""
        self.committed.setdefault((topic, group), {})[queue_id] = offset
        self._resets.setdefault((topic, group), {})[queue_id] = offset
        self._dirty = True

    def pending_reset(self, topic: str, group: str, queue_id: int) -> int | None:
        if not self._resets:
            return None
        return self._resets.get((topic, group), {}).get(queue_id)

    def take_reset(self, topic: str, group: str, queue_id: int) -> int | None:
        """The pending reset of a queue, which is over with this call."""
        if not self._resets:
            return None
        key = (topic, group)
        queues = self._resets.get(key)
        if queues is None or queue_id not in queues:
            return None
        offset = queues.pop(queue_id)
        if not queues:
            del self._resets[key]
        return offset

    # -- by topic and group

    def topics_of(self, group: str) -> set[str]:
        return {topic for topic, owner in self.committed if owner == group}

    def groups_of(self, topic: str) -> set[str]:
        return {group for of, group in self.committed if of == topic}

    def clone(self, topic: str, source: str, target: str) -> None:
        queues = self.committed.get((topic, source))
        if queues is not None:
            self.committed[topic, target] = dict(queues)
            self._dirty = True

    def delete_topic(self, topic: str) -> None:
        self._delete([key for key in self.committed if key[0] == topic])

    def delete_group(self, group: str) -> None:
        self._delete([key for key in self.committed if key[1] == group])

    def delete(self, topic: str, group: str) -> None:
        self._delete([(topic, group)])

    def _delete(self, keys: list[tuple[str, str]]) -> None:
        for key in keys:
            if self.committed.pop(key, None) is not None:
                # After a kill, offsets that were noted must not count for a topic made anew.
                self._store.note_config(self._file, _encode((*key, None, None)))
            self.pulled.pop(key, None)
            self._resets.pop(key, None)
            self._dirty = True
