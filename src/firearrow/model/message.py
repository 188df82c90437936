"""A message on its way into the store, and the flag bits of a stored one (remoting.md 4.3)."""

from __future__ import annotations

from typing import Final

import msgspec

SYS_COMPRESSED: Final = 0x1
SYS_MULTI_TAGS: Final = 0x2
SYS_TRANSACTION_MASK: Final = 0xC
SYS_TRANSACTION_PREPARED: Final = 0x4
SYS_TRANSACTION_COMMIT: Final = 0x8
SYS_TRANSACTION_ROLLBACK: Final = 0xC
SYS_BORN_HOST_V6: Final = 0x10
SYS_STORE_HOST_V6: Final = 0x20
SYS_NEED_UNWRAP: Final = 0x40
SYS_INNER_BATCH: Final = 0x80


class Message(msgspec.Struct, gc=False, kw_only=True):
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
    tags_code: int | None = None  # None: hash of the TAGS property; a delay queue stores a due time
