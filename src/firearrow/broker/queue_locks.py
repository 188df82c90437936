"""Which client of a group owns a queue, for ordered consumption (behaviour.md 4.1).

Locks live in memory only: a restart or failover loses them, and the clients lock again.
"""

from __future__ import annotations

from typing import Final

from firearrow.model.clock import Clock

LOCK_S: Final = 60.0

QueueName = tuple[str, str, int]  # topic, broker name, queue id


class QueueLocks:
    """Leases on queues, one table a group."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._groups: dict[str, dict[QueueName, tuple[str, float]]] = {}

    def lock(self, group: str, client_id: str, queues: list[QueueName]) -> list[QueueName]:
        """Take or renew what is free, expired or already the client's; what it owns now."""
        now = self._clock.monotonic()
        table = self._groups.setdefault(group, {})
        owned = []
        for queue in queues:
            holder = table.get(queue)
            if holder is None or holder[0] == client_id or now - holder[1] > LOCK_S:
                table[queue] = (client_id, now)
                owned.append(queue)
        return owned

    def unlock(self, group: str, client_id: str, queues: list[QueueName]) -> None:
        """Release the client's own locks; others are left alone."""
        table = self._groups.get(group, {})
        for queue in queues:
            holder = table.get(queue)
            if holder is not None and holder[0] == client_id:
                del table[queue]
        if not table:
            self._groups.pop(group, None)

    def any_locked(self, group: str) -> bool:
        """Whether the group holds an unexpired lock, which marks it as an ordered consumer."""
        now = self._clock.monotonic()
        table = self._groups.get(group, {})
        return any(now - locked_at <= LOCK_S for _, locked_at in table.values())
