"""Routes as clients read them: JSON by the client's version, addresses that it can reach."""

from __future__ import annotations

from typing import Final

import msgspec

from firearrow.codec.addresses import join_address
from firearrow.namesrv.kv import ORDER_NAMESPACE, KvConfig
from firearrow.namesrv.routes import MASTER_ID, BrokerSet, QueueData, RouteTable
from firearrow.namesrv.settings import NamesrvSettings
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Caller

MEMBER_TOPIC_PREFIX: Final = "rmq_sys_SYNC_BROKER_MEMBER_"


class RouteBodies:
    """``local_broker`` is the address that a broker in this process registers while it can be
    reached by every address of the machine: a client then gets the address it used itself."""

    def __init__(self, table: RouteTable, settings: NamesrvSettings, kv: KvConfig) -> None:
        self._table = table
        self._settings = settings
        self._kv = kv
        self.local_broker: str | None = None

    def route(self, topic: str, brokers: list[BrokerSet], caller: Caller, quoted: bool) -> bytes:
        names = {broker.name for broker in brokers}
        queues = [q for n, q in self._table.queues[topic].items() if n in names]
        parts = [
            b'{"brokerDatas":['
            + b",".join(
                self.broker(self._acting(b, queues, topic), caller, quoted) for b in brokers
            ),
            b'],"filterServerTable":{',
            self._filter_servers(brokers),
            b"}",
        ]
        order = (
            self._kv.get(ORDER_NAMESPACE, topic) if self._settings.order_message_enable else None
        )
        if order:
            parts.append(b',"orderTopicConf":' + bodies.encode(order))
        parts.append(b',"queueDatas":' + bodies.encode(queues))
        mappings = self._table.mappings.get(topic)
        if mappings:
            parts.append(b',"topicQueueMappingByBroker":' + bodies.encode(mappings))
        parts.append(b"}")
        return b"".join(parts)

    def _acting(self, broker: BrokerSet, queues: list[QueueData], topic: str) -> BrokerSet:
        """Without a master, the lowest slave is shown in its place where that is wanted."""
        if (
            not self._settings.support_acting_master
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

    def broker(self, broker: BrokerSet, caller: Caller, quoted: bool) -> bytes:
        addresses = {
            broker_id: self.reachable(address, caller)
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

    def reachable(self, address: str, caller: Caller) -> str:
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
            if (servers := self._table.filter_servers.get((broker.cluster, address)))
        ]
        return b",".join(found)
