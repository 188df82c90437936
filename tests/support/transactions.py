"""A producer of half messages: sends them, ends them, and is asked about them."""

from __future__ import annotations

from typing import Any

from firearrow.codec.record import Record
from tests.support.brokers import Answered, Connection, World

COMMIT, ROLLBACK, UNKNOWN = 8, 12, 0
HALF = "RMQ_SYS_TRANS_HALF_TOPIC"
OP = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
GIVEN_UP = "TRANS_CHECK_MAX_TIME_TOPIC"
PROPERTIES = "UNIQ_KEY\x01A1\x02TRAN_MSG\x01true\x02PGROUP\x01payers\x02TAGS\x01paid\x02"


def send_half(
    world: World, client: Connection, body: bytes = b"pay", more: str = "", **fields: Any
) -> Answered:
    """Send a half message that is born now."""
    sent = {
        "a": "payers",
        "b": "orders",
        "c": "TBW102",
        "d": 4,
        "e": 1,
        "f": 4,
        "g": world.clock.now_ms(),
        "h": 7,
        "i": PROPERTIES + more,
        "j": 0,
        **fields,
    }
    return client.call(310, sent, body)


def end_fields(sent: Answered, decision: int, **more: Any) -> dict[str, Any]:
    return {
        "producerGroup": "payers",
        "tranStateTableOffset": sent.ext["queueOffset"],
        "commitLogOffset": int(sent.ext["msgId"][16:], 16),
        "commitOrRollback": decision,
        "fromTransactionCheck": "false",
        "msgId": "A1",
        **more,
    }


def end(client: Connection, sent: Answered, decision: int, **more: Any) -> Answered:
    return client.call(37, end_fields(sent, decision, **more))


def answer_check(client: Connection, check: Answered, decision: int) -> int:
    """End a transaction as the answer to a check; the code."""
    fields = {
        "producerGroup": "payers",
        "tranStateTableOffset": check.ext["tranStateTableOffset"],
        "commitLogOffset": check.ext["commitLogOffset"],
        "commitOrRollback": decision,
        "fromTransactionCheck": "true",
        "msgId": check.ext["msgId"],
    }
    return client.call(37, fields).code


def arrived(client: Connection) -> list[Record]:
    return client.pull("orders", queue_id=1).records()


def bodies(client: Connection) -> list[bytes]:
    return [record.body for record in arrived(client)]


def producer(world: World, name: str = "producer-1") -> Connection:
    """A producer of the group that is online."""
    client = world.connect()
    client.heartbeat("unused", {}, client_id=name, producers=["payers"])
    client.received()
    return client


def keep_alive(world: World, seconds: float, *clients: Connection) -> list[list[Answered]]:
    """Let time pass while the clients send their heartbeats; the checks that each one got."""
    checks: list[list[Answered]] = [[] for _ in clients]
    while seconds > 0:
        step = min(seconds, 10.0)
        world.clock.advance(step)
        seconds -= step
        for number, client in enumerate(clients):
            checks[number] += [f for f in client.received() if f.code == 39]
            client.heartbeat("unused", {}, client_id=f"p{number}", producers=["payers"])
            client.received()
    return checks


def op_bodies(client: Connection) -> list[bytes]:
    return [record.body for record in client.pull(OP).records()]
