"""Asking the name servers: the one that answered last, then the others in turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final

from firearrow.codec.addresses import join_address
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.network import Network
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.link import Link
from firearrow.protocol.remoting.session import Dispatcher

log = logging.getLogger(__name__)

CALL_S: Final = 2.0
# Answers that settle the matter; with any other one the next name server is asked.
_SETTLED: Final = frozenset({codes.SUCCESS, codes.TOPIC_NOT_EXIST})

Answered = Callable[[Header | None, bytes], None]


class NameServers:
    """All name servers of the brokers; they know nothing of each other, and say the same."""

    def __init__(self, addresses: list[tuple[str, int]], network: Network, clock: Clock) -> None:
        nobody = Dispatcher({})
        self._links = [Link(address, network, clock, nobody) for address in addresses]
        self._down: set[Link] = set()  # said so once

    def ask(self, code: int, ext: dict[str, str], done: Answered) -> None:
        """Ask until one answers; ``done(None, b"")`` when none does."""
        self._ask(iter(list(self._links)), code, ext, done)

    def close(self) -> None:
        for link in self._links:
            link.close()

    def _ask(self, links: Iterator[Link], code: int, ext: dict[str, str], done: Answered) -> None:
        link = next(links, None)
        if link is None:
            done(None, b"")
            return

        def answered(header: Header | None, body: bytes) -> None:
            if header is not None and header.code in _SETTLED:
                self._answers(link)
                done(header, body)
                return
            self._says_nothing(link, header.remark if header is not None else None)
            self._ask(links, code, ext, done)

        link.call(code, ext, b"", CALL_S, answered)

    def _answers(self, link: Link) -> None:
        if link is not self._links[0]:
            self._links.remove(link)
            self._links.insert(0, link)
        if link in self._down:
            self._down.discard(link)
            log.warning("name server %s answers again", join_address(*link.address))

    def _says_nothing(self, link: Link, remark: str | None) -> None:
        if link not in self._down:
            self._down.add(link)
            log.warning(
                "name server %s %s; the others are asked, and routes that are known are used "
                "meanwhile; check -n (namesrvAddr)",
                join_address(*link.address),
                f"refuses: {remark}" if remark else link.fault,
            )
