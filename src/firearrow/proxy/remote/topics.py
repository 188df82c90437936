"""Where topics lie and what they take: routes of the name servers, configuration of the brokers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from firearrow.codec import lenient_json
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.topic import Topic
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy.backend import BrokerTopic, Channel, NobodyKnows
from firearrow.proxy.remote.brokers import BrokerData, Brokers
from firearrow.proxy.remote.nameservers import NameServers

log = logging.getLogger(__name__)

GET_ROUTEINFO_BY_TOPIC: Final = 105
GET_TOPIC_CONFIG: Final = 351
CALL_S: Final = 2.0
REFRESH_S: Final = 30.0  # ``pollNameServerInterval``
REFRESH_S_MIN: Final = 1.0
EXPIRE_S: Final = 300.0  # ``topicRouteServiceCacheExpiredSeconds``: too old to be given at once
TOPICS_MAX: Final = 20_000  # ``topicRouteServiceCacheMaxNum``

Found = Callable[[list[BrokerTopic]], None]


class QueueData(msgspec.Struct):
    """A topic's queues on one broker name (``QueueData``)."""

    broker_name: str = msgspec.field(name="brokerName")
    perm: int = 6
    read_queues: int = msgspec.field(default=0, name="readQueueNums")
    write_queues: int = msgspec.field(default=0, name="writeQueueNums")


class RouteData(msgspec.Struct):
    """``TopicRouteData``, as far as it is used."""

    brokers: list[BrokerData] = msgspec.field(default_factory=list, name="brokerDatas")
    queues: list[QueueData] = msgspec.field(default_factory=list, name="queueDatas")


def decode_route(body: bytes) -> RouteData:
    """Read a route.

    Raises:
        ValueError: it is none.
    """
    return msgspec.convert(lenient_json.loads(body), RouteData, strict=False)


class _Entry:
    """What is known of a topic; ``waiting`` while it is asked for."""

    __slots__ = ("loaded_s", "places", "waiting")

    def __init__(self) -> None:
        self.places: list[BrokerTopic] = []
        self.loaded_s: float | None = None
        self.waiting: list[Found] | None = None


class TopicTable:
    """Topics by name. What is known is given at once and renewed behind it, so that neither a name
    server nor a broker that is away stops what goes on without it."""

    def __init__(
        self, name_servers: NameServers, brokers: Brokers, channel: Channel, clock: Clock
    ) -> None:
        self._name_servers = name_servers
        self._brokers = brokers
        self._channel = channel
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def find(self, name: str, found: Found) -> None:
        """Where a topic lies; nothing where there is none, or nobody who knows."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry()
            while len(self._entries) > TOPICS_MAX:
                del self._entries[next(iter(self._entries))]
        if entry.loaded_s is None or self._clock.monotonic() - entry.loaded_s > EXPIRE_S:
            self._load(name, entry, found)
            return
        if self._stale(entry) and entry.waiting is None:
            self._load(name, entry, lambda places: None)
        found(entry.places)

    def _stale(self, entry: _Entry) -> bool:
        loaded_s = entry.loaded_s or 0.0
        age_s = self._clock.monotonic() - loaded_s
        if age_s < REFRESH_S_MIN:
            return False
        return age_s > REFRESH_S or any(
            not self._brokers.reachable(place.broker_name) for place in entry.places
        )

    # -- asking

    def _load(self, name: str, entry: _Entry, found: Found) -> None:
        if entry.waiting is not None:
            entry.waiting.append(found)
            return
        entry.waiting = [found]

        def routed(header: Header | None, body: bytes) -> None:
            if header is None:  # what was known stays
                self._loaded(name, entry, None)
            elif header.code != codes.SUCCESS:
                self._loaded(name, entry, [])
            else:
                self._take(name, entry, body)

        self._name_servers.ask(GET_ROUTEINFO_BY_TOPIC, {"topic": name}, routed)

    def _take(self, name: str, entry: _Entry, body: bytes) -> None:
        try:
            route = decode_route(body)
        except ValueError as error:
            log.warning(
                "a name server answers with a route of topic %s that cannot be read: %s. The topic "
                "counts as unknown meanwhile; see what namesrvAddr points to",
                name,
                error,
            )
            self._loaded(name, entry, None)
            return
        for data in route.brokers:
            self._brokers.note(data)
        masters = {data.name: master for data in route.brokers if (master := data.master)}
        queues = [q for q in route.queues if q.broker_name in masters]

        def configured(attributes: dict[str, str] | None) -> None:
            if attributes is None:  # no broker answers: as before, or normal
                attributes = entry.places[0].topic.attributes if entry.places else {}
            self._loaded(
                name,
                entry,
                [
                    BrokerTopic(
                        q.broker_name, 0, masters[q.broker_name], _topic(name, q, attributes)
                    )
                    for q in queues
                ],
            )

        reachable = self._brokers.reachable
        names = sorted((q.broker_name for q in queues), key=lambda name: not reachable(name))
        self._configuration(name, iter(names), configured)

    def _configuration(
        self, topic: str, brokers: Iterator[str], done: Callable[[dict[str, str] | None], None]
    ) -> None:
        """The topic's attributes, from the first broker that answers."""
        broker = next(brokers, None)
        if broker is None:
            done(None)
            return

        def answered(header: Header | None, body: bytes) -> None:
            if header is None or header.code == codes.NO_ANSWER:
                self._configuration(topic, brokers, done)
            else:  # older brokers know neither the request nor attributes
                done(_attributes(body) if header.code == codes.SUCCESS else {})

        self._channel.call(broker, GET_TOPIC_CONFIG, {"topic": topic}, b"", CALL_S, answered)

    def _loaded(self, name: str, entry: _Entry, places: list[BrokerTopic] | None) -> None:
        if places is not None:
            entry.places = places
        if entry.places:
            entry.loaded_s = self._clock.monotonic()
        else:  # it is looked for anew, so that a new topic is found at once
            entry.loaded_s = None
            if self._entries.get(name) is entry:
                del self._entries[name]
        answer = entry.places
        if not answer and places is None:
            answer = NobodyKnows(f"no name server answers where topic {name} is")
        waiting, entry.waiting = entry.waiting or [], None
        for found in waiting:
            found(answer)


def _topic(name: str, queues: QueueData, attributes: dict[str, str]) -> Topic:
    return Topic(
        name=name,
        perm=queues.perm,
        read_queues=max(0, queues.read_queues),
        write_queues=max(0, queues.write_queues),
        attributes=attributes,
    )


class _Config(msgspec.Struct):
    attributes: dict[str, str] | None = None


def _attributes(body: bytes) -> dict[str, str]:
    try:
        return msgspec.convert(lenient_json.loads(body), _Config, strict=False).attributes or {}
    except ValueError as error:
        log.warning(
            "a broker answers with a topic configuration that cannot be read: %s; see what is at "
            "the addresses that the name servers list",
            error,
        )
        return {}
