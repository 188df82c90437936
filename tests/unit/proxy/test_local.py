"""A client's channel to the broker of the same process: each request has one answer."""

from __future__ import annotations

from typing import Any

import pytest

from firearrow.model.clock import VirtualClock
from firearrow.protocol.remoting.command import NoFields, Reply, Request
from firearrow.protocol.remoting.headers import Header, encode_reply
from firearrow.protocol.remoting.session import Dispatcher, Route, answer
from firearrow.proxy.local import LocalChannel

AT_ONCE, WITHIN, LATER, NEVER, BOTH = range(5)


class Broker:
    """Answers as its codes say."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.waiting: list[Request[Any]] = []
        self.closed: list[Any] = []
        self.asked: list[Any] = []
        self.answers: list[tuple[Header | None, bytes]] = []
        routes = {code: Route(str(code), NoFields, self._handle) for code in range(5)}
        client = {9: Route("9", NoFields, self._ask_client)}
        self.channel = LocalChannel(
            ("127.0.0.1", 5000),
            ("127.0.0.1", 10911),
            Dispatcher(routes),
            self.closed.append,
            client,
            self.clock,
        )

    def _handle(self, request: Request[Any]) -> Reply | None:
        if request.code == AT_ONCE:
            return Reply(7, "why", {"key": "value"}, b"body")
        if request.code in (WITHIN, BOTH):
            answer(request, Reply(7, "why", {"key": "value"}, b"body"))
            return Reply(8) if request.code == BOTH else None
        self.waiting.append(request)
        return None

    def _ask_client(self, request: Request[Any]) -> Reply:
        self.asked.append(request)
        return Reply(3)

    def call(self, code: int) -> None:
        def done(header: Header | None, body: bytes) -> None:
            self.answers.append((header, body))

        self.channel.call("broker-a", code, {}, b"", 3.0, done)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.mark.parametrize("code", [AT_ONCE, WITHIN, BOTH, LATER])
def test_one_answer_at_whatever_time(broker: Broker, code: int) -> None:
    broker.call(code)
    for request in broker.waiting:
        answer(request, Reply(7, "why", {"key": "value"}, b"body"))
        answer(request, Reply(8))
    broker.clock.advance(10)
    ((header, body),) = broker.answers
    assert header is not None
    assert (header.code, header.remark, header.ext, body) == (7, "why", {"key": "value"}, b"body")


def test_several_answers_in_one_piece(broker: Broker) -> None:
    """As those for whom one flush was done."""
    for _ in range(3):
        broker.call(LATER)
    frames = [encode_reply(r.opaque, Reply(n, body=b"x" * n)) for n, r in enumerate(broker.waiting)]
    broker.waiting[0].peer.send(b"".join(frames))
    assert [(h.code, body) for h, body in broker.answers if h] == [(0, b""), (1, b"x"), (2, b"xx")]
    broker.clock.advance(10)
    assert len(broker.answers) == 3


def test_answers_in_another_order(broker: Broker) -> None:
    broker.call(LATER)
    broker.call(LATER)
    for number, request in enumerate(reversed(broker.waiting)):
        answer(request, Reply(number))
    assert [header.code for header, _ in broker.answers if header] == [0, 1]


def test_no_answer(broker: Broker) -> None:
    broker.call(NEVER)
    broker.clock.advance(2.9)
    assert broker.answers == []
    broker.clock.advance(0.2)
    assert broker.answers == [(None, b"")]


def test_a_code_that_is_not_served(broker: Broker) -> None:
    broker.call(77)
    assert [header.code for header, _ in broker.answers if header] == [3]


def test_a_close_is_heard_on_both_sides_once(broker: Broker) -> None:
    broker.call(NEVER)
    (request,) = broker.waiting
    broker.channel.close()
    broker.channel.close()
    assert broker.answers == [(None, b"")]
    assert broker.closed == [request.peer]
    assert request.peer.closed
    broker.call(AT_ONCE)
    assert broker.answers == [(None, b"")] * 2


def test_the_broker_asks_the_client(broker: Broker) -> None:
    broker.call(NEVER)
    peer = broker.waiting[0].peer
    heard: list[tuple[Any, bytes]] = []
    peer.notify(9, {"key": "value"}, b"notice")
    peer.call(9, {}, b"question", 3.0, lambda header, body: heard.append((header.code, body)))
    assert [request.body for request in broker.asked] == [b"notice", b"question"]
    assert heard == [(3, b"")]
    broker.channel.close()
    peer.notify(9, {})
    assert len(broker.asked) == 2
