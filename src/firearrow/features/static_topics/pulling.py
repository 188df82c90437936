"""Pulls of a logical queue: from the item that has the offset, here or at another broker
(``PullMessageProcessor``)."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec

from firearrow.broker.logical import PullHere
from firearrow.broker.pull import FLAG_COMMIT_OFFSET, FLAG_SUSPEND, encode_pull
from firearrow.features.static_topics import mapping
from firearrow.features.static_topics.elsewhere import Elsewhere
from firearrow.features.static_topics.mapping import Item
from firearrow.model import codes
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import PullMessage
from firearrow.protocol.remoting.session import answer
from firearrow.store.api import Read

PULL_MESSAGE: Final = 11
PULL_CODES: Final = (
    codes.PULL_NOT_FOUND,
    codes.PULL_RETRY_IMMEDIATELY,
    codes.PULL_OFFSET_MOVED,
)


class PulledPart:
    """The item that a pull reads (``broker.logical.Part``)."""

    def __init__(
        self, items: list[Item], item: Item, asked: PullMessage, commit: tuple[int, int] | None
    ) -> None:
        self._items = items
        self.item = item
        self.commit = commit
        self.delta = item.delta
        count = asked.max_messages
        if item.ended:
            count = min(item.end_offset - item.start_offset, count)
        self.fields = msgspec.structs.replace(
            asked,
            queue_id=item.queue_id,
            queue_offset=item.physical(asked.queue_offset),
            max_messages=count,
        )

    def shown(self, code: int, read: Read) -> tuple[int, Read]:
        """A pull that found nothing at the end of an item goes on with the next one."""
        item = self.item
        next_offset, low, high = read.next_offset, read.min_offset, read.max_offset
        if code != codes.SUCCESS:
            code, next_offset, item = self._instead(code, read)
        if item is not self.item:
            low = high = item.start_offset
            self.delta = item.delta
        if item.ended:
            next_offset = min(next_offset, item.end_offset)
        return code, msgspec.structs.replace(
            read,
            next_offset=item.logical(next_offset),
            min_offset=item.logical(low),
            max_offset=max(item.logical(high), self._items[-1].logical_end),
        )

    def _instead(self, code: int, read: Read) -> tuple[int, int, Item]:
        """Code, next physical offset and its item for a pull that found nothing."""
        asked, low, high = self.fields.queue_offset, read.min_offset, read.max_offset
        item, next_offset = self.item, read.next_offset
        leads = item is self._items[-1]
        earliest = item is mapping.at(self._items, 0)
        if asked < low:
            # Before all there is, it has moved; in the middle it is only a gap.
            code = codes.PULL_OFFSET_MOVED if earliest else codes.PULL_RETRY_IMMEDIATELY
            return code, low, item
        if leads:
            if asked > high and code == codes.PULL_OFFSET_MOVED:
                next_offset = high
            return code, next_offset, item
        if asked < high:
            return code, next_offset, item
        following = mapping.after(self._items, item)
        if following is None:  # its offset is about to be decided
            return codes.PULL_NOT_FOUND, next_offset, item
        return codes.PULL_RETRY_IMMEDIATELY, following.start_offset, following


class Pulling:
    """Answers pulls of static topics."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere

    def pull(self, request: Request[PullMessage], items: list[Item], here: PullHere) -> Answer:
        """A pull of the logical queue with these ``items``, which this broker leads."""
        asked = request.fields
        item = mapping.at(items, asked.queue_offset)
        if item is None:
            return Reply(codes.SYSTEM_ERROR, f"{asked.topic}-{asked.queue_id} has no offsets yet")
        part = PulledPart(items, item, asked, self._commit(items, asked))
        if self._elsewhere.is_here(item):
            return here(request, part)
        flags = asked.sys_flag & ~(FLAG_SUSPEND | FLAG_COMMIT_OFFSET)
        fields = msgspec.structs.replace(part.fields, sys_flag=flags, commit_offset=0)
        told, failed = partial(_pulled, request, part), partial(answer, request)
        self._elsewhere.ask(item.bname, PULL_MESSAGE, fields, told, failed, *PULL_CODES)
        return None

    def _commit(self, items: list[Item], asked: PullMessage) -> tuple[int, int] | None:
        """What the pull commits, if that is about a queue of this broker's."""
        if not asked.sys_flag & FLAG_COMMIT_OFFSET or asked.commit_offset < 0:
            return None
        item = mapping.at(items, asked.commit_offset)
        if item is None or not self._elsewhere.is_here(item):
            return None
        return item.queue_id, item.physical(asked.commit_offset)


def _pulled(
    request: Request[PullMessage], part: PulledPart, code: int, ext: dict[str, Any], body: bytes
) -> None:
    """Another broker has answered."""
    if request.one_way or request.peer.closed:
        return
    try:
        bounds = [int(ext[key]) for key in ("nextBeginOffset", "minOffset", "maxOffset")]
        flags = [int(ext.get(key, 0)) for key in ("topicSysFlag", "groupSysFlag")]
    except (KeyError, ValueError) as error:
        remark = f"broker {part.item.bname} answers a pull without {error}"
        answer(request, Reply(codes.SYSTEM_ERROR, remark))
        return
    status = "FOUND" if code == codes.SUCCESS else "NO_MATCHED_MESSAGE"
    code, read = part.shown(code, Read(status, bounds[0], bounds[1], bounds[2], body))
    delta = f'"offsetDelta":"{part.delta}",'
    request.peer.send(encode_pull(request.opaque, code, read, flags[0], flags[1], delta))
