"""The brokers behind the proxy: what it must know of topics and groups, and calls to a broker.

Calls are remoting requests, whether the broker is in this process (``local``) or elsewhere
(``remote``), so both behave the same. Answers come through callbacks, in the same step where the
broker answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec

from firearrow.features.pop.handles import Handle
from firearrow.features.pop.popping import Popped
from firearrow.model.group import Group
from firearrow.model.topic import Topic
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.remoting.command import Reply
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.pop_requests import PopMessage
from firearrow.protocol.remoting.requests import SendMessageV2
from firearrow.protocol.remoting.session import Route
from firearrow.proxy.refusal import Refusal

SEND_MESSAGE_V2: Final = 310

Done = Callable[[Header | None, bytes], None]
Found = Callable[[Popped], None]


class BrokerTopic(msgspec.Struct, frozen=True):
    """A topic on one broker. ``address`` is the broker's own, host and port."""

    broker_name: str
    broker_id: int
    address: tuple[str, int]
    topic: Topic


class NobodyKnows(list[BrokerTopic]):
    """No place of a topic, since nobody could be asked for it."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault


def missing(places: list[BrokerTopic], topic: str) -> Refusal:
    """Why a topic has no places."""
    if isinstance(places, NobodyKnows):
        return Refusal(v2.PROXY_TIMEOUT, places.fault)
    return Refusal(
        v2.TOPIC_NOT_FOUND,
        f"No topic route info for the topic: {topic}; create it with mqadmin updateTopic",
    )


class Channel(Protocol):
    """A client's connection to the brokers, in its name."""

    def call(
        self,
        broker_name: str,
        code: int,
        ext: dict[str, str],
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> None:
        """Send a request; ``done(None, b"")`` when no answer came."""

    def send(
        self,
        broker_name: str,
        fields: SendMessageV2,
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> None:
        """Send a message: as ``call`` with SEND_MESSAGE_V2."""

    def acknowledge(
        self, topic: str, group: str, handle: Handle, timeout_s: float, done: Done
    ) -> None:
        """Acknowledge a message of the stored ``topic`` at its broker: as ``call`` with
        ACK_MESSAGE."""

    def pop(
        self,
        broker_name: str,
        fields: PopMessage,
        timeout_s: float,
        done: Done,
        found: Found,
    ) -> Callable[[], None]:
        """Pop messages: as ``poll`` with POP_MESSAGE. A broker of this process hands over what it
        popped with ``found`` instead."""

    def poll(
        self,
        broker_name: str,
        code: int,
        ext: dict[str, str],
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> Callable[[], None]:
        """Send a request that may wait. What it gives back tells the broker, where that can be
        told, that nobody waits any more; then ``done`` need not be called."""

    def close(self) -> None: ...


class DirectSends(Protocol):
    """How the broker of this process takes ordinary messages without a request."""

    @property
    def lane(self) -> Callable[[str], Any]:
        """What is asked for a topic's lane. As long as the topic is the same, so is its lane; a
        topic that takes no messages in this way has ``None``."""

    def completed(self, head: str, rest: str) -> tuple[bytes, bytes] | None:
        """What is stored of properties behind a unique key, in two parts around a number; ``None``
        when a message that has them is not ordinary."""

    def store(
        self,
        lane: Any,
        queue_id: int,
        body: bytes,
        properties: bytes,
        born_ms: int,
        born_host: bytes,
        sys_flag: int,
    ) -> int | Reply | None:
        """Store a message with complete properties in one of a topic's queues: its queue offset, or
        why not. ``None``: nothing is done, and the broker must be asked with a request."""


class Backend(Protocol):
    """Brokers, as the proxy sees them."""

    direct: DirectSends | None  # of brokers elsewhere there is none

    def topic(self, name: str, done: Callable[[list[BrokerTopic]], None]) -> None:
        """Where a topic lies; an empty list when there is none, see ``missing``. The list is the
        same one as long as the topic is the same."""

    def group(self, name: str, done: Callable[[Group | None], None]) -> None:
        """A consumer group's configuration, if it exists."""

    def brokers_of(self, topics: Iterable[str], done: Callable[[set[str]], None]) -> None:
        """The brokers that hear of the clients of these topics."""

    def all_brokers(self, done: Callable[[Iterable[str]], None]) -> None:
        """Every broker that there is."""

    def reachable(self, broker_name: str) -> bool:
        """Whether it makes sense to choose this broker where there is a choice."""

    def connect(self, remote: tuple[str, int], routes: Mapping[int, Route]) -> Channel:
        """A channel for a client at ``remote``; ``routes`` answer what brokers ask of it."""
