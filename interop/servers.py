"""The servers under test: ours, and the Java name server and broker that judge the scenarios."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from interop.java.jars import fetch_jars
from interop.remoting import Remote

JAVA_VERSION = "5.5.0"
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 120  # RocketMQ's broker waits for each of its pop threads
CURVE = "ec_paramgen_curve:prime256v1"
NO_AUTHORITY = "basicConstraints=critical,CA:FALSE"
NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"
LIGHT_QUEUES = {"enableLmq": "true", "enableMultiDispatch": "true"}  # for lite topics
PROXY_PORT_BELOW = 2830  # as ``firearrow`` chooses its gRPC port


class ServerError(Exception):
    """The server did not start or stop; the text has the end of its output."""


class Process:
    """One process that says in its output file when it is ready."""

    def __init__(self, command: Sequence[str], ready: str, output: Path) -> None:
        self._command = command
        self._output = output
        with output.open("w") as out:  # a file: nobody has to drain it
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            self._wait_for(ready)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def _wait_for(self, ready: str) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while ready not in self._output.read_text(errors="replace"):
            if self._process.poll() is not None:
                raise self._error(f"ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._error(f"was not ready in {START_SECONDS_MAX} s")
            time.sleep(0.02)

    def _error(self, what: str) -> ServerError:
        tail = self._output.read_text(errors="replace")[-1500:]
        return ServerError(f"{' '.join(self._command)} {what}:\n{tail}")

    def stop(self) -> None:
        """Ask it to end, and wait: a broker writes its state on the way out."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise self._error(f"did not stop in {STOP_SECONDS_MAX} s") from None
        if status not in (0, 128 + signal.SIGTERM):  # the second is how a JVM ends
            raise self._error(f"ended with status {status}")

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()


class LocalServer(ABC):
    """A name server and a broker on loopback, or one of them.

    A port of 0 leaves its server out; a broker alone registers with ``namesrv_addr``. ``settings``
    are lines of a broker.conf, ``namesrv_settings`` of a namesrv.conf. The store lasts as long as
    the object, unless ``store`` is given.
    """

    name: str
    usual_ports: tuple[int, int]  # of the name server and of the broker

    def __init__(
        self,
        namesrv_port: int,
        broker_port: int,
        *,
        namesrv_addr: str = "",
        settings: Mapping[str, object] | None = None,
        namesrv_settings: Mapping[str, object] | None = None,
        store: Path | None = None,
    ) -> None:
        self.namesrv_port = namesrv_port
        self.broker_port = broker_port
        self.namesrv = f"127.0.0.1:{namesrv_port}" if namesrv_port else namesrv_addr
        self.broker = f"127.0.0.1:{broker_port}"
        self.brokers = [self.broker]
        self.proxy_port = broker_port - PROXY_PORT_BELOW
        self.settings = dict(settings or {})
        self.namesrv_settings = dict(namesrv_settings or {})
        self.directory = Path(tempfile.mkdtemp(prefix="firearrow-interop-"))
        self.store = store or self.directory / "store"
        self._running: list[Process] = []

    @abstractmethod
    def _start(self) -> None:
        """Start every process, each appended to ``_running``."""

    def start(self) -> None:
        """Start again what was stopped or killed."""
        self._start()

    @property
    def proxy(self) -> str:
        """The gRPC endpoint, host:port."""
        return f"127.0.0.1:{self.proxy_port}"

    def stop(self) -> None:
        while self._running:
            self._running.pop().stop()

    def kill(self) -> None:
        """End every process as a crash would."""
        while self._running:
            self._running.pop().kill()

    def restart(self) -> None:
        self.stop()
        self._start()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


class FirearrowServer(LocalServer):
    """``firearrow`` of this checkout, with its self-signed test certificate."""

    name = "firearrow"
    usual_ports = 25876, 25911

    def _start(self) -> None:
        what = "up" if self.namesrv_port and self.broker_port else "broker"
        if not self.broker_port:
            what = "namesrv"
        command = [sys.executable, "-m", "firearrow", what, "--host", "127.0.0.1"]
        command += ["--store", str(self.store), "--tls-test-certificate"]
        if self.namesrv_port:
            command += ["--namesrv-port", str(self.namesrv_port)]
        elif self.namesrv:
            command += ["--namesrv-addr", self.namesrv]
        if self.broker_port:
            command += ["--broker-port", str(self.broker_port)]
        file = self.directory / f"{what}.conf"
        file.write_text(_properties(self.settings if self.broker_port else self.namesrv_settings))
        command += ["--config", str(file)]
        output = self.directory / "firearrow.out"
        self._running.append(Process(command, "firearrow ready in ", output))


class JavaServer(LocalServer):
    """RocketMQ's own name server and broker, fetched from Maven Central by name."""

    name = f"java {JAVA_VERSION}"
    usual_ports = 24876, 24911
    launcher: Sequence[str] = ()  # a command that starts the JVMs, such as taskset
    collector = "-XX:+UseSerialGC"
    broker_heap = "512m"

    def __init__(self, namesrv_port: int, broker_port: int, **options: Any) -> None:
        super().__init__(namesrv_port, broker_port, **options)
        self._proxy: Process | None = None

    def _start(self) -> None:
        if self.namesrv_port:
            self._namesrv()
        if self.broker_port:
            self._broker()

    @property
    def proxy(self) -> str:
        """RocketMQ's proxy, started when the first suite asks for it."""
        if self._proxy is None:
            self._proxy = start_proxy("java", self.namesrv, self.proxy_port, self.directory)
        return super().proxy

    def stop(self) -> None:
        if self._proxy is not None:
            self._proxy.stop()
            self._proxy = None
        super().stop()

    def restart(self) -> None:
        self._running.pop().stop()  # the broker only: that is what a cluster restarts
        self._broker()

    def _namesrv(self) -> None:
        settings = {"listenPort": self.namesrv_port, **self.namesrv_settings}
        self._java("namesrv", "128m", "org.apache.rocketmq.namesrv.NamesrvStartup", settings)

    def _broker(self) -> None:
        settings = {
            "brokerClusterName": "DefaultCluster",
            "brokerName": "broker-a",
            "brokerId": 0,
            "brokerIP1": "127.0.0.1",
            "listenPort": self.broker_port,
            "haListenPort": self.broker_port + 1,
            "storePathRootDir": self.store,
            "storePathCommitLog": self.store / "commitlog",
            "mappedFileSizeCommitLog": 67108864,
            "waitTimeMillsInSendQueue": 8000,  # a JVM that just started is slow: no flow control
            "diskMaxUsedSpaceRatio": 95,
            "autoCreateTopicEnable": "true",
            "enablePropertyFilter": "true",
            **({"namesrvAddr": self.namesrv} if self.namesrv else {}),
            **self.settings,
        }
        self._run_broker(settings)
        if self.namesrv:
            self._await_route(f"{settings['brokerName']}")

    def _run_broker(self, settings: Mapping[str, object]) -> None:
        self._java("broker", self.broker_heap, "org.apache.rocketmq.broker.BrokerStartup", settings)

    def _java(self, name: str, heap: str, main: str, settings: Mapping[str, object]) -> None:
        jars = fetch_jars(JAVA_VERSION, "rocketmq-namesrv", "rocketmq-broker")
        file = self.directory / f"{name}.conf"
        file.write_text(_properties(settings))
        command = [*self._java_command(heap), "-cp", f"{jars}/*", main, "-c", str(file)]
        self._running.append(Process(command, "boot success", self.directory / f"{name}.out"))

    def _java_command(self, heap: str) -> list[str]:
        command = [*self.launcher, "java", self.collector, f"-Xmx{heap}"]
        command += ["-XX:MaxDirectMemorySize=512m", f"-Duser.home={self.directory}"]
        return [*command, f"-Drocketmq.home.dir={self.directory}"]

    def _await_route(self, broker_name: str) -> None:
        """A broker says it is up before the name server has its topics."""
        deadline = time.monotonic() + START_SECONDS_MAX
        with Remote(self.namesrv.split(";")[0]) as namesrv:
            # Every broker has a topic of its own name.
            while namesrv.call(105, {"topic": broker_name}).code != 0:
                if time.monotonic() > deadline:
                    raise ServerError("the broker never registered with the name server")
                time.sleep(0.1)


class JavaLocalServer(JavaServer):
    """RocketMQ's own name server, and its proxy with the broker inside, like ``firearrow up``."""

    name = f"java {JAVA_VERSION}, local proxy"

    @property
    def proxy(self) -> str:
        return f"127.0.0.1:{self.proxy_port}"

    def _run_broker(self, settings: Mapping[str, object]) -> None:
        broker, proxy = self.directory / "broker.conf", self.directory / "rmq-proxy.json"
        broker.write_text(_properties(settings))
        certificate, key = self.directory / "tls.crt", self.directory / "tls.key"
        # Its routes name the address, whatever name a client used.
        openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", CURVE, "-nodes"]
        openssl += ["-subj", "/CN=localhost", "-addext", NAMES, "-addext", NO_AUTHORITY]
        openssl += ["-out", str(certificate), "-keyout", str(key)]
        subprocess.run(openssl, check=True, capture_output=True)
        endpoint = {
            "rocketMQClusterName": settings["brokerClusterName"],
            "grpcServerPort": self.proxy_port,
            "remotingListenPort": self.proxy_port + 1,
            "tlsTestModeEnable": False,
            "tlsCertPath": str(certificate),
            "tlsKeyPath": str(key),
        }
        proxy.write_text(json.dumps(endpoint))
        command = [*self._java_command(self.broker_heap), "-cp", f"{_proxy_jars()}/*"]
        command += ["org.apache.rocketmq.proxy.ProxyStartup", "-pm", "LOCAL"]
        command += ["-n", self.namesrv, "-bc", str(broker), "-pc", str(proxy)]
        output = self.directory / "local.out"
        self._running.append(Process(command, "startup successfully", output))


def _properties(settings: Mapping[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def start_proxy(kind: str, namesrv: str, port: int, directory: Path) -> Process:
    """``firearrow proxy``, or RocketMQ's own in cluster mode (remoting: the port above)."""
    output = directory / f"{kind}-proxy.out"
    if kind == "firearrow":
        command = [sys.executable, "-m", "firearrow", "proxy", "--proxy-port", str(port)]
        return Process([*command, "-n", namesrv], "firearrow ready in ", output)
    file = directory / "rmq-proxy.json"
    settings = {
        "rocketMQClusterName": "DefaultCluster",
        "namesrvAddr": namesrv,
        "grpcServerPort": port,
        "remotingListenPort": port + 1,
        "remotingAccessAddr": "127.0.0.1",
    }
    file.write_text(json.dumps(settings))
    command = ["java", "-XX:+UseSerialGC", "-Xmx512m", "-XX:MaxDirectMemorySize=512m"]
    command += [f"-Duser.home={directory}", f"-Drocketmq.home.dir={directory}"]
    command += ["-cp", f"{_proxy_jars()}/*"]
    command += ["org.apache.rocketmq.proxy.ProxyStartup", "-pm", "CLUSTER", "-pc", str(file)]
    return Process(command, "startup successfully", output)


def _proxy_jars() -> Path:
    return fetch_jars(JAVA_VERSION, "rocketmq-proxy")
