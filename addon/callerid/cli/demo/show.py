"""How the demo looks: numbered steps for a person, nothing for a machine.

Text that came over the wire is shown with control characters escaped and never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from callerid.cli.demo.cast import COLUMNS, Act
from callerid.cli.demo.checks import Check
from callerid.cli.demo.stage import Stage, Token
from callerid.cli.output import printable, printable_lines

_INDENT = (0, 0, 0, 3)
_WIDE = 118
"""Columns of a terminal that shows the whole table without folding; a narrower one gets two lines a row."""
_NARROW = ("principal", "server", "tool", "verdict", "reason")
_CREDENTIALS = frozenset({"authorization", "x-api-key", "proxy-authorization", "x-callerid-token", "cookie"})
_NAME = 11
"""Columns of a client's name."""
_COLOURS = {"allow": "green", "deny": "red", "error": "red"}


class Silent:
    """Says nothing: for ``--json``."""

    def setting(self, stage: Stage) -> None: ...
    def callers(self, stage: Stage) -> None: ...
    def heading(self, text: str) -> None: ...
    def act(self, act: Act, answer: Mapping[str, Any]) -> None: ...
    def tools(self, everything: list[str], shown: list[str]) -> None: ...
    def command(self, text: str) -> None: ...
    def derived(self, command: str, token: Token) -> None: ...
    def blocked(self, command: str, said: Mapping[str, Any]) -> None: ...
    def refusal(self, act: Act, answer: Mapping[str, Any]) -> None: ...
    def seen(self, seen: Mapping[str, list[dict[str, Any]]]) -> None: ...
    def audit(self, rows: list[dict[str, Any]], command: str) -> None: ...
    def explained(self, command: str, output: str) -> None: ...
    def checks(self, checks: tuple[Check, ...], seconds: float) -> None: ...


class Story:
    """Tells the story on a console while it happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = 0

    def heading(self, text: str) -> None:
        self._step += 1
        self._console.print()
        self._console.print(Text(f"{self._step}  {text}", style="bold"))

    def command(self, text: str) -> None:
        """A command line: never broken by us, so that it can be copied."""
        self._console.print(Text(f"   $ {printable(text)}", style="cyan"), soft_wrap=True)

    def setting(self, stage: Stage) -> None:
        """The servers and the proxy."""
        self.heading("Two MCP servers. Each knows one shared key, and nobody's name")
        for name, url in stage.urls.items():
            self._line(Text(f"{name:<10} {url}  (stands for {name}.corp.example)"))
        self.heading("callerid in between, with four YAML files of rules; it alone has the shared keys")
        self.command(f"callerid run --listen {stage.address} --rules {stage.rules}")

    def callers(self, stage: Stage) -> None:
        """Who comes with what."""
        self.heading("Four callers with the official MCP SDK. HTTPS_PROXY and SSL_CERT_FILE are the set-up")
        signed = f"HTTPS_PROXY=http://alice:{stage.token.text[:8]}…@{stage.address}"
        grid = Table.grid(padding=(0, 2))
        for who, what in (
            ("alice", f"a scoped token for her agent: {signed}"),
            ("bob", "a client certificate; as bob-cli, a scoped token"),
            ("ci", "the JWT that the CI system gave the job"),
            ("intruder", "nothing"),
        ):
            grid.add_row(who, Text(what, style="dim"))
        self._console.print(Padding(grid, _INDENT, expand=False))

    def act(self, act: Act, answer: Mapping[str, Any]) -> None:
        """One call and what its client got."""
        refused = "error" in answer or bool(answer.get("is_error"))
        mark = Text("refused  " if refused else "ok       ", style="red" if refused else "green")
        self._line(mark + Text(f"{act.client:<{_NAME}}") + Text(act.call()))
        result = str(answer.get("text") or answer.get("error", "")).split("\n")[0]
        if refused:
            result = result.partition("refused by callerid: ")[2].partition(" Do not retry")[0] or result
        self._line(Text(f"{'':<9}{'':<{_NAME}}{printable(result)}", style="dim"))

    def derived(self, command: str, token: Token) -> None:
        """A sub-agent's token."""
        self.command(command)
        about = token.about
        servers, tools = (", ".join(about[name] or ["all"]) for name in ("servers", "tools"))
        who = f"{token.id}, {' for '.join(about['actors'])} for {about['principal']}"
        self._line(Text(printable(who), style="dim"))
        ends = f"{str(about['expires'])[11:19]} UTC, or with its parent"
        scope = f"servers: {servers}; tools: {tools}; ends {ends}"
        self._line(Text(printable(scope), style="dim"))

    def blocked(self, command: str, said: Mapping[str, Any]) -> None:
        """Who left, and what he held."""
        self.command(command)
        tokens = [f"{token['id']} of {token['agent']}" for token in said["tokens"]]
        named = [f"{what}: {', '.join(said[what])}" for what in ("agents", "groups")]
        self._line(Text(printable("; ".join([f"held: {', '.join(tokens)}", *named])), style="dim"))

    def tools(self, everything: list[str], shown: list[str]) -> None:
        """A list, filtered."""
        mark = Text("filtered ", style="yellow")
        self._line(mark + Text(f"{'ci':<{_NAME}}tickets, tools/list: {printable(', '.join(shown))}"))
        others = printable(", ".join(sorted(set(everything) - set(shown)))) or "nothing more"
        self._line(Text(f"{'':<9}{'':<{_NAME}}Alice's list has {others} as well", style="dim"))

    def refusal(self, act: Act, answer: Mapping[str, Any]) -> None:
        """A refusal in full."""
        self.heading(f"A refusal as the model reads it: {act.server}.{act.tool}")
        text = Text(printable_lines(str(answer.get("text", answer))), style="red")
        self._console.print(Padding(text, _INDENT, expand=False))

    def seen(self, seen: Mapping[str, list[dict[str, Any]]]) -> None:
        """What arrived."""
        self.heading("What the servers saw: one key each. tickets asks who calls, and verifies the answer")
        for name, records in seen.items():
            calls = [record["tool"] for record in records if record["method"] == "tools/call"]
            self._line(
                Text(f"{name:<10} {len(records)} requests; tools called: {printable(', '.join(calls))}")
            )
            held = {
                f"{n}: {v}" for record in records for n, v in record["headers"] if n.lower() in _CREDENTIALS
            }
            for text in sorted(held):
                self._line(Text(f"{'':<10} {printable(_masked(text))}", style="dim"))
            for record in records:
                if record["method"] == "tools/call" and record["caller"]:
                    who = f"{record['tool']} for {_named(record['caller'])}"
                    self._line(Text(f"{'':<10} {printable(who)}", style="dim"))

    def audit(self, rows: list[dict[str, Any]], command: str) -> None:
        """The rows, and how to get them."""
        self.heading("Who did it? One SQLite file")
        wide = self._console.width >= _WIDE
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in COLUMNS if wide else _NARROW:
            table.add_column(column, overflow="fold")
        for row in rows:
            cells = {name: "" if row[name] is None else printable(row[name]) for name in COLUMNS}
            shown = {name: Text(cells[name]) for name in (COLUMNS if wide else _NARROW)}
            shown["verdict"].stylize(_COLOURS.get(cells["verdict"], ""))
            if not wide:
                shown["principal"].append(f"\nvia {cells['agent']}" if cells["agent"] else "", style="dim")
                shown["reason"].append(f"\n{cells['rule']}" if cells["rule"] else "", style="dim")
            table.add_row(*shown.values())
        self._console.print(Padding(table, _INDENT if wide else 0, expand=False))
        named = [f"{row['claimed_subject']} ({row['reason']})" for row in rows if row["claimed_subject"]]
        claimed = f"claimed by refused evidence: {', '.join(dict.fromkeys(named))}"
        self._line(Text(printable(claimed), style="dim"))
        self.command(command)

    def explained(self, command: str, output: str) -> None:
        """The rules' say about one of the calls."""
        self.heading("Why? One of the refusals, explained rule by rule")
        self.command(command)
        self._console.print(Text(printable_lines(output.strip("\n"))), soft_wrap=True)

    def checks(self, checks: tuple[Check, ...], seconds: float) -> None:
        """How many held; those that did not, in full."""
        failed = [check for check in checks if not check.ok]
        self._console.print()
        for check in failed:
            self._console.print(Text(f"FAILED  {check.name}: {printable(check.detail)}", style="red"))
        word = f"{len(checks) - len(failed)} of {len(checks)} checks hold, {seconds:.0f} s"
        self._console.print(Text(word, style="bold red" if failed else "bold green"))

    def _line(self, text: Text) -> None:
        self._console.print(Padding(text, _INDENT, expand=False))


def _named(caller: Mapping[str, Any]) -> str:
    """Whom a server verified."""
    if "fault" in caller:
        return f"nobody knows whom: {caller['fault']}"
    agents = " for ".join(str(name) for name in caller["actors"])
    return f"{caller['principal']}" + (f", by {agents}" if agents else "")


def _masked(header: str) -> str:
    """``name: value`` with enough of the value to tell one from another, and no more."""
    name, _, value = header.partition(": ")
    scheme, space, secret = value.rpartition(" ")
    return f"{name}: {scheme}{space}{secret[:18]}…"
