"""A name server in a test: the real one, on a clock that the test moves."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import msgspec

from firearrow.model.clock import VirtualClock
from firearrow.namesrv.kv import KvConfig
from firearrow.namesrv.service import NameServer
from firearrow.namesrv.settings import NamesrvSettings
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession
from tests.support.brokers import Answered, Connection

NAMESRV_ADDRESS = ("127.0.0.1", 9876)


class NameServerWorld:
    """The name server, what it saved, and what it told brokers."""

    def __init__(self, clock: VirtualClock | None = None, **settings: Any) -> None:
        self.clock = clock or VirtualClock()
        self.settings = NamesrvSettings(**settings)
        self.saved: list[bytes] = []
        self.notices: list[tuple[str, int, dict[str, str]]] = []
        self.kv = KvConfig(self.saved.append)
        self.server = NameServer(
            self.clock,
            self.settings,
            self.kv,
            lambda address, code, ext: self.notices.append((address, code, ext)),
        )
        self.dispatcher = Dispatcher(self.server.routes())
        self.server.start()
        self._ports = itertools.cycle(range(50000, 60000))

    def session_closed(self, caller: RemotingSession) -> None:
        self.server.session_closed(caller)

    def connect(self, local: tuple[str, int] = NAMESRV_ADDRESS) -> Connection:
        return Connection(self, next(self._ports), local)

    def broker(self, *args: Any, **more: Any) -> JavaBroker:
        return JavaBroker(self, *args, **more)

    # -- what a client sees

    def route(self, topic: str, **more: Any) -> Any:
        """The decoded route of a topic; ``None`` when there is none."""
        answer = self.connect().call(105, {"topic": topic}, **more)
        return answer.json() if answer.code == 0 else None

    def brokers_of(self, topic: str) -> dict[str, dict[str, str]]:
        """Broker name -> id -> address."""
        route = self.route(topic) or {"brokerDatas": []}
        return {data["brokerName"]: data["brokerAddrs"] for data in route["brokerDatas"]}

    def perm(self, topic: str, broker: str) -> int:
        for data in self.route(topic)["queueDatas"]:
            if data["brokerName"] == broker:
                return int(data["perm"])
        raise AssertionError(f"{broker} does not have {topic}")

    def topics(self) -> set[str]:
        return set(self.connect().call(206).json()["topicList"])


def topic_config(name: str, **more: Any) -> dict[str, Any]:
    return {
        "attributes": {},
        "order": False,
        "perm": 6,
        "readQueueNums": 8,
        "topicFilterType": "SINGLE_TAG",
        "topicName": name,
        "topicSysFlag": 0,
        "writeQueueNums": 8,
        **more,
    }


class JavaBroker:
    """A broker as Java 5 speaks to its name server, on one lasting connection."""

    def __init__(
        self,
        world: NameServerWorld,
        name: str = "broker-a",
        broker_id: int = 0,
        *,
        cluster: str = "DefaultCluster",
        address: str | None = None,
        version: int = 479,
    ) -> None:
        self.connection = world.connect()
        self.name, self.broker_id, self.cluster = name, broker_id, cluster
        self.address = address or f"10.0.0.{ord(name[-1]) - 96}:{10911 + 10 * broker_id}"
        self.version = version
        self.data_version = {"counter": 1, "stateVersion": 0, "timestamp": 1_700_000_000_000}

    def identity(self) -> dict[str, Any]:
        return {
            "brokerName": self.name,
            "brokerAddr": self.address,
            "clusterName": self.cluster,
            "brokerId": self.broker_id,
        }

    def bump(self) -> None:
        self.data_version = {**self.data_version, "counter": self.data_version["counter"] + 1}

    def body(self, *topics: str | dict[str, Any], **wrapper: Any) -> bytes:
        configs = [topic_config(t) if isinstance(t, str) else t for t in topics]
        table = {config["topicName"]: config for config in configs}
        content = {
            "dataVersion": self.data_version,
            "mappingDataVersion": {"counter": 0, "stateVersion": 0, "timestamp": 0},
            "topicConfigTable": table,
            "topicQueueMappingDetailMap": {},
            "topicQueueMappingInfoMap": {},
            **wrapper,
        }
        if self.version < 37:
            return msgspec.json.encode(content)
        return msgspec.json.encode({"filterServerList": [], "topicConfigSerializeWrapper": content})

    def register(self, *topics: str | dict[str, Any], **ext: Any) -> Answered:
        return self.register_body(self.body(*topics), **ext)

    def register_body(self, body: bytes, **ext: Any) -> Answered:
        fields = {
            **self.identity(),
            "haServerAddr": self.address.rpartition(":")[0] + ":10912",
            "compressed": "false",
            "bodyCrc32": zlib.crc32(body) & 0x7FFFFFFF,
            "enableActingMaster": "false",
            **ext,
        }
        return self.connection.call(
            103, {k: v for k, v in fields.items() if v is not None}, body, version=self.version
        )

    def unregister(self) -> Answered:
        return self.connection.call(104, self.identity())

    def query_version(self, version: dict[str, int] | None = None) -> Answered:
        body = msgspec.json.encode(version or self.data_version)
        return self.connection.call(322, self.identity(), body)
