"""Half messages that wait for their end while a store goes from broker to broker, and the table
that counts them (``config/transactionMetrics``): each broker goes on from the other's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from interop.remoting import Remote
from interop.store.load import PAID, send

COMMIT: Final = 8
PREPARED: Final = 4  # in the system flag
SENT, ENDED = 3, 1  # in each round
# Nobody is asked during a run; the table is saved soon.
SETTINGS: Final = {"transactionCheckInterval": 3_600_000, "transactionMetricFlushInterval": 500}


class Halves:
    """What was begun and ended so far."""

    def __init__(self) -> None:
        self._open: list[dict[str, str]] = []  # answers of the sends, oldest first
        self._sent = 0

    def write(self, remote: Remote) -> None:
        """Begin some; end the oldest, which mostly another broker took."""
        for _ in range(SENT):
            unique = f"7F0000AA{self._sent:024X}"
            properties = {"UNIQ_KEY": unique, "TRAN_MSG": "true", "PGROUP": "payers"}
            body = b"payment %d" % self._sent
            self._open.append(send(remote, PAID, 0, body, properties, sys_flag=PREPARED))
            self._sent += 1
        for _ in range(ENDED):
            half = self._open.pop(0)
            fields = {
                "producerGroup": "payers",
                "tranStateTableOffset": half["queueOffset"],
                "commitLogOffset": int(half["msgId"][16:], 16),
                "commitOrRollback": COMMIT,
                "fromTransactionCheck": "false",
                "msgId": "any",
            }
            remote.ask(37, fields)

    def miscounted(self, store: Path) -> list[str]:
        """What the table of the broker before says otherwise."""
        file = store / "config" / "transactionMetrics"
        if not file.exists():  # Java moves the old one away first: killed in between
            file = file.with_suffix(".bak")
        table = json.loads(file.read_bytes())
        count = table["transactionCount"].get(PAID, {}).get("count")
        if count == len(self._open):
            return []
        return [f"transactionMetrics counts {count} half messages, not {len(self._open)}"]
