"""The name server's key-value configuration, kept as Java keeps it (cluster.md 1.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from firearrow.codec import lenient_json

ORDER_NAMESPACE: Final = "ORDER_TOPIC_CONFIG"


Table = dict[str, dict[str, str]]


class _File(msgspec.Struct):
    table: Table = msgspec.field(default_factory=dict, name="configTable")


class KvConfig:
    """Namespaces of texts. ``save`` gets the whole file before a change is shown; what it raises,
    the change raises, and nothing is changed."""

    def __init__(self, save: Callable[[bytes], None] = lambda data: None) -> None:
        self._save = save
        self._table: Table = {}

    def load(self, data: bytes) -> None:
        """Take over a saved file.

        Raises:
            ValueError: it is no such file.
        """
        self._table = msgspec.convert(lenient_json.loads(data), _File).table

    def put(self, namespace: str, key: str, value: str) -> None:
        self._change({**self._table, namespace: {**self._table.get(namespace, {}), key: value}})

    def delete(self, namespace: str, key: str) -> None:
        values = self._table.get(namespace, {})
        if key in values:
            rest = {name: value for name, value in values.items() if name != key}
            self._change({**self._table, namespace: rest})

    def get(self, namespace: str, key: str) -> str | None:
        return self._table.get(namespace, {}).get(key)

    def namespace(self, namespace: str) -> dict[str, str] | None:
        return self._table.get(namespace)

    def _change(self, table: Table) -> None:
        self._save(msgspec.json.encode(_File(table)))
        self._table = table
