"""The checkpoint: how far everything is known to be on the disk (storage.md 5.1).

    8  store time of the last flushed record of the log
    8  store time of the last record whose consume queue entry is on the disk
    8  end time of the last key index file that was filled and flushed
    8  flushed offset of the master (a slave's)
    8  confirmed physical offset
    8  physical offset up to which all consume queues are on the disk (since 5.5.0)

A 5.5.0 broker begins its recovery after a crash at the last file that does not start behind that
offset; when it is 0, and in older versions, at the last file whose first record is not later than
the second time (``ConsumeQueueStore.isMappedFileMatchedRecover``). It does not look at what the
queues have, so both must be true at any moment, or it builds them with a gap.

Java leaves the rest of its 4096 bytes alone; we keep an exact position there, from byte 1024:
    8  magic
    8  physical offset up to which all consume queues are on the disk
    8  end of the log at a clean stop, or -1
    8  copy of the first field: differs when another broker has written meanwhile
    4  CRC of the above
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

from firearrow.store.disk import Disk

FILE_BYTES: Final = 4096
_MARK_AT: Final = 1024
_MAGIC: Final = 0x4649524541525257
_FIELDS = struct.Struct(">qqqqqq")
_MARK = struct.Struct(">qqqq")
_CRC = struct.Struct(">I")


class Checkpoint(msgspec.Struct):
    """Times in ms; ``dispatched`` and ``clean_end`` are physical offsets, -1 when unknown."""

    log_time: int = 0
    queues_time: int = 0
    index_time: int = 0
    master_flushed: int = 0
    confirmed: int = 0
    dispatched: int = -1
    clean_end: int = -1
    between: bytes = bytes(_MARK_AT - _FIELDS.size)  # what stands before our part

    def pack(self) -> bytes:
        """The bytes of the file up to the end of our part."""
        fields = _FIELDS.pack(
            self.log_time,
            self.queues_time,
            self.index_time,
            self.master_flushed,
            self.confirmed,
            max(0, self.dispatched),
        )
        mark = _MARK.pack(_MAGIC, self.dispatched, self.clean_end, self.log_time)
        return b"".join((fields, self.between, mark, _CRC.pack(zlib.crc32(mark))))


def load(disk: Disk, path: str) -> Checkpoint:
    """Read the file; all zero when it is missing or short."""
    if disk.size(path) < _FIELDS.size:
        return Checkpoint()
    data = disk.read(path)
    checkpoint = Checkpoint(*_FIELDS.unpack_from(data)[:-1])
    checkpoint.between = data[_FIELDS.size : _MARK_AT].ljust(_MARK_AT - _FIELDS.size, b"\0")
    mark = data[_MARK_AT : _MARK_AT + _MARK.size + _CRC.size]
    if len(mark) == _MARK.size + _CRC.size:
        magic, dispatched, clean_end, log_time = _MARK.unpack_from(mark)
        (crc,) = _CRC.unpack_from(mark, _MARK.size)
        ours = magic == _MAGIC and crc == zlib.crc32(mark[: _MARK.size])
        if ours and log_time == checkpoint.log_time:
            checkpoint.dispatched = dispatched
            checkpoint.clean_end = clean_end
    return checkpoint


def write(disk: Disk, path: str, data: bytes) -> None:
    """Write in place with one call (blocks), so that a kill cannot leave half of it."""
    disk.write_at(path, 0, data, FILE_BYTES)
