"""Property strings seen before, so that an ordinary message is not looked through again.

A client's property string begins with the unique key, or with keys of its own and then the unique
key: these differ from message to message. What follows, its tail, is mostly the same for all
messages of a producer. So what the broker found out about a tail once (no room asked for it, and
what is stored in its place) holds for the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

UNIQUE_KEY: Final = "UNIQ_KEY\x01"
KEYS: Final = "KEYS\x01"
TAILS_MAX: Final = 1024
TAIL_CHARS_MAX: Final = 512


class Tails:
    """Known tails of messages that no room asked for. ``get(tail)`` gives what is stored."""

    def __init__(self, marked: Callable[[bytes], bool]) -> None:
        self._marked = marked
        self._known: dict[str, bytes] = {}
        self.get = self._known.get

    def learn(self, properties: str, stored: bytes) -> None:
        """Remember the tail of ``properties``, which the broker stores as ``stored``.

        Tails with keys are as good as never seen again, and not worth their room.
        """
        head, _, tail = properties.partition("\x02")
        if head.startswith(KEYS):
            unique, _, tail = tail.partition("\x02")
            stored = stored[len(head.encode()) + 1 :]
            head = unique
        if not head.startswith(UNIQUE_KEY) or len(tail) > TAIL_CHARS_MAX or KEYS in tail:
            return
        if self._marked(stored):
            return
        if len(self._known) >= TAILS_MAX:
            self._known.clear()
        self._known[tail] = stored[len(head.encode()) :]
