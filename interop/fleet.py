"""Several brokers, and a proxy of its own in front of them, as one server under test."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from interop.servers import LIGHT_QUEUES, FirearrowServer, JavaLocalServer, JavaServer, start_proxy

BROKER_STEP = 100  # between the ports of two brokers
PROXY_PORT_ABOVE = 10  # of a proxy alone, above that of the first broker's own

# Silent producers are asked about their transactions sooner than after 36 s, and what RocketMQ has
# off unless asked for is on.
BROKER_SETTINGS = {
    "transactionCheckInterval": 3000,
    "transactionTimeOut": 4000,
    "enablePropertyFilter": "true",
    "recallMessageEnable": "true",
    "useSeparateRetryQueue": "true",
    **LIGHT_QUEUES,
}

KINDS: Mapping[str, type[FirearrowServer | JavaServer]] = {
    "firearrow": FirearrowServer,
    "java": JavaServer,
    "java-local": JavaLocalServer,
}


class Fleet:
    """A name server with ``brokers`` brokers. ``proxy``: ``firearrow`` or ``java``, in a process of
    its own that outlives restarts; ``own``: the server's. ``through``: remoting clients are given
    the proxy in the place of the name server."""

    def __init__(
        self,
        kind: str,
        ports: Sequence[int],
        settings: Mapping[str, object],
        *,
        brokers: int = 1,
        proxy: str = "own",
        through: bool = False,
    ) -> None:
        server = KINDS[kind]
        named = {"brokerName": "broker-a"} if brokers > 1 else {}
        first = server(*ports, settings={**settings, **named})
        self._members = [first]
        for number in range(1, brokers):
            name = f"broker-{'abcdefgh'[number]}"
            port = first.broker_port + number * BROKER_STEP
            self._members.append(
                server(
                    0, port, namesrv_addr=first.namesrv, settings={**settings, "brokerName": name}
                )
            )
        self.name = first.name
        self.broker = first.broker
        self.brokers = [member.broker for member in self._members]
        self._kind = proxy
        self._alone = f"127.0.0.1:{first.proxy_port + PROXY_PORT_ABOVE}"
        self.namesrv = self._alone if through else first.namesrv
        self._stack = contextlib.ExitStack()

    @property
    def proxy(self) -> str:
        """The gRPC endpoint, host:port."""
        return self._members[0].proxy if self._kind == "own" else self._alone

    def restart(self) -> None:
        for member in self._members:
            member.restart()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for member in self._members:
                stack.enter_context(member)
            if self._kind != "own":
                directory = Path(tempfile.mkdtemp(prefix="firearrow-interop-proxy-"))
                stack.callback(shutil.rmtree, directory, ignore_errors=True)
                port = int(self._alone.rpartition(":")[2])
                process = start_proxy(self._kind, self._members[0].namesrv, port, directory)
                stack.callback(process.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
