"""Messages that push consumers work on: their receipts are renewed while the client lives
(``DefaultReceiptHandleManager``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from firearrow.model.clock import Clock
from firearrow.proxy.clients import Client
from firearrow.proxy.receipts import Receipt

RENEW_INVISIBLE_MS: Final = 60_000  # of the first pop
SCAN_S: Final = 5.0
AHEAD_MS: Final = 10_000  # renewed when so little is left
STEPS_MS: Final = (60_000, 180_000, 300_000, 600_000, 1_800_000, 3_600_000)
GIVE_UP_MS: Final = 3 * 3600 * 1000
FAILURES_MAX: Final = 3
CLEAR_MS: Final = 1000  # when the client is gone

Key = tuple[str, tuple[str, str, int, int]]  # message id and the receipt's own key


class Inflight:
    """One message in work."""

    __slots__ = (
        "client",
        "failures",
        "group",
        "popped_ms",
        "receipt",
        "renewals",
        "renewing",
        "topic",
    )

    def __init__(
        self, client: Client, group: str, topic: str, receipt: Receipt, popped_ms: int
    ) -> None:
        self.client = client
        self.group = group
        self.topic = topic  # the one that the consumer knows
        self.receipt = receipt
        self.popped_ms = popped_ms
        self.renewals = 0
        self.failures = 0
        self.renewing = False


# (message, invisible ms, what became of it: the new receipt, or None)
Change = Callable[[Inflight, int, Callable[[Receipt | None], None]], None]


class Renewals:
    """All messages in work, by client and group."""

    def __init__(self, clock: Clock, change: Change) -> None:
        self._clock = clock
        self._change = change
        self._table: dict[tuple[str, str], dict[Key, Inflight]] = {}
        self._running = False

    def __len__(self) -> int:
        return sum(map(len, self._table.values()))

    def start(self) -> None:
        self._running = True
        self._clock.call_later(SCAN_S, self._scan)

    def stop(self) -> None:
        self._running = False

    def add(self, message_id: str, inflight: Inflight) -> None:
        owner = inflight.client.client_id, inflight.group
        messages = self._table.get(owner)
        if messages is None:
            messages = self._table[owner] = {}
            inflight.client.gone.append(lambda: self._clear(owner))
        messages[message_id, inflight.receipt.key] = inflight

    def take(self, client_id: str, group: str, message_id: str, receipt: Receipt) -> Receipt:
        """The newest receipt of a message, which is renewed no longer; else the given one."""
        messages = self._table.get((client_id, group))
        found = messages.pop((message_id, receipt.key), None) if messages else None
        return found.receipt if found is not None else receipt

    def of_client(self, client_id: str, group: str) -> int:
        """How many messages a client works on."""
        return len(self._table.get((client_id, group), ()))

    def find(self, client_id: str, group: str, message_id: str) -> Receipt | None:
        """The receipt of a message that is known by its id only (C++ sends no more)."""
        for (known, _), inflight in self._table.get((client_id, group), {}).items():
            if known == message_id:
                return inflight.receipt
        return None

    def _clear(self, owner: tuple[str, str]) -> None:
        for inflight in self._table.pop(owner, {}).values():
            self._change(inflight, CLEAR_MS, lambda receipt: None)

    def _scan(self) -> None:
        if not self._running:
            return
        now = self._clock.now_ms()
        for messages in list(self._table.values()):
            for key, inflight in list(messages.items()):
                if inflight.renewing or inflight.receipt.visible_ms() - now > AHEAD_MS:
                    continue
                if now - inflight.popped_ms > GIVE_UP_MS or inflight.failures >= FAILURES_MAX:
                    del messages[key]
                    continue
                self._renew(inflight)
        self._clock.call_later(SCAN_S, self._scan)

    def _renew(self, inflight: Inflight) -> None:
        step_ms = STEPS_MS[min(inflight.renewals, len(STEPS_MS) - 1)]
        inflight.renewing = True

        def renewed(receipt: Receipt | None) -> None:
            inflight.renewing = False
            if receipt is None:
                inflight.failures += 1
                return
            inflight.failures = 0
            inflight.renewals += 1
            inflight.receipt = receipt

        self._change(inflight, step_ms, renewed)
