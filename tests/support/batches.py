"""Batches that stay whole, as consumers see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from firearrow.codec.batch import decode_batch
from firearrow.codec.record import Record
from firearrow.codec.sysflags import SYS_INNER_BATCH


def create_fields(topic: str, queues: int, kind: str = "BatchCQ") -> dict[str, Any]:
    """Ext fields of UPDATE_AND_CREATE_TOPIC."""
    return {
        "topic": topic,
        "defaultTopic": "TBW102",
        "readQueueNums": queues,
        "writeQueueNums": queues,
        "perm": 6,
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": 0,
        "order": "false",
        "attributes": f"+queue.type={kind}",
    }


def unwrapped(record: Record) -> Iterator[Record]:
    """Every message of a record: an inner batch is taken apart."""
    if not record.sys_flag & SYS_INNER_BATCH:
        yield record
        return
    for n, item in enumerate(decode_batch(record.body)):
        offset = record.queue_offset + n
        yield msgspec.structs.replace(record, queue_offset=offset, body=item.body)
