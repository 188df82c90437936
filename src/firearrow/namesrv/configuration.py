"""Requests for the key-value table and the name server's own settings (remoting.md 2.5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from firearrow.config_values import ConfigError
from firearrow.model import codes
from firearrow.namesrv.kv import KvConfig
from firearrow.namesrv.settings import FIELDS, NamesrvSettings, set_value
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, Handler, NoFields, Reply, Request
from firearrow.protocol.remoting.requests import KvKey, KvNamespace, PutKvConfig

log = logging.getLogger(__name__)

_BLACK_LISTED: Final = "Can not update config in black list."
_ALWAYS_BLACK_LISTED: Final = frozenset(
    {"configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"}
)


class Configuration:
    """``save_settings`` writes changed settings to the file they came from, if there is one."""

    def __init__(self, settings: NamesrvSettings, kv: KvConfig) -> None:
        self._settings = settings
        self._kv = kv
        self.save_settings: Callable[[Mapping[str, str]], None] = lambda changed: None

    def handlers(self) -> dict[int, Handler]:
        return {
            100: self.put_kv,
            101: self.get_kv,
            102: self.delete_kv,
            219: self.kv_namespace,
            318: self.update_config,
            319: self.get_config,
        }

    def put_kv(self, request: Request[PutKvConfig]) -> Answer:
        """PUT_KV_CONFIG (100)."""
        fields = request.fields
        namespace, key, value = fields.namespace, fields.key, fields.value or ""
        if namespace is None or key is None:
            return Reply(codes.SYSTEM_ERROR, "namespace or key is null")
        return _saved(lambda: self._kv.put(namespace, key, value))

    def get_kv(self, request: Request[KvKey]) -> Answer:
        """GET_KV_CONFIG (101)."""
        fields = request.fields
        value = self._kv.get(fields.namespace, fields.key)
        if value is None:
            return Reply(
                codes.QUERY_NOT_FOUND,
                f"No config item, Namespace: {fields.namespace} Key: {fields.key}",
            )
        return Reply(ext={"value": value})

    def delete_kv(self, request: Request[KvKey]) -> Answer:
        """DELETE_KV_CONFIG (102)."""
        fields = request.fields
        return _saved(lambda: self._kv.delete(fields.namespace, fields.key))

    def kv_namespace(self, request: Request[KvNamespace]) -> Answer:
        """GET_KVLIST_BY_NAMESPACE (219)."""
        table = self._kv.namespace(request.fields.namespace)
        if table is None:
            return Reply(
                codes.QUERY_NOT_FOUND, f"No config item, Namespace: {request.fields.namespace}"
            )
        return Reply(body=bodies.kv_table(table))

    def get_config(self, request: Request[NoFields]) -> Answer:
        """GET_NAMESRV_CONFIG (319)."""
        return Reply(body=bodies.properties_text(msgspec.to_builtins(self._settings)))

    def update_config(self, request: Request[NoFields]) -> Answer:
        """UPDATE_NAMESRV_CONFIG (318): unknown keys are left out, a wrong value refuses all."""
        wanted = bodies.parse_properties_text(request.body)
        black_list = _ALWAYS_BLACK_LISTED | set(self._settings.config_black_list.split(";"))
        if not black_list.isdisjoint(wanted):
            return Reply(codes.NO_PERMISSION, _BLACK_LISTED)
        trial = msgspec.structs.replace(self._settings)
        known = {key: text for key, text in wanted.items() if key in FIELDS}
        try:
            for key, text in known.items():
                set_value(trial, key, text)
            self.save_settings(known)
        except (ConfigError, OSError) as error:
            return Reply(codes.SYSTEM_ERROR, str(error))
        for key, text in known.items():
            set_value(self._settings, key, text)
        if known:
            log.info("configuration changed by %s: %s", request.peer.remote[0], known)
        return Reply()


def _saved(change: Callable[[], None]) -> Reply:
    """The answer to a change that must be on the disk before it is shown."""
    try:
        change()
    except OSError as error:
        log.error("a key-value change is refused, it cannot be saved: %s; check the disk", error)
        return Reply(codes.SYSTEM_ERROR, f"it cannot be saved: {error.strerror}")
    return Reply()
