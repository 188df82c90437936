"""Messages, offsets, topics and groups of many kinds, written over the protocol into any broker,
and a note of everything that was acknowledged."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from interop.remoting import Remote

ORDERS = "Orders"
BULK = "Bulk"  # one queue, small messages: its consume queue rolls over several files
LONG = "L" * 127
LONG_GROUP = "g" * 150
BATCHES = "Batches"  # with batch queues: a batch is one record
RETRY_LONG = "%RETRY%" + LONG_GROUP  # its length takes two bytes: the record has the second magic
GONE = "Gone"
AUTO = "MadeByASend"
LATE = "Late"  # where delayed messages come out
PAID = "Paid"  # of transactions
GROUP = "readers"
QUEUES = {ORDERS: 4, BULK: 1, AUTO: 4, LONG: 2, RETRY_LONG: 1, BATCHES: 2}
TOPICS = {**QUEUES, GONE: 2, LATE: 1, PAID: 1}
ATTRIBUTES = {ORDERS: "+message.type=NORMAL", BATCHES: "+queue.type=BatchCQ"}
# Due before the store changes hands (1 s), under the next broker (10 s), never in a test (2 h).
LEVEL_BEFORE, LEVEL_AFTER, LEVEL_NEVER = 1, 3, 18
TAGS = ["TagA", "TagB", "Aa", "BB", "polygenelubricants", "красный", "标签", ""]
WHOLE_BATCHES = 50  # in each round
_ITEM = struct.Struct(">iiiii")


@dataclass(frozen=True, slots=True)
class Sent:
    """One acknowledged message."""

    topic: str
    queue_id: int
    queue_offset: int
    message_id: str
    body: bytes
    properties: dict[str, str]


@dataclass(slots=True)
class Written:
    """Everything that a broker acknowledged, over all rounds."""

    sent: list[Sent] = field(default_factory=list)
    delayed: list[bytes] = field(default_factory=list)  # bodies that come out in LATE
    committed: dict[tuple[str, int], int] = field(default_factory=dict)  # of GROUP
    rounds: int = 0


def properties_text(properties: dict[str, str]) -> str:
    return "".join(f"{name}\x01{value}\x02" for name, value in properties.items())


def send(
    remote: Remote,
    topic: str,
    queue_id: int,
    body: bytes,
    properties: dict[str, str],
    *,
    flag: int = 0,
    sys_flag: int = 0,
    batch: bool = False,
) -> dict[str, str]:
    """SEND_MESSAGE_V2 or SEND_BATCH_MESSAGE; the answer's ext fields."""
    fields = {
        "a": "writers",
        "b": topic,
        "c": "TBW102",
        "d": 4,
        "e": queue_id,
        "f": sys_flag,
        "g": round(time.time() * 1000),
        "h": flag,
        "i": properties_text(properties),
        "j": 0,
        "k": "false",
        "m": str(batch).lower(),
    }
    return dict(remote.ask(320 if batch else 310, fields, body).ext)


def item(body: bytes, properties: dict[str, str]) -> bytes:
    """One message of a batch."""
    text = properties_text(properties).encode()
    size = _ITEM.size + len(body) + 2 + len(text)
    return _ITEM.pack(size, 0, 0, 5, len(body)) + body + len(text).to_bytes(2) + text


def create_topics(remote: Remote) -> None:
    for topic, queues in TOPICS.items():
        if topic == AUTO:
            continue
        fields = {
            "topic": topic,
            "defaultTopic": "TBW102",
            "readQueueNums": queues,
            "writeQueueNums": queues,
            "perm": 6,
            "topicFilterType": "SINGLE_TAG",
            "topicSysFlag": 0,
            "order": "false",
            "attributes": ATTRIBUTES.get(topic, ""),
        }
        remote.ask(17, fields)


def create_group(remote: Remote, name: str, retries: int) -> None:
    config = {
        "groupName": name,
        "consumeBroadcastEnable": False,
        "retryMaxTimes": retries,
        "retryQueueNums": 2,
        "brokerId": 0,
        "whichBrokerWhenConsumeSlowly": 1,
        "groupRetryPolicy": {
            "type": "EXPONENTIAL",
            "exponentialRetryPolicy": {"initial": 2000, "max": 60000, "multiplier": 3},
        },
        "attributes": {},
    }
    remote.ask(200, body=json.dumps(config).encode())


def seed(store: Path) -> None:
    """A group with a name that no broker creates today, as an old store may have it."""
    config = store / "config"
    config.mkdir(parents=True)
    table = {"subscriptionGroupTable": {LONG_GROUP: {"groupName": LONG_GROUP}}}
    (config / "subscriptionGroup.json").write_text(json.dumps(table))


class Load:
    """Writes rounds into whichever broker has the store just now."""

    def __init__(self, messages: int) -> None:
        self._messages = messages  # in each round
        self.written = Written()

    def write(self, remote: Remote) -> None:
        """One round."""
        number = self.written.rounds
        if number == 0:
            create_topics(remote)
            create_group(remote, GROUP, 3)
        create_group(remote, f"group-of-round-{number}", number + 1)
        for n in range(self._messages):
            self._one(remote, number, n)
        self._batches(remote, number)
        self._whole_batches(remote, number)
        self._delayed(remote, number)
        self._gone(remote, number)
        self._commit(remote, number)
        self.written.rounds += 1

    def _one(self, remote: Remote, number: int, n: int) -> None:
        body = f"round {number}, message {n}: ".encode() + bytes(range(256)) * (n % 7)
        unique = f"7F000001{number:08X}{n:016X}"
        properties = {"UNIQ_KEY": unique, "KEYS": f"key{n % 50} other-{number}-{n}"}
        if TAGS[n % len(TAGS)]:
            properties["TAGS"] = TAGS[n % len(TAGS)]
        if n % 5 == 0:
            properties["colour"] = "żółty 🚀"
        if n % 11 == 0:
            properties["WAIT"] = "false"
        topic = [ORDERS, BULK, BULK, AUTO, LONG, RETRY_LONG][n % 6]
        queue_id = n // 6 % QUEUES[topic]
        if topic == BULK:
            body = body[:40]
        self._send(remote, topic, queue_id, body, properties, flag=n % 3, sys_flag=n % 2)

    def _send(
        self,
        remote: Remote,
        topic: str,
        queue_id: int,
        body: bytes,
        properties: dict[str, str],
        *,
        flag: int = 0,
        sys_flag: int = 0,
    ) -> None:
        ext = send(remote, topic, queue_id, body, properties, flag=flag, sys_flag=sys_flag)
        where = topic, int(ext["queueId"]), int(ext["queueOffset"])
        self.written.sent.append(Sent(*where, ext["msgId"], body, properties))

    def _batches(self, remote: Remote, number: int) -> None:
        for n in range(3):
            messages = []
            for m in range(20):
                properties = {"UNIQ_KEY": f"7F0000FF{number:08X}{n:08X}{m:08X}", "TAGS": "Batch"}
                messages.append((f"round {number}, batch {n}, message {m}".encode(), properties))
            body = b"".join(item(*message) for message in messages)
            ext = send(remote, ORDERS, n, body, {}, batch=True)
            ids = ext["msgId"].split(",")
            for m, (content, properties) in enumerate(messages):
                where = ORDERS, int(ext["queueId"]), int(ext["queueOffset"]) + m
                self.written.sent.append(Sent(*where, ids[m], content, properties))

    def _whole_batches(self, remote: Remote, number: int) -> None:
        """Batches that stay whole, of every size, and single messages among them."""
        for n in range(WHOLE_BATCHES):
            # Of records with one time, Java's search finds the last; of ours, the first.
            time.sleep(0.003)
            unique = f"7F0000EE{number:08X}{n:016X}"
            if n % 5 == 4:
                body = f"round {number}, alone {n}".encode()
                self._send(remote, BATCHES, n % 2, body, {"UNIQ_KEY": unique, "TAGS": "Alone"})
                continue
            messages = []
            for m in range(1 + n % 7):
                properties = {"UNIQ_KEY": f"7F0000EF{number:08X}{n:08X}{m:08X}"}
                messages.append((f"round {number}, whole {n}, message {m}".encode(), properties))
            envelope = {"UNIQ_KEY": unique, "TAGS": TAGS[n % 3], "KEYS": f"whole{n}"}
            body = b"".join(item(*message) for message in messages)
            ext = send(remote, BATCHES, n % 2, body, envelope, batch=True)
            for m, (content, properties) in enumerate(messages):
                where = BATCHES, int(ext["queueId"]), int(ext["queueOffset"]) + m
                self.written.sent.append(Sent(*where, ext["msgId"], content, properties))

    def _delayed(self, remote: Remote, number: int) -> None:
        for level in (LEVEL_BEFORE, LEVEL_AFTER, LEVEL_NEVER):
            for n in range(3):
                body = f"round {number}, level {level}, message {n}".encode()
                unique = f"7F0000DD{number:08X}{level:08X}{n:08X}"
                properties = {"UNIQ_KEY": unique, "DELAY": str(level), "TAGS": "Late"}
                send(remote, LATE, 0, body, properties)
                if level != LEVEL_NEVER:
                    self.written.delayed.append(body)

    def _gone(self, remote: Remote, number: int) -> None:
        """Messages of a topic that is deleted afterwards."""
        if number == 0:
            for n in range(5):
                send(remote, GONE, n % 2, b"nobody wants me", {"UNIQ_KEY": f"{n:032X}"})
            remote.ask(215, {"topic": GONE})

    def _commit(self, remote: Remote, number: int) -> None:
        for queue_id in range(4):
            offset = 3 * number + queue_id
            fields = {"consumerGroup": GROUP, "topic": ORDERS, "queueId": queue_id}
            remote.ask(15, {**fields, "commitOffset": offset})
            self.written.committed[ORDERS, queue_id] = offset
