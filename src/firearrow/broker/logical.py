"""Static topics as the broker's requests see them: clients' queue ids and offsets are not those of
its store. The room ``features/static_topics`` knows them; without one in the broker nobody asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import PullMessage
from firearrow.store.api import Put, Read


class Placed(NamedTuple):
    """A queue of the store, and what clients call it."""

    queue_id: int
    logical_id: int
    logical_offset: Callable[[int], int]

    def shown(self, put: Put) -> tuple[int, Put]:
        """The logical queue id, and what was stored with its logical offset."""
        if put.physical_offset < 0:
            return self.logical_id, put
        offset = self.logical_offset(put.queue_offset)
        return self.logical_id, msgspec.structs.replace(
            put, queue_offset=offset, queue_id=self.logical_id
        )


class Part(Protocol):
    """The part of a logical queue that a pull is about."""

    @property
    def fields(self) -> PullMessage:
        """The pull in terms of the store that has the part."""

    @property
    def commit(self) -> tuple[int, int] | None:
        """Queue id and offset to commit here, of the store's."""

    @property
    def delta(self) -> int:
        """What clients add to the offsets in the records (``offsetDelta``)."""

    def shown(self, code: int, read: Read) -> tuple[int, Read]:
        """Response code and result of the read with logical offsets."""


PullHere = Callable[[Request[PullMessage], Part], Answer]


class Logical(Protocol):
    """One static topic."""

    @property
    def info(self) -> msgspec.Raw:
        """``TopicQueueMappingInfo``, for name servers."""

    @property
    def detail(self) -> msgspec.Raw:
        """``TopicQueueMappingDetail``, for operators and other brokers."""

    def place(self, queue_id: int) -> Placed | Reply:
        """Where messages for a logical queue are stored, for one that this broker leads if it is
        negative; or why not here."""

    def pull(self, request: Request[PullMessage], here: PullHere) -> Answer:
        """The answer of ``here`` for a part of this broker's; other brokers are asked theirs."""
