"""Scenarios of RocketMQ 5's Python client; runs in an interpreter of its own, prints one JSON line
a scenario. Arguments: ENDPOINT RUN CLIENT."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from interop.grpc_python.world import (
    PATIENCE_S,
    World,
    check,
    expect,
    nothing,
    numbered,
    receive,
)
from rocketmq import TransactionChecker, TransactionResolution  # type: ignore[import-not-found]
from rocketmq.grpc_protocol import FilterType  # type: ignore[import-not-found]

CLIENT = sys.argv[3]
INVISIBLE_S = 15


def normal(world: World) -> str:
    message = world.message(b"hello", tag="red", keys="k1")
    message.add_property("mine", "1")
    receipt = world.producer().send(message)
    (got,) = receive(world.simple(), 1)
    check((got.body, got.tag, got.keys), (b"hello", "red", {"k1"}))
    check(got.properties, {"mine": "1"})
    check((got.message_id, got.delivery_attempt), (receipt.message_id, 1))
    return ""


def fifo(world: World) -> str:
    producer = world.producer()
    for body in numbered(20):
        producer.send(world.message(body, message_group="one"))
    check([m.body for m in receive(world.simple(), 20)], numbered(20))
    return ""


def delayed(world: World) -> str:
    inbox = world.push()
    due = int(time.time()) + 4
    world.producer().send(world.message(b"later", delivery_timestamp=due))
    inbox.get(timeout=PATIENCE_S)
    late = time.time() - due
    check(late >= 0, True)
    return f"{late * 1000:.0f} ms after its time"


def priority(world: World) -> str:
    producer = world.producer()
    for number in (1, 3, 0, 2):
        producer.send(world.message(b"%d" % number, priority=number))
    consumer = world.simple()
    bodies = [receive(consumer, 1, batch=1)[0].body for _ in range(4)]
    check(bodies, [b"3", b"2", b"1", b"0"])
    return ""


def recall(world: World) -> str:
    producer, inbox = world.producer(), world.push()
    due = int(time.time()) + 6
    receipt = producer.send(world.message(b"taken back", delivery_timestamp=due))
    producer.send(world.message(b"kept", delivery_timestamp=due))
    check(producer.recall_message(world.topic, receipt.recall_handle), receipt.message_id)
    check(inbox.get(timeout=PATIENCE_S).body, b"kept")
    nothing(inbox, 1)
    return ""


class Judge(TransactionChecker):  # type: ignore[misc]
    """Orphans that begin with "kept" are committed."""

    def check(self, message: Any) -> Any:
        kept = message.body.startswith(b"kept")
        return TransactionResolution.COMMIT if kept else TransactionResolution.ROLLBACK


def transaction(world: World) -> str:
    producer, inbox = world.producer(Judge()), world.push()
    ends = {}
    for body in (b"kept", b"gone"):
        ends[body] = producer.begin_transaction()
        producer.send(world.message(body), ends[body])
    nothing(inbox, 1)
    ends[b"kept"].commit()
    ends[b"gone"].rollback()
    check(inbox.get(timeout=PATIENCE_S).body, b"kept")
    nothing(inbox, 1)
    return ""


def orphan(world: World) -> str:
    producer, inbox = world.producer(Judge()), world.push()
    for body in (b"gone", b"kept"):
        producer.send(world.message(body), producer.begin_transaction())
    check(inbox.get(timeout=PATIENCE_S).body, b"kept")
    nothing(inbox, 1)
    return ""


def simple(world: World) -> str:
    producer = world.producer()
    for body in numbered(50):
        producer.send(world.message(body))
    check({m.body for m in receive(world.simple(), 50)}, set(numbered(50)))
    return ""


def invisible(world: World) -> str:
    world.producer().send(world.message(b"again"))
    consumer = world.simple()
    (first,) = receive(consumer, 1, ack=False, invisible_s=30)
    started = time.monotonic()
    consumer.change_invisible_duration(first, 10)
    (second,) = receive(consumer, 1)
    seconds = time.monotonic() - started
    check((second.message_id, second.delivery_attempt), (first.message_id, 2))
    check(9 <= seconds <= 20, True)
    return f"back after {seconds:.0f} s"


def stale(world: World) -> str:
    world.producer().send(world.message(b"slow"))
    consumer = world.simple()
    (got,) = receive(consumer, 1, ack=False, invisible_s=10)
    time.sleep(11)
    refusal = expect(40013, lambda: consumer.ack(got))  # INVALID_RECEIPT_HANDLE
    receive(consumer, 1)
    return refusal


def push(world: World) -> str:
    inbox, producer = world.push(), world.producer()
    for body in numbered(100):
        producer.send(world.message(body))
    check(sorted(inbox.get(timeout=PATIENCE_S).body for _ in range(100)), sorted(numbered(100)))
    nothing(inbox, 0.5)
    return ""


def push_in_order(world: World) -> str:
    left = [2]

    def judge(message: Any) -> bool:
        if message.body == b"3" and left[0]:
            left[0] -= 1
            return False
        return True

    inbox, producer = world.push(judge), world.producer()
    for body in numbered(8):
        producer.send(world.message(body, message_group="one"))
    order = b""
    while not order.endswith(b"7"):
        order += inbox.get(timeout=PATIENCE_S).body
    check(order, b"0123334567")
    return ""


def push_retry(world: World) -> str:
    inbox = world.push(lambda message: bool(message.delivery_attempt >= 3))
    world.producer().send(world.message(b"stubborn"))
    check([inbox.get(timeout=PATIENCE_S).delivery_attempt for _ in range(3)], [1, 2, 3])
    return ""


def _dies(world: World, **fields: Any) -> str:
    inbox = world.push(lambda message: bool(message.body != b"poison"))
    producer = world.producer()
    sent = producer.send(world.message(b"poison", **fields))
    for _ in range(3):
        check(inbox.get(timeout=PATIENCE_S).body, b"poison")
    (dead,) = receive(world.simple(topic=f"%DLQ%{world.group}"), 1)
    check(dead.body, b"poison")
    producer.send(world.message(b"next", **fields))
    check(inbox.get(timeout=PATIENCE_S).body, b"next")
    check(dead.message_id, sent.message_id)
    return ""


def dead_letter(world: World) -> str:
    return _dies(world)


def dead_letter_in_order(world: World) -> str:
    return _dies(world, message_group="one")


def tags(world: World) -> str:
    producer = world.producer()
    for tag in ("Aa", "BB", "C"):  # the first two have the same Java hash
        producer.send(world.message(tag.encode(), tag=tag))
    check({m.body for m in receive(world.simple("Aa || C"), 2)}, {b"Aa", b"C"})
    return ""


def sql(world: World) -> str:
    producer = world.producer()
    for body in numbered(6):
        message = world.message(body)
        message.add_property("n", body.decode())
        producer.send(message)
    consumer = world.simple("n > 1 AND n < 4", FilterType.SQL)
    check({m.body for m in receive(consumer, 2)}, {b"2", b"3"})
    return ""


def wrong_type(world: World) -> str:
    producer = world.producer()
    # The client knows from the route.
    return expect(0, lambda: producer.send(world.message(b"x", message_group="g")))


def wrong_topic(world: World) -> str:
    world.topic = "no-such-topic"
    return expect(0, lambda: world.producer().send(world.message(b"x")))


def large(world: World) -> str:
    producer, body = world.producer(), b"x" * (4 * 1024 * 1024)
    producer.send(world.message(body))
    check(len(receive(world.simple(), 1)[0].body), len(body))
    return expect(0, lambda: producer.send(world.message(body + b"x")))


def over_tls(world: World) -> str:
    world.tls = True
    inbox = world.push()
    sent = world.producer().send(world.message(b"secret"))
    check(inbox.get(timeout=PATIENCE_S).message_id, sent.message_id)
    return ""


def restart(world: World) -> str:
    """A producer, a push consumer and what a simple consumer holds outlive the server's restart."""
    producer, inbox = world.producer(), world.push()
    holder = world.simple(group=f"{world.group}-2")
    producer.send(world.message(b"before"))
    check(inbox.get(timeout=PATIENCE_S).body, b"before")
    receive(holder, 1, ack=False, invisible_s=10)
    print('{"request": "restart"}', flush=True)
    if sys.stdin.readline() != "restarted\n":
        raise NotImplementedError("--quick restarts nothing")
    started = time.monotonic()
    world.persist(lambda: producer.send(world.message(b"after")))
    check(inbox.get(timeout=PATIENCE_S).body, b"after")
    seconds = time.monotonic() - started
    check({m.body for m in receive(holder, 2)}, {b"before", b"after"})
    return f"goes on after {seconds:.1f} s"


SCENARIOS: dict[str, Callable[[World], str]] = {
    "gRPC send normal": normal,
    "gRPC send FIFO": fifo,
    "gRPC send delayed": delayed,
    "gRPC priority": priority,
    "gRPC recall": recall,
    "gRPC transaction": transaction,
    "gRPC orphaned transaction": orphan,
    "gRPC simple consumer": simple,
    "gRPC invisible time": invisible,
    "gRPC stale receipt": stale,
    "gRPC push consumer": push,
    "gRPC push in order": push_in_order,
    "gRPC push retry": push_retry,
    "gRPC dead letter": dead_letter,
    "gRPC dead letter in order": dead_letter_in_order,
    "gRPC tags": tags,
    "gRPC SQL92 filter": sql,
    "gRPC wrong type": wrong_type,
    "gRPC wrong topic": wrong_topic,
    "gRPC large body": large,
    "gRPC over TLS": over_tls,
    "gRPC server restart": restart,
}


def report(name: str) -> None:
    started = time.monotonic()
    ok, detail, skipped = True, "", False
    try:
        detail = SCENARIOS[name](World(name))
    except NotImplementedError as reason:
        ok, detail, skipped = False, str(reason), True
    except BaseException as error:
        ok, detail = False, repr(error)[:300]
    result = {"client": CLIENT, "scenario": name, "ok": ok, "detail": detail, "skipped": skipped}
    # In one piece: ``print`` writes the end of a line apart, and scenarios run side by side.
    sys.stdout.write(json.dumps({**result, "seconds": time.monotonic() - started}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    *together, last = SCENARIOS
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(report, together))
    report(last)  # nothing else may be under way while the server restarts
    os._exit(0)  # the clients' threads would go on
