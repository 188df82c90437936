"""The ``firearrow`` command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
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
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all."
)
_NAMESRV_PORT = click.option(
    "--namesrv-port", default=9876, show_default=True, help="Port of the name server; 0: any free."
)
_BROKER_PORT = click.option(
    "--broker-port",
    type=int,
    help="Port of the broker; the fast port is this minus 2. 0: any free.  [default: 10911]",
)
_STORE = click.option("--store", help="Directory of the store.  [default: ./firearrow-store]")
_CONFIG = click.option(
    "-c",
    "--config",
    type=click.Path(exists=True, dir_okay=False),
    help="RocketMQ property file (broker.conf).",
)
_LOGS = _options(
    click.option(
        "--log-format", type=click.Choice(["human", "json"]), default="human", show_default=True
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
    ),
)
_TLS = _options(
    click.option(
        "--tls-mode",
        type=click.Choice(["disabled", "permissive", "enforcing"]),
        default="permissive",
        show_default=True,
        help="TLS and plain on the same port (permissive), or only one of them.",
    ),
    click.option("--tls-cert", type=click.Path(exists=True), help="Certificate chain (PEM)."),
    click.option("--tls-key", type=click.Path(exists=True), help="Its key (PEM)."),
    click.option(
        "--tls-test-certificate",
        is_flag=True,
        help='Make a self-signed certificate (needs "firearrow[tls-test]").',
    ),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="firearrow")
def main() -> None:
    """Apache RocketMQ 5 in plain Python: name server and broker for unmodified clients.

    \b
    Example:
      firearrow up                 everything on loopback, data in ./firearrow-store
      firearrow up --host 0.0.0.0  reachable from other machines
    """


@main.command()
@_HOST
@_NAMESRV_PORT
@_BROKER_PORT
@_STORE
@_CONFIG
@_TLS
@_LOGS
def up(**options: Any) -> None:
    """Run name server and broker in one process."""
    _run(namesrv=True, broker=True, **options)


@main.command()
@_HOST
@_NAMESRV_PORT
@_STORE
@_TLS
@_LOGS
def namesrv(**options: Any) -> None:
    """Run a name server."""
    _run(namesrv=True, broker=False, **options)


@main.command()
@_HOST
@_BROKER_PORT
@_STORE
@_CONFIG
@click.option(
    "-n", "--namesrv-addr", help="Name servers: host:port;host:port.  [default: namesrvAddr]"
)
@_TLS
@_LOGS
def broker(**options: Any) -> None:
    """Run a broker."""
    _run(namesrv=False, broker=True, **options)


def _run(*, log_format: str, log_level: str, config: str | None = None, **options: Any) -> None:
    from firearrow import app
    from firearrow import config as settings_file
    from firearrow.cli import logs

    logs.set_up(log_format, log_level)
    try:
        settings = settings_file.BrokerSettings()
        warnings: list[str] = []
        if config is not None:
            settings, warnings = settings_file.load(Path(config).read_text("utf-8"), config)
        plan = app.Plan.from_options(settings, config, **options)
        app.run(plan, warnings, STARTED, click.echo)
    except app.StartError as error:
        click.echo(f"firearrow: {error}", err=True)
        sys.exit(1)
    except settings_file.ConfigError as error:
        click.echo(f"firearrow: {error}", err=True)
        sys.exit(2)
