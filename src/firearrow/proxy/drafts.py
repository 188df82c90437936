"""Messages to send, checked and as their broker gets them.

Most messages of a producer are alike but for their id, their body and their time of birth. What
the checks found of the rest, and the properties that it becomes, are kept for the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from firearrow.model.clock import Clock
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.remoting.requests import SendMessageV2
from firearrow.proxy import checks, convert
from firearrow.proxy.alike import Alike
from firearrow.proxy.backend import DirectSends
from firearrow.proxy.convert import BORN_TIMESTAMP, SYS_COMPRESSED, SYS_PREPARED
from firearrow.proxy.refusal import Refusal

SHAPES_MAX: Final = 1024
SHAPE_BYTES_MAX: Final = 512
INT64_MAX: Final = 2**63 - 1


class DraftSettings(Protocol):
    max_message_size: int


class Shape(NamedTuple):
    """What a message says besides its id, its body and its times."""

    topic: str
    kind: v2.MessageType.ValueType
    group: str  # what decides about the queue; empty when any will do
    half: bool  # of a transaction
    sys_flag: int
    before: str  # its properties up to the time of birth
    behind: str


class Known:
    """What is known of messages that are alike. ``lane`` and ``queues`` are their sender's: where
    they may go as long as their topic has this lane."""

    __slots__ = ("lane", "queues", "shape", "stored", "topic")

    def __init__(self, shape: Shape, stored: tuple[bytes, bytes] | None) -> None:
        self.shape = shape
        self.topic = shape.topic
        self.stored = stored  # ``DirectSends.completed``: around the time of birth
        self.lane: Any = None
        self.queues: list[int] = []


Recalled = tuple[Known, bytes, int, bytes]  # what is known, and id, time of birth (ms), body


class Draft(NamedTuple):
    """A message that may be sent."""

    shape: Shape
    body: bytes
    born_ms: int
    properties: str
    again: bool  # one of its shape came before


class Drafts:
    """Makes drafts of messages."""

    def __init__(
        self, clock: Clock, settings: DraftSettings, direct: DirectSends | None = None
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._shapes: dict[bytes, Shape] = {}
        self._direct = direct
        self._alike: Alike[Known] = Alike()
        self.recall: Callable[[bytes], Recalled | None] = self._alike.recall

    def make(self, message: v2.Message, remote: str) -> Draft:
        """Check a message from a client at ``remote``, and take it apart.

        Raises:
            Refusal: with the code that says what is wrong.
        """
        system, body = message.system_properties, message.body
        message_id, born_ms = system.message_id, checks.milliseconds(system.born_timestamp)
        if not -INT64_MAX <= born_ms <= INT64_MAX:
            raise Refusal(v2.BAD_REQUEST, f"the message cannot be born at {born_ms} ms")
        # What is left without these is what messages have in common.
        clear = system.ClearField
        clear("message_id")
        clear("born_timestamp")
        clear("body_digest")  # nobody looks at it
        message.ClearField("body")
        common = message.SerializePartialToString()
        shape = self._shapes.get(common)
        again = shape is not None
        if shape is None:
            shape = self._shape(message, system, message_id, body, remote)
            if len(common) <= SHAPE_BYTES_MAX and _lasting(system):
                if len(self._shapes) >= SHAPES_MAX:
                    self._shapes.clear()
                self._shapes[common] = shape
        else:
            self._check(message_id, body)
        return _draft(shape, message_id, born_ms, body, again)

    def _check(self, message_id: str, body: bytes) -> None:
        checks.message_body(body, self._settings.max_message_size)
        checks.message_identity(message_id)

    def learn(self, data: bytes, shape: Shape) -> None:
        """Recall requests of one message like this one from now on."""
        stored = None
        if self._direct is not None:
            head = f"\x02{shape.before}BORN_TIMESTAMP\x01"
            stored = self._direct.completed(head, f"\x02{shape.behind}")
        self._alike.learn(data, Known(shape, stored))

    def check(self, recalled: Recalled) -> None:
        """Check what is not known of a message.

        Raises:
            Refusal: with the code that says what is wrong.
        """
        _, message_id, _, body = recalled
        self._check(message_id.decode(), body)

    def _shape(
        self,
        message: v2.Message,
        system: v2.SystemProperties,
        message_id: str,
        body: bytes,
        remote: str,
    ) -> Shape:
        topic = checks.topic_name(message.topic)
        checks.message(
            message, system, message_id, body, self._clock, self._settings.max_message_size
        )
        properties = list(convert.properties_of(message, system, remote).items())
        born = properties.index((BORN_TIMESTAMP, ""))
        half = system.message_type == v2.TRANSACTION
        zipped = system.body_encoding == v2.GZIP
        return Shape(
            topic,
            _type_of(system),
            system.message_group or system.lite_topic,
            half,
            zipped * SYS_COMPRESSED | half * SYS_PREPARED,
            convert.property_text(properties[:born]),
            convert.property_text(properties[born + 1 :]),
        )


def made_again(recalled: Recalled) -> Draft:
    """The draft of a message that is known and checked."""
    known, message_id, born_ms, body = recalled
    return _draft(known.shape, message_id.decode(), born_ms, body, True)


def _draft(shape: Shape, message_id: str, born_ms: int, body: bytes, again: bool) -> Draft:
    # The broker finds the unique key fastest where it stands first.
    properties = (
        f"UNIQ_KEY\x01{message_id}\x02{shape.before}BORN_TIMESTAMP\x01{born_ms}\x02{shape.behind}"
    )
    return Draft(shape, body, born_ms, properties, again)


def send_fields(draft: Draft, queue_id: int) -> SendMessageV2:
    """The broker's request for a draft."""
    shape, topic = draft.shape, draft.shape.topic
    return SendMessageV2(
        topic,
        topic,
        queue_id,
        draft.born_ms,
        sys_flag=shape.sys_flag,
        properties=draft.properties,
        reconsume_times=0,
        unit_mode=False,
        batch=False,
    )


def _lasting(system: v2.SystemProperties) -> bool:
    """Whether the checks find the same later, and for other clients."""
    return not system.HasField("delivery_timestamp") and bool(system.born_host.strip())


def _type_of(system: v2.SystemProperties) -> v2.MessageType.ValueType:
    """The type that the message really has, whatever it says (``parseFromMessageProperty``)."""
    if system.message_type == v2.TRANSACTION:
        return v2.TRANSACTION
    if system.HasField("delivery_timestamp"):
        return v2.DELAY
    if system.message_group:
        return v2.FIFO
    if system.HasField("priority"):
        return v2.PRIORITY
    return v2.LITE if system.lite_topic else v2.NORMAL
