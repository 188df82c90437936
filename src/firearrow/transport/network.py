"""Outgoing connections over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from firearrow.model.network import SessionFactory
from firearrow.transport.connection import Connection, Connections
from firearrow.transport.limits import Limits
from firearrow.transport.tls import TlsClientPolicy, client_context


class SocketNetwork:
    """``model.network.Network``; who connects decides when an idle connection ends."""

    def __init__(self, *, tls: TlsClientPolicy | None = None, limits: Limits | None = None) -> None:
        """Connect in plain text, or with TLS when ``tls`` is given.

        Raises:
            TlsConfigError: the TLS settings cannot work.
        """
        self._context = None if tls is None else client_context(tls)
        self._limits = limits or Limits()
        self._connecting: set[asyncio.Task[None]] = set()
        self._connections = Connections()
        self.connections = self._connections.members

    def connect(
        self,
        host: str,
        port: int,
        factory: SessionFactory,
        failed: Callable[[str], None],
        timeout_s: float = 3.0,
    ) -> None:
        """Open a connection and start the session, or call ``failed`` with the reason."""
        work = self._open(host, port, factory, failed, timeout_s)
        task = asyncio.get_running_loop().create_task(work)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def close(self) -> None:
        """Drop every connection and attempt; returns when all are gone."""
        attempts = list(self._connecting)
        for task in attempts:
            task.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        for connection in list(self.connections):
            connection.abort()
        await self._connections.gone()

    async def _open(
        self,
        host: str,
        port: int,
        factory: SessionFactory,
        failed: Callable[[str], None],
        timeout_s: float,
    ) -> None:
        connection = Connection(factory, self._limits, self._connections)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, host, port, ssl=self._context
                )
        except TimeoutError:
            failed(f"{host}:{port} did not answer in {timeout_s:g} s")
        except (OSError, UnicodeError, OverflowError) as error:  # a bad name or port among them
            failed(f"cannot connect to {host}:{port}: {error}")
