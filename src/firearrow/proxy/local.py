"""The broker of the same process behind the proxy: its handlers are called as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from firearrow.codec.addresses import pack_address
from firearrow.features.pop.handles import Handle
from firearrow.features.pop.popping import Popped
from firearrow.model.clock import Clock, Timer
from firearrow.model.group import Group
from firearrow.model.topic import Topic
from firearrow.protocol.remoting.command import (
    FLAG_ONE_WAY,
    FLAG_RESPONSE,
    LANGUAGE,
    VERSION,
    Fields,
    Reply,
    Request,
)
from firearrow.protocol.remoting.headers import Header, decode_frame
from firearrow.protocol.remoting.pop_requests import (
    ACK_MESSAGE,
    POP_MESSAGE,
    AckMessage,
    PopMessage,
)
from firearrow.protocol.remoting.requests import SendMessageV2
from firearrow.protocol.remoting.session import Dispatcher, Route
from firearrow.proxy.backend import SEND_MESSAGE_V2, BrokerTopic, DirectSends, Done, Found

PLACES_KNOWN_MAX: Final = 10_000


class _Waiting(NamedTuple):
    done: Done
    timer: Timer


class LocalChannel:
    """See ``backend.Channel``. To the broker it is a client's connection as any other."""

    def __init__(
        self,
        remote: tuple[str, int],
        address: tuple[str, int],
        broker: Dispatcher,
        closed: Callable[[Any], None],
        routes: Mapping[int, Route],
        clock: Clock,
    ) -> None:
        self._line = _Line(remote, address, broker, Dispatcher(routes), clock)
        self._closed = closed

    def call(
        self,
        broker_name: str,
        code: int,
        ext: dict[str, str],
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> None:
        self._line.ask(code, ext, body, timeout_s, done)

    def send(
        self,
        broker_name: str,
        fields: SendMessageV2,
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> None:
        self._line.ask(SEND_MESSAGE_V2, fields, body, timeout_s, done)

    def acknowledge(
        self, topic: str, group: str, handle: Handle, timeout_s: float, done: Done
    ) -> None:
        fields = AckMessage(group, topic, handle.queue_id, "", handle.offset, None, handle)
        self._line.ask(ACK_MESSAGE, fields, b"", timeout_s, done)

    def pop(
        self,
        broker_name: str,
        fields: PopMessage,
        timeout_s: float,
        done: Done,
        found: Found,
    ) -> Callable[[], None]:
        line = self._line

        def handed_over(opaque: int, popped: Popped) -> None:
            if line.settle(opaque) is not None:
                found(popped)

        fields.found = handed_over
        poll = _Poll(line)
        line.ask(POP_MESSAGE, fields, b"", timeout_s, done, poll)
        return poll.give_up

    def poll(
        self,
        broker_name: str,
        code: int,
        ext: dict[str, str],
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> Callable[[], None]:
        poll = _Poll(self._line)
        self._line.ask(code, ext, body, timeout_s, done, poll)
        return poll.give_up

    def close(self) -> None:
        line = self._line
        if not line.closed:
            line.closed = True
            self._closed(line)
            line.give_up_all()


class _Line:
    """The connection as the broker sees it: ``remoting.command.Caller``."""

    def __init__(
        self,
        remote: tuple[str, int],
        local: tuple[str, int],
        broker: Dispatcher,
        client: Dispatcher,
        clock: Clock,
    ) -> None:
        self.remote = remote
        self.remote_packed = pack_address(*remote)
        self.local = local
        self.closed = False
        self._broker = broker
        self._client = client
        self._clock = clock
        self._opaque = 0
        self._waiting: dict[int, _Waiting] = {}
        # The request that the broker is looking at. It may be answered before its handler returns.
        self._asking: tuple[int, Done] | None = None

    # -- the client asks

    def ask(
        self,
        code: int,
        fields: dict[str, str] | Fields,
        body: bytes,
        timeout_s: float,
        done: Done,
        poll: _Poll | None = None,
    ) -> None:
        """Ask the broker; ``fields`` as its handler reads them, or as texts."""
        if self.closed:
            done(None, b"")
            return
        self._opaque = opaque = (self._opaque + 1) & 0x7FFFFFFF
        request = Request(code, 0, opaque, VERSION, LANGUAGE, fields, body, poll or self, b"")
        before, self._asking = self._asking, (opaque, done)
        try:
            answer = self._broker.answer(request)
            waits = self._asking is not None
        finally:
            self._asking = before
        if not waits:
            return
        if answer is not None:
            done(*_values(opaque, answer))
        else:
            timer = self._clock.call_later(timeout_s, self._give_up, opaque)
            self._waiting[opaque] = _Waiting(done, timer)
            if poll is not None:
                poll.opaque = opaque

    def send(self, data: bytes) -> None:
        """The broker answers later than at once, maybe several requests together."""
        position = 0
        while position < len(data):
            stop = position + 4 + int.from_bytes(data[position : position + 4])
            header, body = decode_frame(data[position:stop])
            done = self.settle(header.opaque)
            if done is not None:
                done(header, body)
            position = stop

    def settle(self, opaque: int) -> Done | None:
        """The answer of a request has come: whom it is for, unless somebody had it already."""
        if self._asking is not None and self._asking[0] == opaque:
            done = self._asking[1]
            self._asking = None
            return done
        waiting = self._waiting.pop(opaque, None)
        if waiting is None:
            return None
        waiting.timer.cancel()
        return waiting.done

    def _give_up(self, opaque: int) -> None:
        waiting = self._waiting.pop(opaque, None)
        if waiting is not None:
            waiting.done(None, b"")

    def forget(self, opaque: int) -> None:
        """Nobody wants the answer any more."""
        waiting = self._waiting.pop(opaque, None)
        if waiting is not None:
            waiting.timer.cancel()

    def give_up_all(self) -> None:
        every, self._waiting = self._waiting, {}
        for waiting in every.values():
            waiting.timer.cancel()
            waiting.done(None, b"")

    # -- the broker asks

    def close(self, reason: str) -> None:
        self.closed = True

    def notify(self, code: int, ext: dict[str, str] | None, body: bytes = b"") -> None:
        if self.closed:
            return
        header = Header(code, FLAG_ONE_WAY, 0, VERSION, LANGUAGE, None, ext)
        self._client.dispatch(header, b"", body, self)

    def call(
        self,
        code: int,
        ext: dict[str, str] | None,
        body: bytes,
        timeout_s: float,
        done: Callable[[Any, bytes], None],
    ) -> None:
        header = Header(code, 0, 0, VERSION, LANGUAGE, None, ext)
        answer = self._client.dispatch(header, b"", body, self)
        if answer is None:  # no route of a client answers later
            done(None, b"")
        else:
            done(*_values(0, answer))


class _Poll:
    """One request on a line that waits, as the broker sees it: it can be given up by itself, and
    then gets no message."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._given_up = False
        self.opaque = 0
        self.remote, self.remote_packed = line.remote, line.remote_packed
        self.local = line.local
        self.send, self.close = line.send, line.close
        self.notify, self.call = line.notify, line.call

    @property
    def closed(self) -> bool:
        return self._given_up or self._line.closed

    def give_up(self) -> None:
        self._given_up = True
        self._line.forget(self.opaque)


def _values(opaque: int, answer: Reply | bytes) -> tuple[Header, bytes]:
    if isinstance(answer, bytes):
        return decode_frame(answer)
    header = Header(
        answer.code, FLAG_RESPONSE, opaque, VERSION, LANGUAGE, answer.remark, answer.ext
    )
    return header, answer.body


class LocalBroker(Protocol):
    """What the proxy needs of the broker in its process."""

    @property
    def broker_name(self) -> str: ...

    @property
    def address(self) -> tuple[str, int]: ...

    def topic(self, name: str) -> Topic | None: ...

    def group(self, name: str) -> Group | None: ...


class LocalBackend:
    """See ``backend.Backend``: the one broker of this process."""

    def __init__(
        self,
        broker: LocalBroker,
        routes: Mapping[int, Route],
        closed: Callable[[Any], None],
        clock: Clock,
        direct: DirectSends | None = None,
    ) -> None:
        self.direct = direct
        self._broker = broker
        self._dispatcher = Dispatcher(routes)
        self._closed = closed
        self._clock = clock
        self._places: dict[str, list[BrokerTopic]] = {}

    def topic(self, name: str, done: Callable[[list[BrokerTopic]], None]) -> None:
        broker = self._broker
        found = broker.topic(name)
        if found is None:
            self._places.pop(name, None)
            done([])
            return
        places = self._places.get(name)
        if places is None or places[0].topic is not found:
            if len(self._places) >= PLACES_KNOWN_MAX:
                self._places.clear()
            places = [BrokerTopic(broker.broker_name, 0, broker.address, found)]
            self._places[name] = places
        done(places)

    def group(self, name: str, done: Callable[[Group | None], None]) -> None:
        done(self._broker.group(name))

    def brokers_of(self, topics: Iterable[str], done: Callable[[set[str]], None]) -> None:
        done({self._broker.broker_name})

    def all_brokers(self, done: Callable[[Iterable[str]], None]) -> None:
        done([self._broker.broker_name])

    def reachable(self, broker_name: str) -> bool:
        return True

    def connect(self, remote: tuple[str, int], routes: Mapping[int, Route]) -> LocalChannel:
        return LocalChannel(
            remote, self._broker.address, self._dispatcher, self._closed, routes, self._clock
        )
