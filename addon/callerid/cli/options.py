"""Options that several commands share: one spelling, one default, one help text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from callerid.identity.spans import seconds_of

home_option = click.option(
    "--home",
    envvar="CALLERID_HOME",
    default="./.callerid",
    show_default=True,
    type=click.Path(path_type=Path),
    help="State: CA, registry, audit.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
why_option = click.option("--why", help="Kept beside it, for whoever asks later.")
server_option = click.option(
    "--server", "servers", multiple=True, metavar="ID", help="Good for this server only; repeatable."
)
tool_option = click.option(
    "--tool", "tools", multiple=True, metavar="GLOB", help="Good for these tools only; repeatable."
)
network_option = click.option(
    "--network",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="Good from these client addresses only, 10.20.0.0/16; repeatable.",
)


def span(text: str) -> int | None:
    """``90s``, ``15m``, ``1h``, ``7d``, ``2w`` in seconds; None for anything else, and beyond six digits."""
    if len(text) > 7:
        return None
    days = seconds_of(f"{text[:-1]}d") if text.endswith("w") else None
    return days * 7 if days is not None else seconds_of(text)


def rules_option[**P, R](use: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """``--rules``, with what this command reads there."""
    return click.option(
        "--rules",
        envvar="CALLERID_RULES",
        default="./rules",
        show_default=True,
        type=click.Path(path_type=Path),
        help=use,
    )
