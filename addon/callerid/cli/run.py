"""``callerid run``: the proxy in the foreground."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from callerid.cli.output import handle_errors
from callerid.errors import ConfigError
from callerid.home import Home
from callerid.proxy.limits import OPTIONS
from callerid.proxy.serve import Settings
from callerid.proxy.serve import run as serve


def _split(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {listen} is not HOST:PORT", hint="For example --listen 127.0.0.1:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


def _limits() -> str:
    """The limits as they stand, for the end of the help; the mark keeps its lines as they are."""
    lines = (f"  {option.name}={option.default or 'NETWORK'}" for option in OPTIONS)
    return "\b\nLimits, with their defaults (docs/limits.md):\n" + "\n".join(lines)


@click.command(epilog=_limits())
@click.option(
    "--home",
    envvar="CALLERID_HOME",
    default="./.callerid",
    type=click.Path(path_type=Path),
    help="State: CA, registry, audit.",
    show_default=True,
)
@click.option(
    "--rules",
    envvar="CALLERID_RULES",
    default="./rules",
    type=click.Path(path_type=Path),
    help="The four rule files.",
    show_default=True,
)
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    metavar="HOST:PORT",
    show_default=True,
    help="Where clients reach the proxy; port 0 takes any free one.",
)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    metavar="MODE",
    help="As mitmproxy's, repeatable: regular (default), reverse:https://HOST/[@HOST:PORT].",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="OPTION=VALUE",
    help="An option of mitmproxy, or a limit named below; unknown and unsafe ones are refused.",
)
@click.option(
    "--upstream-ca",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="PEM roots to trust besides certifi's, for servers and JWKS alike.",
)
@handle_errors
def run(
    home: Path,
    rules: Path,
    listen: str,
    modes: tuple[str, ...],
    sets: tuple[str, ...],
    upstream_ca: Path | None,
) -> None:
    """Run the proxy until SIGTERM or SIGINT. Rules are read again when a file changes, and on SIGHUP."""
    host, port = _split(listen)
    settings = Settings(
        home=Home(home.absolute()),
        rules=rules.absolute(),
        listen_host=host,
        listen_port=port,
        modes=modes or ("regular",),
        sets=sets,
        upstream_ca=upstream_ca.absolute() if upstream_ca else None,
    )

    def ready(addresses: Sequence[tuple[str, int]]) -> None:
        places = ", ".join(dict.fromkeys(f"{address}:{number}" for address, number in addresses))
        click.echo(f"callerid: listening on {places}", err=True)
        click.echo(f"callerid: clients trust {settings.home.ca_cert}", err=True)

    serve(settings, ready=ready)
