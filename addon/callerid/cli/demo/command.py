"""The command ``callerid demo``: a folder to play in, the story on it, and nothing left when it is over."""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import click
from rich.console import Console

from callerid.cli.demo.cast import COLUMNS
from callerid.cli.demo.interrupts import Interrupted, Interrupts
from callerid.cli.demo.processes import DemoFailed
from callerid.cli.demo.show import Silent, Story
from callerid.cli.demo.stage import Stage, utc_now
from callerid.cli.demo.story import Played, play
from callerid.cli.output import EXIT_DONE, EXIT_NO, handle_errors, print_json
from callerid.errors import ConfigError

EXIT_INTERRUPTED = 130
PIPE_WIDTH = 120


@click.command()
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep rules, audit and logs in DIR, which must be new or empty.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows and the checks as JSON, nothing else.")
@handle_errors
def demo(keep: Path | None, as_json: bool) -> None:
    """Two MCP servers, callerid, four callers: who did what is in the audit. Exit 0 if all of it held."""
    require_sdk()
    folder, stage = None, None
    with Interrupts() as interrupts:
        try:
            with interrupts.held():
                folder = make_folder(keep)
                stage = Stage(folder, now=utc_now(), held=interrupts.held)
            code = run(stage, interrupts, as_json=as_json, keep=keep is not None)
        except Interrupted:
            if stage is not None:
                stage.close()
            if folder is not None and keep is None:
                shutil.rmtree(folder, ignore_errors=True)
            click.echo("callerid: stopped; nothing is left running", err=True)
            code = EXIT_INTERRUPTED
    sys.exit(code)


def run(stage: Stage, interrupts: Interrupts, *, as_json: bool, keep: bool) -> int:
    """Play on ``stage``, whose folder goes when all went well and ``keep`` is false; returns the exit code.

    Raises:
        Interrupted: a signal came; what still runs is to be ended.
    """
    played, failure = Played(), ""
    try:
        played = play(stage, Silent() if as_json else Story(console()))
    except DemoFailed as error:
        failure = str(error)
    finally:
        interrupts.ignore()
        stage.close()
    good = played.ok and not failure
    kept = str(stage.folder) if keep or not good else None
    if not kept:
        shutil.rmtree(stage.folder, ignore_errors=True)
    if as_json:
        rows = [{name: row[name] for name in COLUMNS} for row in played.rows]
        report = {"ok": good, "seconds": round(played.seconds, 1), "rows": rows, "checks": played.checks}
        print_json({**report, "failure": failure or None, "kept": kept})
    if failure:
        click.echo(f"the demo failed: {failure}", err=True)
    if kept:
        click.echo(f"rules, audit and logs are in {kept}", err=True)
    elif not as_json:
        click.echo("All of it is gone again. To look around in it: callerid demo --keep DIR")
    return EXIT_DONE if good else EXIT_NO


def console() -> Console:
    """The terminal as it is; a pipe or a file gets the whole width."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def require_sdk() -> None:
    """Say so when the official MCP SDK is not here.

    Raises:
        ConfigError: it is missing or older than 2.
    """
    hint = "Install it with: pip install 'callerid[demo]'"
    try:
        version = metadata.version("mcp")
    except metadata.PackageNotFoundError:
        raise ConfigError("the demo needs the official MCP SDK, the package mcp", hint=hint) from None
    if int(version.split(".")[0]) < 2:
        raise ConfigError(f"the demo needs the official MCP SDK 2.3 or newer, here is {version}", hint=hint)


def make_folder(keep: Path | None) -> Path:
    """The folder to play in: 0700, new or empty.

    Raises:
        ConfigError: ``keep`` holds something, or cannot be made.
    """
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="callerid-demo-")).resolve()
    try:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise ConfigError(f"{keep} is not empty", hint="Name a new or an empty folder with --keep.")
        keep.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"{keep} cannot be used: {error.strerror or error}", hint="Name a folder that you may write to."
        ) from error
    return keep.resolve()
