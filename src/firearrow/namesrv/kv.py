"""The name server's key-value configuration, kept as Java keeps it (cluster.md 1.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from firearrow.codec import lenient_json

ORDER_NAMESPACE: Final = "ORDER_TOPIC_CONFIG"


class KvConfig:
    """Namespaces of texts. ``save`` gets the whole file after every change."""

    def __init__(self, save: Callable[[bytes], None] = lambda data: None) -> None:
        self._save = save
        self._table: dict[str, dict[str, str]] = {}

    def load(self, data: bytes) -> None:
        """Take over a saved file.

        Raises:
            ValueError: it is no such file.
        """
        saved = lenient_json.loads(data)
        self._table = msgspec.convert(
            (saved or {}).get("configTable") or {}, dict[str, dict[str, str]]
        )

    def put(self, namespace: str, key: str, value: str) -> None:
        self._table.setdefault(namespace, {})[key] = value
        self._changed()

    def delete(self, namespace: str, key: str) -> None:
        if self._table.get(namespace, {}).pop(key, None) is not None:
            self._changed()

    def get(self, namespace: str, key: str) -> str | None:
        return self._table.get(namespace, {}).get(key)

    def namespace(self, namespace: str) -> dict[str, str] | None:
        return self._table.get(namespace)

    def _changed(self) -> None:
        self._save(msgspec.json.encode({"configTable": self._table}))
