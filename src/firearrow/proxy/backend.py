"""The brokers behind the proxy: what it must know of topics and groups, and calls to a broker.

Calls are remoting requests, whether the broker is in this process (``LocalBackend``) or elsewhere,
so both behave the same. Answers come through callbacks, in the same step where the broker answers
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.model.topic import Topic
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession, Route
from firearrow.proxy.refusal import Refusal

Done = Callable[[Header | None, bytes], None]


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

    def close(self) -> None: ...


class Backend(Protocol):
    """Brokers, as the proxy sees them."""

    def topic(self, name: str, done: Callable[[list[BrokerTopic]], None]) -> None:
        """Where a topic lies; an empty list when there is none, see ``missing``."""

    def group(self, name: str, done: Callable[[Group | None], None]) -> None:
        """A consumer group's configuration, if it exists."""

    def brokers_of(self, topics: Iterable[str], done: Callable[[set[str]], None]) -> None:
        """The brokers that hear of the clients of these topics."""

    def reachable(self, broker_name: str) -> bool:
        """Whether it makes sense to choose this broker where there is a choice."""

    def connect(self, remote: tuple[str, int], routes: Mapping[int, Route]) -> Channel:
        """A channel for a client at ``remote``; ``routes`` answer what brokers ask of it."""


class _End:
    """One end of a connection inside the process."""

    def __init__(self, remote: tuple[str, int], local: tuple[str, int]) -> None:
        self.remote = remote
        self.local = local
        self.closed = False
        self.other: RemotingSession | None = None

    def send(self, data: bytes) -> None:
        if self.other is not None and not self.closed:
            answer = self.other.receive(data)
            if answer:
                self.other.send(answer)

    def close(self, reason: str) -> None:
        self.closed = True


class LocalChannel:
    """See ``Channel``: a pair of sessions joined back to back."""

    def __init__(
        self,
        remote: tuple[str, int],
        address: tuple[str, int],
        broker: Dispatcher,
        closed: Callable[[Any], None],
        routes: Mapping[int, Route],
        clock: Clock,
    ) -> None:
        client_end, broker_end = _End(address, remote), _End(remote, address)
        self._ends = client_end, broker_end
        self._client = RemotingSession(client_end, Dispatcher(routes), clock)
        self._broker = RemotingSession(broker_end, broker, clock, closed)
        client_end.other, broker_end.other = self._broker, self._client

    def call(
        self,
        broker_name: str,
        code: int,
        ext: dict[str, str],
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> None:
        self._client.call(code, ext, body, timeout_s, done)

    def close(self) -> None:
        if not self._ends[0].closed:
            for end in self._ends:
                end.closed = True
            self._broker.disconnected()
            self._client.disconnected()


class LocalBroker(Protocol):
    """What the proxy needs of the broker in its process."""

    @property
    def broker_name(self) -> str: ...

    @property
    def address(self) -> tuple[str, int]: ...

    def topic(self, name: str) -> Topic | None: ...

    def group(self, name: str) -> Group | None: ...


class LocalBackend:
    """See ``Backend``: the one broker of this process."""

    def __init__(
        self,
        broker: LocalBroker,
        routes: Mapping[int, Route],
        closed: Callable[[Any], None],
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._dispatcher = Dispatcher(routes)
        self._closed = closed
        self._clock = clock

    def topic(self, name: str, done: Callable[[list[BrokerTopic]], None]) -> None:
        broker = self._broker
        found = broker.topic(name)
        done([BrokerTopic(broker.broker_name, 0, broker.address, found)] if found else [])

    def group(self, name: str, done: Callable[[Group | None], None]) -> None:
        done(self._broker.group(name))

    def brokers_of(self, topics: Iterable[str], done: Callable[[set[str]], None]) -> None:
        done({self._broker.broker_name})

    def reachable(self, broker_name: str) -> bool:
        return True

    def connect(self, remote: tuple[str, int], routes: Mapping[int, Route]) -> Channel:
        return LocalChannel(
            remote, self._broker.address, self._dispatcher, self._closed, routes, self._clock
        )
