"""Whether a store still has what its brokers acknowledged: every message once, where it was put."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
from interop.remoting import Remote
from interop.store.load import GONE, GROUP, LATE, QUEUES, Sent, Written
from interop.store.questions import ASKER, read_queue

from firearrow.codec.batch import decode_batch
from firearrow.codec.properties import parse_properties
from firearrow.codec.record import Record
from firearrow.codec.sysflags import SYS_INNER_BATCH


def lost_or_doubled(remote: Remote, written: Written) -> list[str]:
    """What is not as it was acknowledged."""
    queues = {
        (topic, queue_id): list(unwrapped(read_queue(remote, topic, queue_id).decoded))
        for topic, count in QUEUES.items()
        for queue_id in range(count)
    }
    found = [line for where, records in queues.items() for line in _gaps(where, records)]
    expected = Counter((sent.topic, sent.queue_id) for sent in written.sent)
    for where, records in queues.items():
        if len(records) != expected[where]:
            found.append(f"{where} has {len(records)} messages, {expected[where]} were sent")
    for sent in written.sent:
        found += _difference(sent, queues[sent.topic, sent.queue_id])
    found += _offsets(remote, written)
    pull = {"topic": GONE, "queueId": 0, "queueOffset": 0, "maxMsgNums": 1, "sysFlag": 4}
    pull |= {"consumerGroup": ASKER, "subscription": "*", "suspendTimeoutMillis": 0}
    code = remote.call(11, {**pull, "commitOffset": 0, "subVersion": 0}).code
    return found if code == 17 else [*found, f"the deleted topic answers {code}"]


def unwrapped(records: list[Record]) -> Iterator[Record]:
    """Every message for itself, as consumers see them."""
    for record in records:
        if not record.sys_flag & SYS_INNER_BATCH:
            yield record
            continue
        for n, item in enumerate(decode_batch(record.body)):
            yield msgspec.structs.replace(
                record,
                queue_offset=record.queue_offset + n,
                body=item.body,
                properties=item.properties,
            )


def _gaps(where: tuple[str, int], records: list[Record]) -> Iterator[str]:
    for n, record in enumerate(records):
        if record.queue_offset != n:
            yield f"{where} has {record.queue_offset} at {n}"


def _difference(sent: Sent, records: list[Record]) -> Iterator[str]:
    where = f"{sent.topic} {sent.queue_id} {sent.queue_offset}"
    if sent.queue_offset >= len(records):
        yield f"{where} is lost"
        return
    record = records[sent.queue_offset]
    # The last 16 digits of a message id are the physical offset.
    if record.physical_offset != int(sent.message_id[-16:], 16):
        yield f"{where} lies at {record.physical_offset}, its id is {sent.message_id}"
    properties = parse_properties(record.properties)
    if record.body != sent.body or not sent.properties.items() <= properties.items():
        yield f"{where} is another message: {record.body[:40]!r}"


def late(remote: Remote, written: Written) -> Iterator[str]:
    """Which delayed messages did not come. Twice is fine: a kill forgets the progress."""
    bodies = Counter(record.body for record in read_queue(remote, LATE, 0).decoded)
    for body in written.delayed:
        if not bodies[body]:
            yield f"the delayed message {body!r} did not come"


def _offsets(remote: Remote, written: Written) -> Iterator[str]:
    for (topic, queue_id), offset in written.committed.items():
        fields = {"consumerGroup": GROUP, "topic": topic, "queueId": queue_id}
        answer = remote.call(14, fields)
        if answer.ext.get("offset") != str(offset):
            yield f"{GROUP} on {topic} {queue_id}: {answer.ext} instead of {offset}"
