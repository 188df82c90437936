"""Asking producers about half messages that nobody ended (``TransactionalMessageServiceImpl``).

A round walks the half queue from the first message that may be unfinished. What is finished is
passed over; what is too young stops the round; every other message is appended again to the end of
the half queue, so that the walk never has to come back, and its producer is asked about the copy.
"""

from __future__ import annotations

import enum
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from firearrow.broker.members import Members
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.broker.topics import Topics
from firearrow.codec.message_id import offset_message_id
from firearrow.codec.record import RecordError, decode_record, encode_record
from firearrow.features.transaction import half as forms
from firearrow.features.transaction.half import HALF_QUEUE, Half
from firearrow.features.transaction.marks import FinishedReader, Marks
from firearrow.model import names
from firearrow.model.clock import Clock, Timer
from firearrow.model.message import Message
from firearrow.protocol.remoting.command import Caller
from firearrow.protocol.remoting.requests import CHECK_TRANSACTION_STATE
from firearrow.store.api import Put, PutStatus, Store

log = logging.getLogger(__name__)

GROUP: Final = "CID_RMQ_SYS_TRANS"  # whose consumer offsets say how far the walk is
GIVEN_UP_QUEUES: Final = 1
STEP: Final = 256  # half messages looked at before the loop gets its turn
CHECKS_A_STEP: Final = 64
# A producer works its checks off one by one, and refuses above 2000 waiting: 6400 a second.
CHECK_PAUSE_S: Final = 0.01
COPIES_MAX: Final = 100_000
HOUR_MS: Final = 3_600_000


class CheckSettings(Protocol):
    broker_name: str
    file_reserved_time: int
    transaction_check_interval: int
    transaction_check_max: int
    transaction_time_out: int


class Verdict(enum.Enum):
    """What becomes of a half message that nobody ended."""

    TOO_YOUNG = enum.auto()  # and so are those behind it: the round ends
    IMMUNE = enum.auto()  # its own time is not over: it makes way
    ASK = enum.auto()
    GIVE_UP = enum.auto()
    PASS_OVER = enum.auto()  # unreadable, or removed by retention


class Copies:
    """The newest copy of each half message that was appended again in this process.

    A producer may end a transaction by the offsets that it knows while a copy waits to be asked
    about: the copy is finished then, too. Losing this costs a needless check, no more.
    """

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}  # first offset -> newest copy
        self._first: dict[int, int] = {}  # newest copy -> first offset

    def moved(self, old: int, new: int) -> None:
        first = self._first.pop(old, old)
        if len(self._first) < COPIES_MAX:
            self._newest[first] = new
            self._first[new] = first
        else:
            self._newest.pop(first, None)

    def ended(self, offset: int) -> list[int]:
        """Every offset that is finished when this one is."""
        first = self._first.pop(offset, offset)
        newest = self._newest.pop(first, None)
        if newest is None or newest == offset:
            return [offset]
        self._first.pop(newest, None)
        return [offset, newest]

    def __len__(self) -> int:
        return len(self._first)


class Checker:
    """Runs the rounds."""

    def __init__(
        self,
        settings: CheckSettings,
        store: Store,
        topics: Topics,
        offsets: ConsumerOffsets,
        members: Members,
        clock: Clock,
        marks: Marks,
        store_host: bytes,
        given_up: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics
        self._offsets = offsets
        self._members = members
        self._clock = clock
        self._marks = marks
        self._store_host = store_host
        self._given_up = given_up  # hears the topic of each message that is given up
        self.copies = Copies()
        self._timer: Timer | None = None
        self._round: Iterator[float] = iter(())
        self._turn = itertools.count()
        self._missing: set[str] = set()  # groups without a producer, named once a round

    def start(self) -> None:
        interval_s = self._settings.transaction_check_interval / 1000
        self._timer = self._clock.call_later(interval_s, self._begin)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._missing.clear()
        self._round = self._walk()
        self._go_on()

    def _go_on(self) -> None:
        try:
            pause_s = next(self._round, None)
        except Exception:  # the next round must come whatever happened in this one
            log.exception(
                "a round of transaction checks broke off, the next one begins anew; this is a "
                "defect, please report it"
            )
            pause_s = None
        if pause_s is None:
            self.start()
        else:
            self._timer = self._clock.call_later(pause_s, self._go_on)

    # -- one round

    def _walk(self) -> Iterator[float]:
        """One round. Yields how many seconds to let others work."""
        began_ms = self._clock.now_ms()
        self._marks.flush()
        finished = FinishedReader(self._store, self._position(names.TRANS_OP_HALF_TOPIC))
        offset = self._position(names.TRANS_HALF_TOPIC)
        going = True
        while going:
            asked = 0
            entries = self._store.entries(names.TRANS_HALF_TOPIC, HALF_QUEUE, offset, STEP)
            going = bool(entries)
            for entry in entries:
                while entry.offset not in finished.finished and finished.read_more():
                    yield 0
                if entry.offset in finished.finished:
                    finished.finished.discard(entry.offset)
                    self.copies.ended(entry.offset)
                elif not self._marks.knows(entry.offset):
                    half = self._read(entry.physical_offset)
                    verdict = self._judge(half, began_ms, finished)
                    if verdict is Verdict.TOO_YOUNG or not self._execute(half, verdict):
                        going = False
                        break
                    asked += verdict is Verdict.ASK
                offset = entry.offset + 1
                if asked >= CHECKS_A_STEP:
                    break
            if asked:
                # Marked at once, not only within the batch interval: a broker that is killed now,
                # or the Java broker on its store, does not ask about the message and its copy.
                self._marks.flush()
            self._save(offset, finished)
            if going:
                yield CHECK_PAUSE_S if asked else 0

    def _position(self, topic: str) -> int:
        low = self._store.min_offset(topic, HALF_QUEUE)
        high = self._store.max_offset(topic, HALF_QUEUE)
        saved = self._offsets.find(topic, GROUP, HALF_QUEUE)
        return low if saved is None else min(max(saved, low), high)

    def _save(self, half_offset: int, finished: FinishedReader) -> None:
        self._get_on(names.TRANS_HALF_TOPIC, half_offset)
        self._get_on(names.TRANS_OP_HALF_TOPIC, finished.done_until(half_offset))

    def _get_on(self, topic: str, offset: int) -> None:
        """Only a walk that got on shows: operators see no group where nobody used transactions."""
        if offset != self._position(topic):
            self._offsets.commit(topic, GROUP, HALF_QUEUE, offset)

    def _read(self, physical_offset: int) -> Half | None:
        data = self._store.record(physical_offset)
        try:
            half = forms.read_half(decode_record(data)) if data is not None else None
        except RecordError:
            half = None
        if half is None and data is not None:
            log.error(
                "the record at %d of the commit log, in topic %s, is no half message and is left "
                "out: see who sends to that topic, or check the disk",
                physical_offset,
                names.TRANS_HALF_TOPIC,
            )
        return half

    def _judge(self, half: Half | None, began_ms: int, finished: FinishedReader) -> Verdict:
        if half is None:
            return Verdict.PASS_OVER
        settings = self._settings
        age_ms = self._clock.now_ms() - half.record.born_timestamp
        if half.record.store_timestamp >= began_ms:
            return Verdict.TOO_YOUNG  # this round's own copies: the last check can be answered
        if half.checks >= settings.transaction_check_max:
            return Verdict.GIVE_UP
        if age_ms > settings.file_reserved_time * HOUR_MS:
            return Verdict.GIVE_UP
        immune_ms = forms.immunity_ms(half, settings.transaction_time_out)
        if immune_ms is None:
            # A birth in the future: the producer's clock, or ours, was changed.
            young = 0 <= age_ms <= settings.transaction_time_out
            return Verdict.TOO_YOUNG if young else Verdict.ASK
        first = half.properties.get(forms.FIRST_OFFSET, "")
        if first.isdecimal() and int(first) in finished.finished:
            return Verdict.PASS_OVER
        return Verdict.IMMUNE if age_ms <= immune_ms else Verdict.ASK

    # -- what becomes of a message

    def _execute(self, half: Half | None, verdict: Verdict) -> bool:
        """``False`` when the store takes nothing: the round ends, the next one tries again."""
        if half is None or verdict is Verdict.PASS_OVER:
            return True
        if verdict is Verdict.GIVE_UP:
            return self._give_up(half)
        ask = verdict is Verdict.ASK
        copy = forms.asked_copy(half) if ask else forms.immune_copy(half)
        put = self._move(half, copy)
        if put is None:
            return False
        if ask:
            # An immune copy names its first offset: a mark of that would finish the copy as well.
            self._marks.add(half.offset)
            self._ask(half, copy, put)
        return True

    def _move(self, half: Half, copy: Message) -> Put | None:
        put = self._store.append(copy)
        if put.status is not PutStatus.OK:
            log.error(
                "half message %s of group %s for topic %s cannot be stored again, so nobody is "
                "asked about it: %s %s. It is tried again in the next round, as are all behind it; "
                "check the disk, and free space if it is full",
                half.properties.get(forms.UNIQUE_KEY),
                half.group,
                half.topic,
                put.status.value,
                put.reason,
            )
            return None
        self.copies.moved(half.offset, put.queue_offset)
        return put

    def _give_up(self, half: Half) -> bool:
        topic = names.TRANS_CHECK_MAX_TIME_TOPIC
        self._topics.create_retry(topic, GIVEN_UP_QUEUES)
        put = self._store.append(forms.given_up(half))
        if put.status is not PutStatus.OK:
            log.error(
                "half message %s of group %s for topic %s was asked about often enough, but cannot "
                "be moved to %s: %s %s. It is tried again in the next round; check the disk, and "
                "free space if it is full",
                half.properties.get(forms.UNIQUE_KEY),
                half.group,
                half.topic,
                topic,
                put.status.value,
                put.reason,
            )
            return False
        log.error(
            "half message %s of group %s for topic %s was asked about %d times without an answer; "
            "it is not delivered and kept in %s",
            half.properties.get(forms.UNIQUE_KEY),
            half.group,
            half.topic,
            half.checks,
            topic,
        )
        self.copies.ended(half.offset)
        self._given_up(half.topic)
        return True

    def _ask(self, half: Half, copy: Message, put: Put) -> None:
        """CHECK_TRANSACTION_STATE (39), one-way, to any producer of the group."""
        producer = self._producer(half.group)
        if producer is None:
            return
        unique_key = half.properties.get(forms.UNIQUE_KEY, "")
        ext = {
            "topic": names.TRANS_HALF_TOPIC,
            "tranStateTableOffset": str(put.queue_offset),
            "commitLogOffset": str(put.physical_offset),
            "msgId": unique_key,
            "transactionId": unique_key,
            "offsetMsgId": offset_message_id(self._store_host, put.physical_offset),
            "bname": self._settings.broker_name,
        }
        shown = msgspec.structs.replace(
            half.record,
            topic=half.topic,
            queue_id=half.queue_id,
            queue_offset=put.queue_offset,
            physical_offset=put.physical_offset,
            store_timestamp=put.store_timestamp,
            store_host=self._store_host,
            properties=copy.properties,
        )
        producer.notify(CHECK_TRANSACTION_STATE, ext, encode_record(shown))

    def _producer(self, group: str) -> Caller | None:
        """Any one that is online, in turn; all of a group can answer for each other."""
        callers = [c for c in self._members.producers.get(group, ()) if not c.closed]
        if callers:
            return callers[next(self._turn) % len(callers)]
        if group not in self._missing:
            self._missing.add(group)
            log.warning(
                "no producer of group %s is online to be asked about its transactions; after %d "
                "rounds each counts as rolled back",
                group,
                self._settings.transaction_check_max,
            )
        return None
