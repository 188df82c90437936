"""What was refused to gRPC peers: counted, and said in the log at a rate that a flood cannot
raise."""

from __future__ import annotations

import logging
from typing import Final

from firearrow.model.clock import Clock

log = logging.getLogger(__name__)

LOG_S: Final = 60.0  # between two lines about the same

# What was refused, and what an operator can do. The keys are the names of the counters.
PROTOCOL: Final = "protocol"
FLOOD: Final = "flood"
HEADERS: Final = "headers"
RESETS: Final = "resets"
STREAMS: Final = "streams"
MALFORMED: Final = "malformed"
LARGE: Final = "large"
UNFINISHED: Final = "unfinished"
UNREAD: Final = "unread"
NOT_GRPC: Final = "notGrpc"
_ADVICE: Final = {
    PROTOCOL: "it breaks HTTP/2: see what connects there, a scanner or a faulty proxy",
    FLOOD: "it sends frames without calls: block the address if it goes on",
    HEADERS: "its headers are above 64 KiB: see what metadata it sends",
    RESETS: "it gives calls up faster than they can end: see its timeouts, or block the address",
    STREAMS: "it has 1,000 calls open on one connection: let it use more connections",
    MALFORMED: "its requests have headers that HTTP/2 forbids: see what proxy is between",
    LARGE: "it sends messages above 16 MiB: let it send smaller ones",
    UNFINISHED: "it begins more and larger messages than it ends: block the address if it goes on",
    UNREAD: "it does not read its answers: see its load and its network",
    NOT_GRPC: "it is no gRPC client: point it elsewhere",
}


class Refusals:
    """Counters by what was refused, since the start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.counts = dict.fromkeys(_ADVICE, 0)
        self._said: dict[str, tuple[float, int]] = {}  # when, and the count then

    def count(self, kind: str, remote: tuple[str, int]) -> None:
        """One more of this kind."""
        counts = self.counts
        counts[kind] += 1
        now_s = self._clock.monotonic()
        last_s, before = self._said.get(kind, (-LOG_S, 0))
        if now_s - last_s < LOG_S:
            return
        self._said[kind] = now_s, counts[kind]
        log.warning(
            "refused %d of %s on the gRPC port since the last line like this; now from %s:%d: %s",
            counts[kind] - before,
            kind,
            *remote,
            _ADVICE[kind],
        )
