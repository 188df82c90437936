"""A proxy alone in front of real brokers that are killed and started again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.brokers import pull_fields, send_fields
from tests.support.program import BlockingClient, Program

from firearrow.codec.record import decode_record, split_records
from firearrow.model import codes

pytestmark = pytest.mark.slow

BROKERS = ("broker-a", "broker-b")
RECOVERY_S = 10.0


class Fleet:
    """A name server, two brokers, a proxy."""

    def __init__(self, root: Path, stack: contextlib.ExitStack) -> None:
        self._root, self._stack = root, stack
        namesrv = Program(root / "namesrv", "namesrv", "--namesrv-port", "0")
        stack.callback(namesrv.kill)
        self.namesrv = namesrv.ready()["namesrv"]
        self.brokers: dict[str, Program] = {}
        self.addresses: dict[str, str] = {}
        for name in BROKERS:
            self.start(name)
        self.proxy = Program(root / "proxy", "proxy", "--proxy-port", "0", "-n", self.namesrv)
        stack.callback(self.proxy.kill)
        self.address = self.proxy.ready()["proxy"]

    def start(self, name: str) -> None:
        """On the port that it had."""
        folder = self._root / name
        folder.mkdir(exist_ok=True)
        (folder / "broker.conf").write_text(f"brokerName={name}\n")
        port = self.addresses.get(name, ":0").rpartition(":")[2]
        arguments = ("--broker-port", port, "--proxy-port", "0", "-n", self.namesrv)
        broker = Program(folder, "broker", "-c", "broker.conf", *arguments)
        self._stack.callback(broker.kill)
        self.addresses[name] = broker.ready()["broker"]
        broker.until_said("registered with name server")
        self.brokers[name] = broker


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        yield Fleet(tmp_path, stack)


def test_a_killed_broker_is_told_once_and_serves_again_without_loss(fleet: Fleet) -> None:
    acknowledged: dict[str, list[bytes]] = {name: [] for name in BROKERS}
    with BlockingClient(fleet.address) as client:

        def send(name: str, number: int) -> tuple[int, str]:
            body = b"%s %d" % (name.encode(), number)
            header, _ = client.call(310, {**send_fields("Kept"), "n": name}, body)
            if header.code == codes.SUCCESS:
                acknowledged[name].append(body)
            return header.code, header.remark or ""

        for number in range(50):
            assert [send(name, number)[0] for name in BROKERS] == [codes.SUCCESS] * 2
        fleet.brokers["broker-a"].kill()
        for number in range(50, 60):
            code, remark = send("broker-a", number)
            assert code == codes.SYSTEM_ERROR
            assert f"broker broker-a at {fleet.addresses['broker-a']} " in remark
            assert send("broker-b", number)[0] == codes.SUCCESS
        fleet.proxy.until_said("meanwhile new messages go to the other brokers")
        fleet.start("broker-a")
        deadline = time.monotonic() + RECOVERY_S
        while send("broker-a", 60)[0] != codes.SUCCESS:
            assert time.monotonic() < deadline, fleet.proxy.err
            time.sleep(0.05)
        fleet.proxy.until_said("answers again")
        for name, bodies in acknowledged.items():
            assert bodies
            assert pulled(client, name) == bodies
    said = fleet.proxy.err.splitlines()
    assert len([line for line in said if "WARNING" in line and "broker-a" in line]) == 2
    assert fleet.proxy.stop() == 0
    assert "Traceback" not in fleet.proxy.err


def pulled(client: BlockingClient, name: str) -> list[bytes]:
    """Every body of the broker's first queue."""
    found: list[bytes] = []
    while True:
        fields = pull_fields("Kept", offset=len(found))
        header, body = client.call(11, {**fields, "bname": name})
        if header.code != codes.SUCCESS:
            return found
        found += [decode_record(data).body for data in split_records(body)]
