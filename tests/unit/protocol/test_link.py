"""A connection that opens when it is needed, and again when it was lost."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.network import End, VirtualNetwork

from firearrow.model.clock import VirtualClock
from firearrow.protocol.remoting import link as it
from firearrow.protocol.remoting.command import NoFields, Reply, Request
from firearrow.protocol.remoting.headers import Header
from firearrow.protocol.remoting.link import Link
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession, Route

SERVER = ("10.0.0.1", 10911)


class World:
    """A server that echoes bodies, and a link to it."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.network = VirtualNetwork(self.clock)
        self.answers: list[bytes | None] = []
        self.received: list[bytes] = []
        self.link = Link(SERVER, self.network, self.clock, Dispatcher({}))

    def serve(self) -> None:
        def echo(request: Request[Any]) -> Reply:
            self.received.append(request.body)
            return Reply(body=request.body)

        dispatcher = Dispatcher({1: Route("ECHO", NoFields, echo)})
        self.network.serve(SERVER, lambda peer: RemotingSession(peer, dispatcher, self.clock))

    def call(self, body: bytes = b"", timeout_s: float = 3.0) -> None:
        def done(header: Header | None, answer: bytes) -> None:
            self.answers.append(None if header is None else answer)

        self.link.call(1, {}, body, timeout_s, done)


@pytest.fixture
def world() -> World:
    return World()


def test_it_connects_for_the_first_request_and_keeps_the_connection(world: World) -> None:
    world.serve()
    assert world.network.attempts == 0
    for body in (b"one", b"two"):
        world.call(body)
    world.clock.advance()
    world.call(b"three")
    world.clock.advance()
    assert world.answers == [b"one", b"two", b"three"]
    assert world.network.attempts == 1


def test_an_attempt_that_failed_is_not_repeated_for_a_moment(world: World) -> None:
    world.call()
    world.clock.advance()
    assert world.answers == [None]
    assert "refused" in world.link.fault
    for _ in range(5):
        world.call()
    assert (world.answers, world.network.attempts) == ([None] * 6, 1)
    world.serve()
    world.clock.advance(it.REST_S)
    world.call(b"again")
    world.clock.advance()
    assert world.answers[-1] == b"again"


def test_a_lost_connection_fails_what_waits_and_is_made_anew(world: World) -> None:
    world.serve()
    world.call()
    world.clock.advance()
    end: End = world.network.accepted[0]
    end.deaf = True
    world.call()
    world.clock.advance()
    end.close("the server ended")
    world.clock.advance()
    assert world.answers == [b"", None]
    assert world.link.fault == "closed the connection"
    world.call(b"new")
    world.clock.advance()
    assert world.answers[-1] == b"new"


def test_a_request_that_nobody_answers_is_given_up(world: World) -> None:
    world.serve()
    world.call()
    world.clock.advance()
    world.network.accepted[0].deaf = True
    world.call(timeout_s=2.0)
    world.clock.advance(1.9)
    assert world.answers == [b""]
    world.clock.advance(0.2)
    assert (world.answers, world.link.fault) == ([b"", None], "does not answer")


def test_what_waits_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(it, "CALLS_MAX", 3)
    world.serve()
    for _ in range(4):  # while it connects
        world.call()
    assert world.answers == [None]
    assert "fast enough" in world.link.fault
    world.clock.advance()
    world.network.accepted[0].deaf = True
    for _ in range(4):  # while it answers
        world.call()
    assert world.answers == [None, b"", b"", b"", None]
    assert "3 requests" in world.link.fault
    monkeypatch.setattr(it, "BYTES_MAX", 10)
    other = Link(("10.0.0.2", 1), world.network, world.clock, Dispatcher({}))
    other.call(1, {}, b"x" * 11, 3.0, lambda header, body: world.answers.append(None))
    assert len(world.answers) == 6


def test_requests_of_one_turn_share_a_write(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    send = End.send

    def counted(end: End, data: bytes) -> None:
        if data and end.remote == SERVER:
            written.append(data)
        send(end, data)

    monkeypatch.setattr(End, "send", counted)
    world.serve()
    world.call()
    world.clock.advance()
    written.clear()
    for number in range(8):
        world.call(b"%d" % number)
    assert len(written) == 1  # at once: a lone request does not wait
    world.clock.advance()
    assert len(written) == 2
    assert world.answers[1:] == [b"%d" % number for number in range(8)]


def test_a_closed_link_has_sent_what_it_was_given(world: World) -> None:
    world.serve()
    world.call()
    world.clock.advance()
    for body in (b"one", b"two", b"three"):
        world.call(body)
    world.link.close()
    world.clock.advance()
    assert world.received == [b"", b"one", b"two", b"three"]
    world.call()
    assert world.answers[-1] is None
