"""The name server's requests (remoting.md 2.1, 2.4, 2.5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from firearrow.codec import lenient_json
from firearrow.model import codes
from firearrow.model.clock import Clock
from firearrow.model.topic import SYS_FLAG_UNIT, SYS_FLAG_UNIT_SUB, DataVersion, Topic
from firearrow.namesrv import registration_body
from firearrow.namesrv.configuration import Configuration
from firearrow.namesrv.kv import ORDER_NAMESPACE, KvConfig
from firearrow.namesrv.route_bodies import RouteBodies
from firearrow.namesrv.routes import (
    MASTER_ID,
    BrokerSet,
    QueueData,
    Registered,
    Registration,
    RouteTable,
)
from firearrow.namesrv.settings import NamesrvSettings
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
    RegisterBroker,
    TopicName,
)
from firearrow.protocol.remoting.session import Route

log = logging.getLogger(__name__)

_NO_ROUTE: Final = (
    "No topic route info in name server for the topic: {topic}\n"
    "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
)

Notify = Callable[[str, int, dict[str, str]], None]  # address, request code, ext fields


class NameServer:
    """Answers requests from one route table.

    ``notify`` sends a one-way request to a broker's address.
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
        self.configuration = Configuration(settings, kv)
        self._notify = notify
        self.table = RouteTable()
        self.shown = RouteBodies(self.table, settings, kv)
        self._started_s = clock.monotonic()

    def routes(self) -> dict[int, Route]:
        """Every request of a name server."""
        handlers: dict[int, Handler] = {
            103: self.register_broker,
            104: self.unregister_broker,
            105: self.route,
            106: self.cluster_info,
            205: self.wipe_write_permission,
            206: self.all_topics,
            216: self.delete_topic,
            217: self.register_topic,
            224: self.topics_of_cluster,
            304: self.system_topics,
            311: lambda _: self._flagged(SYS_FLAG_UNIT),
            312: lambda _: self._flagged(SYS_FLAG_UNIT_SUB),
            313: lambda _: self._flagged(SYS_FLAG_UNIT_SUB, SYS_FLAG_UNIT),
            322: self.query_data_version,
            327: self.add_write_permission,
            901: self.member_group,
            904: self.broker_heartbeat,
            **self.configuration.handlers(),
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
                "broker %s (%s) was silent for too long and is dropped: clients do not find it "
                "until it registers again. See whether it runs, and its log",
                entry.name,
                address,
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
            log.warning(
                "broker %s (%s) disconnected: clients do not find it until it is back",
                name,
                address,
            )
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
        return Reply(body=self.shown.route(fields.topic, brokers, request.peer, quoted))

    def cluster_info(self, request: Request[NoFields]) -> Answer:
        """GET_BROKER_CLUSTER_INFO (106)."""
        brokers = b",".join(
            bodies.encode(name) + b":" + self.shown.broker(broker, request.peer, quoted=True)
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
            address = self.shown.reachable(address, request.peer)
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


def _in_zone(broker: BrokerSet, zone: str) -> bool:
    return MASTER_ID not in broker.addresses or (broker.zone or "").lower() == zone.lower()
