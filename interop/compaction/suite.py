"""A store with a compaction topic in turn under the Java broker and under Firearrow: whoever opens
it gives the messages as the one before did, goes on compacting, and loses no key's newest value.
The same with batch queues, where a batch is one value."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from interop.java.jars import fetch_jars, missing_tools
from interop.program import run_alone
from interop.remoting import Remote
from interop.results import Report, Result, Server
from interop.servers import JAVA_VERSION, FirearrowServer, JavaServer
from interop.store.load import item, send
from interop.store.questions import ASKER, await_dispatch

from firearrow.codec.properties import parse_properties
from firearrow.codec.record import PHYSICAL_OFFSET_AT, decode_record, split_records

ROW = "compaction topics"
BATCH_ROW = "compaction topics with batch queues"
TOPIC = "Prices"
QUEUES = 2
KEYS = 40
MESSAGES = 600  # in each round
PORTS = (12871, 12971)  # Java's and ours
COMPACTED_SECONDS_MAX = 40
SETTINGS = {
    "brokerName": "broker-a",
    "mappedFileSizeCommitLog": 16 * 1024 * 1024,
    "mappedFileSizeConsumeQueue": 1000 * 20,
    "compactionCqMappedFileSize": 50 * 46,
    "compactionMappedFileSize": 40_000,
    "compactionScheduleInternal": 2000,
}

Records = dict[tuple[int, int], bytes]  # (queue, offset) -> record


def clients() -> list[str]:
    return [ROW, BATCH_ROW]


def unavailable() -> str | None:
    return missing_tools()


def prepare() -> None:
    fetch_jars(JAVA_VERSION, "rocketmq-namesrv", "rocketmq-broker")


def create_topic(remote: Remote, *, batches: bool) -> None:
    fields = {
        "topic": TOPIC,
        "defaultTopic": "TBW102",
        "readQueueNums": QUEUES,
        "writeQueueNums": QUEUES,
        "perm": 6,
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": 0,
        "order": "false",
        "attributes": "+cleanup.policy=COMPACTION" + (",+queue.type=BatchCQ" if batches else ""),
    }
    remote.ask(17, fields)


def read_queue(remote: Remote, queue_id: int) -> Records:
    """Everything that a consumer from the beginning gets."""
    found: Records = {}
    end = int(remote.ask(30, {"topic": TOPIC, "queueId": queue_id}).ext["offset"])
    offset = 0
    while offset < end:
        fields = {
            "consumerGroup": ASKER,
            "topic": TOPIC,
            "queueId": queue_id,
            "queueOffset": offset,
            "maxMsgNums": 32,
            "sysFlag": 4,
            "commitOffset": 0,
            "suspendTimeoutMillis": 0,
            "subscription": "*",
            "subVersion": 0,
        }
        answer = remote.call(11, fields)
        if answer.remark == "OFFSET_OVERFLOW_ONE":
            break  # Java counts the last batch as one message
        if answer.code not in (0, 20):
            raise RuntimeError(f"pull of {queue_id} at {offset}: {answer.code} {answer.remark}")
        for data in split_records(answer.body):
            record = decode_record(data, check_crc=True)
            if record.queue_offset < offset:
                raise RuntimeError(f"{queue_id} has {record.queue_offset} behind {offset}")
            found[queue_id, record.queue_offset] = data
        following = int(answer.ext["nextBeginOffset"])
        if following <= offset:
            raise RuntimeError(f"pull of {queue_id} stays at {offset}: {answer.remark}")
        offset = following
    return found


def read_all(remote: Remote) -> Records:
    await_dispatch(remote)
    return {
        where: record
        for queue_id in range(QUEUES)
        for where, record in read_queue(remote, queue_id).items()
    }


class Chain:
    """One store and what was acknowledged."""

    def __init__(self, root: Path, report: Report, *, batches: bool) -> None:
        self._row = BATCH_ROW if batches else ROW
        self._batches = batches
        self._store = root / "store"
        self._report = report
        self._newest: dict[tuple[int, str], tuple[int, bytes]] = {}  # (queue, key) -> offset, body
        self._sent = 0
        self._truth: Records = {}
        self._started = time.monotonic()

    def java(self) -> JavaServer:
        return JavaServer(0, PORTS[0], settings=SETTINGS, store=self._store)

    def ours(self) -> FirearrowServer:
        return FirearrowServer(0, PORTS[1], settings=SETTINGS, store=self._store)

    def write(self, remote: Remote, *, by_java: bool) -> None:
        """A round: values that grow in number, and here and there a key that is taken away, which
        a Java broker refuses (no body)."""
        for n in range(MESSAGES):
            queue_id, key = n % QUEUES, f"key-{(n * n + self._sent) % KEYS}"
            body = (
                b"" if n % 97 == 0 and not by_java else b"value %d " % self._sent + bytes(n % 100)
            )
            self._send(remote, queue_id, key, body)

    def _send(self, remote: Remote, queue_id: int, key: str, body: bytes) -> None:
        """One value; every third one is a batch, if the topic may have some."""
        unique = f"7F000001{self._sent:024X}"
        batch = self._batches and self._sent % 3 == 2 and bool(body)
        if batch:
            key += " together"
            bodies = [b"%d of " % n + body for n in range(1 + self._sent % 4)]
            body = b"".join(
                item(body, {"UNIQ_KEY": f"{unique}{n}"}) for n, body in enumerate(bodies)
            )
        properties = {"UNIQ_KEY": unique, "KEYS": key, "TAGS": "t"}
        ext = send(remote, TOPIC, queue_id, body, properties, batch=batch)
        self._newest[queue_id, key] = int(ext["queueOffset"]), body
        self._sent += 1

    def compacted(self, remote: Remote) -> list[str]:
        """Wait until values are gone that were there; what is read then is the truth."""
        before = len(self._truth) + MESSAGES
        deadline = time.monotonic() + COMPACTED_SECONDS_MAX
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = read_all(remote)
            if len(now) < before - MESSAGES // 3:
                break
        else:
            raise TimeoutError(f"nothing is compacted: {before} messages, then {len(now)}")
        time.sleep(6)  # the other queue, too
        self._truth = read_all(remote)
        return self.nothing_lost(remote)

    def check(self, scenario: str, find: Callable[[], list[str]]) -> None:
        """Report a scenario: it is fine when nothing is found."""
        try:
            found = find()
        except Exception as error:
            found = [repr(error)]
        seconds, self._started = time.monotonic() - self._started, time.monotonic()
        self._report(Result(self._row, scenario, not found, seconds, " | ".join(found[:5])))

    def same(self, remote: Remote) -> list[str]:
        """What is read otherwise than under the broker before. A record that is not yet copied
        tells its position in the commit log, so that is left out."""
        now, before = (
            {w: _placeless(r) for w, r in t.items()} for t in (read_all(remote), self._truth)
        )
        found = [f"{where} is gone" for where in sorted(before.keys() - now.keys())]
        found += [f"{where} is there again" for where in sorted(now.keys() - before.keys())]
        return found + [f"{w} is another" for w in sorted(now) if now[w] != before.get(w, now[w])]

    def nothing_lost(self, remote: Remote) -> list[str]:
        """Of every key the newest value is there, and it is the newest."""
        found, newest = [], {}
        for (queue_id, offset), data in sorted(read_all(remote).items()):
            record = decode_record(data)
            newest[queue_id, parse_properties(record.properties)["KEYS"]] = offset, record.body
        for where, value in self._newest.items():
            if value[1] and newest.get(where) != value:
                found.append(f"{where} is {newest.get(where)}, not {value}")
        return found

    def both(self, remote: Remote) -> list[str]:
        return self.same(remote) + self.nothing_lost(remote)

    def run(self) -> None:
        with self.java() as java, Remote(java.broker) as remote:
            create_topic(remote, batches=self._batches)
            self.write(remote, by_java=True)
            self.check("Java compacts", lambda: self.compacted(remote))
        with self.ours() as ours, Remote(ours.broker) as remote:
            self.check("Java stops, we open", lambda: self.both(remote))
            self.write(remote, by_java=False)
            self.check("we compact", lambda: self.compacted(remote))
        with self.java() as java, Remote(java.broker) as remote:
            self.check("we stop, Java opens", lambda: self.both(remote))
            self.write(remote, by_java=True)
            self.check("Java compacts ours", lambda: self.compacted(remote))
            self.write(remote, by_java=True)
            await_dispatch(remote)
            java.kill()
        with self.ours() as ours, Remote(ours.broker) as remote:
            self.check("Java is killed, we open", lambda: self.nothing_lost(remote))
            self.write(remote, by_java=False)
            ours.kill()
        with self.java() as java, Remote(java.broker) as remote:
            self.check("we are killed, Java opens", lambda: self.nothing_lost(remote))
            self.write(remote, by_java=True)
        with self.ours() as ours, Remote(ours.broker) as remote:
            self.check("Java wrote on, we open", lambda: self.nothing_lost(remote))


def _placeless(record: bytes) -> bytes:
    return record[:PHYSICAL_OFFSET_AT] + record[PHYSICAL_OFFSET_AT + 8 :]


def run(namesrv: str, report: Report, server: Server) -> None:
    for batches in (False, True):
        with tempfile.TemporaryDirectory(prefix="firearrow-compaction-") as root:
            Chain(Path(root), report, batches=batches).run()


if __name__ == "__main__":
    sys.exit(min(run_alone(sys.modules[__name__]), 1))
