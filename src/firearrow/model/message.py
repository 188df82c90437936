"""A message on its way into the store."""

from __future__ import annotations

import msgspec

from firearrow.codec.record import Record


class Message(msgspec.Struct, gc=False):
    """What the store needs of a message. Bytes are as received; nothing is re-encoded."""

    topic: str
    queue_id: int
    body: bytes
    properties: bytes  # property string: name 0x01 value 0x02 ...
    born_timestamp: int  # ms
    born_host: bytes  # address (4 or 16 bytes) + i4 port
    flag: int = 0
    sys_flag: int = 0  # the store sets the two address bits itself
    reconsume_times: int = 0
    prepared_offset: int = 0
    store_host: bytes = b""  # empty: this broker


def stored_again(record: Record, topic: str, queue_id: int, properties: bytes) -> Message:
    """What the store was given for a record, to go elsewhere: it stays whose it was, and how often
    it was consumed."""
    return Message(
        topic=topic,
        queue_id=queue_id,
        body=record.body,
        properties=properties,
        born_timestamp=record.born_timestamp,
        born_host=record.born_host,
        store_host=record.store_host,
        flag=record.flag,
        sys_flag=record.sys_flag,
        reconsume_times=record.reconsume_times,
    )
