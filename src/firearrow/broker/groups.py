"""The broker's consumer group table, kept in ``subscriptionGroup.json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from firearrow.codec import tables
from firearrow.codec.tables import Deleted
from firearrow.model import names
from firearrow.model.clock import Clock
from firearrow.model.group import Group
from firearrow.model.topic import DataVersion
from firearrow.store.api import Store

GROUPS_FILE: Final = "subscriptionGroup.json"
READ_FORBIDDEN_BIT: Final = 1 << 2  # PermName.INDEX_PERM_READ
_encode = msgspec.json.Encoder().encode


class GroupSettings(Protocol):
    auto_create_subscription_group: bool
    enable_lmq: bool


class GroupsTable(msgspec.Struct, rename="camel"):
    """``subscriptionGroup.json``; what a group may not read is in ``forbidden_table``."""

    data_version: DataVersion | None = None
    forbidden_table: dict[str, dict[str, int]] | None = None
    subscription_group_table: dict[str, Group] | None = None


def _read_table(found: Any) -> GroupsTable:
    return tables.read(tables.filled(found, "subscriptionGroupTable", "groupName"), GroupsTable)


def _read_note(found: Any) -> Group | Deleted:
    return tables.read_note(found, Group)


class Groups:
    """All consumer groups of this broker."""

    def __init__(self, settings: GroupSettings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self.table: dict[str, Group] = {}
        self.forbidden: dict[str, dict[str, int]] = {}
        self.version = DataVersion()

    def load(self) -> None:
        saved = self._store.load_config(GROUPS_FILE, _read_table) or GroupsTable()
        self.version = saved.data_version or DataVersion()
        self.forbidden = saved.forbidden_table or {}
        self.table = saved.subscription_group_table or {}
        notes = self._store.config_notes(GROUPS_FILE, _read_note)
        for note in notes:
            if isinstance(note, Deleted):
                self.table.pop(note.deleted, None)
            else:
                self.table[note.name] = note
        for name in names.BUILT_IN_GROUPS:
            if name not in self.table:
                self.table[name] = Group(name=name)
        if notes:
            self._changed()

    def find(self, name: str) -> Group | None:
        """The group, made on the fly where the settings allow it (behaviour.md 21.2)."""
        group = self.table.get(name)
        if group is None and self._settings.enable_lmq and name.startswith(names.LMQ_PREFIX):
            return Group(name=name)  # readers of a light message queue are not kept
        if group is None and self._may_create(name):
            group = Group(name=name)
            self._put(group)
        return group

    def exists(self, name: str) -> bool:
        """Whether there is such a group now; nothing is made."""
        return name in self.table or (
            self._settings.enable_lmq and name.startswith(names.LMQ_PREFIX)
        )

    def _may_create(self, name: str) -> bool:
        allowed = self._settings.auto_create_subscription_group or names.is_system_group(name)
        return allowed and names.group_error(name) is None

    def update(self, group: Group) -> None:
        """Add or replace; the same configuration again changes nothing."""
        if self.table.get(group.name) != group:
            self._put(group)

    def _put(self, group: Group) -> None:
        self.table[group.name] = group
        self._store.note_config(GROUPS_FILE, encode_group(group))
        self._changed()

    def delete(self, name: str) -> None:
        """Forget the group and what it may not read; an unknown one is no error."""
        forbidden = self.forbidden.pop(name, None)
        if self.table.pop(name, None) is not None:
            self._store.note_config(GROUPS_FILE, _encode({"deleted": name}))
            self._changed()
        elif forbidden is not None:
            self._changed()

    def may_read(self, group: str, topic: str) -> bool:
        bits = self.forbidden.get(group)
        return bits is None or not bits.get(topic, 0) & READ_FORBIDDEN_BIT

    def set_may_read(self, group: str, topic: str, readable: bool) -> None:
        bits = self.forbidden.setdefault(group, {})
        if readable:
            bits[topic] = bits.get(topic, 0) & ~READ_FORBIDDEN_BIT
        else:
            bits[topic] = bits.get(topic, 0) | READ_FORBIDDEN_BIT
        if not bits[topic]:
            del bits[topic]
        if not bits:
            del self.forbidden[group]
        self._changed()

    def _changed(self) -> None:
        self.version = self.version.next(self._clock.now_ms())
        self._store.save_config(GROUPS_FILE, self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The file's content, in pieces."""
        yield b'{"dataVersion":' + _encode(self.version)
        yield b',"forbiddenTable":' + _encode(self.forbidden) + b',"subscriptionGroupTable":{'
        separator = b""
        for name in list(self.table):  # it may change meanwhile
            group = self.table.get(name)
            if group is None:
                continue
            yield separator + _encode(name) + b":" + encode_group(group)
            separator = b","
        yield b"}}"


def encode_group(group: Group) -> bytes:
    """One group as Java writes it: absent rather than null."""
    fields = msgspec.to_builtins(group)
    if fields.get("subscriptionDataSet") is None:
        fields.pop("subscriptionDataSet", None)
    return _encode(fields)
