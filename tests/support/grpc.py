"""A gRPC client without sockets: the ``h2`` library's client side against a session under test."""

from __future__ import annotations

import struct
from typing import Any

import h2.config
import h2.connection
import h2.events

from firearrow.assembly import assemble_proxy
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.session import GrpcSession
from firearrow.proxy.service import SERVICE, Proxy
from tests.support.brokers import FakePeer, World

RESPONSES: dict[str, Any] = {
    "QueryRoute": rpc.QueryRouteResponse,
    "Heartbeat": rpc.HeartbeatResponse,
    "SendMessage": rpc.SendMessageResponse,
    "QueryAssignment": rpc.QueryAssignmentResponse,
    "ReceiveMessage": rpc.ReceiveMessageResponse,
    "AckMessage": rpc.AckMessageResponse,
    "ForwardMessageToDeadLetterQueue": rpc.ForwardMessageToDeadLetterQueueResponse,
    "EndTransaction": rpc.EndTransactionResponse,
    "Telemetry": rpc.TelemetryCommand,
    "NotifyClientTermination": rpc.NotifyClientTerminationResponse,
    "ChangeInvisibleDuration": rpc.ChangeInvisibleDurationResponse,
    "RecallMessage": rpc.RecallMessageResponse,
    "SyncLiteSubscription": rpc.SyncLiteSubscriptionResponse,
    "PullMessage": rpc.PullMessageResponse,
    "UpdateOffset": rpc.UpdateOffsetResponse,
    "GetOffset": rpc.GetOffsetResponse,
    "QueryOffset": rpc.QueryOffsetResponse,
}


class ClientConnection(h2.connection.H2Connection):
    """h2's client side, which goes on after a GOAWAY as gRPC clients do."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        super().__init__(config)
        self.goaways: list[tuple[int, int]] = []  # last stream, error code

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        self.goaways.append((frame.last_stream_id, frame.error_code))
        return [], []


class Stream:
    """What came back on one stream."""

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.headers: dict[str, str] = {}
        self.data = b""
        self.trailers: dict[str, str] = {}
        self.ended = False
        self.reset = False

    @property
    def grpc_status(self) -> int | None:
        text = self.trailers.get("grpc-status", self.headers.get("grpc-status"))
        return None if text is None else int(text)

    def raw_messages(self) -> list[bytes]:
        """Those that are whole."""
        messages, data = [], self.data
        while len(data) >= 5:
            _, size = struct.unpack_from(">BI", data)
            if len(data) < 5 + size:
                break
            messages.append(data[5 : 5 + size])
            data = data[5 + size :]
        return messages


class Wire:
    """One client connection to a session."""

    def __init__(
        self, session: Any, peer: FakePeer, settings: dict[Any, int] | None = None
    ) -> None:
        self.session = session
        self.peer = peer
        self.h2 = ClientConnection()
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)
        self.streams: dict[int, Stream] = {}
        self.reads = True  # gives the server's windows back
        self.unread = 0  # bytes of one stream
        self.exchange()

    def exchange(self) -> None:
        """Let bytes go both ways until there are none."""
        while True:
            out = self.h2.data_to_send()
            back = self.session.receive(out) if out else b""
            back += bytes(self.peer.written)
            self.peer.written.clear()
            if not back:
                return
            for event in self.h2.receive_data(back):
                self._note(event)

    def _note(self, event: Any) -> None:
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = dict(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, h2.events.DataReceived):
            stream.data += event.data or b""
            self.unread += event.flow_controlled_length or 0
            if self.reads:
                self.h2.acknowledge_received_data(self.unread, stream.stream_id)
                self.unread = 0
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = dict(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = True

    def open(self, path: str, metadata: dict[str, str] | None = None) -> Stream:
        stream = Stream(self.h2.get_next_available_stream_id())
        self.streams[stream.stream_id] = stream
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":authority": "test",
            ":path": path,
            "content-type": "application/grpc",
            "te": "trailers",
            **(metadata or {}),
        }
        self.h2.send_headers(stream.stream_id, list(headers.items()))
        self.exchange()
        return stream

    def write(self, stream: Stream, message: bytes, *, end: bool = False) -> None:
        data = struct.pack(">BI", 0, len(message)) + message
        self.write_raw(stream, data, end=end)

    def write_raw(self, stream: Stream, data: bytes, *, end: bool = False) -> None:
        while True:
            room = min(
                self.h2.local_flow_control_window(stream.stream_id),
                self.h2.max_outbound_frame_size,
            )
            chunk, data = data[:room], data[room:]
            self.h2.send_data(stream.stream_id, chunk, end_stream=end and not data)
            self.exchange()
            if not data:
                return


class GrpcWorld:
    """A broker, a proxy, and clients of it."""

    def __init__(self, world: World, proxy: Proxy | None = None) -> None:
        self.world = world
        self.proxy = proxy or assemble_proxy(world.settings, world.broker, world.clock)
        self.methods = self.proxy.methods()
        self.proxy.start()
        self._ports = iter(range(50000, 60000))

    def connect(self, client_id: str = "client-1") -> Client:
        return Client(self, client_id)

    def wire(self, settings: dict[Any, int] | None = None) -> Wire:
        peer = FakePeer(next(self._ports))
        session = GrpcSession(peer, self.methods, self.world.clock)
        return Wire(session, peer, settings)

    def create_topic(self, name: str, kind: str = "NORMAL", queues: int = 1) -> None:
        self.create_topic_on(self.world, name, kind, queues)
        self.world.clock.advance()  # the name servers hear of it

    @staticmethod
    def create_topic_on(world: World, name: str, kind: str, queues: int) -> None:
        fields = {
            "topic": name,
            "defaultTopic": "TBW102",
            "readQueueNums": queues,
            "writeQueueNums": queues,
            "perm": 6,
            "topicFilterType": "SINGLE_TAG",
            "attributes": f"+message.type={kind}",
        }
        assert world.connect().call(17, fields).code == 0


class Client:
    """A client of the service, with an id."""

    def __init__(self, world: GrpcWorld, client_id: str) -> None:
        self.world = world
        self.wire = world.wire()
        self.metadata = {"x-mq-client-id": client_id, "x-mq-client-version": "5.1.0"}

    def start(self, method: str, request: Any, *, timeout: str = "") -> Stream:
        metadata = {**self.metadata, **({"grpc-timeout": timeout} if timeout else {})}
        stream = self.wire.open(SERVICE + method, metadata)
        self.wire.write(stream, request.SerializeToString(), end=True)
        self.world.world.clock.advance(0)
        self.wire.exchange()
        return stream

    def messages(self, method: str, stream: Stream) -> list[Any]:
        self.wire.exchange()
        return [RESPONSES[method].FromString(data) for data in stream.raw_messages()]

    def call(self, method: str, request: Any, *, timeout: str = "") -> Any:
        """A unary call that is answered at once."""
        stream = self.start(method, request, timeout=timeout)
        assert stream.ended
        assert stream.grpc_status == 0, stream.trailers or stream.headers
        (response,) = self.messages(method, stream)
        return response

    def settings(self, settings: v2.Settings) -> tuple[Stream, Any]:
        """Open a Telemetry stream; the stream and the answer to the settings."""
        stream = self.wire.open(SERVICE + "Telemetry", self.metadata)
        self.wire.write(stream, rpc.TelemetryCommand(settings=settings).SerializeToString())
        self.world.world.clock.advance(0)
        return stream, self.messages("Telemetry", stream)[-1]

    def produce(self, topic: str, body: bytes = b"hello", **system: Any) -> Any:
        return self.call(
            "SendMessage", rpc.SendMessageRequest(messages=[message(topic, body, **system)])
        )

    def receive(
        self, topic: str, group: str = "group", *, polling_s: int = 5, **fields: Any
    ) -> tuple[Stream, list[v2.Message]]:
        """Start a receive; what it has delivered by now."""
        request = rpc.ReceiveMessageRequest(batch_size=32, **fields)
        request.group.name = group
        request.message_queue.topic.name = topic
        if not request.auto_renew and not request.HasField("invisible_duration"):
            request.invisible_duration.seconds = 30
        request.long_polling_timeout.seconds = polling_s
        stream = self.start("ReceiveMessage", request, timeout="20S")
        return stream, self.delivered(stream)

    def delivered(self, stream: Stream) -> list[v2.Message]:
        found = self.messages("ReceiveMessage", stream)
        return [m.message for m in found if m.WhichOneof("content") == "message"]

    def status_of(self, stream: Stream) -> Any:
        """The status of a receive that has ended."""
        return next(
            m.status.code
            for m in self.messages("ReceiveMessage", stream)
            if m.WhichOneof("content") == "status"
        )

    def ack(self, message: v2.Message, group: str = "group") -> Any:
        request = rpc.AckMessageRequest()
        request.group.name, request.topic.name = group, message.topic.name
        request.entries.add(
            message_id=message.system_properties.message_id,
            receipt_handle=message.system_properties.receipt_handle,
        )
        return self.call("AckMessage", request)


def message(topic: str, body: bytes = b"hello", **system: Any) -> v2.Message:
    """A message with the least that a client must set."""
    made = v2.Message(body=body)
    made.topic.name = topic
    made.system_properties.message_id = system.pop("message_id", "0102030405")
    made.system_properties.born_timestamp.seconds = 1_700_000_000
    for name, value in system.items():
        if name == "properties":
            made.user_properties.update(value)
        elif name == "keys":
            made.system_properties.keys.extend(value)
        elif name == "delivery_s":
            made.system_properties.delivery_timestamp.seconds = value
        else:
            setattr(made.system_properties, name, value)
    return made


def producer_settings(*topics: str) -> v2.Settings:
    settings = v2.Settings(client_type=v2.PRODUCER)
    settings.publishing.SetInParent()
    for topic in topics:
        settings.publishing.topics.add(name=topic)
    return settings


def consumer_settings(
    group: str, topic: str = "orders", kind: v2.ClientType.ValueType = v2.PUSH_CONSUMER
) -> v2.Settings:
    settings = v2.Settings(client_type=kind)
    settings.subscription.group.name = group
    settings.subscription.subscriptions.add().topic.name = topic
    return settings


def termination(group: str) -> rpc.NotifyClientTerminationRequest:
    request = rpc.NotifyClientTerminationRequest()
    request.group.name = group
    return request
