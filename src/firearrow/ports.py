"""The ports of a process: all are taken before anything else is touched."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Final

from firearrow.transport.listener import PortBusy, bind

FAST_PORT_BELOW: Final = 2
FREE_PORT_TRIES: Final = 20
ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared, not bound


class StartError(Exception):
    """The server cannot start; the text is one sentence that says what to do."""


class Ports:
    """Sockets bound on one host; the stack closes them."""

    def __init__(self, host: str, stack: contextlib.AsyncExitStack) -> None:
        self._host = host
        self._stack = stack
        self._options: dict[int, str] = {}

    async def take(self, port: int, option: str, *, hold: bool = False) -> socket.socket:
        """Bind ``port``; 0 is any free one. ``option`` is what chooses another.

        Raises:
            StartError: it cannot be had.
        """
        host = self._host
        if port in self._options:
            raise StartError(
                f"port {port} is wanted twice, by {self._options[port]} and {option}: choose "
                "another for one of them"
            )
        try:
            sock = await bind(host, port, hold=hold)
        except PortBusy:
            raise StartError(
                f"port {port} on {host} is in use: stop the other server, or choose another port "
                f"with {option}"
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                raise StartError(f"{host} is not an address of this machine; see --host") from None
            raise StartError(
                f"cannot listen on port {port} of {host}: {error.strerror}; choose another port "
                f"with {option}"
            ) from None
        self._stack.callback(sock.close)
        self._options[port_of(sock)] = option
        return sock

    async def take_two(self, wanted: int) -> tuple[socket.socket, socket.socket]:
        """A broker's port, and the fast port below it.

        Raises:
            StartError: they cannot be had.
        """
        option = "--broker-port (listenPort)"
        if wanted:
            fast_option = f"{option}; it is the fast port, {wanted} minus {FAST_PORT_BELOW}"
            main = await self.take(wanted, option)
            return main, await self.take(wanted - FAST_PORT_BELOW, fast_option)
        for _ in range(FREE_PORT_TRIES):
            main = await self.take(0, option)
            port = port_of(main)
            with contextlib.suppress(StartError):
                return main, await self.take(port - FAST_PORT_BELOW, option, hold=True)
            del self._options[port]
            main.close()
        raise StartError("there are no two free ports for a broker; choose one with --broker-port")


def port_of(sock: socket.socket) -> int:
    """The port that a socket is bound to."""
    return int(sock.getsockname()[1])


def reachable_address(sock: socket.socket) -> str:
    """The address by which clients elsewhere reach it; a guess when it listens on all."""
    host = str(sock.getsockname()[0])
    if host not in ANY_ADDRESS:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses a way
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
