"""How the demo looks: numbered steps for a person, nothing for a machine.

Text that came over the wire is shown with control characters escaped and never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from callerid.cli.demo.cast import COLUMNS, Act
from callerid.cli.demo.checks import Check
from callerid.cli.demo.stage import Stage
from callerid.cli.output import printable, printable_lines

_STANDS_FOR = {"tickets": "tickets.corp.example", "warehouse": "warehouse.corp.example"}
_COLOURS = {"allow": "green", "deny": "red", "error": "red"}


class Silent:
    """Says nothing: for ``--json``."""

    def setting(self, stage: Stage) -> None: ...
    def callers(self, stage: Stage) -> None: ...
    def heading(self, text: str) -> None: ...
    def act(self, act: Act, answer: Mapping[str, Any]) -> None: ...
    def tools(self, everything: list[str], shown: list[str]) -> None: ...
    def note(self, text: str) -> None: ...
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

    def note(self, text: str) -> None:
        self._line(Text(f"$ {printable(text)}", style="cyan"))

    def setting(self, stage: Stage) -> None:
        """The servers and the proxy."""
        self.heading("Two MCP servers. Each knows one shared key, and nobody's name")
        for name, url in stage.urls.items():
            key = "Authorization: Bearer" if name == "tickets" else "X-Api-Key:"
            self._line(Text(f"{name:<10} {url}   {key} {name}-shared-…   (stands for {_STANDS_FOR[name]})"))
        self.heading("callerid between them and everybody else, with four YAML files of rules")
        self.note(f"callerid run --listen {stage.address} --rules … --upstream-ca …")

    def callers(self, stage: Stage) -> None:
        """Who comes with what."""
        self.heading("The callers. Each runs the official MCP SDK; none of them holds a shared key")
        proxy = f"http://{stage.address}"
        signed = f"http://alice:{stage.token.text[:8]}…@{stage.address}"
        grid = Table.grid(padding=(0, 2))
        for who, what in (
            ("Alice", f"HTTPS_PROXY={signed}, a scoped token for claude-code"),
            ("Bob", f"HTTPS_PROXY={proxy} and a client certificate"),
            ("the CI job", f"HTTPS_PROXY={proxy} and the JWT that its CI gave it"),
            ("an intruder", f"HTTPS_PROXY={proxy} and nothing else"),
        ):
            grid.add_row(who, Text(what, style="dim"))
        self._console.print(Padding(grid, (0, 0, 0, 3)))
        self._line(Text("SSL_CERT_FILE names callerid's CA. That is the whole set-up.", style="dim"))

    def act(self, act: Act, answer: Mapping[str, Any]) -> None:
        """One call and what its client got."""
        refused = "error" in answer or bool(answer.get("is_error"))
        mark = Text("refused " if refused else "ok      ", style="red" if refused else "green")
        result = "" if refused else " -> " + printable(str(answer.get("text", "")).split("\n")[0])
        self._line(mark + Text(f"{act.client:<9}") + Text(act.call()) + Text(result, style="dim"))

    def tools(self, everything: list[str], shown: list[str]) -> None:
        """A list, filtered."""
        mark = Text("listed  ", style="yellow")
        self._line(mark + Text(f"{'ci':<9}") + Text(f"tools/list of tickets: {printable(', '.join(shown))}"))
        others = printable(", ".join(sorted(set(everything) - set(shown)))) or "nothing more"
        self._line(Text(f"{'':<17}(Alice sees {others} as well)", style="dim"))

    def refusal(self, act: Act, answer: Mapping[str, Any]) -> None:
        """A refusal in full."""
        self.heading(f"A refusal as the model reads it: {act.server}.{act.tool}")
        text = Text(printable_lines(str(answer.get("text", answer))), style="red")
        self._console.print(Padding(text, (0, 3)))

    def seen(self, seen: Mapping[str, list[dict[str, Any]]]) -> None:
        """What arrived."""
        self.heading("What the servers saw: their own key, and nothing that is a caller's")
        for name, records in seen.items():
            calls = [record["tool"] for record in records if record["method"] == "tools/call"]
            headers = sorted({header.lower() for record in records for header, _ in record["headers"]})
            self._line(Text(f"{name:<10} {len(records)} requests, tool calls: {printable(', '.join(calls))}"))
            self._line(Text(f"{'':<10} headers: {printable(', '.join(headers))}", style="dim"))

    def audit(self, rows: list[dict[str, Any]], command: str) -> None:
        """The rows, and how to get them."""
        self.heading("Who did it? One SQLite file")
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in COLUMNS:
            table.add_column(column, overflow="fold")
        for row in rows:
            cells = [Text("" if row[name] is None else printable(row[name])) for name in COLUMNS]
            cells[COLUMNS.index("verdict")].stylize(_COLOURS.get(str(row["verdict"]), ""))
            table.add_row(*cells)
        self._console.print(Padding(table, (0, 0, 0, 3)))
        self.note(command)

    def explained(self, command: str, output: str) -> None:
        """The rules' say about one of the calls."""
        self.heading("Why? The same call, explained rule by rule")
        self.note(command)
        self._console.print(Padding(Text(printable_lines(output.strip())), (0, 0, 0, 3)))

    def checks(self, checks: tuple[Check, ...], seconds: float) -> None:
        """How many held; those that did not, in full."""
        failed = [check for check in checks if not check.ok]
        self._console.print()
        for check in failed:
            self._console.print(Text(f"FAILED  {check.name}: {printable(check.detail)}", style="red"))
        word = f"{len(checks) - len(failed)} of {len(checks)} checks hold, {seconds:.0f} s"
        self._console.print(Text(word, style="bold red" if failed else "bold green"))

    def _line(self, text: Text) -> None:
        self._console.print(Padding(text, (0, 0, 0, 3)))
