"""``kill -9`` of a real broker while a compaction topic is written, copied, compacted and read.

Its files are small, so that there is always something to compact, and two of three kills wait for
the middle of it: for new files that are being written, or for old ones that make way. Whatever is
killed when: of every key the newest acknowledged version is there, or one that came after it.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from tests.support.compaction_load import (
    CREATE,
    QUEUES,
    TOPIC,
    Book,
    Follower,
    Found,
    Rereader,
    Sender,
    key_of,
    newest_in,
    read_all,
    read_to_the_end,
)
from tests.support.killing import ROUNDS, SEED, Campaign, Worker
from tests.support.program import BlockingClient

from firearrow.model import codes

SENDERS = 2
LOAD_S = (1.0, 2.0)
SETTLE_S = 20.0
QUIET_S = 1.0  # so long without a compaction: there is nothing to compact any more
SETTINGS = {
    "compactionScheduleInternal": 100,
    "compactionMappedFileSize": 250_000,
    "compactionCqMappedFileSize": 23_000,
    "flushIntervalCommitLog": 100,
    "flushIntervalConsumeQueue": 100,
    "flushConsumeQueueThoroughInterval": 500,
}
FEW_KEYS = 200 * 10  # maxOffsetMapSize: one compaction looks at so many keys only


class Compacted(Campaign):
    """Rounds on one store."""

    log_level = "info"  # tells of compactions

    def __init__(self, root: Path) -> None:
        super().__init__(root, random.Random(SEED), **SETTINGS)
        self.book = Book()
        self.compactions = self.interrupted = self.swaps = 0
        self.start_s = 0.0  # the longest
        with self.connected() as client:
            header, _ = client.call(17, CREATE)
            assert header.code == codes.SUCCESS

    def round(self, number: int) -> None:
        """Load, kill, start again, look."""
        few = {"maxOffsetMapSize": FEW_KEYS} if number % 4 == 3 else {}
        flush = "SYNC_FLUSH" if number % 2 else "ASYNC_FLUSH"
        self.configure(flushDiskType=flush, **SETTINGS, **few)
        moments = (self.swapping, self.rewriting, lambda: True)
        self.kill_under(lambda address: self.workers(address, number), LOAD_S, moments[number % 3])
        self.heed()
        self.interrupted += self.rewriting() or self.swapping()
        self.swaps += self.swapping()
        begun = time.monotonic()
        program, address = self.start()
        self.start_s = max(self.start_s, time.monotonic() - begun)
        with program, BlockingClient(address) as client:
            self.check(read_all(client))
            if number % 3 == 0:
                assert program.stop() == 0
        self.heed()

    def workers(self, address: str, number: int) -> list[Worker]:
        senders = [
            Sender(address, f"{number}-{n}", self.errors, self.book, self.child_rng(), number)
            for n in range(SENDERS)
        ]
        return [*senders, *self.followers(address), *self.rereaders(address)]

    def followers(self, address: str) -> list[Follower]:
        return [
            Follower(address, f"follower-{queue}", self.errors, self.book, queue)
            for queue in range(QUEUES)
        ]

    def rereaders(self, address: str) -> list[Rereader]:
        return [
            Rereader(address, f"reader-{queue}", self.errors, self.book, self.child_rng(), queue)
            for queue in range(QUEUES)
        ]

    # -- what the files and the log say

    def rewriting(self) -> bool:
        return any((self.root / "store/compaction").glob(f"*/{TOPIC}/*/rewriting/*"))

    def swapping(self) -> bool:
        return any((self.root / "store/compaction").glob(f"*/{TOPIC}/*/*.delete"))

    def said(self) -> str:
        return (self.root / "stderr").read_text()

    def heed(self) -> None:
        """What the broker said that is no more: no complaint, and how many compactions it did."""
        said = self.said()
        for line in said.splitlines():
            assert " ERROR " not in line, said
            assert " WARNING store.compaction" not in line, said
        self.compactions += said.count("compacted queue")

    # -- the verdict

    def lost(self, found: Found) -> list[str]:
        """Keys whose newest acknowledged version is gone without a newer one."""
        there = newest_in(found)
        return [
            key
            for key, ((_, offset), promise) in self.book.newest().items()
            if promise.body
            and there.get(key, -1) < offset
            and not (key not in there and self.book.perhaps_removed(promise))
        ]

    def risen(self, found: Found) -> list[str]:
        """Keys with versions older than their removal, which is gone."""
        there = newest_in(found)
        return [
            key
            for key, ((_, offset), promise) in self.book.newest().items()
            if not promise.body and key in there and there[key] < offset
        ]

    def check(self, found: Found) -> None:
        book = self.book
        assert not book.twice, book.twice
        for place, record in found.items():
            promise = book.promises.get(place)
            if promise is not None:
                assert (key_of(record), record.body) == (promise.key, promise.body), place
            else:
                assert not record.body or record.body in book.sent, place
        bodies = [record.body for record in found.values() if record.body]
        assert len(bodies) == len(set(bodies)), "sent once, there twice"
        assert not self.lost(found), self.lost(found)
        assert not self.risen(found), self.risen(found)

    def settle(self) -> tuple[Found, int]:
        """What is there when everything is compacted; how many versions were there before."""
        with self.connected() as client:
            before = read_all(client)
            deadline, quiet_since, count = time.monotonic() + SETTLE_S, time.monotonic(), -1
            while time.monotonic() < min(deadline, quiet_since + QUIET_S):
                if self.said().count("compacted queue") != count:
                    count, quiet_since = self.said().count("compacted queue"), time.monotonic()
                time.sleep(0.02)
            after = read_all(client)
            self.check(after)
            for queue, table in self.book.read_on.items():
                table.learn(read_to_the_end(client, queue, table.offset))
        self.heed()
        with self.connected() as client:
            assert read_all(client).keys() == after.keys()
        self.heed()
        return after, len(before)

    def behind(self, found: Found) -> list[str]:
        """Keys of which somebody who has read on through all kills does not know the newest."""
        newest = {key_of(record): place for place, record in sorted(found.items())}
        return [
            key
            for key, (queue, offset) in newest.items()
            if self.book.read_on[queue].newest.get(key, -1) < offset
        ]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_compaction(tmp_path: Path) -> None:
    print(f"FIREARROW_KILL_SEED={SEED}")
    campaign = Compacted(tmp_path / "campaign")
    for number in range(ROUNDS):
        campaign.round(number)
    found, before = campaign.settle()
    book = campaign.book
    behind = campaign.behind(found)
    print(
        f"compaction: {ROUNDS} kills, {campaign.interrupted} within a compaction, "
        f"{campaign.swaps} of them while files changed places, {len(book.promises)} acknowledged, "
        f"{len(book.newest())} keys, {len(campaign.lost(found))} lost, "
        f"{len(campaign.risen(found))} risen, {len(behind)} unknown to who read on, "
        f"{campaign.compactions} compactions, {before} messages there, then {len(found)}, "
        f"{book.old_reads} reads from old offsets, longest send {book.stall_s * 1000:.0f} ms, "
        f"longest start {campaign.start_s * 1000:.0f} ms"
    )
    assert not behind, behind
    assert campaign.compactions > ROUNDS
    assert campaign.interrupted
    assert len(found) < len(book.promises) / 2
    assert book.old_reads > ROUNDS
