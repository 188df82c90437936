"""``kill -9`` of a real broker in the middle of transactions, again and again on one store.

Producers send half messages; some they end at once, the others when they are asked. Whatever is
killed when: an acknowledged half message whose producer decides for it is delivered, one whose
producer decides against it never is.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.killing import ROUNDS, SEED, Campaign, Worker, now_ms
from tests.support.load import read_queue
from tests.support.program import BlockingClient

from firearrow.codec.record import decode_record
from firearrow.model import codes
from firearrow.protocol.remoting.headers import Header, encode_request

LOAD_S = (0.5, 2.0)
PRODUCERS = 4
QUEUES = 2
TOPIC = "payments"
COMMIT, ROLLBACK = 8, 12
SETTLE_S = 30.0
QUIET_S = 1.5  # several rounds of checks

SETTINGS = {
    "flushConsumerOffsetInterval": 100,
    "transactionCheckInterval": 300,
    "transactionTimeOut": 200,
    "transactionCheckMax": 1000,
    "transactionOpBatchInterval": 200,
}


class Book:
    """What producers know: filled by several threads."""

    def __init__(self) -> None:
        self.sent: set[bytes] = set()
        self.halves: set[bytes] = set()  # acknowledged
        self.committed: set[bytes] = set()  # and their commit was acknowledged, too
        self.one_way: set[bytes] = set()  # ended without an answer
        self.checks = 0


def decision(body: bytes) -> int:
    """What the producer of a message decides, whenever it is asked."""
    return ROLLBACK if body.startswith(b"rollback") else COMMIT


class Producer(Worker):
    """Sends half messages and ends them."""

    def __init__(
        self, address: str, name: str, errors: list[BaseException], book: Book, rng: random.Random
    ) -> None:
        super().__init__(address, name, errors)
        self._book = book
        self._rng = rng
        self._count = 0
        self._opaque = 1 << 20

    def begin(self) -> None:
        self.heartbeat()

    def heartbeat(self) -> None:
        beat = {"clientID": self.name, "producerDataSet": [{"groupName": "payers"}]}
        self._call(34, {}, msgspec.json.encode({**beat, "consumerDataSet": []}))

    def step(self) -> None:
        self._count += 1
        word = b"rollback" if self._rng.random() < 0.4 else b"commit"
        size = self._rng.choice((20, 100, 1000))
        body = word + f"-{self.name}-{self._count}-".encode().ljust(size, b".")
        self._book.sent.add(body)
        unique = f"{self.name}-{self._count}"
        fields = {
            "a": "payers",
            "b": TOPIC,
            "c": "TBW102",
            "d": QUEUES,
            "e": self._rng.randrange(QUEUES),
            "f": 4,
            "g": now_ms(),
            "h": 0,
            "i": f"UNIQ_KEY\x01{unique}\x02TRAN_MSG\x01true\x02PGROUP\x01payers\x02",
            "j": 0,
        }
        header = self._call(310, fields, body)
        assert header.code == codes.SUCCESS, header
        self._book.halves.add(body)
        ext = header.ext or {}
        half = ext["queueOffset"], int(ext["msgId"][16:], 16)
        dice = self._rng.random()
        if dice < 0.3:
            self._end_one_way(half, body, asked=False)
        elif dice < 0.7:
            answer = self._call(37, end_fields(half, decision(body), asked=False))
            assert answer.code == codes.SUCCESS, answer
            if decision(body) == COMMIT:
                self._book.committed.add(body)

    def _end_one_way(self, half: tuple[Any, Any], body: bytes, *, asked: bool) -> None:
        self._book.one_way.add(body)
        self._opaque += 1
        fields = {k: str(v) for k, v in end_fields(half, decision(body), asked=asked).items()}
        self.client.socket.sendall(encode_request(37, self._opaque, fields, b"", one_way=True))

    def _call(self, code: int, ext: dict[str, Any], body: bytes = b"") -> Header:
        """Wait for the answer; checks that come before it are answered."""
        self._opaque += 1
        opaque = self._opaque
        fields = {key: str(value) for key, value in ext.items()}
        self.client.socket.sendall(encode_request(code, opaque, fields, body))
        while True:
            header, data = self.client.read()
            if header.flag & 1 and header.opaque == opaque:
                return header
            if header.code == 39 and not header.flag & 1:
                self._answer_check(header.ext or {}, decode_record(data).body)

    def _answer_check(self, ext: dict[str, str], body: bytes) -> None:
        assert body in self._book.sent, "asked about a message that nobody sent"
        self._book.checks += 1
        self._end_one_way((ext["tranStateTableOffset"], ext["commitLogOffset"]), body, asked=True)


def end_fields(half: tuple[Any, Any], decided: int, *, asked: bool) -> dict[str, Any]:
    return {
        "producerGroup": "payers",
        "tranStateTableOffset": half[0],
        "commitLogOffset": half[1],
        "commitOrRollback": decided,
        "fromTransactionCheck": str(asked).lower(),
        "msgId": "any",
    }


class Settler(Producer):
    """Only answers checks."""

    def step(self) -> None:
        self.heartbeat()
        time.sleep(0.02)


class Transactions(Campaign):
    """Rounds on one store."""

    def __init__(self, root: Path, flush: str, rng: random.Random) -> None:
        super().__init__(root, rng, flushDiskType=flush, **SETTINGS)
        self.book = Book()

    def round(self, number: int) -> None:
        """Load, kill, start again, look at what was acknowledged."""
        self.kill_under(
            lambda address: [
                Producer(address, f"{number}-{n}", self.errors, self.book, self.child_rng())
                for n in range(PRODUCERS)
            ],
            LOAD_S,
        )
        program, address = self.start()
        with program, BlockingClient(address) as client:  # and killed once more
            delivered = self.delivered(client)
        missing = self.book.committed - delivered.keys()
        assert not missing, f"{len(missing)} acknowledged commits are lost"

    def delivered(self, client: BlockingClient) -> Counter[bytes]:
        got = Counter(
            record.body
            for queue_id in range(QUEUES)
            for record in read_queue(client, TOPIC, queue_id)
        )
        assert not got.keys() - self.book.sent, "a message that nobody sent"
        wrong = [body for body in got if decision(body) == ROLLBACK]
        assert not wrong, f"rolled back, but delivered: {wrong[0][:40]!r}"
        return got

    def settle(self) -> Counter[bytes]:
        """Let every open transaction be asked about; what is delivered then."""
        with self.running() as address:
            settler = Settler(address, "settler", self.errors, self.book, self.rng)
            self.work([settler], Quiet(self.book), SETTLE_S)
        with self.connected() as client:
            return self.delivered(client)


class Quiet:
    """Whether nobody was asked for a while."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._checks, self._since = -1, 0.0

    def __call__(self) -> bool:
        if self._book.checks != self._checks:
            self._checks, self._since = self._book.checks, time.monotonic()
        return time.monotonic() - self._since > QUIET_S


@pytest.mark.slow
@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", "SYNC_FLUSH"])
def test_transactions_survive_a_kill(flush: str, tmp_path: Path) -> None:
    print(f"FIREARROW_KILL_SEED={SEED}")
    campaign = Transactions(tmp_path / "campaign", flush, random.Random(SEED))
    for number in range(ROUNDS):
        campaign.round(number)
    delivered, book = campaign.settle(), campaign.book
    wanted = {body for body in book.halves if decision(body) == COMMIT}
    missing = wanted - delivered.keys()
    twice = {body for body, times in delivered.items() if times > 1}
    print(
        f"{flush}: {ROUNDS} kills, {len(book.halves)} half messages acknowledged, "
        f"{len(wanted)} of them committed, {len(missing)} of these lost, "
        f"{len(book.committed)} commits acknowledged, {book.checks} checks answered, "
        f"{len(twice)} delivered twice"
    )
    assert not missing, f"lost: {sorted(missing)[0][:40]!r}"
    assert not twice - book.one_way, "an acknowledged commit came twice"
    assert len(book.halves) > 20 * ROUNDS
