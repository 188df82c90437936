"""Requests to other brokers of the cluster, by name.

A name server tells where the master of a name is. A connection is opened when a broker is asked
something, and kept; after a request without answer the name server is asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from firearrow.config_values import ConfigError, parse_addresses
from firearrow.model.clock import Clock
from firearrow.model.network import Network
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.link import Link
from firearrow.protocol.remoting.session import Dispatcher

# ``masters(topic, found)`` calls ``found`` with addresses by broker name, or ``None``.
Masters = Callable[[str, Callable[[dict[str, str] | None], None]], None]
# ``done(header, body, fault)``: the fault says in words why there is no header.
Answered = Callable[[Header | None, bytes, str], None]

LINKS_MAX: Final = 1000  # to brokers; more are closed and opened again


class _Call(NamedTuple):
    code: int
    ext: dict[str, str]
    timeout_s: float
    done: Answered


class Siblings:
    """All other brokers. Until it is connected every request fails."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._network: Network | None = None
        self._masters: Masters = lambda topic, found: found(None)
        self._links: dict[str, Link] = {}  # by broker name
        self._doubted: set[str] = set()  # names whose address may be another one by now
        self._waiting: dict[str, list[_Call]] = {}  # for the address of a name

    def connect(self, network: Network, masters: Masters) -> None:
        self._network, self._masters = network, masters

    def masters_of(self, topic: str, found: Callable[[dict[str, str] | None], None]) -> None:
        """The brokers that have a topic."""
        self._masters(topic, found)

    def call(
        self,
        name: str,
        topic: str,
        code: int,
        ext: dict[str, str],
        timeout_s: float,
        done: Answered,
    ) -> None:
        """Ask the broker ``name``, which has ``topic``."""
        call = _Call(code, ext, timeout_s, done)
        if name in self._links and name not in self._doubted:
            self._send(name, call)
        elif name in self._waiting:
            self._waiting[name].append(call)
        else:
            self._waiting[name] = [call]
            self._masters(topic, partial(self._located, name))

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()

    def _located(self, name: str, masters: dict[str, str] | None) -> None:
        self._set_address(name, (masters or {}).get(name, ""))
        for call in self._waiting.pop(name):
            self._send(name, call)

    def _set_address(self, name: str, address: str) -> None:
        try:
            ((host, port),) = parse_addresses(address)
        except (ConfigError, ValueError):
            return  # not known: what was known may still be true
        link = self._links.get(name)
        if link is not None and link.address == (host, port):
            self._doubted.discard(name)
            return
        if link is not None:
            link.close()
        elif len(self._links) >= LINKS_MAX:
            self._links.pop(next(iter(self._links))).close()
        assert self._network is not None
        self._links[name] = Link((host, port), self._network, self._clock, Dispatcher({}))
        self._doubted.discard(name)

    def _send(self, name: str, call: _Call) -> None:
        link = self._links.get(name)
        if link is None:
            call.done(None, b"", f"cannot find addr for broker {name}")
            return
        done = partial(self._answered, name, link, call.done)
        link.call(call.code, call.ext, b"", call.timeout_s, done)

    def _answered(
        self, name: str, link: Link, done: Answered, header: Header | None, body: bytes
    ) -> None:
        if header is not None:
            done(header, body, "")
            return
        if self._links.get(name) is link:
            self._doubted.add(name)
        done(None, b"", f"broker {name} {link.fault}")
