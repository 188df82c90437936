"""The name server's requests (remoting.md 2.1, 2.4, 2.5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from firearrow.codec import lenient_json
from firearrow.codec.addresses import join_address
from firearrow.config import ConfigError
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.topic import SYS_FLAG_UNIT, SYS_FLAG_UNIT_SUB, DataVersion, Topic
from firearrow.namesrv import registration_body
from firearrow.namesrv.kv import ORDER_NAMESPACE, KvConfig
from firearrow.namesrv.routes import (
    MASTER_ID,
    BrokerSet,
    QueueData,
    Registered,
    Registration,
    RouteTable,
)
from firearrow.namesrv.settings import FIELDS, NamesrvSettings, set_value
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, Caller, Handler, NoFields, Reply, Request
from firearrow.protocol.remoting.requests import (
    NOTIFY_MIN_BROKER_ID_CHANGE,
    REQUESTS,
    BrokerHeartbeat,
    BrokerMemberGroup,
    BrokerName,
    BrokerOfCluster,
    ClusterName,
    DeleteTopicInNamesrv,
    GetRoute,
    KvKey,
    KvNamespace,
    PutKvConfig,
    RegisterBroker,
    TopicName,
)
from firearrow.protocol.remoting.session import Route

log = logging.getLogger(__name__)

_NO_ROUTE: Final = (
    "No topic route info in name server for the topic: {topic}\n"
    "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
)
_BLACK_LISTED: Final = "Can not update config in black list."
_ALWAYS_BLACK_LISTED: Final = frozenset(
    {"configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"}
)
MEMBER_TOPIC_PREFIX: Final = "rmq_sys_SYNC_BROKER_MEMBER_"

Notify = Callable[[str, int, dict[str, str]], None]  # address, request code, ext fields


class NameServer:
    """Answers requests from one route table.

    ``notify`` sends a one-way request to a broker's address. ``local_broker`` is the address that
    a broker in this process registers while it can be reached by every address of the machine: a
    client then gets the address it used itself.
    """

    def __init__(
        self,
        clock: Clock,
        settings: NamesrvSettings,
        kv: KvConfig,
        notify: Notify = lambda address, code, ext: None,
    ) -> None:
        self._clock = clock
        self.settings = settings
        self.kv = kv
        self._notify = notify
        self.table = RouteTable()
        self.local_broker: str | None = None
        # Writes changed settings to the file they came from, if there is one.
        self.save_settings: Callable[[Mapping[str, str]], None] = lambda changed: None
        self._started_s = clock.monotonic()

    def routes(self) -> dict[int, Route]:
        """Every request of a name server."""
        handlers: dict[int, Handler] = {
            100: self.put_kv,
            101: self.get_kv,
            102: self.delete_kv,
            103: self.register_broker,
            104: self.unregister_broker,
            105: self.route,
            106: self.cluster_info,
            205: self.wipe_write_permission,
            206: self.all_topics,
            216: self.delete_topic,
            217: self.register_topic,
            219: self.kv_namespace,
            224: self.topics_of_cluster,
            304: self.system_topics,
            311: lambda _: self._flagged(SYS_FLAG_UNIT),
            312: lambda _: self._flagged(SYS_FLAG_UNIT_SUB),
            313: lambda _: self._flagged(SYS_FLAG_UNIT_SUB, SYS_FLAG_UNIT),
            318: self.update_config,
            319: self.get_config,
            322: self.query_data_version,
            327: self.add_write_permission,
            901: self.member_group,
            904: self.broker_heartbeat,
        }
        return {code: Route(*REQUESTS[code], handler) for code, handler in handlers.items()}

    # -- liveness

    def start(self) -> None:
        """Begin to look for silent brokers."""
        interval_s = self.settings.scan_not_active_broker_interval / 1000
        self._clock.call_later(interval_s, self._scan)

    def _scan(self) -> None:
        for cluster, address, entry in self.table.expired(self._now()):
            log.warning(
                "broker %s (%s) was silent for too long and is dropped", entry.name, address
            )
            close = getattr(entry.connection, "close", None)
            if close is not None:
                close("the broker was silent for too long")
            self.table.unregister(cluster, entry.name, address)
        self._send_changes()
        self.start()

    def _now(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def session_closed(self, caller: Caller) -> None:
        """A connection is gone: what registered over it is offline now."""
        for cluster, address, name in self.table.of_connection(caller):
            log.warning("broker %s (%s) disconnected", name, address)
            self.table.unregister(cluster, name, address)
        self._send_changes()

    def _send_changes(self) -> None:
        changes, self.table.changes = self.table.changes, []
        if not self.settings.notify_min_broker_id_changed:
            return
        for change in changes:
            ext = {"minBrokerId": str(change.min_id), "minBrokerAddr": change.min_address}
            if change.offline_address:
                ext["offlineBrokerAddr"] = change.offline_address
            if change.ha_address:
                ext["haBrokerAddr"] = change.ha_address
            for target in change.targets:
                self._notify(target, NOTIFY_MIN_BROKER_ID_CHANGE, ext)

    # -- brokers

    def register(
        self,
        broker: Registration,
        topics: Mapping[str, Topic],
        version: DataVersion,
        connection: object,
        filter_servers: list[str] | None = None,
        mappings: Mapping[str, Any] | None = None,
    ) -> Registered | None:
        """Register a broker; ``None`` when it is refused."""
        known = self.table.version_of(broker.cluster, broker.address) is not None
        self.table.delete_missing_topics = self.settings.delete_topic_with_broker_registration
        result = self.table.register(
            broker, topics, version, connection, self._now(), filter_servers, mappings
        )
        if result is not None and not known:
            log.info("broker %s registered at %s", broker.name, broker.address)
        self._send_changes()
        return result

    def order_topics(self) -> dict[str, str] | None:
        """ORDER_TOPIC_CONFIG, for brokers that register."""
        if not self.settings.return_order_topic_config_to_broker:
            return None
        return self.kv.namespace(ORDER_NAMESPACE)

    def register_broker(self, request: Request[RegisterBroker]) -> Answer:
        """REGISTER_BROKER (103)."""
        fields = request.fields
        try:
            body = registration_body.decode(request.body, request.version, fields.body_crc32)
        except registration_body.BodyError as error:
            return Reply(codes.SYSTEM_ERROR, str(error))
        broker = Registration(
            fields.cluster_name,
            fields.broker_name,
            fields.broker_id,
            fields.broker_addr,
            fields.ha_server_addr or "",
            fields.heartbeat_timeout_ms,
            fields.enable_acting_master,
            fields.zone_name,
        )
        result = self.register(
            broker, body.topics, body.version, request.peer, body.filter_servers, body.mappings
        )
        if result is None:
            return Reply(codes.SYSTEM_ERROR, "register broker failed")
        ext = {}
        if result.master_address:
            ext["masterAddr"] = result.master_address
        if result.master_ha_address:
            ext["haServerAddr"] = result.master_ha_address
        order = self.order_topics()
        return Reply(ext=ext, body=bodies.kv_table(order) if order else b"")

    def unregister(self, cluster: str, name: str, address: str) -> None:
        """Forget a broker."""
        log.info("broker %s at %s unregistered", name, address)
        self.table.unregister(cluster, name, address)
        self._send_changes()

    def unregister_broker(self, request: Request[BrokerOfCluster]) -> Answer:
        """UNREGISTER_BROKER (104)."""
        fields = request.fields
        self.unregister(fields.cluster_name, fields.broker_name, fields.broker_addr)
        return Reply()

    def query_data_version(self, request: Request[BrokerOfCluster]) -> Answer:
        """QUERY_DATA_VERSION (322): whether a registration would tell something new."""
        fields = request.fields
        try:
            theirs = msgspec.convert(lenient_json.loads(request.body), DataVersion)
        except (ValueError, msgspec.ValidationError) as error:
            return Reply(codes.SYSTEM_ERROR, f"unreadable data version: {error}")
        ours = self.table.version_of(fields.cluster_name, fields.broker_addr)
        self.table.heard(fields.cluster_name, fields.broker_addr, self._now())
        changed = "false" if ours == theirs else "true"
        return Reply(ext={"changed": changed}, body=bodies.encode(ours) if ours else b"")

    def broker_heartbeat(self, request: Request[BrokerHeartbeat]) -> Answer:
        """BROKER_HEARTBEAT (904)."""
        self.table.heard(request.fields.cluster_name, request.fields.broker_addr, self._now())
        return Reply()

    def member_group(self, request: Request[BrokerMemberGroup]) -> Answer:
        """GET_BROKER_MEMBER_GROUP (901)."""
        fields = request.fields
        brokers = self.table.brokers.get(fields.broker_name)
        addresses = brokers.addresses if brokers else {}
        body = (
            b'{"brokerMemberGroup":{"brokerAddrs":'
            + bodies.broker_addresses(addresses, quoted=True)
            + b',"brokerName":'
            + bodies.encode(fields.broker_name)
            + b',"cluster":'
            + bodies.encode(fields.cluster_name)
            + b"}}"
        )
        return Reply(body=body)

    def register_topic(self, request: Request[TopicName]) -> Answer:
        """REGISTER_TOPIC_IN_NAMESRV (217)."""
        try:
            data = lenient_json.loads(request.body)
            queues = msgspec.convert(data.get("queueDatas") or [], list[QueueData])
        except (ValueError, AttributeError, msgspec.ValidationError) as error:
            return Reply(codes.SYSTEM_ERROR, f"unreadable route: {error}")
        self.table.set_queues(request.fields.topic, queues)
        return Reply()

    # -- routes

    def route(self, request: Request[GetRoute]) -> Answer:
        """GET_ROUTEINFO_BY_TOPIC (105)."""
        fields, settings = request.fields, self.settings
        if settings.need_wait_for_service and (
            self._clock.monotonic() - self._started_s < settings.wait_seconds_for_service
        ):
            return Reply(codes.SYSTEM_ERROR, "name server not ready")
        brokers = self.table.brokers_of(fields.topic)
        if not brokers:
            return Reply(codes.TOPIC_NOT_EXIST, _NO_ROUTE.format(topic=fields.topic))
        if (fields.zone_mode or "").lower() == "true" and (fields.zone_name or "").strip():
            brokers = [b for b in brokers if _in_zone(b, fields.zone_name or "")]
        quoted = bool(
            fields.accept_standard_json_only or request.version >= bodies.STANDARD_JSON_SINCE
        )
        return Reply(body=self._route_body(fields.topic, brokers, request.peer, quoted))

    def _route_body(
        self, topic: str, brokers: list[BrokerSet], caller: Caller, quoted: bool
    ) -> bytes:
        names = {broker.name for broker in brokers}
        queues = [q for n, q in self.table.queues[topic].items() if n in names]
        parts = [
            b'{"brokerDatas":['
            + b",".join(
                self._broker_data(self._acting(b, queues, topic), caller, quoted) for b in brokers
            ),
            b'],"filterServerTable":{',
            self._filter_servers(brokers),
            b"}",
        ]
        order = self.kv.get(ORDER_NAMESPACE, topic) if self.settings.order_message_enable else None
        if order:
            parts.append(b',"orderTopicConf":' + bodies.encode(order))
        parts.append(b',"queueDatas":' + bodies.encode(queues))
        mappings = self.table.mappings.get(topic)
        if mappings:
            parts.append(b',"topicQueueMappingByBroker":' + bodies.encode(mappings))
        parts.append(b"}")
        return b"".join(parts)

    def _acting(self, broker: BrokerSet, queues: list[QueueData], topic: str) -> BrokerSet:
        """Without a master, the lowest slave is shown in its place where that is wanted."""
        if (
            not self.settings.support_acting_master
            or topic.startswith(MEMBER_TOPIC_PREFIX)
            or not broker.acting_master
            or not broker.addresses
            or MASTER_ID in broker.addresses
            or all(q.perm & 2 for q in queues if q.broker_name == broker.name)
        ):
            return broker
        addresses = dict(broker.addresses)
        addresses[MASTER_ID] = addresses.pop(min(addresses))
        return msgspec.structs.replace(broker, addresses=addresses)

    def _broker_data(self, broker: BrokerSet, caller: Caller, quoted: bool) -> bytes:
        addresses = {
            broker_id: self._reachable(address, caller)
            for broker_id, address in broker.addresses.items()
        }
        zone = b',"zoneName":' + bodies.encode(broker.zone) if broker.zone else b""
        return (
            b'{"brokerAddrs":'
            + bodies.broker_addresses(addresses, quoted=quoted)
            + b',"brokerName":'
            + bodies.encode(broker.name)
            + b',"cluster":'
            + bodies.encode(broker.cluster)
            + b',"enableActingMaster":'
            + (b"true" if broker.acting_master else b"false")
            + zone
            + b"}"
        )

    def _reachable(self, address: str, caller: Caller) -> str:
        """The address of the broker in this process, as this client can reach it."""
        if address != self.local_broker:
            return address
        host = caller.local[0]
        port = address.rpartition(":")[2]
        return join_address(host, int(port))

    def _filter_servers(self, brokers: list[BrokerSet]) -> bytes:
        found = [
            bodies.encode(address) + b":" + bodies.encode(servers)
            for broker in brokers
            for address in broker.addresses.values()
            if (servers := self.table.filter_servers.get((broker.cluster, address)))
        ]
        return b",".join(found)

    def cluster_info(self, request: Request[NoFields]) -> Answer:
        """GET_BROKER_CLUSTER_INFO (106)."""
        brokers = b",".join(
            bodies.encode(name) + b":" + self._broker_data(broker, request.peer, quoted=True)
            for name, broker in self.table.brokers.items()
        )
        clusters = bodies.encode({c: sorted(names) for c, names in self.table.clusters.items()})
        return Reply(
            body=b'{"brokerAddrTable":{' + brokers + b'},"clusterAddrTable":' + clusters + b"}"
        )

    # -- topics

    def all_topics(self, request: Request[NoFields]) -> Answer:
        """GET_ALL_TOPIC_LIST_FROM_NAMESERVER (206)."""
        if not self.settings.enable_all_topic_list:
            return Reply(codes.SYSTEM_ERROR, "disable")
        return Reply(body=bodies.topic_list(self.table.queues))

    def topics_of_cluster(self, request: Request[ClusterName]) -> Answer:
        """GET_TOPICS_BY_CLUSTER (224)."""
        if not self.settings.enable_topic_list:
            return Reply(codes.SYSTEM_ERROR, "disable")
        return Reply(body=bodies.topic_list(self.table.topics_of_cluster(request.fields.cluster)))

    def _flagged(self, wanted: int, unwanted: int = 0) -> Answer:
        if not self.settings.enable_topic_list:
            return Reply(codes.SYSTEM_ERROR, "disable")
        return Reply(body=bodies.topic_list(self.table.topics_with_flag(wanted, unwanted)))

    def system_topics(self, request: Request[NoFields]) -> Answer:
        """GET_SYSTEM_TOPIC_LIST_FROM_NS (304): names of clusters and brokers, and one broker that
        can be asked for its own."""
        names = [*self.table.clusters]
        for brokers in self.table.clusters.values():
            names += sorted(brokers)
        address = next((a for b in self.table.brokers.values() for a in b.addresses.values()), None)
        if address is not None:
            address = self._reachable(address, request.peer)
        return Reply(body=bodies.topic_list(names, address))

    def delete_topic(self, request: Request[DeleteTopicInNamesrv]) -> Answer:
        """DELETE_TOPIC_IN_NAMESRV (216)."""
        self.table.delete_topic(request.fields.topic, request.fields.cluster_name or None)
        return Reply()

    def wipe_write_permission(self, request: Request[BrokerName]) -> Answer:
        """WIPE_WRITE_PERM_OF_BROKER (205)."""
        count = self.table.wipe_write_permission(request.fields.broker_name)
        return Reply(ext={"wipeTopicCount": str(count)})

    def add_write_permission(self, request: Request[BrokerName]) -> Answer:
        """ADD_WRITE_PERM_OF_BROKER (327)."""
        count = self.table.add_write_permission(request.fields.broker_name)
        return Reply(ext={"addTopicCount": str(count)})

    # -- configuration

    def put_kv(self, request: Request[PutKvConfig]) -> Answer:
        """PUT_KV_CONFIG (100)."""
        fields = request.fields
        namespace, key, value = fields.namespace, fields.key, fields.value or ""
        if namespace is None or key is None:
            return Reply(codes.SYSTEM_ERROR, "namespace or key is null")
        return _saved(lambda: self.kv.put(namespace, key, value))

    def get_kv(self, request: Request[KvKey]) -> Answer:
        """GET_KV_CONFIG (101)."""
        fields = request.fields
        value = self.kv.get(fields.namespace, fields.key)
        if value is None:
            return Reply(
                codes.QUERY_NOT_FOUND,
                f"No config item, Namespace: {fields.namespace} Key: {fields.key}",
            )
        return Reply(ext={"value": value})

    def delete_kv(self, request: Request[KvKey]) -> Answer:
        """DELETE_KV_CONFIG (102)."""
        fields = request.fields
        return _saved(lambda: self.kv.delete(fields.namespace, fields.key))

    def kv_namespace(self, request: Request[KvNamespace]) -> Answer:
        """GET_KVLIST_BY_NAMESPACE (219)."""
        table = self.kv.namespace(request.fields.namespace)
        if table is None:
            return Reply(
                codes.QUERY_NOT_FOUND, f"No config item, Namespace: {request.fields.namespace}"
            )
        return Reply(body=bodies.kv_table(table))

    def get_config(self, request: Request[NoFields]) -> Answer:
        """GET_NAMESRV_CONFIG (319)."""
        return Reply(body=bodies.properties_text(msgspec.to_builtins(self.settings)))

    def update_config(self, request: Request[NoFields]) -> Answer:
        """UPDATE_NAMESRV_CONFIG (318): unknown keys are left out, a wrong value refuses all."""
        wanted = bodies.parse_properties_text(request.body)
        black_list = _ALWAYS_BLACK_LISTED | set(self.settings.config_black_list.split(";"))
        if not black_list.isdisjoint(wanted):
            return Reply(codes.NO_PERMISSION, _BLACK_LISTED)
        trial = msgspec.structs.replace(self.settings)
        known = {key: text for key, text in wanted.items() if key in FIELDS}
        try:
            for key, text in known.items():
                set_value(trial, key, text)
            self.save_settings(known)
        except (ConfigError, OSError) as error:
            return Reply(codes.SYSTEM_ERROR, str(error))
        for key, text in known.items():
            set_value(self.settings, key, text)
        if known:
            log.info("configuration changed by %s: %s", request.peer.remote[0], known)
        return Reply()


def _in_zone(broker: BrokerSet, zone: str) -> bool:
    return MASTER_ID not in broker.addresses or (broker.zone or "").lower() == zone.lower()


def _saved(change: Callable[[], None]) -> Reply:
    """The answer to a change that must be on the disk before it is shown."""
    try:
        change()
    except OSError as error:
        log.error("a key-value change is refused, it cannot be saved: %s", error)
        return Reply(codes.SYSTEM_ERROR, f"it cannot be saved: {error.strerror}")
    return Reply()
