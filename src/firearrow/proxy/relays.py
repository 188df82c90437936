"""Commands to a client that it answers on its Telemetry stream, with a number to know it by."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final, NamedTuple

from firearrow.model.clock import Clock, Timer
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.proxy.clients import Client

ANSWER_S: Final = 5.0  # ``grpcProxyRelayRequestTimeoutInSeconds``
Done = Callable[[rpc.TelemetryCommand | None], None]  # ``None``: it does not answer


class _Asked(NamedTuple):
    done: Done
    timer: Timer


class Relays:
    """What clients are asked, and have not answered yet."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._asked: dict[str, _Asked] = {}

    def ask(self, client: Client, make: Callable[[str], rpc.TelemetryCommand], done: Done) -> None:
        """Send the command that ``make`` makes of its number."""
        nonce = str(next(self._numbers))
        if not client.command(make(nonce)):
            done(None)
            return
        timer = self._clock.call_later(ANSWER_S, self._give_up, nonce)
        self._asked[nonce] = _Asked(done, timer)

    def answered(self, command: rpc.TelemetryCommand) -> None:
        """Something came from a client that is no settings; late and odd ones are nothing."""
        kind = command.WhichOneof("command")
        nonce = ""
        if kind == "thread_stack_trace":
            nonce = command.thread_stack_trace.nonce
        elif kind == "verify_message_result":
            nonce = command.verify_message_result.nonce
        asked = self._asked.pop(nonce, None)
        if asked is not None:
            asked.timer.cancel()
            asked.done(command)

    def _give_up(self, nonce: str) -> None:
        asked = self._asked.pop(nonce, None)
        if asked is not None:
            asked.done(None)
