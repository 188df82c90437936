"""``Backend`` over brokers elsewhere, found through name servers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from firearrow.features.pop.handles import Handle
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.model.network import Network
from firearrow.protocol.remoting.command import Fields
from firearrow.protocol.remoting.headers import OURS, Header, Identity
from firearrow.protocol.remoting.link import Link
from firearrow.protocol.remoting.pop_requests import ACK_MESSAGE, POP_MESSAGE, PopMessage
from firearrow.protocol.remoting.requests import SendMessageV2
from firearrow.protocol.remoting.session import Dispatcher, Route
from firearrow.proxy.backend import SEND_MESSAGE_V2, BrokerTopic, DirectSends, Done, Found
from firearrow.proxy.remote.brokers import Brokers, Known
from firearrow.proxy.remote.groups import GroupTable
from firearrow.proxy.remote.nameservers import NameServers
from firearrow.proxy.remote.topics import TopicTable

HEART_BEAT: Final = 34
UNREGISTER_CLIENT: Final = 35
BEAT_S: Final = 2.0


class RemoteBackend:
    """See ``Backend``. A client of the proxy has connections of its own to the brokers it uses, so
    that brokers see ordinary producers and consumers, and know when one is gone."""

    direct: DirectSends | None = None

    def __init__(self, name_servers: list[tuple[str, int]], network: Network, clock: Clock) -> None:
        self.network = network
        self.clock = clock
        self.name_servers = NameServers(name_servers, network, clock)
        self.brokers = Brokers(self.name_servers, clock)
        self._own = RemoteChannel(self, {})  # for what no client asks
        self._topics = TopicTable(self.name_servers, self.brokers, self._own, clock)
        self._groups = GroupTable(self.brokers, self._own, clock)

    def start(self) -> None:
        self.brokers.start()

    def stop(self) -> None:
        self.brokers.stop()
        self._own.close()
        self.name_servers.close()

    # -- Backend

    def topic(self, name: str, done: Callable[[list[BrokerTopic]], None]) -> None:
        self._topics.find(name, done)

    def group(self, name: str, done: Callable[[Group | None], None]) -> None:
        self._groups.find(name, done)

    def brokers_of(self, topics: Iterable[str], done: Callable[[set[str]], None]) -> None:
        names: set[str] = set()
        wanted = set(topics)
        missing = len(wanted)
        if not missing:
            done(names)

        def found(places: list[BrokerTopic]) -> None:
            nonlocal missing
            names.update(place.broker_name for place in places)
            missing -= 1
            if not missing:
                done(names)

        for topic in wanted:
            self._topics.find(topic, found)

    def all_brokers(self, done: Callable[[Iterable[str]], None]) -> None:
        self.brokers.names(done)

    def reachable(self, broker_name: str) -> bool:
        return self.brokers.reachable(broker_name)

    def connect(
        self, remote: tuple[str, int], routes: Mapping[int, Route], identity: Identity = OURS
    ) -> RemoteChannel:
        return RemoteChannel(self, routes, identity)


class RemoteChannel:
    """See ``Channel``: connections to brokers, each opened by the first request for it."""

    def __init__(
        self, backend: RemoteBackend, routes: Mapping[int, Route], identity: Identity = OURS
    ) -> None:
        self._backend = backend
        self._identity = identity
        self._dispatcher = Dispatcher(routes)
        self._links: dict[str, Link] = {}  # by broker name
        self._beats: dict[str, bytes] = {}  # the last heartbeat to each
        self._closed = False

    def call(
        self,
        broker_name: str,
        code: int,
        ext: dict[str, str],
        body: bytes,
        timeout_s: float,
        done: Done | None,
    ) -> None:
        """See ``Channel``; without ``done`` it is a request that brokers do not answer."""
        known = self._backend.brokers.get(broker_name)
        if known is not None:
            self._send(known, code, ext, body, timeout_s, done)
            return

        def found(known: Known | None) -> None:
            if known is not None:
                self._send(known, code, ext, body, timeout_s, done)
            elif done is not None:
                remark = f"broker {broker_name} is not known to the name servers"
                done(Header(codes.NO_ANSWER, remark=remark), b"")

        self._backend.brokers.find(broker_name, found)

    def send(
        self,
        broker_name: str,
        fields: SendMessageV2,
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> None:
        """See ``Channel``."""
        self.call(broker_name, SEND_MESSAGE_V2, _texts(fields), body, timeout_s, done)

    def acknowledge(
        self, topic: str, group: str, handle: Handle, timeout_s: float, done: Done
    ) -> None:
        """See ``Channel``."""
        ext = {
            "consumerGroup": group,
            "topic": topic,
            "queueId": str(handle.queue_id),
            "extraInfo": handle.text(),
            "offset": str(handle.offset),
        }
        self.call(handle.broker_name, ACK_MESSAGE, ext, b"", timeout_s, done)

    def pop(
        self,
        broker_name: str,
        fields: PopMessage,
        timeout_s: float,
        done: Done,
        found: Found,
    ) -> Callable[[], None]:
        """See ``Channel``."""
        return self.poll(broker_name, POP_MESSAGE, _texts(fields), b"", timeout_s, done)

    def poll(
        self,
        broker_name: str,
        code: int,
        ext: dict[str, str],
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> Callable[[], None]:
        """See ``Channel``. Brokers cannot be told: the answer comes, and is given back."""
        self.call(broker_name, code, ext, body, timeout_s, done)
        return lambda: None

    def _send(
        self,
        known: Known,
        code: int,
        ext: dict[str, str],
        body: bytes,
        timeout_s: float,
        done: Done | None,
    ) -> None:
        if self._closed:
            if done is not None:
                done(Header(codes.NO_ANSWER, remark="the client is gone"), b"")
            return
        link = self._link(known)
        if code == HEART_BEAT:
            self._beats[known.name] = body
        elif code == UNREGISTER_CLIENT:
            self._beats.pop(known.name, None)
        if done is not None:
            done = partial(self._answered, known, link, done)
        link.call(code, ext, body, timeout_s, done)

    def _answered(
        self, known: Known, link: Link, done: Done, header: Header | None, body: bytes
    ) -> None:
        brokers = self._backend.brokers
        if header is None:
            fault = link.fault
            header = Header(codes.NO_ANSWER, remark=f"{known} {fault}")
            if not link.closed:
                brokers.failed(known.name, link.address, fault)
        elif known.failed_s is not None:
            brokers.answers(known.name)
        done(header, body)

    def _link(self, known: Known) -> Link:
        link = self._links.get(known.name)
        if link is not None and link.address == known.address:
            return link
        if link is not None:
            link.close()
        backend = self._backend
        link = Link(known.address, backend.network, backend.clock, self._dispatcher, self._identity)
        link.opened = partial(self._opened, known)
        link.failed = lambda link: backend.brokers.failed(known.name, link.address, link.fault)
        self._links[known.name] = link
        return link

    def _opened(self, known: Known, link: Link) -> None:
        """A broker that was started anew knows nobody: who registered is told of at once."""
        beat = self._beats.get(known.name)
        if beat is not None:
            link.call(HEART_BEAT, {}, beat, BEAT_S, lambda header, body: None)

    def close(self) -> None:
        self._closed = True
        for link in self._links.values():
            link.close()


def _texts(fields: Fields) -> dict[str, str]:
    """Fields as a header has them."""
    values = msgspec.to_builtins(fields)
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    """A field as it is written."""
    return str(value).lower() if isinstance(value, bool) else str(value)
