"""Answers that wait until the disk has what they acknowledge (SYNC_FLUSH)."""

from __future__ import annotations

import struct
from functools import partial
from typing import Final, NamedTuple

from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.protocol.remoting.command import Caller
from firearrow.store.api import Store

_SIZES = struct.Struct(">II")
_SUCCESS: Final = b'{"code":0,'


class _Held(NamedTuple):
    """What one connection gets, in one write."""

    peer: Caller
    frames: list[bytes]


class FlushedAnswers:
    """Successes that are encoded while the disk is busy, and written when it is done.

    The answers of one turn of the loop wait together, for the end of the last of their messages:
    one flush covers them all. A flush releases thousands at once, and while they are written the
    clients have nothing to do: what can be done before that must be.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._held: list[_Held] = []  # of this turn
        self._end = 0

    def add(self, peer: Caller, end: int, frame: bytes) -> None:
        """Send ``frame``, a success, once the log is on the disk up to ``end``; when that fails or
        takes too long, the same with FLUSH_DISK_TIMEOUT."""
        held = self._held
        if not held:
            self._clock.call_soon(self._turn_is_over)
            self._end = 0
        if held and held[-1].peer is peer:
            held[-1].frames.append(frame)
        else:
            held.append(_Held(peer, [frame]))
        if end > self._end:
            self._end = end

    def _turn_is_over(self) -> None:
        held, self._held = self._held, []
        self._store.when_durable(self._end, partial(_release, held))


def _release(held: list[_Held], durable: bool) -> None:
    for peer, frames in held:
        if not durable:
            frames = [_too_late(frame) for frame in frames]
        peer.send(frames[0] if len(frames) == 1 else b"".join(frames))


def _too_late(frame: bytes) -> bytes:
    """A success with the code for what is stored, but not known to be on the disk."""
    header = frame[_SIZES.size :].replace(_SUCCESS, b'{"code":%d,' % codes.FLUSH_DISK_TIMEOUT, 1)
    return _SIZES.pack(len(header) + 4, len(header)) + header
