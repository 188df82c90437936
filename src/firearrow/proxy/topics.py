"""What gRPC clients learn of topics: routes, assignments, message types (``RouteActivity``)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from firearrow.model.topic import Topic
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.proxy.backend import BrokerTopic

TYPE_ATTRIBUTE: Final = "message.type"
# ``message.type`` -> the types that a topic takes.
ACCEPTED: Final = {
    "NORMAL": (v2.NORMAL,),
    "FIFO": (v2.FIFO,),
    "DELAY": (v2.DELAY,),
    "TRANSACTION": (v2.TRANSACTION,),
    "PRIORITY": (v2.PRIORITY,),
    "LITE": (v2.LITE,),
    "MIXED": (v2.NORMAL, v2.FIFO, v2.DELAY, v2.TRANSACTION),
}
EVERY_QUEUE: Final = -1


def accepted_types(topic: Topic) -> tuple[v2.MessageType.ValueType, ...]:
    """What may be sent to the topic; a topic that does not say takes normal messages, as one of a
    type that is not known."""
    return ACCEPTED.get(topic.attributes.get(TYPE_ATTRIBUTE, "NORMAL"), ACCEPTED["NORMAL"])


def type_name(topic: Topic) -> str:
    return topic.attributes.get(TYPE_ATTRIBUTE, "NORMAL")


def queues(
    place: BrokerTopic, resource: v2.Resource, endpoints: v2.Endpoints
) -> Iterator[v2.MessageQueue]:
    """A topic's queues on one broker: those to read only, to write only, then the others."""
    topic = place.topic
    reads = topic.read_queues if topic.readable else 0
    writes = topic.write_queues if topic.writable else 0
    both = min(reads, writes)
    blocks = [(v2.READ, reads - both), (v2.WRITE, writes - both), (v2.READ_WRITE, both)]
    if not reads and not writes:
        blocks = [(v2.NONE, max(1, topic.read_queues, topic.write_queues))]
    number = 0
    for permission, count in blocks:
        for _ in range(count):
            queue = message_queue(place, resource, endpoints, number, permission)
            queue.accept_message_types.extend(accepted_types(topic))
            yield queue
            number += 1


def assignments(
    place: BrokerTopic, resource: v2.Resource, endpoints: v2.Endpoints, *, fifo: bool
) -> Iterator[v2.Assignment]:
    """What a consumer receives from on one broker: all queues at once, or each in order."""
    topic = place.topic
    if not topic.readable or topic.read_queues <= 0:
        return
    permission = v2.READ_WRITE if topic.writable else v2.READ
    for number in range(topic.read_queues) if fifo else (EVERY_QUEUE,):
        yield v2.Assignment(
            message_queue=message_queue(place, resource, endpoints, number, permission)
        )


def message_queue(
    place: BrokerTopic,
    resource: v2.Resource,
    endpoints: v2.Endpoints,
    number: int,
    permission: v2.Permission.ValueType,
) -> v2.MessageQueue:
    broker = v2.Broker(name=place.broker_name, id=place.broker_id, endpoints=endpoints)
    return v2.MessageQueue(topic=resource, id=number, permission=permission, broker=broker)


def endpoints_for(asked: v2.Endpoints, local: tuple[str, int]) -> v2.Endpoints:
    """Where clients of this access point go on: the address that they used."""
    if asked.addresses and asked.scheme != v2.ADDRESS_SCHEME_UNSPECIFIED:
        return asked
    made = v2.Endpoints(scheme=_scheme(local[0]))
    made.addresses.add(host=local[0], port=local[1])
    return made


def _scheme(host: str) -> v2.AddressScheme.ValueType:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return v2.DOMAIN_NAME
    return v2.IPv6 if version == 6 else v2.IPv4
