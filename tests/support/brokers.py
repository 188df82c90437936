"""A whole broker in a test: the real parts over a small store, on a clock that the test moves."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from firearrow.assembly import assemble, open_broker_store
from firearrow.codec.properties import parse_properties
from firearrow.codec.record import Record, decode_record, split_records
from firearrow.config import BrokerSettings
from firearrow.model.background import InlineBackground
from firearrow.model.clock import VirtualClock
from firearrow.protocol.remoting.command import Reply
from firearrow.protocol.remoting.headers import Header, decode_header, encode_reply
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession
from firearrow.store.disk import Disk, RealDisk

ADDRESS = ("127.0.0.1", 10911)
_PREFIX = struct.Struct(">II")


class FakePeer:
    """A connection that keeps what is written to it."""

    def __init__(self, port: int) -> None:
        self.remote = ("127.0.0.1", port)
        self.local = ADDRESS
        self.closed = False
        self.close_reason = ""
        self.written = bytearray()

    def send(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def close(self, reason: str) -> None:
        self.closed = True
        self.close_reason = reason


class Answered(msgspec.Struct):
    """An answer, or a request of the broker's."""

    header: Header
    body: bytes

    @property
    def code(self) -> int:
        return self.header.code

    @property
    def ext(self) -> dict[str, str]:
        return self.header.ext or {}

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def records(self) -> list[Record]:
        return [decode_record(data) for data in split_records(self.body)]


class Serving(Protocol):
    """A server under test: a broker's ``World``, or a name server's."""

    dispatcher: Dispatcher
    clock: VirtualClock

    def session_closed(self, caller: RemotingSession) -> None: ...


class Connection:
    """A client's connection to the server under test."""

    def __init__(self, world: Serving, port: int, local: tuple[str, int] = ADDRESS) -> None:
        self.peer = FakePeer(port)
        self.peer.local = local
        self.session = RemotingSession(
            self.peer, world.dispatcher, world.clock, world.session_closed
        )
        self._opaque = 0

    def send(
        self,
        code: int,
        ext: dict[str, Any] | None = None,
        body: bytes = b"",
        *,
        version: int = 479,
        one_way: bool = False,
        language: str = "JAVA",
    ) -> int:
        """Write a request; its opaque."""
        self._opaque += 1
        header = msgspec.json.encode(
            {
                "code": code,
                "extFields": {key: str(value) for key, value in (ext or {}).items()},
                "flag": 2 if one_way else 0,
                "language": language,
                "opaque": self._opaque,
                "version": version,
            }
        )
        size = len(header)
        self.peer.written += self.session.receive(
            _PREFIX.pack(4 + size + len(body), size) + header + body
        )
        return self._opaque

    def received(self) -> list[Answered]:
        """Everything that arrived since the last look."""
        data = bytes(self.peer.written)
        self.peer.written.clear()
        frames = []
        while data:
            length, word = _PREFIX.unpack_from(data)
            end = 8 + (word & 0xFFFFFF)
            header = decode_header(word >> 24, data[8:end])
            frames.append(Answered(header, data[end : 4 + length]))
            data = data[4 + length :]
        return frames

    def call(
        self, code: int, ext: dict[str, Any] | None = None, body: bytes = b"", **more: Any
    ) -> Answered:
        """Send a request and take its answer, which must be there at once."""
        self.received()
        opaque = self.send(code, ext, body, **more)
        (answer,) = [f for f in self.received() if f.header.opaque == opaque and f.header.flag & 1]
        return answer

    def answer(self, opaque: int, body: bytes = b"") -> None:
        """Answer a request of the server's."""
        self.peer.written += self.session.receive(encode_reply(opaque, Reply(body=body)))

    def reply(self, asked: Answered, body: bytes) -> None:
        """Answer a request of the server's."""
        header = msgspec.json.encode(
            {"code": 0, "flag": 1, "language": "JAVA", "opaque": asked.header.opaque}
        )
        size = len(header)
        data = _PREFIX.pack(4 + size + len(body), size) + header + body
        self.peer.written += self.session.receive(data)

    def drop(self) -> None:
        self.peer.closed = True
        self.session.disconnected()

    # -- requests that many tests need

    def produce(
        self, topic: str, body: bytes = b"hello", queue_id: int = 0, **more: Any
    ) -> Answered:
        return self.call(310, send_fields(topic, queue_id, **more), body)

    def pull(self, topic: str, queue_id: int = 0, offset: int = 0, **more: Any) -> Answered:
        return self.call(11, pull_fields(topic, queue_id, offset, **more))

    def heartbeat(
        self,
        group: str,
        topics: dict[str, str],
        *,
        client_id: str = "client-1",
        version: int = 1,
        model: str = "CLUSTERING",
        producers: Iterable[str] = (),
    ) -> Answered:
        body = {
            "clientID": client_id,
            "producerDataSet": [{"groupName": name} for name in producers],
            "consumerDataSet": [
                {
                    "groupName": group,
                    "consumeType": "CONSUME_PASSIVELY",
                    "messageModel": model,
                    "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET",
                    "subscriptionDataSet": [
                        {"topic": topic, "subString": expression, "subVersion": version}
                        for topic, expression in topics.items()
                    ],
                }
            ],
        }
        return self.call(34, body=msgspec.json.encode(body))


def send_fields(
    topic: str,
    queue_id: int = 0,
    *,
    properties: str = "",
    queues: int = 4,
    batch: bool = False,
    reconsume_times: int = 0,
    max_reconsume_times: int | None = None,
    default_topic: str = "TBW102",
) -> dict[str, Any]:
    """Ext fields of SEND_MESSAGE_V2."""
    fields = {
        "a": "producers",
        "b": topic,
        "c": default_topic,
        "d": queues,
        "e": queue_id,
        "f": 0,
        "g": 1_700_000_000_000,
        "h": 0,
        "i": properties,
        "j": reconsume_times,
        "k": "false",
        "m": str(batch).lower(),
    }
    if max_reconsume_times is not None:
        fields["l"] = max_reconsume_times
    return fields


def pull_fields(
    topic: str,
    queue_id: int = 0,
    offset: int = 0,
    *,
    group: str = "group",
    expression: str | None = "*",
    suspend_ms: int = 0,
    count: int = 32,
    version: int = 0,
    commit: int | None = None,
) -> dict[str, Any]:
    """Ext fields of PULL_MESSAGE; ``expression=None`` relies on the heartbeat."""
    flag = (0 if expression is None else 4) | (2 if suspend_ms else 0) | (commit is not None)
    fields: dict[str, Any] = {
        "consumerGroup": group,
        "topic": topic,
        "queueId": queue_id,
        "queueOffset": offset,
        "maxMsgNums": count,
        "sysFlag": flag,
        "commitOffset": commit or 0,
        "suspendTimeoutMillis": suspend_ms,
        "subVersion": version,
    }
    if expression is not None:
        fields["subscription"] = expression
    return fields


class World:
    """The broker, its clock, its store."""

    def __init__(
        self,
        root: Path,
        settings: BrokerSettings | None = None,
        disk: Disk | None = None,
        clock: VirtualClock | None = None,
        name: str = "broker-a",
        address: tuple[str, int] = ADDRESS,
        **store_settings: Any,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.settings = settings or BrokerSettings()
        self.settings.broker_name = name
        self.background = InlineBackground()
        small = {
            "mapped_file_size_commit_log": 16 * 1024 * 1024,
            "mapped_file_size_consume_queue": 20_000,
            "max_hash_slot_num": 1000,
            "max_index_num": 4000,
            **store_settings,
        }
        for name, value in small.items():
            setattr(self.settings, name, value)
        self.store = open_broker_store(
            str(root), self.settings, disk or RealDisk(), self.clock, self.background
        )
        try:
            self.broker = assemble(self.settings, self.store, self.clock, address)
        except BaseException:
            self.store.close()
            raise
        self.core = self.broker.core
        self.dispatcher = Dispatcher(self.broker.routes())
        self._ports = itertools.cycle(range(40000, 60000))
        self.store.start()
        try:
            self.broker.start()
        except BaseException:
            self.stop()
            raise

    def connect(self) -> Connection:
        return Connection(self, next(self._ports))

    def session_closed(self, caller: RemotingSession) -> None:
        self.broker.session_closed(caller)

    def stop(self) -> None:
        self.broker.stop()
        self.store.close()


def properties_of(record: Record) -> dict[str, str]:
    return parse_properties(record.properties)
