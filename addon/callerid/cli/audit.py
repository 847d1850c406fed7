"""``callerid audit``: who called what, and what became of it. Reads only, also while the proxy writes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from callerid.audit.codes import OUTCOMES, REASONS, UNKNOWN, UNKNOWN_OUTCOME, Description
from callerid.audit.inert import inert, inert_json
from callerid.audit.read import Call, Filter, Shown, follow, tail
from callerid.audit.read import show as find
from callerid.cli.output import EXIT_NO, handle_errors, print_json, table
from callerid.home import Home
from callerid.model import Outcome, Reason, Verdict

POLL_SECONDS = 0.5
PAGE = 500
ID_LENGTH = 18
"""Characters of an event id that tell calls apart: the time to a quarter of a microsecond."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_COLOURS = {"allow": "green", "deny": "red", "error": "yellow"}
_COLUMNS = ("time (UTC)", "who", "call", "verdict", "why", "outcome", "id")
_JSON_COLUMNS = ("actors", "evidence", "arguments")


class Duration(click.ParamType[int]):
    """``90s``, ``15m``, ``1h``, ``7d``, ``2w``: microseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        number, unit = text[:-1], text[-1:]
        if unit not in _UNITS or not (number.isascii() and number.isdigit() and len(number) <= 6):
            self.fail("write a whole number and a unit: 90s, 15m, 1h, 7d, 2w", param, ctx)
        return int(number) * _UNITS[unit] * 1_000_000


def _home_option[F: Callable[..., Any]](command: F) -> F:
    return click.option(
        "--home",
        envvar="CALLERID_HOME",
        default="./.callerid",
        show_default=True,
        type=click.Path(path_type=Path),
        help="State: CA, registry, audit.",
    )(command)


@click.group()
def audit() -> None:
    """Read the audit trail: one row per decided message."""


@audit.command("tail")
@click.option("-n", "--number", default=20, show_default=True, type=click.IntRange(0, 100_000), help="Rows.")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with new rows until interrupted.")
@click.option("--principal", help="Only this principal, such as user:alice@corp.example.")
@click.option("--server", help="Only this server.")
@click.option("--tool", help="Only this tool or prompt.")
@click.option(
    "--verdict", type=click.Choice([str(verdict) for verdict in Verdict]), help="Only this verdict."
)
@click.option(
    "--reason",
    type=click.Choice([str(reason) for reason in Reason]),
    metavar="CODE",
    help="Only this reason.",
)
@click.option("--since", type=Duration(), help="Only the last 90s, 15m, 1h, 7d.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines.")
@_home_option
@handle_errors
def tail_command(
    number: int,
    following: bool,
    principal: str | None,
    server: str | None,
    tool: str | None,
    verdict: str | None,
    reason: str | None,
    since: int | None,
    as_json: bool,
    home: Path,
) -> None:
    """The newest calls, the newest last."""
    path = Home(home).audit
    only = Filter(
        principal=principal,
        server=server,
        tool=tool,
        verdict=verdict,
        reason=reason,
        since_us=None if since is None else time.time_ns() // 1000 - since,
    )
    newest = tail(path, 0, 1)
    calls = tail(path, 0, number, only)
    if as_json:
        _print_lines(calls)
    elif calls or not following:
        table(_COLUMNS, map(_cells, calls))
    if following:
        last = max((call["seq"] for call in (*newest, *calls)), default=0)
        _follow(path, last, only, as_json=as_json)


@audit.command("show")
@click.argument("event_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@_home_option
@handle_errors
def show_command(event_id: str, as_json: bool, home: Path) -> None:
    """All that is stored about one call. ID may be the beginning of an event id, if only one begins so."""
    found = find(Home(home).audit, event_id)
    if len(found) != 1:
        _say_which(event_id, found)
        sys.exit(EXIT_NO)
    if as_json:
        print_json(_facts(found[0]))
        return
    for name, value in _facts(found[0]).items():
        if value is not None and value != []:
            click.echo(f"{name:<16} {_shown(value)}")


def _follow(path: Path, last: int, only: Filter, *, as_json: bool) -> None:
    """Print new rows as they come. They are shown as they are when they come: often before their outcome."""
    try:
        while True:
            calls = follow(path, last, PAGE, only)
            if as_json:
                _print_lines(calls)
            else:
                for call in calls:
                    click.echo(_line(call))
            last = max((call["seq"] for call in calls), default=last)
            sys.stdout.flush()
            if len(calls) < PAGE:
                _pause(POLL_SECONDS)
    except KeyboardInterrupt:
        return


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _cells(call: Call) -> tuple[Text, ...]:
    colour = _COLOURS.get(str(call["verdict"]), "")
    moment, who, what, verdict, why, outcome, name = _words(call)
    return (
        Text(moment),
        Text(who),
        Text(what),
        Text(verdict, style=colour),
        Text(why, style="" if verdict == "allow" else colour),
        Text(outcome),
        Text(name, style="dim"),
    )


def _line(call: Call) -> str:
    moment, who, what, verdict, why, outcome, name = _words(call)
    shown = click.style(f"{verdict:<5}", fg=_COLOURS.get(verdict))
    return "  ".join(part for part in (moment, shown, why, who, what, outcome, name) if part)


def _words(call: Call) -> tuple[str, str, str, str, str, str, str]:
    """The cells of one call as inert text: what callers sent must not move the cursor."""
    agent = f" via {call['agent']}" if call["agent"] else ""
    what = " ".join(str(call[name]) for name in ("server", "tool", "target") if call[name])
    if not call["tool"]:
        what = f"{call['server']} {call['method']}" + (f" {call['target']}" if call["target"] else "")
    why = " ".join(str(call[name]) for name in ("reason", "rule") if call[name])
    took = f" {call['duration_ms']:.0f} ms" if call["duration_ms"] is not None else ""
    outcome = "" if call["verdict"] != Verdict.ALLOW else f"{call['outcome']}{took}"
    moment = str(call["time_utc"])[5:19].replace("T", " ")
    words = (
        moment,
        f"{call['principal']}{agent}",
        what,
        str(call["verdict"]),
        why,
        outcome,
        str(call["event_id"])[:ID_LENGTH],
    )
    return tuple(map(inert, words))  # type: ignore[return-value]


def _print_lines(calls: Iterable[Call]) -> None:
    for call in calls:
        click.echo(inert_json(json.dumps(_opened(call), ensure_ascii=False)))


def _opened(call: Call) -> Mapping[str, Any]:
    """The call with its JSON columns as values instead of text."""
    return {
        name: json.loads(value) if name in _JSON_COLUMNS and value is not None else value
        for name, value in call.items()
    }


def _facts(shown: Shown) -> Mapping[str, Any]:
    """One call, and what its codes and its policy hash mean."""
    call = shown.call
    reason = _described(REASONS, Reason, call["reason"])
    outcome = (
        UNKNOWN_OUTCOME if call["outcome"] == UNKNOWN else _described(OUTCOMES, Outcome, call["outcome"])
    )
    return {
        **_opened(call),
        "redactions": shown.redactions,
        "ended_utc": _utc(shown.outcome_time_us),
        "policy_loaded_utc": _utc(shown.policy_loaded_us),
        "policy_files": list(shown.policy_files),
        "reason_means": reason.means,
        "what_to_do": reason.do or outcome.do or None,
        "outcome_means": outcome.means,
    }


def _described(table_of: Mapping[Any, Description], kind: Any, code: str) -> Description:
    """The description of a code; a code of a newer callerid has none here."""
    return (
        table_of[kind(code)] if code in list(kind) else Description("A code that this version does not know.")
    )


def _utc(time_us: int | None) -> str | None:
    if time_us is None:
        return None
    return (
        datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return inert_json(json.dumps(value, ensure_ascii=False))
    return inert(str(value))


def _say_which(event_id: str, found: tuple[Shown, ...]) -> None:
    if not found:
        click.echo(f"no call has an id that begins with {inert(event_id)}", err=True)
        return
    click.echo(f"several calls have an id that begins with {inert(event_id)}:", err=True)
    for shown in found:
        click.echo(f"  {_line(shown.call)}  {inert(str(shown.call['event_id']))}", err=True)
