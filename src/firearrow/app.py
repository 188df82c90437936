"""The composition root: name server, broker, sockets and signals of one process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from firearrow import __version__, config_file
from firearrow.assembly import (
    STORE_SETTINGS,
    assemble,
    assemble_proxy,
    assemble_remote_proxy,
    open_broker_store,
)
from firearrow.broker.broker import Broker, Core
from firearrow.broker.registration import NameServerLink, Registrar, RemoteNameServer
from firearrow.codec.addresses import join_address
from firearrow.config import update
from firearrow.config_values import ConfigError, parse_addresses
from firearrow.features.delay import LevelError
from firearrow.local_registration import LocalNameServer
from firearrow.model.network import Peer, SessionFactory
from firearrow.namesrv.kv import KvConfig
from firearrow.namesrv.service import NameServer
from firearrow.plan import Plan, read_users
from firearrow.ports import Ports, StartError, port_of, reachable_address
from firearrow.protocol.either import EitherSession
from firearrow.protocol.grpc.server import GrpcServer
from firearrow.protocol.remoting.session import Dispatcher, RemotingSession, Route
from firearrow.proxy.authentication import Authenticator
from firearrow.proxy.remote.forwarding import Forwarding
from firearrow.proxy.service import Proxy
from firearrow.store.commitlog import WrongFileSize
from firearrow.store.compaction.pairs import CompactionDamaged
from firearrow.store.configfiles import ConfigUnreadable
from firearrow.store.disk import RealDisk
from firearrow.store.filestore import FileStore, StoreLocked
from firearrow.transport import interpreter, loop
from firearrow.transport.limits import Limits
from firearrow.transport.listener import Listener, PortBusy, listen_on
from firearrow.transport.network import SocketNetwork
from firearrow.transport.tls import TlsConfigError

log = logging.getLogger(__name__)

HA_PORT_ABOVE: Final = 1
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
DRAIN_S: Final = 3.0
UNREGISTER_S: Final = 3.0


def run(plan: Plan, started_s: float, say: Callable[[str], None]) -> None:
    """Run until a signal comes. ``say`` gets the ready line.

    Raises:
        StartError: it cannot start.
    """
    for warning in plan.warnings:
        log.warning("%s", warning)
    _allow_many_descriptors()
    try:
        loop.run(_serve(plan, started_s, say))
    except (
        StoreLocked,
        WrongFileSize,
        CompactionDamaged,
        ConfigUnreadable,
        PortBusy,
        TlsConfigError,
        LevelError,
    ) as error:
        raise StartError(str(error)) from None
    except OSError as error:
        raise StartError(_explain(error, plan)) from None


def _allow_many_descriptors() -> None:
    """A connection is a descriptor; shells give 1,024, and let a process raise that itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS has another limit below "none"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _check_place(file: Path) -> None:
    """Whether a file can be saved there later; its directory need not exist yet.

    Raises:
        OSError: there is something else than a directory.
    """
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK):
        log.warning(
            "%s cannot be written: changes of the key-value configuration are refused. Give the "
            "directory to the user that runs this, or give another with --store",
            folder,
        )


def _explain(error: OSError, plan: Plan) -> str:
    where = error.filename or plan.store
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"cannot write {where}: {error.strerror}; give it to the user that runs this, or give "
            "another directory with --store"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"cannot use {where}: it is no directory; give one with --store"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {where} is full; free space, or give another directory with --store"
    return f"{where}: {error.strerror or error}"


async def _serve(plan: Plan, started_s: float, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in SIGNALS:
        running.add_signal_handler(number, _signalled, stop)
    async with contextlib.AsyncExitStack() as stack:
        server = Server(plan, stack)
        await server.start()
        # What exists now lives until the end: the collector need not walk it again and again, which
        # would hold the loop for 20 ms each time.
        gc.collect()
        gc.freeze()
        elapsed = server.clock.monotonic() - started_s
        say(f"firearrow ready in {elapsed:.2f} s  {server.describe()}")
        log.info("firearrow %s on %s", __version__, interpreter.describe())
        await stop.wait()
        log.info("stopping")
        await server.leave()
    log.info("stopped")


def _signalled(stop: asyncio.Event) -> None:
    """The first signal stops cleanly; the next one ends the process at once."""
    stop.set()
    for number in SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)


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
        self._proxy: Proxy | None = None
        self._grpc: GrpcServer | None = None
        self._addresses: dict[str, str] = {}
        self._client_listeners: list[Listener] = []

    def describe(self) -> str:
        """``namesrv=host:port broker=host:port store=dir``."""
        return " ".join(f"{key}={value}" for key, value in self._addresses.items())

    async def start(self) -> None:
        """Open everything, in an order in which nobody sees a half-recovered broker."""
        plan = self.plan
        # Ports first: a busy one is told before the store is touched.
        ports = Ports(plan.host, self._stack)
        name_server = broker = proxy = None
        if plan.namesrv:
            name_server = await ports.take(plan.namesrv_port, "--namesrv-port")
        if plan.broker:
            broker = await ports.take_two(plan.broker_port)
        if plan.proxy_port is not None:
            proxy = await ports.take(plan.proxy_port, "--proxy-port (grpcServerPort)")
        store = self._open_store() if plan.broker else None
        if name_server is not None:
            self._start_name_server(name_server)
        if store is not None and broker is not None:
            self._start_broker(store, *broker)
            if proxy is not None:
                self._start_local_proxy(proxy)
            self._addresses["store"] = plan.store
        elif proxy is not None:
            self._start_remote_proxy(proxy)

    def _open_store(self) -> FileStore:
        root = str(Path(self.plan.store).resolve())
        settings = self.plan.settings
        if settings.flush_disk_type == "SYNC_FLUSH":
            loop.hand_over_quickly()
        return open_broker_store(root, settings, RealDisk(), self.clock, self.background)

    # -- name server

    def _start_name_server(self, sock: socket.socket) -> None:
        settings = self.plan.namesrv_settings
        settings.listen_port = port_of(sock)
        settings.bind_address = self.plan.host
        file = Path(settings.kv_config_path or Path(self.plan.store) / "kvConfig.json")
        _check_place(file)
        kv = KvConfig(lambda data: config_file.write(file, data))
        if file.exists():
            try:
                kv.load(file.read_bytes())
            except ValueError as error:
                raise StartError(
                    f"{file} is unreadable ({error}); repair it, or move it away"
                ) from None
        server = NameServer(self.clock, settings, kv, self._notify)
        if not self.plan.broker:
            server.configuration.save_settings = self._save_settings
        self.name_server = server
        self._listen(sock, server.routes(), server.session_closed)
        server.start()
        self._addresses["namesrv"] = self._shown(sock)

    def _notify(self, address: str, code: int, ext: dict[str, str]) -> None:
        """A one-way request to a broker, over a connection of its own."""

        def session(peer: Any) -> RemotingSession:
            made = RemotingSession(peer, Dispatcher({}), self.clock)
            self.clock.call_soon(made.notify, code, ext)
            self.clock.call_soon(peer.close, "notified")
            return made

        try:
            ((host, port),) = parse_addresses(address)
        except ValueError:  # a broker may say anything of itself
            log.warning(
                "a broker registered with %r, which is no address: set its brokerIP1 to one",
                address,
            )
        else:
            self.network.connect(host, port, session, lambda reason: None)

    # -- broker

    def _start_broker(self, store: FileStore, sock: socket.socket, fast: socket.socket) -> None:
        settings = self.plan.settings
        self._stack.callback(store.close)
        self._stack.callback(self.background.close)  # a save under way must not overtake the last
        host, port = settings.broker_ip1.strip("[]") or reachable_address(sock), port_of(sock)
        settings.listen_port = port
        self.broker = broker = assemble(settings, store, self.clock, (host, port))
        core = broker.core
        core.update = lambda wanted: self._update_settings(wanted, store)
        store.start()
        self._stack.callback(broker.stop)
        self._client_listeners = [
            self._listen(sock, broker.routes(), broker.session_closed),
            self._listen(fast, broker.fast_routes(), broker.session_closed),
        ]
        broker.start()
        self._register(core, host, port)
        self._addresses["broker"] = self._shown(sock)

    def _update_settings(self, wanted: Mapping[str, str], store: FileStore) -> Mapping[str, str]:
        """UPDATE_BROKER_CONFIG: counts at once, and stands in the file for the next start."""
        settings = self.plan.settings
        changed = update(settings, wanted, self._save_settings)
        for name in STORE_SETTINGS:
            setattr(store.settings, name, getattr(settings, name))
        if "brokerPermission" in changed and self.registrar is not None:
            self.registrar.permission_changed()
        return changed

    def _save_settings(self, changed: Mapping[str, str]) -> None:
        """Write changed settings into the file that this process was started with."""
        if changed and self.plan.config_path is not None:
            config_file.save(self.plan.config_path, changed)

    def _register(self, core: Core, host: str, port: int) -> None:
        settings = self.plan.settings
        ha_port = settings.ha_listen_port or port + HA_PORT_ABOVE
        address = join_address(host, port)
        ha_address = join_address(settings.broker_ip2.strip("[]") or host, ha_port)
        links: list[NameServerLink] = []
        if self.name_server is not None:
            if not settings.broker_ip1:
                self.name_server.shown.local_broker = address
            links.append(
                LocalNameServer(
                    self.name_server, settings, address, ha_address, core.topics.mark_ordered
                )
            )
        links += [
            RemoteNameServer(
                join_address(*name_server),
                settings,
                (address, ha_address),
                self.network,
                self.clock,
                core.topics.mark_ordered,
            )
            for name_server in parse_addresses(settings.namesrv_addr)
        ]
        if not links:
            log.warning(
                "no name server is configured (-n or namesrvAddr): clients find this broker "
                "only by its address"
            )
        self.registrar = Registrar(settings, core.topics, self.clock, links)
        if links:
            core.cluster_queues.source = self.registrar.queues_of
            core.siblings.connect(self.network, self.registrar.masters_of)
        self.registrar.start()

    # -- proxy

    def _start_local_proxy(self, sock: socket.socket) -> None:
        """In front of the broker of this process, which remoting clients reach here too."""
        broker = self.broker
        assert broker is not None
        proxy = assemble_proxy(self.plan.settings, broker, self.clock)
        broker.core.grpc_state = lambda: self._grpc.state() if self._grpc is not None else {}
        routes = {**(self.name_server.routes() if self.name_server else {}), **broker.routes()}
        dispatcher = Dispatcher(routes)

        def remoting(peer: Peer) -> RemotingSession:
            return RemotingSession(peer, dispatcher, self.clock, broker.session_closed)

        self._client_listeners.append(self._start_proxy(proxy, sock, remoting))

    def _start_remote_proxy(self, sock: socket.socket) -> None:
        """In front of brokers elsewhere."""
        proxy, backend = assemble_remote_proxy(self.plan.settings, self.network, self.clock)
        backend.start()
        self._stack.callback(backend.stop)
        forwarding = Forwarding(backend, self.plan.settings.broker_ip1.strip("[]"))
        dispatcher = Dispatcher(forwarding.routes())

        def remoting(peer: Peer) -> RemotingSession:
            return RemotingSession(peer, dispatcher, self.clock, forwarding.closed)

        self._client_listeners.append(self._start_proxy(proxy, sock, remoting))

    def _start_proxy(self, proxy: Proxy, sock: socket.socket, remoting: SessionFactory) -> Listener:
        """gRPC clients, and remoting ones on the same port."""
        if self.plan.settings.grpc_authentication_enabled:
            try:
                proxy.authenticator = Authenticator(read_users(self.plan.settings), self.clock)
            except ConfigError as error:
                raise StartError(str(error)) from None
        self._proxy, self._grpc = proxy, grpc = proxy, GrpcServer(proxy.methods(), self.clock)
        tls = self.plan.tls
        if tls.certificate is None:  # most SDKs use TLS unless told otherwise, and trust anybody
            tls = dataclasses.replace(tls, test_certificate=True)
        listener = listen_on(
            sock,
            lambda peer: EitherSession(peer, grpc.connect, remoting, grpc.refusals.count),
            tls=tls,
            limits=Limits(),
            clock=self.clock,
        )
        self._stack.callback(proxy.stop)
        self._stack.push_async_callback(listener.drain, DRAIN_S)
        proxy.admin.connections = grpc.__len__
        proxy.start()
        self._addresses["proxy"] = self._shown(sock)
        return listener

    # -- both

    def _listen(
        self,
        sock: socket.socket,
        routes: Mapping[int, Route],
        closed: Callable[[RemotingSession], None],
    ) -> Listener:
        dispatcher = Dispatcher(routes)
        listener = listen_on(
            sock,
            lambda peer: RemotingSession(peer, dispatcher, self.clock, closed),
            tls=self.plan.tls,
            limits=Limits(),
            clock=self.clock,
        )
        self._stack.push_async_callback(listener.drain, DRAIN_S)
        return listener

    def _shown(self, sock: socket.socket) -> str:
        return join_address(self.plan.host, port_of(sock))

    async def leave(self) -> None:
        """Say goodbye: first to the name servers, so that clients go elsewhere, then to clients."""
        if self._proxy is not None:
            self._proxy.health.stop()
        if self.registrar is not None:
            gone = asyncio.Event()
            self.registrar.stop(gone.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), UNREGISTER_S)
        # In one step, so that nobody begins to wait anew. gRPC clients are told to go before their
        # receives end, since they ask again at once.
        if self._proxy is not None and self._grpc is not None:
            self._grpc.leave("the server stops")
            self._proxy.dismiss()
        if self.broker is not None:
            self.broker.dismiss()
        for listener in self._client_listeners:
            listener.hang_up()
