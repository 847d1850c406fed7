"""``callerid audit``: who called what, and what became of it. Reads only, also while the proxy writes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from callerid.audit.codes import OUTCOMES, REASONS, UNKNOWN, UNKNOWN_OUTCOME, Description
from callerid.audit.inert import inert, inert_json
from callerid.audit.read import Call, Filter, Shown, follow, tail
from callerid.audit.read import findings as find_findings
from callerid.audit.read import show as find
from callerid.cli.options import span
from callerid.cli.output import EXIT_NO, handle_errors, print_json, table
from callerid.home import Home
from callerid.model import FindingKind, Outcome, Reason, Verdict

POLL_SECONDS = 0.5
PAGE = 500
ID_LENGTH = 18
"""Characters of an event id that tell calls apart: the time to a quarter of a microsecond."""

_COLOURS = {"allow": "green", "deny": "red", "error": "yellow"}
_COLUMNS = ("time (UTC)", "who", "call", "verdict", "why", "outcome", "id")
_FINDING_COLUMNS = ("time (UTC)", "kind", "who", "server", "credential", "detail", "id")
_STACKED_COLUMNS = ("time (UTC), id", "who", "call", "verdict, outcome")
_JSON_COLUMNS = ("actors", "evidence", "arguments")


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """``90s``, ``15m``, ``1h``, ``7d``, ``2w`` in microseconds."""
    if value is None:
        return None
    seconds = span(value)
    if seconds is None:
        raise click.BadParameter("write a whole number and a unit: 90s, 15m, 1h, 7d, 2w", ctx, param)
    return seconds * 1_000_000


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
@click.option("--since", metavar="TIME", callback=_duration, help="Only the last 90s, 15m, 1h, 7d, 2w.")
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
        _print_table(calls)
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


@audit.command("findings")
@click.option("-n", "--number", default=100, show_default=True, type=click.IntRange(0, 100_000), help="Rows.")
@click.option(
    "--kind", type=click.Choice([str(kind) for kind in FindingKind]), metavar="KIND", help="Only this kind."
)
@click.option("--since", metavar="TIME", callback=_duration, help="Only the last 90s, 15m, 1h, 7d, 2w.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines.")
@_home_option
@handle_errors
def findings_command(number: int, kind: str | None, since: int | None, as_json: bool, home: Path) -> None:
    """What an operator should look at: raw keys, tokens sent abroad, echoed secrets; the newest last."""
    since_us = None if since is None else time.time_ns() // 1000 - since
    found = find_findings(Home(home).audit, number, kind=kind, since_us=since_us)
    if as_json:
        _print_lines(found)
    else:
        table(_FINDING_COLUMNS, (_finding(row) for row in found))


def _finding(row: Call) -> tuple[str, ...]:
    key = row["credential"] or (f"key {str(row['fingerprint'])[:12]}" if row["fingerprint"] else "")
    cells = (
        str(row["time_utc"])[5:19].replace("T", " "),
        row["kind"],
        row["principal"],
        row["server"],
        key,
        row["detail"],
        str(row["event_id"] or "")[:ID_LENGTH],
    )
    return tuple(inert(str(cell or "")) for cell in cells)


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


def _print_table(calls: Iterable[Call]) -> None:
    """A pipe gets one line per call; a terminal two, so that names stay whole at 100 columns."""
    if sys.stdout.isatty():
        table(_STACKED_COLUMNS, (_stacked(_words(call)) for call in calls))
    else:
        table(_COLUMNS, (_flat(_words(call)) for call in calls))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """One call in words, inert: what callers sent must not move the cursor."""

    moment: str
    principal: str
    via: str
    place: str
    target: str
    verdict: str
    why: str
    outcome: str
    id: str


def _words(call: Call) -> _Words:
    took = f" {call['duration_ms']:.0f} ms" if call["duration_ms"] is not None else ""
    return _Words(
        moment=inert(str(call["time_utc"])[5:19].replace("T", " ")),
        principal=inert(str(call["principal"])),
        via=inert(f"via {call['agent']}") if call["agent"] else "",
        place=inert(f"{call['server']} {call['tool'] or call['method']}"),
        target=inert(str(call["target"] or "")),
        verdict=inert(str(call["verdict"])),
        why=inert(f"{call['reason']} {call['rule'] or ''}".rstrip()),
        outcome=inert(f"{call['outcome']}{took}") if call["verdict"] == Verdict.ALLOW else "",
        id=inert(str(call["event_id"])[:ID_LENGTH]),
    )


def _flat(words: _Words) -> tuple[str, ...]:
    return (
        words.moment,
        _join(" ", words.principal, words.via),
        _join(" ", words.place, words.target),
        words.verdict,
        words.why,
        words.outcome,
        words.id,
    )


def _stacked(words: _Words) -> tuple[Text, ...]:
    verdict = Text.assemble((words.verdict, _COLOURS.get(words.verdict, "")), " ", words.why)
    return (
        Text.assemble(words.moment, "\n", (words.id, "dim")),
        Text(_join("\n", words.principal, words.via)),
        Text(_join("\n", words.place, words.target)),
        verdict.append(f"\n{words.outcome}") if words.outcome else verdict,
    )


def _line(call: Call) -> str:
    moment, who, what, verdict, why, outcome, name = _flat(_words(call))
    shown = click.style(f"{verdict:<5}", fg=_COLOURS.get(verdict))
    return _join("  ", moment, shown, why, who, what, outcome, name)


def _join(between: str, *parts: str) -> str:
    return between.join(part for part in parts if part)


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
