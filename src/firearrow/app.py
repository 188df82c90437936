"""The composition root: name server, broker, sockets and signals of one process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from firearrow.assembly import STORE_SETTINGS, assemble, open_broker_store
from firearrow.broker.broker import Broker, Core
from firearrow.broker.registration import (
    Everything,
    NameServerLink,
    Registrar,
    RemoteNameServer,
)
from firearrow.config import BrokerSettings, replace_in_file, update
from firearrow.features.delay import LevelError
from firearrow.model.topic import DataVersion, Topic
from firearrow.namesrv.kv import KvConfig
from firearrow.namesrv.routes import Registration
from firearrow.namesrv.service import NameServer
from firearrow.namesrv.settings import NamesrvSettings
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession, Route
from firearrow.store.commitlog import WrongFileSize
from firearrow.store.disk import RealDisk
from firearrow.store.filestore import FileStore, StoreLocked
from firearrow.transport import loop
from firearrow.transport.limits import Limits
from firearrow.transport.listener import Listener, PortBusy, listen
from firearrow.transport.network import SocketNetwork
from firearrow.transport.tls import TlsConfigError, TlsMode, TlsPolicy

log = logging.getLogger(__name__)

DEFAULT_STORE: Final = "./firearrow-store"
DEFAULT_BROKER_PORT: Final = 10911
FAST_PORT_BELOW: Final = 2
HA_PORT_ABOVE: Final = 1
DRAIN_S: Final = 3.0
UNREGISTER_S: Final = 3.0
FREE_PORT_TRIES: Final = 20
ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared, not bound


class StartError(Exception):
    """The server cannot start; the text is one sentence that says what to do."""


@dataclass
class Plan:
    """What to run."""

    settings: BrokerSettings
    store: str
    host: str = "127.0.0.1"
    namesrv: bool = True
    broker: bool = True
    namesrv_port: int = 9876
    broker_port: int = DEFAULT_BROKER_PORT
    config_path: str | None = None
    tls: TlsPolicy = field(default_factory=TlsPolicy)

    @classmethod
    def from_options(
        cls,
        settings: BrokerSettings,
        config_path: str | None,
        *,
        namesrv: bool,
        broker: bool,
        host: str,
        store: str | None,
        tls_mode: str,
        tls_cert: str | None,
        tls_key: str | None,
        tls_test_certificate: bool,
        namesrv_port: int = 9876,
        broker_port: int | None = None,
        namesrv_addr: str | None = None,
    ) -> Plan:
        """From the command line's flags, which go before the file."""
        if namesrv_addr:
            settings.namesrv_addr = namesrv_addr
        tls = TlsPolicy(
            TlsMode(tls_mode),
            Path(tls_cert) if tls_cert else None,
            Path(tls_key) if tls_key else None,
            test_certificate=tls_test_certificate,
        )
        return cls(
            settings,
            store or settings.store_path_root_dir or DEFAULT_STORE,
            host,
            namesrv,
            broker,
            namesrv_port,
            settings.listen_port if broker_port is None else broker_port,
            config_path,
            tls,
        )


def run(plan: Plan, warnings: list[str], started_s: float, say: Callable[[str], None]) -> None:
    """Run until a signal comes. ``say`` gets the ready line.

    Raises:
        StartError: it cannot start.
    """
    for warning in warnings:
        log.warning("%s", warning)
    try:
        loop.run(_serve(plan, started_s, say))
    except (StoreLocked, WrongFileSize, PortBusy, TlsConfigError, LevelError) as error:
        raise StartError(str(error)) from None
    except OSError as error:
        raise StartError(_explain(error, plan)) from None


def _explain(error: OSError, plan: Plan) -> str:
    where = error.filename or plan.store
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot write {where}: {error.strerror}; give a directory of yours with --store"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {where} is full; free space, or give another directory with --store"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{plan.host} is not an address of this machine; see --host"
    return f"{where}: {error.strerror or error}"


async def _serve(plan: Plan, started_s: float, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        running.add_signal_handler(number, _signalled, stop, number)
    async with contextlib.AsyncExitStack() as stack:
        server = Server(plan, stack)
        await server.start()
        # What exists now lives until the end: the collector need not walk it again and again, which
        # would hold the loop for 20 ms each time.
        gc.collect()
        gc.freeze()
        elapsed = server.clock.monotonic() - started_s
        say(f"firearrow ready in {elapsed:.2f} s  {server.describe()}")
        await stop.wait()
        log.info("stopping")
        await server.leave()
    log.info("stopped")


def _signalled(stop: asyncio.Event, number: int) -> None:
    """The first signal stops cleanly; the next one has its ordinary effect."""
    stop.set()
    asyncio.get_running_loop().remove_signal_handler(number)


class Server:
    """One process: name server, broker, or both. The stack closes what it opens, last first."""

    def __init__(self, plan: Plan, stack: contextlib.AsyncExitStack) -> None:
        self.plan = plan
        self._stack = stack
        self.clock = loop.LoopClock()
        self.background = loop.ThreadBackground()
        stack.callback(self.background.close)
        self.network = SocketNetwork()
        stack.push_async_callback(self.network.close)
        self.name_server: NameServer | None = None
        self.broker: Broker | None = None
        self.registrar: Registrar | None = None
        self._addresses: dict[str, str] = {}
        self._broker_listeners: list[Listener] = []

    def describe(self) -> str:
        """``namesrv=host:port broker=host:port store=dir``."""
        return " ".join(f"{key}={value}" for key, value in self._addresses.items())

    async def start(self) -> None:
        """Open everything, in an order in which nobody sees a half-recovered broker."""
        plan = self.plan
        store = self._open_store() if plan.broker else None
        if plan.namesrv:
            await self._start_name_server()
        if store is not None:
            await self._start_broker(store)
            self._addresses["store"] = plan.store

    def _open_store(self) -> FileStore:
        root = str(Path(self.plan.store).resolve())
        settings = self.plan.settings
        return open_broker_store(root, settings, RealDisk(), self.clock, self.background)

    # -- name server

    async def _start_name_server(self) -> None:
        plan = self.plan
        file = Path(plan.store) / "kvConfig.json"
        kv = KvConfig(lambda data: _write(file, data))
        if file.exists():
            kv.load(file.read_bytes())
        server = NameServer(self.clock, NamesrvSettings(), kv, self._notify)
        self.name_server = server
        listener = await self._listen(plan.namesrv_port, server.routes(), server.session_closed)
        server.start()
        self._addresses["namesrv"] = _shown(plan.host, listener)

    def _notify(self, address: str, code: int, ext: dict[str, str]) -> None:
        """A one-way request to a broker, over a connection of its own."""
        host, _, port = address.rpartition(":")

        def session(peer: Any) -> RemotingSession:
            made = RemotingSession(peer, Dispatcher({}), self.clock)
            self.clock.call_soon(made.notify, code, ext)
            self.clock.call_soon(peer.close, "notified")
            return made

        self.network.connect(host, int(port), session, lambda reason: None)

    # -- broker

    async def _start_broker(self, store: FileStore) -> None:
        plan, settings = self.plan, self.plan.settings
        self._stack.callback(store.close)
        self._stack.callback(self.background.close)  # a save under way must not overtake the last
        host = settings.broker_ip1 or _advertised(plan.host)
        port = plan.broker_port or _free_broker_port(plan.host)
        self.broker = broker = assemble(settings, store, self.clock, (host, port))
        core = broker.core
        core.update = lambda wanted: self._update_settings(wanted, store)
        store.start()
        self._stack.callback(broker.stop)
        listener = await self._listen(port, broker.routes(), broker.session_closed)
        fast_port = port - FAST_PORT_BELOW
        fast = await self._listen(fast_port, broker.fast_routes(), broker.session_closed)
        self._broker_listeners = [listener, fast]
        broker.start()
        self._register(core, host, port)
        self._addresses["broker"] = _shown(plan.host, listener)

    def _update_settings(self, wanted: Mapping[str, str], store: FileStore) -> Mapping[str, str]:
        """UPDATE_BROKER_CONFIG: counts at once, and stands in the file for the next start."""
        settings = self.plan.settings
        changed = update(settings, wanted)
        for name in STORE_SETTINGS:
            setattr(store.settings, name, getattr(settings, name))
        if changed and self.plan.config_path is not None:
            file = Path(self.plan.config_path)
            _write(file, replace_in_file(file.read_text("utf-8"), changed).encode())
        if "brokerPermission" in changed and self.registrar is not None:
            self.registrar.permission_changed()
        return changed

    def _register(self, core: Core, host: str, port: int) -> None:
        plan, settings = self.plan, self.plan.settings
        ha_port = settings.ha_listen_port or port + HA_PORT_ABOVE
        address, ha_address = f"{host}:{port}", f"{settings.broker_ip2 or host}:{ha_port}"
        links: list[NameServerLink] = []
        if self.name_server is not None:
            if plan.host in ANY_ADDRESS and not settings.broker_ip1:
                self.name_server.local_broker = address
            links.append(
                LocalNameServer(
                    self.name_server, settings, address, ha_address, core.topics.mark_ordered
                )
            )
        links += [
            RemoteNameServer(
                name_server,
                settings,
                (address, ha_address),
                self.network,
                self.clock,
                core.topics.mark_ordered,
            )
            for name_server in filter(None, map(str.strip, settings.namesrv_addr.split(";")))
        ]
        if not links:
            log.warning(
                "no name server is configured (-n or namesrvAddr): clients find this broker "
                "only by its address"
            )
        self.registrar = Registrar(settings, core.topics, self.clock, links)
        self.registrar.start()

    # -- both

    async def _listen(
        self, port: int, routes: Mapping[int, Route], closed: Callable[[RemotingSession], None]
    ) -> Listener:
        dispatcher = Dispatcher(routes)
        listener = await listen(
            self.plan.host,
            port,
            lambda peer: RemotingSession(peer, dispatcher, self.clock, closed),
            tls=self.plan.tls,
            limits=Limits(),
            clock=self.clock,
        )
        self._stack.push_async_callback(listener.drain, DRAIN_S)
        return listener

    async def leave(self) -> None:
        """Say goodbye: first to the name servers, so that clients go elsewhere, then to clients."""
        if self.registrar is not None:
            gone = asyncio.Event()
            self.registrar.stop(gone.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), UNREGISTER_S)
        if self.broker is not None:
            # Whoever waits hears something now, since some clients would wait out their own
            # time-out; and in the same step the connections close, since an answered client pulls
            # again at once, and would wait for the answer to that pull.
            self.broker.long_poll.wake_all()
            for listener in self._broker_listeners:
                listener.hang_up()


class LocalNameServer:
    """The name server of this process, as the registrar sees it."""

    def __init__(
        self,
        server: NameServer,
        settings: BrokerSettings,
        address: str,
        ha_address: str,
        order_topics: Callable[[list[str]], None],
    ) -> None:
        self._server = server
        self._settings = settings
        self._address = address
        self._ha_address = ha_address
        self._order_topics = order_topics

    def start(self, everything: Everything) -> None:
        self.register(*everything())

    def register(self, topics: dict[str, Topic], version: DataVersion) -> None:
        settings = self._settings
        broker = Registration(
            settings.broker_cluster_name,
            settings.broker_name,
            settings.broker_id,
            self._address,
            self._ha_address,
            acting_master=False,
        )
        self._server.register(broker, topics, version, self)
        self._order_topics(list(self._server.order_topics() or ()))

    def unregister(self, done: Callable[[], None]) -> None:
        settings = self._settings
        self._server.unregister(settings.broker_cluster_name, settings.broker_name, self._address)
        done()


def _shown(host: str, listener: Listener) -> str:
    return f"{host}:{listener.address[1]}"


def _advertised(host: str) -> str:
    """The address that other machines use when the server listens on all."""
    if host not in ANY_ADDRESS:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses a way
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _free_broker_port(host: str) -> int:
    """A port that is free, and the fast port below it too."""
    for _ in range(FREE_PORT_TRIES):
        with socket.socket() as first, socket.socket() as second:
            first.bind((host, 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError):
                second.bind((host, port - FAST_PORT_BELOW))
                return port
    raise OSError(errno.EADDRINUSE, "no two free ports for the broker")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
