"""``callerid``: the command that gathers the others. Each is thin over its room."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from callerid import __version__

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("callerid.cli.demo.command", "the whole story on this machine, in under a minute"),
    "init": ("callerid.cli.init", "make HOME with its CA and registry, and sample rules if there are none"),
    "run": ("callerid.cli.run", "the proxy"),
    "issue": ("callerid.cli.tokens", "issue a scoped token"),
    "derive": ("callerid.cli.derive", "a narrower token for a sub-agent"),
    "tokens": ("callerid.cli.tokens", "list scoped tokens"),
    "rotate": ("callerid.cli.tokens", "replace a token by a new one"),
    "revoke": ("callerid.cli.tokens", "revoke tokens"),
    "block": ("callerid.cli.offboarding", "refuse a principal whatever it presents"),
    "unblock": ("callerid.cli.offboarding", "take a block back"),
    "jwks": ("callerid.cli.jwks", "the keys by which servers verify who called, and new ones"),
    "check": ("callerid.cli.rules", "check the rule files"),
    "explain": ("callerid.cli.rules", "say how one call would be decided, and by which rule"),
    "audit": ("callerid.cli.audit", "read the audit trail"),
    "doctor": ("callerid.cli.doctor", "look at all that the proxy needs, and say what to do"),
}
"""Command -> (module, short help). Modules are loaded only for the command that is run."""


class Commands(click.Group):
    """A group that imports a command's module when it is asked for: ``tokens`` need no mitmproxy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        return found if isinstance(found, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="callerid")
def main() -> None:
    """Caller ID for MCP: a verified caller, a decision, the right secret and a row for every call."""
