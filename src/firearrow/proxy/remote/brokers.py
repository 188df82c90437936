"""Which brokers there are, where their masters listen, and which of them cannot be reached."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from firearrow.codec import lenient_json
from firearrow.codec.addresses import join_address
from firearrow.config_values import ConfigError, parse_addresses
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy.remote.nameservers import NameServers

log = logging.getLogger(__name__)

GET_BROKER_CLUSTER_INFO: Final = 106
REFRESH_S: Final = 30.0
REFRESH_S_MIN: Final = 1.0  # however many requests fail

Address = tuple[str, int]


class BrokerData(msgspec.Struct):
    """The brokers of one name (``BrokerData``); id 0 is the master."""

    name: str = msgspec.field(name="brokerName")
    addresses: dict[str, str] = msgspec.field(default_factory=dict, name="brokerAddrs")
    cluster: str = ""

    @property
    def master(self) -> Address | None:
        try:
            ((host, port),) = parse_addresses(self.addresses.get("0", ""))
        except (ConfigError, ValueError):
            return None
        return host, port


class _ClusterInfo(msgspec.Struct):
    brokers: dict[str, BrokerData] = msgspec.field(default_factory=dict, name="brokerAddrTable")


class Known:
    """A broker's master. ``failed_s``: since when it cannot be reached; ``None``: it can."""

    __slots__ = ("address", "failed_s", "name")

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self.address = address
        self.failed_s: float | None = None

    def __str__(self) -> str:
        return f"broker {self.name} at {join_address(*self.address)}"


class Brokers:
    """All masters that the name servers know, by broker name."""

    def __init__(self, name_servers: NameServers, clock: Clock) -> None:
        self._name_servers = name_servers
        self._clock = clock
        self._table: dict[str, Known] = {}
        self._waiting: list[Callable[[], None]] | None = None  # for the answer under way
        self._asked_s = -REFRESH_S
        self._running = False

    def start(self) -> None:
        self._running = True
        self._tick()

    def stop(self) -> None:
        self._running = False

    def _tick(self) -> None:
        if self._running:
            self._refresh(lambda: None)
            self._clock.call_later(REFRESH_S, self._tick)

    # -- where they are

    def get(self, name: str) -> Known | None:
        return self._table.get(name)

    def find(self, name: str, found: Callable[[Known | None], None]) -> None:
        """A broker, after asking the name servers where it is not known."""
        known = self._table.get(name)
        just_asked = self._clock.monotonic() - self._asked_s < REFRESH_S_MIN
        if known is not None or (just_asked and self._waiting is None):
            found(known)
        else:
            self._refresh(lambda: found(self._table.get(name)))

    def names(self, found: Callable[[list[str]], None]) -> None:
        """All, those that can be reached first."""
        if self._table:
            found(self._sorted())
        else:
            self._refresh(lambda: found(self._sorted()))

    def _sorted(self) -> list[str]:
        return sorted(self._table, key=lambda name: self._table[name].failed_s is not None)

    def note(self, data: BrokerData) -> None:
        """A route says where a broker is."""
        master = data.master
        if master is None:
            return
        known = self._table.get(data.name)
        if known is None:
            self._table[data.name] = Known(data.name, master)
        elif known.address != master:
            log.info("%s is now at %s", known, join_address(*master))
            known.address, known.failed_s = master, None

    def _refresh(self, done: Callable[[], None]) -> None:
        if self._waiting is not None:
            self._waiting.append(done)
            return
        self._waiting = [done]
        self._asked_s = self._clock.monotonic()
        self._name_servers.ask(GET_BROKER_CLUSTER_INFO, {}, self._answered)

    def _answered(self, header: Header | None, body: bytes) -> None:
        waiting, self._waiting = self._waiting or [], None
        if header is not None and header.code == codes.SUCCESS:
            self._take(body)
        for done in waiting:
            done()

    def _take(self, body: bytes) -> None:
        try:
            info = msgspec.convert(lenient_json.loads(body), _ClusterInfo, strict=False)
        except ValueError as error:
            log.warning(
                "a name server answers with a list of brokers that cannot be read: %s; see what "
                "namesrvAddr points to",
                error,
            )
            return
        for data in info.brokers.values():
            self.note(data)
        for name in self._table.keys() - info.brokers.keys():
            log.info("%s has left its cluster", self._table.pop(name))

    # -- which of them answer

    def reachable(self, name: str) -> bool:
        known = self._table.get(name)
        return known is None or known.failed_s is None

    def failed(self, name: str, address: Address, fault: str) -> None:
        """It did not answer there; the name servers are asked whether it has moved."""
        known = self._table.get(name)
        if known is None or known.address != address:
            return
        if known.failed_s is None:
            known.failed_s = self._clock.monotonic()
            log.warning(
                "%s %s; meanwhile new messages go to the other brokers of their topic",
                known,
                fault,
            )
        if self._clock.monotonic() - self._asked_s >= REFRESH_S_MIN:
            self._refresh(lambda: None)

    def answers(self, name: str) -> None:
        """It does again."""
        known = self._table.get(name)
        if known is not None and known.failed_s is not None:
            known.failed_s = None
            log.warning("%s answers again", known)
