"""The ``firearrow`` command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import click

from firearrow import __version__

Command = Callable[..., Any]

STARTED = time.monotonic()


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


_HOST = click.option(
    "--host",
    help="Address to listen on; 0.0.0.0: all, reachable from other machines.  [default: 127.0.0.1]",
)
_PORT = click.IntRange(0, 65535)
_NAMESRV_PORT = click.option(
    "--namesrv-port", type=_PORT, help="Port of the name server; 0: any free.  [default: 9876]"
)
_BROKER_PORT = click.option(
    "--broker-port",
    type=_PORT,
    help="Port of the broker; the fast port is this minus 2. 0: any free.  [default: 10911]",
)
_PROXY_PORT = click.option(
    "--proxy-port",
    type=_PORT,
    help="Port for gRPC clients (RocketMQ 5 SDKs); 0: any free.  [default: 8081, and as far from "
    "that as --broker-port from its default]",
)
_STORE = click.option(
    "--store",
    help="Directory of all data, RocketMQ's storePathRootDir.  [default: ./firearrow-store]",
)
_CONFIG = click.option(
    "-c",
    "--config",
    help="RocketMQ's property file (broker.conf); flags go before it.",
)
_NAMESRV_CONFIG = click.option(
    "-c",
    "--config",
    help="RocketMQ's property file (namesrv.conf); flags go before it.",
)
_LOGS = _options(
    click.option(
        "--log-format",
        type=click.Choice(["human", "json"]),
        default="human",
        show_default=True,
        help="Lines for people, or one JSON object a line, on standard error.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="What is less important is left out.",
    ),
)
_TLS = _options(
    click.option(
        "--tls-mode",
        type=click.Choice(["disabled", "permissive", "enforcing"]),
        help="TLS and plain on the same port (permissive), or only one of them.  "
        "[default: permissive]",
    ),
    click.option("--tls-cert", help="Certificate chain (PEM)."),
    click.option("--tls-key", help="Its key (PEM)."),
    click.option(
        "--tls-config",
        help="RocketMQ's file of TLS settings (tls.config.file), for client certificates and the "
        "key's password; flags go before it.",
    ),
    click.option(
        "--tls-test-certificate",
        is_flag=True,
        help="Make a self-signed certificate for every port.",
    ),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="firearrow")
def main() -> None:
    """Apache RocketMQ 5 in plain Python: name server, broker and gRPC proxy for its clients.

    \b
    Examples:
      firearrow up                                 everything on loopback, data in ./firearrow-store
      firearrow up --host 0.0.0.0                  reachable from other machines
      firearrow up -c broker.conf                  with RocketMQ's own settings
      firearrow namesrv --host 10.0.0.1            one process of a cluster,
      firearrow broker --host 10.0.0.2 -n 10.0.0.1:9876   and another one
      firearrow proxy --host 10.0.0.3 -n 10.0.0.1:9876    gRPC in front of such brokers

    Clients use the name server's address, 127.0.0.1:9876. Ctrl-C stops cleanly.
    """


@main.command()
@_HOST
@_NAMESRV_PORT
@_BROKER_PORT
@_PROXY_PORT
@_STORE
@_CONFIG
@_TLS
@_LOGS
def up(**options: Any) -> None:
    """Run name server, broker and gRPC proxy in one process.

    \b
    Examples:
      firearrow up
      firearrow up --store /var/lib/firearrow --host 0.0.0.0
      firearrow up --namesrv-port 0 --broker-port 0      on free ports, for tests
      firearrow up --tls-cert chain.pem --tls-key key.pem
    """
    _run(namesrv=True, broker=True, **options)


@main.command()
@_HOST
@_NAMESRV_PORT
@_STORE
@_NAMESRV_CONFIG
@_TLS
@_LOGS
def namesrv(**options: Any) -> None:
    """Run a name server.

    \b
    Example:
      firearrow namesrv --host 0.0.0.0
    """
    _run(namesrv=True, broker=False, **options)


@main.command()
@_HOST
@_BROKER_PORT
@_PROXY_PORT
@_STORE
@_CONFIG
@click.option(
    "-n",
    "--namesrv-addr",
    help="Name servers to register with: host:port;host:port.  [default: namesrvAddr of the file]",
)
@_TLS
@_LOGS
def broker(**options: Any) -> None:
    """Run a broker.

    Clients get the address that it registers: brokerIP1 of the file, or else the one it listens on.

    \b
    Example:
      firearrow broker --host 10.0.0.2 -n "10.0.0.1:9876;10.0.0.9:9876" -c broker.conf
    """
    _run(namesrv=False, broker=True, **options)


@main.command()
@_HOST
@click.option(
    "--proxy-port",
    type=_PORT,
    help="Port for gRPC clients (RocketMQ 5 SDKs); 0: any free.  [default: 8081]",
)
@_CONFIG
@click.option(
    "-n",
    "--namesrv-addr",
    help="Name servers of the brokers: host:port;host:port.  [default: namesrvAddr of the file]",
)
@_TLS
@_LOGS
def proxy(**options: Any) -> None:
    """Run a gRPC proxy in front of brokers, Firearrow's or RocketMQ's.

    It keeps nothing: as many as wanted may run side by side, in front of the same brokers.

    \b
    Example:
      firearrow proxy --host 10.0.0.3 -n "10.0.0.1:9876;10.0.0.9:9876"
    """
    _run(namesrv=False, broker=False, **options)


@main.command()
@click.option("-b", "--broker", "address", default="127.0.0.1:10911", show_default=True)
@click.option("-g", "--group", required=True, help="The group whose dead letters they are.")
@click.option(
    "--to",
    type=click.Choice(["topic", "group"]),
    default="topic",
    show_default=True,
    help="Back to their topic, where every group sees them, or to this group alone.",
)
@click.option("--max", "count", type=click.IntRange(0), help="No more than so many; 0: only count.")
def redrive(**options: Any) -> None:
    """Send a consumer group's dead letters back, oldest first.

    What was sent back once is not sent again. The dead letters themselves stay until retention.

    \b
    Examples:
      firearrow redrive -g payments
      firearrow redrive -g payments --to group -b 10.0.0.2:10911
      firearrow redrive -g payments --max 0          only say how many there are
    """
    from firearrow.cli import redrive as it

    try:
        moved, remaining = it.run(**options)
    except it.RedriveError as error:
        click.echo(f"firearrow: {error}", err=True)
        sys.exit(1)
    click.echo(f"{moved} sent back, {remaining} left")


def _run(*, log_format: str, log_level: str, **options: Any) -> None:
    from firearrow import app
    from firearrow.cli import logs
    from firearrow.config_values import ConfigError
    from firearrow.plan import Plan
    from firearrow.ports import StartError

    logs.set_up(log_format, log_level)
    try:
        app.run(Plan.from_options(**options), STARTED, click.echo)
    except StartError as error:
        click.echo(f"firearrow: {error}", err=True)
        sys.exit(1)
    except ConfigError as error:
        click.echo(f"firearrow: {error}", err=True)
        sys.exit(2)
