"""A broker that only registers: what a name server sees of one."""

from __future__ import annotations

import json
import socket
import struct
import threading
import zlib
from collections.abc import Iterable
from typing import Any

from interop.remoting import Answer, Remote

CLUSTER = "FakeCluster"
NAME = "fake"


def topic(name: str, perm: int = 6, sys_flag: int = 0) -> dict[str, Any]:
    """A topic's configuration."""
    return {
        "attributes": {},
        "order": False,
        "perm": perm,
        "readQueueNums": 4,
        "topicFilterType": "SINGLE_TAG",
        "topicName": name,
        "topicSysFlag": sys_flag,
        "writeQueueNums": 3,
    }


def version(counter: int) -> dict[str, int]:
    return {"counter": counter, "stateVersion": 0, "timestamp": 1_700_000_000_000 + counter}


def json_body(topics: Iterable[dict[str, Any]], counter: int) -> bytes:
    """A registration as a Java broker writes it."""
    wrapper = {
        "dataVersion": version(counter),
        "mappingDataVersion": version(0),
        "topicConfigTable": {t["topicName"]: t for t in topics},
        "topicQueueMappingDetailMap": {},
        "topicQueueMappingInfoMap": {},
    }
    return json.dumps({"filterServerList": [], "topicConfigSerializeWrapper": wrapper}).encode()


def compressed_body(topics: Iterable[dict[str, Any]], counter: int) -> bytes:
    """The same with ``compressed=true`` (``RegisterBrokerBody``)."""
    lines = [
        f"{t['topicName']} {t['readQueueNums']} {t['writeQueueNums']} {t['perm']} SINGLE_TAG {{}}"
        for t in topics
    ]
    parts = [_block(json.dumps(version(counter)).encode()), struct.pack(">i", len(lines))]
    parts += [_block(line.encode()) for line in lines]
    parts += [_block(b"[]"), struct.pack(">i", 0)]
    return zlib.compress(b"".join(parts), 9)


def _block(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


class FakeBroker:
    """One address of a broker name, with its lasting connection to a name server."""

    def __init__(self, namesrv: str, broker_id: int, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.identity = {
            "brokerName": NAME,
            "brokerAddr": self.address,
            "clusterName": CLUSTER,
            "brokerId": broker_id,
        }
        self.notices: list[tuple[int, dict[str, str]]] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.remote = Remote(namesrv)

    def register(self, body: bytes, **ext: object) -> Answer:
        """REGISTER_BROKER; ``ext`` adds to the usual fields or replaces them."""
        fields = {
            **self.identity,
            "haServerAddr": f"{self.address}1",
            "compressed": "false",
            "bodyCrc32": zlib.crc32(body) & 0x7FFFFFFF,
            **ext,
        }
        return self.remote.call(103, fields, body)

    def ask_version(self, counter: int) -> Answer:
        """QUERY_DATA_VERSION."""
        return self.remote.call(322, self.identity, json.dumps(version(counter)).encode())

    def unregister(self) -> Answer:
        return self.remote.call(104, self.identity)

    def heartbeat(self) -> None:
        """BROKER_HEARTBEAT, which Java sends one-way."""
        self.remote.send(904, self.identity, one_way=True)

    def close(self) -> None:
        self.remote.close()
        self._listener.shutdown(socket.SHUT_RDWR)  # lets go who accepts, or the port stays taken
        self._listener.close()

    def _listen(self) -> None:
        """Take what name servers say: each connection is read until its end."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while len(prefix := stream.read(8)) == 8:
                length, word = struct.unpack(">II", prefix)
                header = json.loads(stream.read(word & 0xFFFFFF))
                stream.read(length - 4 - (word & 0xFFFFFF))
                self.notices.append((header["code"], header.get("extFields") or {}))
