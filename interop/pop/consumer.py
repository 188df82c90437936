"""A consumer in pop mode over plain remoting requests: pop, acknowledge, change invisible times."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

from interop.remoting import Remote

from firearrow.codec.properties import parse_properties
from firearrow.codec.record import Record, decode_record, split_records
from firearrow.model import names

POP, ACK, CHANGE, BATCH_ACK = 200050, 200051, 200053, 200151
POLLING_TIMEOUT = 210


@dataclass(slots=True)
class Popped:
    """A message and its receipt handle."""

    record: Record
    handle: str
    at: float  # monotonic seconds, when it was asked for

    @property
    def text(self) -> str:
        return self.record.body.decode()


class Consumer:
    """One group's consumer of one topic."""

    def __init__(self, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group

    def send(self, remote: Remote, texts: Iterable[str]) -> None:
        for text in texts:
            fields = {
                "a": "producers",
                "b": self.topic,
                "c": "TBW102",
                "d": 4,
                "e": 0,
                "f": 0,
                "g": int(time.time() * 1000),
                "h": 0,
                "i": "",
                "j": 0,
                "k": "false",
            }
            remote.ask(310, fields, text.encode())

    def pop(
        self, remote: Remote, invisible_ms: int, *, order: bool = False, count: int = 32
    ) -> list[Popped]:
        """What there is now."""
        started = time.monotonic()
        fields = {
            "consumerGroup": self.group,
            "topic": self.topic,
            "queueId": 0,
            "maxMsgNums": count,
            "invisibleTime": invisible_ms,
            "pollTime": 0,
            "bornTime": int(time.time() * 1000),
            "initMode": 0,
            "order": str(order).lower(),
        }
        answer = remote.call(POP, fields)
        if answer.code == POLLING_TIMEOUT:
            return []
        assert answer.code == 0, answer
        starts = dict(_entry(entry) for entry in answer.ext["startOffsetInfo"].split(";"))
        found = []
        for data in split_records(answer.body):
            record = decode_record(data)
            handle = parse_properties(record.properties).get("POP_CK") or (
                f"{starts['0', '0']} {answer.ext['popTime']} {answer.ext['invisibleTime']} "
                f"{answer.ext['reviveQid']} 0 broker-a 0 {record.queue_offset}"
            )
            found.append(Popped(record, handle, started))
        return found

    def ack(self, remote: Remote, message: Popped) -> None:
        remote.ask(ACK, self._fields(message))

    def ack_together(self, remote: Remote, messages: list[Popped]) -> None:
        """In one request; all of one check point."""
        start, popped, invisible, revive, flag, broker, queue_id, _ = messages[0].handle.split(" ")
        bits = sum(1 << (message.record.queue_offset - int(start)) for message in messages)
        part = {
            "b": base64.b64encode(bits.to_bytes(8, "little")).decode(),
            "c": self.group,
            "it": int(invisible),
            "pt": int(popped),
            "q": int(queue_id),
            "r": flag,
            "rq": int(revive),
            "so": int(start),
            "t": self.topic,
        }
        body = {"acks": [part], "brokerName": broker}
        remote.ask(BATCH_ACK, body=json.dumps(body).encode())

    def change(self, remote: Remote, message: Popped, invisible_ms: int) -> None:
        """Its handle becomes the new one."""
        ext = remote.ask(CHANGE, self._fields(message) | {"invisibleTime": invisible_ms}).ext
        fields = message.handle.split(" ")
        fields[:4] = [fields[7], ext["popTime"], ext["invisibleTime"], ext["reviveQid"]]
        message.handle = " ".join(fields)

    def _fields(self, message: Popped) -> dict[str, object]:
        flag = message.handle.split(" ")[4]
        topic = self.topic
        if flag != "0":
            topic = names.pop_retry_topic(self.group, topic, v2=flag == "2")
        return {
            "consumerGroup": self.group,
            "topic": topic,
            "queueId": message.handle.split(" ")[6],
            "extraInfo": message.handle,
            "offset": message.record.queue_offset,
        }


def _entry(text: str) -> tuple[tuple[str, str], str]:
    flag, queue_id, value = text.split(" ")
    return (flag, queue_id), value
