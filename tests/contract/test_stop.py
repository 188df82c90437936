"""What clients see of a server that stops, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from pathlib import Path
from typing import Any

from tests.support.brokers import FakePeer
from tests.support.grpc import Stream, Wire

from firearrow.app import Server
from firearrow.config import BrokerSettings
from firearrow.model import codes
from firearrow.plan import Plan
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.remoting.command import FLAG_RESPONSE
from firearrow.protocol.remoting.headers import Header, decode_header, encode_request
from firearrow.proxy.service import SERVICE
from firearrow.transport.loop import run

HANG_S = 5.0  # a test that waits this long has failed
HEART_BEAT, PULL = 34, 11


class Client:
    """A connection to the broker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, code: int, ext: dict[str, str], body: bytes = b"") -> None:
        self._writer.write(encode_request(code, code, ext, body))

    async def answer(self) -> Header:
        """The next answer; the broker's own requests are passed over."""
        async with asyncio.timeout(HANG_S):
            while True:
                length, word = struct.unpack(">II", await self._reader.readexactly(8))
                data = await self._reader.readexactly(length - 4)
                header = decode_header(word >> 24, data[: word & 0xFFFFFF])
                if header.flag & FLAG_RESPONSE:
                    return header

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(HANG_S):
            return await self._reader.read()

    def heartbeat(self, group: str, topic: str) -> None:
        subscription = {"topic": topic, "subString": "*", "subVersion": 1}
        consumer = {
            "groupName": group,
            "consumeType": "CONSUME_PASSIVELY",
            "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
            "subscriptionDataSet": [subscription],
        }
        body = {"clientID": "client", "consumerDataSet": [consumer], "producerDataSet": []}
        self.send(HEART_BEAT, {}, json.dumps(body).encode())

    def pull(self, group: str, topic: str) -> None:
        """A pull that may wait for a message as long as it takes."""
        fields = {
            "consumerGroup": group,
            "topic": topic,
            "queueId": "0",
            "queueOffset": "0",
            "maxMsgNums": "32",
            "sysFlag": "2",
            "commitOffset": "0",
            "suspendTimeoutMillis": "20000",
            "subVersion": "1",
        }
        self.send(PULL, fields)


class SocketWire(Wire):
    """A gRPC client over a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        super().__init__(None, FakePeer(0))

    def exchange(self) -> None:
        self._writer.write(self.h2.data_to_send())

    def _call(self, method: str, request: Any) -> Stream:
        stream = self.open(SERVICE + method, {"x-mq-client-id": "client"})
        self.write(stream, request.SerializeToString(), end=True)
        return stream

    def receive(self, topic: str, group: str) -> Stream:
        request = rpc.ReceiveMessageRequest(batch_size=1)
        request.group.name, request.message_queue.topic.name = group, topic
        request.invisible_duration.seconds = request.long_polling_timeout.seconds = 20
        return self._call("ReceiveMessage", request)

    def heartbeat(self) -> Stream:
        return self._call("Heartbeat", rpc.HeartbeatRequest())

    async def answered(self, stream: Stream) -> None:
        while not stream.ended:
            assert await self._read()

    async def rest(self) -> None:
        """Read until the server closes."""
        while await self._read():
            pass

    async def _read(self) -> bytes:
        async with asyncio.timeout(HANG_S):
            data = await self._reader.read(65536)
        for event in self.h2.receive_data(data):
            self._note(event)
        self.exchange()
        return data


async def started(stack: contextlib.AsyncExitStack, store: Path) -> tuple[Server, Client]:
    """A name server and a broker on free ports, and a client of the broker."""
    plan = Plan(BrokerSettings(), str(store), namesrv_port=0, broker_port=0)
    server = Server(plan, stack)
    await server.start()
    assert server.broker is not None
    host, port = server.broker.core.address
    reader, writer = await asyncio.open_connection(host, port)
    stack.callback(writer.close)
    return server, Client(reader, writer)


def test_a_pull_that_waits_at_a_stop_is_told_to_come_later(tmp_path: Path) -> None:
    """Unanswered, the Go client would wait 30 s, and so it would when it pulled again at once,
    which all clients do after PULL_NOT_FOUND, on a connection that closes."""

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            server, client = await started(stack, tmp_path)
            assert server.broker is not None
            client.heartbeat("group", "TBW102")
            assert (await client.answer()).code == codes.SUCCESS
            client.pull("group", "TBW102")
            client.heartbeat("group", "TBW102")
            assert (await client.answer()).code == codes.SUCCESS  # so the pull was seen
            assert len(server.broker.long_poll) == 1

            await server.leave()

            assert (await client.answer()).code == codes.SYSTEM_BUSY
            assert await client.rest() == b""

    run(scenario())


def test_a_receive_that_waits_at_a_stop_is_answered(tmp_path: Path) -> None:
    """gRPC clients are told to go, get their answers, and see the connection end in order."""

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            plan = Plan(
                BrokerSettings(), str(tmp_path), namesrv_port=0, broker_port=0, proxy_port=0
            )
            server = Server(plan, stack)
            await server.start()
            host, _, port = server.describe().partition("proxy=")[2].split()[0].rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            wire = SocketWire(reader, writer)
            assert server.broker is not None
            create = {"topic": "orders", "readQueueNums": "1", "writeQueueNums": "1", "perm": "6"}
            create |= {"defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG"}
            main_host, main_port = server.broker.core.address
            client_reader, client_writer = await asyncio.open_connection(main_host, main_port)
            stack.callback(client_writer.close)
            client = Client(client_reader, client_writer)
            client.send(17, create)
            assert (await client.answer()).code == codes.SUCCESS

            receive = wire.receive("orders", "group")
            await wire.answered(wire.heartbeat())  # so the receive was seen
            assert not receive.ended
            await server.leave()
            await wire.rest()

            assert receive.grpc_status == 0
            assert len(wire.h2.goaways) == 2

    run(scenario())


def test_what_was_made_right_before_a_stop_is_saved(tmp_path: Path) -> None:
    """A save that was under way must not undo, or trip over, the one that the stop makes."""
    groups = [f"group{number}" for number in range(20)]

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            server, client = await started(stack, tmp_path)
            for group in groups:
                client.heartbeat(group, "TBW102")
                assert (await client.answer()).code == codes.SUCCESS
            await server.leave()

    run(scenario())
    saved = json.loads((tmp_path / "config" / "subscriptionGroup.json").read_bytes())
    assert set(groups) <= saved["subscriptionGroupTable"].keys()
    topics = json.loads((tmp_path / "config" / "topics.json").read_bytes())["topicConfigTable"]
    assert {f"%RETRY%{group}" for group in groups} <= topics.keys()
