"""Topics that store a message once within a time, however often it is sent.

Attribute ``dedup.window.ms`` of a topic switches it on; ``dedup.key`` says which property must be
equal (``KEYS`` or ``UNIQ_KEY``; without it ``KEYS`` where a message has them, else ``UNIQ_KEY``,
which is the same when a client tries a send again). A second message is acknowledged with the id,
queue and offset of the first.

Kept in memory: for each key of the window a number for the key and the place of its record. The
record itself says whether the key is really equal and the time not over, so a collision of numbers
does no harm. After a restart or a kill the log has all of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from firearrow.broker.admin.attributes import Attribute, number, one_of
from firearrow.broker.rooms import BaseRoom
from firearrow.broker.topics import Topics
from firearrow.broker.writer import Writer
from firearrow.codec.properties import find_property
from firearrow.codec.record import decode_record, record_properties, record_store_time
from firearrow.codec.sysflags import SYS_TRANSACTION_COMMIT, SYS_TRANSACTION_MASK
from firearrow.model import names
from firearrow.model.clock import Clock
from firearrow.model.message import Message
from firearrow.store.api import Put, PutStatus, Store

log = logging.getLogger(__name__)

WINDOW: Final = "dedup.window.ms"
KEY: Final = "dedup.key"
ENTRIES_PER_READ: Final = 1024
# Where messages wait that were acknowledged for another topic.
_WAITING_TOPICS: Final = (names.SCHEDULE_TOPIC, names.TIMER_TOPIC)


class DedupSettings(Protocol):
    dedup_keys_max: int


class Seen:
    """Numbers of keys and physical offsets: those of one window at least, of two at most."""

    def __init__(self) -> None:
        self.young: dict[int, int] = {}
        self.old: dict[int, int] = {}
        self.young_since_ms = 0

    def __len__(self) -> int:
        return len(self.young) + len(self.old)

    def get(self, number: int) -> int | None:
        found = self.young.get(number)
        return self.old.get(number) if found is None else found

    def turn(self, now_ms: int) -> None:
        self.young, self.old, self.young_since_ms = {}, self.young, now_ms


class DedupRoom(BaseRoom):
    """Stands before the topics that have the attribute."""

    topic_attributes: Mapping[str, Attribute] = {
        WINDOW: Attribute(number(1), changeable=True),
        KEY: Attribute(one_of("KEYS", "UNIQ_KEY"), changeable=True),
    }

    def __init__(
        self, settings: DedupSettings, store: Store, writer: Writer, topics: Topics, clock: Clock
    ) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._topics = topics
        self._clock = clock
        self._windows: dict[str, Window] = {}
        topics.attribute_listeners.append(self._attributes_changed)
        for topic in topics.attributed:
            self._attributes_changed(topic)

    def start(self) -> None:
        if self._windows:
            self._rebuild()

    def _attributes_changed(self, topic: str) -> None:
        window_ms = self._topics.number(topic, WINDOW)
        window = self._windows.get(topic)
        if not window_ms:
            if window is not None:
                del self._windows[topic], self._writer.guards[topic]
                self._topics.treat_with_care(topic, False)
            return
        choice = self._topics.attributed[topic].attributes.get(KEY, "")
        if window is None:
            window = self._windows[topic] = Window(topic, self._store, self._clock, self._make_room)
            self._writer.guards[topic] = window
            self._topics.treat_with_care(topic, True)
        window.length_ms, window.choice = window_ms, choice

    def _make_room(self, window: Window) -> None:
        """Keep within ``dedupKeysMax`` for all topics: the one that grows gives up its oldest."""
        total = sum(map(len, self._windows.values()))
        if total <= self._settings.dedup_keys_max:
            return
        log.warning(
            "topic %s: more keys within %s ms than dedupKeysMax allows; the oldest are forgotten, "
            "and messages with them would be stored again",
            window.topic,
            window.length_ms,
        )
        window.seen.turn(self._clock.now_ms())

    # -- after a restart

    def _rebuild(self) -> None:
        """Read the windows' messages again, in the order of the log."""
        found: list[tuple[int, Window, bytes]] = []
        longest_ms = max(window.length_ms for window in self._windows.values())
        for queue in self._store.queues():
            window = self._windows.get(queue[0])
            if window is not None or queue[0] in _WAITING_TOPICS:
                length_ms = longest_ms if window is None else window.length_ms
                found += self._found(queue, self._clock.now_ms() - length_ms, window)
        for physical_offset, window, key in sorted(found, key=lambda item: item[0]):
            if window.first(key) is None:
                window.remember(key, physical_offset)

    def _found(
        self, queue: tuple[str, int], since_ms: int, window: Window | None
    ) -> Iterator[tuple[int, Window, bytes]]:
        for physical_offset, record in self._records(queue, since_ms):
            properties = record_properties(record)
            waits_for = (find_property(properties, b"REAL_TOPIC") or b"").decode("utf-8", "replace")
            of = self._windows.get(waits_for) if window is None else window
            key = None if of is None else of.key(properties)
            if of is not None and key is not None:
                yield physical_offset, of, key

    def _records(self, queue: tuple[str, int], since_ms: int) -> Iterator[tuple[int, bytes]]:
        offset = self._store.search_offset(*queue, since_ms, upper=False)
        offset = max(offset, self._store.max_offset(*queue) - self._settings.dedup_keys_max)
        while entries := self._store.entries(*queue, offset, ENTRIES_PER_READ):
            for entry in entries:
                record = self._store.record(entry.physical_offset)
                if record is not None:
                    yield entry.physical_offset, record
            offset = entries[-1].end


class Window:
    """One topic's keys, and the guard that knows them."""

    def __init__(
        self, topic: str, store: Store, clock: Clock, make_room: Callable[[Window], None]
    ) -> None:
        self.topic = topic
        self.length_ms = 0
        self.choice = ""
        self.seen = Seen()
        self._store = store
        self._clock = clock
        self._make_room = make_room

    def __len__(self) -> int:
        return len(self.seen)

    def key(self, properties: bytes) -> bytes | None:
        """What must not come twice; ``None`` for a message without."""
        if self.choice:
            return find_property(properties, self.choice.encode())
        return find_property(properties, b"KEYS") or find_property(properties, b"UNIQ_KEY")

    def first(self, key: bytes) -> tuple[int, bytes] | None:
        """Physical offset and record of the message with this key, if one is in the window."""
        physical_offset = self.seen.get(hash(key))
        if physical_offset is None:
            return None
        record = self._store.record(physical_offset)
        if record is None or self.key(record_properties(record)) != key:
            return None
        if self._clock.now_ms() - record_store_time(record) >= self.length_ms:
            return None
        return physical_offset, record

    def remember(self, key: bytes, physical_offset: int) -> None:
        now_ms = self._clock.now_ms()
        if now_ms - self.seen.young_since_ms >= self.length_ms:
            self.seen.turn(now_ms)
        self.seen.young[hash(key)] = physical_offset
        if len(self.seen.young) & 0x3FF == 0:
            self._make_room(self)

    # -- the guard

    def put(self, message: Message, store: Callable[[Message], Put]) -> Put:
        key = self.key(message.properties)
        if key is None or _is_half(message):
            return store(message)  # of a half message the commit counts
        first = self.first(key)
        if first is not None:
            return _told_again(*first)
        put = store(message)
        if put.physical_offset >= 0:
            self.remember(key, put.physical_offset)
        return put

    def put_batch(self, messages: list[Message], store: Callable[[list[Message]], Put]) -> Put:
        """Store what is new. Within the batch too: the second one gets the first one's offset."""
        keys = [self.key(message.properties) for message in messages]
        firsts = {key: self.first(key) for key in keys if key is not None}
        new: list[Message] = []
        places: dict[bytes, int] = {}  # of new keys, in ``new``
        order: list[tuple[bytes | None, int]] = []
        for key, message in zip(keys, messages, strict=True):
            if key is None or (firsts[key] is None and key not in places):
                if key is not None:
                    places[key] = len(new)
                order.append((None, len(new)))
                new.append(message)
            else:
                order.append((key, places.get(key, -1)))
        if not new:
            put = _told_again(*_known(firsts, order[0][0]))
        else:
            put = store(new)
            if put.physical_offset < 0:
                return put
        stored = put.physical_offsets
        for key, place in places.items():
            self.remember(key, stored[place])
        put.physical_offsets = tuple(
            stored[place] if place >= 0 else _known(firsts, key)[0] for key, place in order
        )
        return put


def _is_half(message: Message) -> bool:
    kind = message.sys_flag & SYS_TRANSACTION_MASK
    if kind == SYS_TRANSACTION_COMMIT:
        return False  # its mark stays on it, for consumers
    if kind:
        return True
    return (find_property(message.properties, b"TRAN_MSG") or b"").lower() == b"true"


def _known(
    firsts: Mapping[bytes, tuple[int, bytes] | None], key: bytes | None
) -> tuple[int, bytes]:
    found = None if key is None else firsts[key]
    assert found is not None, "a message that is not new has a first one"
    return found


def _told_again(physical_offset: int, data: bytes) -> Put:
    """The acknowledgement of the message that is stored there."""
    record = decode_record(data)
    real_queue = find_property(record.properties, b"REAL_QID") or b""
    return Put(
        PutStatus.OK,
        physical_offset=physical_offset,
        end=physical_offset + record.size,
        queue_offset=record.queue_offset,
        store_timestamp=record.store_timestamp,
        duplicate=True,
        queue_id=int(real_queue) if real_queue.isdigit() else record.queue_id,
    )
