"""One remoting connection as a sans-IO machine: bytes in, frames out, both directions of calls.

Frame (remoting.md 1.1):
    4  length of what follows
    1  header encoding: 0 JSON, 1 ROCKETMQ binary
    3  header length
    n  header
    m  body
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from firearrow.codec.addresses import pack_address
from firearrow.model import codes
from firearrow.model.clock import Clock, Timer
from firearrow.model.network import Peer, SessionError
from firearrow.protocol.remoting.command import (
    FLAG_ONE_WAY,
    FLAG_RESPONSE,
    Answer,
    Caller,
    Handler,
    Reply,
    Request,
)
from firearrow.protocol.remoting.headers import (
    OURS,
    Header,
    decode_header,
    encode_reply,
    encode_request,
)

log = logging.getLogger(__name__)

# Of NettyDecoder: 16 MiB including the four length bytes.
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024

# Answers of one read are written together, but never more than this at once: a read full of small
# pulls could otherwise make hundreds of megabytes before the connection's own limit is seen.
ANSWER_BYTES_MAX: Final = 1024 * 1024

_PREFIX = struct.Struct(">II")


class Route(NamedTuple):
    """A request code's row: its name for the log, its ext fields, who answers it."""

    name: str
    fields: type[Any]
    handler: Handler


class Dispatcher:
    """Finds the handler of each request; shared by all connections of a listener."""

    def __init__(self, routes: Mapping[int, Route]) -> None:
        self._routes = dict(routes)
        # Java writes the code first, so the first bytes of a header tell which struct to decode
        # its ext fields into, without a dictionary in between.
        self.typed: dict[bytes, tuple[Callable[[bytes], Request[Any]], Handler]] = {}
        for code, route in self._routes.items():
            if 10 <= code <= 999:  # longer codes share their first bytes
                decoder = msgspec.json.Decoder(Request[route.fields], strict=False)  # type: ignore[name-defined]
                prefix = b'{"code":%d,"ext' % code
                self.typed[prefix[:_TYPED_PREFIX_BYTES]] = (decoder.decode, route.handler)

    def dispatch(self, header: Header, raw: bytes, body: bytes, caller: Caller) -> Answer:
        """Answer a request whose header is already decoded; what its handler did not foresee
        becomes SYSTEM_ERROR, as in RocketMQ."""
        return self.answer(
            Request(
                header.code,
                header.flag,
                header.opaque,
                header.version,
                header.language,
                header.ext or {},
                body,
                caller,
                raw,
            )
        )

    def answer(self, request: Request[Any]) -> Answer:
        """Answer a request whose fields are those of its code, or still a dictionary of texts."""
        route = self._routes.get(request.code)
        if route is None:
            return Reply(
                codes.REQUEST_CODE_NOT_SUPPORTED, f" request type {request.code} not supported"
            )
        if request.fields.__class__ is not route.fields:
            try:
                request.fields = msgspec.convert(request.fields, route.fields, strict=False)
            except msgspec.ValidationError as error:
                return Reply(codes.SYSTEM_ERROR, f"{route.name}: {error}")
        try:
            return route.handler(request)
        except Exception as error:  # the peer must get an answer, the log the traceback
            return failed(request.code, request.peer.remote, error)


def failed(code: int, remote: tuple[str, int], error: Exception) -> Reply:
    """The answer to a request whose handler did not foresee this; the log says more."""
    if isinstance(error, OSError):  # no defect of ours
        log.error("request %s from %s failed: %s; check the disk", code, remote, error)
    else:
        log.error(
            "request %s from %s failed, and the client is told; this is a defect, please report it",
            code,
            remote,
            exc_info=error,
        )
    return Reply(codes.SYSTEM_ERROR, f"{type(error).__name__}: {error}")


# '{"code":10,"' and '{"code":310,' are both 12 bytes: enough to tell every code.
_TYPED_PREFIX_BYTES: Final = 12
_SHORTEST_TYPED: Final = 8 + _TYPED_PREFIX_BYTES


Done = Callable[[Header | None, bytes], None]  # (None, b"") when there was no answer


class _Call(NamedTuple):
    done: Done
    timer: Timer


class RemotingSession:
    """The state of one connection, server or client side."""

    __slots__ = (
        "_calls",
        "_clock",
        "_dispatcher",
        "_needed",
        "_on_close",
        "_opaque",
        "_peer",
        "_tail",
        "close",
        "identity",
        "local",
        "remote",
        "remote_packed",
        "send",
    )

    def __init__(
        self,
        peer: Peer,
        dispatcher: Dispatcher,
        clock: Clock,
        on_close: Callable[[RemotingSession], None] | None = None,
    ) -> None:
        self._peer = peer
        self.remote = peer.remote
        self.remote_packed = pack_address(*peer.remote)
        self.local = peer.local
        self.send = peer.send
        self.close = peer.close
        self._dispatcher = dispatcher
        self._clock = clock
        self._on_close = on_close
        self._tail = bytearray()  # an incomplete frame
        self._needed = 0  # bytes the tail must have before it is worth looking at
        self._calls: dict[int, _Call] = {}
        self._opaque = 0
        self.identity = OURS  # of the calls

    @property
    def closed(self) -> bool:
        return self._peer.closed

    @property
    def calls_waiting(self) -> int:
        """Calls of ours that have no answer yet."""
        return len(self._calls)

    def receive(self, data: bytes) -> bytes:
        """Handle every whole frame in what was read; give all answers as one piece.

        Raises:
            SessionError: the peer broke the protocol.
        """
        if self._tail:
            self._tail += data
            if len(self._tail) < self._needed:
                return b""
            data = bytes(self._tail)
            self._tail = bytearray()
        end = len(data)
        if end >= _SHORTEST_TYPED:  # mostly it is exactly one frame of a well-known request
            length, word = _PREFIX.unpack_from(data)
            if length + 4 == end and word < end - 7:
                return self._frame(0, data[8 : 8 + word], data[8 + word :]) or b""
        return self._frames(data, end)

    def _frames(self, data: bytes, end: int) -> bytes:
        answers: list[bytes] = []
        position = waiting = 0
        while end - position >= 8:
            length, word = _PREFIX.unpack_from(data, position)
            if not 4 <= length <= FRAME_BYTES_MAX - 4:
                raise SessionError(f"frame of {length} bytes; the limit is {FRAME_BYTES_MAX}")
            stop = position + 4 + length
            header_end = position + 8 + (word & 0xFFFFFF)
            if header_end > stop:
                raise SessionError(f"header of {word & 0xFFFFFF} bytes in a frame of {length}")
            if stop > end:
                self._needed = stop - position
                break
            answer = self._frame(word >> 24, data[position + 8 : header_end], data[header_end:stop])
            position = stop
            if answer:
                answers.append(answer)
                waiting += len(answer)
                if waiting > ANSWER_BYTES_MAX:
                    self.send(b"".join(answers))
                    answers.clear()
                    waiting = 0
                    if self.closed:
                        return b""
        else:
            self._needed = 8
        if position < end:
            self._tail += data[position:]
        return answers[0] if len(answers) == 1 else b"".join(answers)

    def _frame(self, serialize_type: int, header: bytes, body: bytes) -> bytes | None:
        dispatcher = self._dispatcher
        typed = dispatcher.typed.get(header[:_TYPED_PREFIX_BYTES])
        if typed is not None and not serialize_type:
            try:
                request = typed[0](header)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                pass  # an unusual peer: the tolerant way below decides
            else:
                if not request.flag & FLAG_RESPONSE and request.fields is not None:
                    request.body = body
                    request.peer = self
                    request.header = header
                    try:
                        answer = typed[1](request)
                    except Exception as error:  # the peer must get an answer
                        answer = failed(request.code, self.remote, error)
                    if answer.__class__ is bytes and not request.flag:
                        return answer
                    return self._encoded(request.opaque, request.flag, answer)
        decoded = decode_header(serialize_type, header)
        if decoded.flag & FLAG_RESPONSE:
            self._answered(decoded, body)
            return None
        answer = dispatcher.dispatch(decoded, header, body, self)
        return self._encoded(decoded.opaque, decoded.flag, answer)

    def _encoded(self, opaque: int, flag: int, answer: Answer) -> bytes | None:
        if answer is None or flag & FLAG_ONE_WAY:
            return None
        if isinstance(answer, bytes):
            return answer
        return encode_reply(opaque, answer)

    # -- calls of ours over the same connection

    def call(
        self,
        code: int,
        ext: dict[str, str] | None,
        body: bytes,
        timeout_s: float,
        done: Done,
    ) -> None:
        """Send a request; ``done(header, body)``, or ``done(None, b"")`` when no answer came."""
        self._opaque = opaque = (self._opaque + 1) & 0x7FFFFFFF
        timer = self._clock.call_later(timeout_s, self._give_up, opaque)
        self._calls[opaque] = _Call(done, timer)
        self.send(encode_request(code, opaque, ext, body, identity=self.identity))

    def notify(self, code: int, ext: dict[str, str] | None, body: bytes = b"") -> None:
        """Send a one-way request."""
        self._opaque = (self._opaque + 1) & 0x7FFFFFFF
        frame = encode_request(code, self._opaque, ext, body, one_way=True, identity=self.identity)
        self.send(frame)

    def _answered(self, header: Header, body: bytes) -> None:
        call = self._calls.pop(header.opaque, None)
        if call is None:
            log.debug("late answer %d from %s", header.opaque, self.remote)
            return
        call.timer.cancel()
        call.done(header, body)

    def _give_up(self, opaque: int) -> None:
        call = self._calls.pop(opaque, None)
        if call is not None:
            call.done(None, b"")

    def disconnected(self) -> None:
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.timer.cancel()
            call.done(None, b"")
        if self._on_close is not None:
            self._on_close(self)


def answer(request: Request[Any], reply: Reply) -> None:
    """Answer a request whose handler returned ``None``."""
    if not request.flag & FLAG_ONE_WAY and not request.peer.closed:
        request.peer.send(encode_reply(request.opaque, reply))
