"""What a new mapping must be like (``TopicQueueMappingUtils``); texts are RocketMQ's own."""

from __future__ import annotations

import itertools

import msgspec

from firearrow.features.static_topics.mapping import UNDECIDED, Item, Mapping


class MappingRefused(Exception):  # noqa: N818
    """The text tells the operator why."""


def accept(new: Mapping, old: Mapping | None, *, force: bool = False) -> Mapping:
    """The mapping to keep when ``new`` comes: queues that it says nothing of stay.

    Raises:
        MappingRefused: it is impossible, or older than what is there.
    """
    for items in new.hosted_queues.values():
        _check(items)
    if old is None:
        return new
    if not force:
        if new.epoch < old.epoch:
            raise MappingRefused(f"Can't accept data with small epoch {new.epoch} < {old.epoch}")
        if new.scope != old.scope:
            raise MappingRefused(
                f"Can't accept data with unmatched scope {new.scope} != {old.scope}"
            )
        for logical_id, items in old.hosted_queues.items():
            _check_change(items, new.hosted_queues.get(logical_id), new.epoch == old.epoch)
    return msgspec.structs.replace(new, hosted_queues={**old.hosted_queues, **new.hosted_queues})


def _check(items: list[Item]) -> None:
    """Generations and offsets grow from item to item."""
    for item in items:
        if item.start_offset < 0 or item.gen < 0 or item.queue_id < 0:
            raise MappingRefused("The field is illegal, should not be negative")
        if item.end_offset != UNDECIDED and item.end_offset < item.start_offset:
            raise MappingRefused("The endOffset is smaller than the start offset")
    for item, following in itertools.pairwise(items):
        if item.logic_offset < 0:
            raise MappingRefused("The non-latest item has negative logic offset")
        if item.gen >= following.gen:
            raise MappingRefused("The gen does not increase monotonically")
        if following.logic_offset == UNDECIDED:
            continue
        if item.logic_offset >= following.logic_offset:
            raise MappingRefused("The base logic offset does not increase monotonically")
        if item.logical_end >= following.logic_offset:
            raise MappingRefused("The max logic offset does not increase monotonically")


def _check_change(old: list[Item], new: list[Item] | None, same_epoch: bool) -> None:
    """What stands does not change; an epoch has one leader."""
    if new is None:
        if same_epoch:
            raise MappingRefused("Cannot accept equal epoch with null data")
        return
    if not old:
        return
    if not new:
        raise MappingRefused("The new item list is null or empty")
    known = {item.gen: item for item in old}
    for item in new:
        before = known.get(item.gen)
        if before is not None and _place(before) != _place(item):
            raise MappingRefused(f"Generation {item.gen} is another queue than before")
        if before is not None and before.logic_offset not in (UNDECIDED, item.logic_offset):
            raise MappingRefused(f"Generation {item.gen} has another logic offset than before")
    if same_epoch and (_place(old[-1]), old[-1].gen) != (_place(new[-1]), new[-1].gen):
        raise MappingRefused("The new leader is different but epoch equal")


def _place(item: Item) -> tuple[str, int, int]:
    return item.bname, item.queue_id, item.start_offset
