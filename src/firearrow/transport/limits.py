"""What a listener and its connections may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024

# A connection is looked at this often; one timer serves all connections of a listener.
SWEEP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a listener; each keeps one peer from taking what the others need."""

    # Four of the largest frames: what a slow reader may leave with us before it is closed.
    write_buffer_bytes_max: int = 64 * MIB
    # Above this nothing more is read from the peer, so it cannot ask for more than it takes.
    write_high_water_bytes: int = 1 * MIB
    # As Netty's IdleStateHandler in RocketMQ; noticed at the sweep, so up to SWEEP_S later.
    idle_s: float = 120.0
    # Above any usual `ulimit -n`; it only bounds memory (about 2 KiB a connection).
    connections_max: int = 200_000
