"""A broker and a name server in one process: registration without a connection between them."""

from __future__ import annotations

from collections.abc import Callable

from firearrow.broker.cluster_queues import BrokerQueues, Found
from firearrow.broker.registration import Announcement, Everything, MastersFound
from firearrow.codec import lenient_json
from firearrow.config import BrokerSettings
from firearrow.namesrv.routes import MASTER_ID, Registration
from firearrow.namesrv.service import NameServer


class LocalNameServer:
    """The name server of this process, as the registrar sees it."""

    def __init__(
        self,
        server: NameServer,
        settings: BrokerSettings,
        address: str,
        ha_address: str,
        order_topics: Callable[[list[str]], None],
    ) -> None:
        self._server = server
        self._settings = settings
        self._address = address
        self._ha_address = ha_address
        self._order_topics = order_topics

    def start(self, everything: Everything) -> None:
        self.register(everything())

    def register(self, said: Announcement) -> None:
        settings = self._settings
        broker = Registration(
            settings.broker_cluster_name,
            settings.broker_name,
            settings.broker_id,
            self._address,
            self._ha_address,
            acting_master=False,
        )
        mappings = {name: lenient_json.loads(bytes(info)) for name, info in said.mappings.items()}
        self._server.register(broker, said.topics, said.version, self, mappings=mappings)
        self._order_topics(list(self._server.order_topics() or ()))

    def queues_of(self, topic: str, found: Found) -> None:
        shares = self._server.table.queues.get(topic)
        if shares is None:
            found(None)
        else:
            found([BrokerQueues(q.broker_name, q.read_queues, q.perm) for q in shares.values()])

    def masters_of(self, topic: str, found: MastersFound) -> None:
        brokers = self._server.table.brokers_of(topic)
        found({b.name: b.addresses[MASTER_ID] for b in brokers if MASTER_ID in b.addresses} or None)

    def unregister(self, done: Callable[[], None]) -> None:
        settings = self._settings
        self._server.unregister(settings.broker_cluster_name, settings.broker_name, self._address)
        done()
