"""``callerid init``: a home with a CA and a registry, and sample rules where there are none."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import click

from callerid.audit.schema import open_database
from callerid.cli.output import handle_errors, print_json
from callerid.errors import StoreError
from callerid.home import Home
from callerid.identity.registry import Registry
from callerid.identity.signing_keys import CHANCE_BYTES, FILE, ensure
from callerid.proxy import ca

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
CHECKOUT = Path(__file__).resolve().parents[3] / "rules"


@click.command()
@click.option(
    "--home",
    envvar="CALLERID_HOME",
    default="./.callerid",
    type=click.Path(path_type=Path),
    help="Where the state goes.",
    show_default=True,
)
@click.option(
    "--rules",
    envvar="CALLERID_RULES",
    default="./rules",
    type=click.Path(path_type=Path),
    help="Where sample rules go if there are none.",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@handle_errors
def init(home: Path, rules: Path, as_json: bool) -> None:
    """Make what is missing and leave what is there; run it as often as you like."""
    place = Home(home.absolute())
    now = datetime.now(UTC)
    certificate = ca.ensure(place, now=now)
    ensure(place.path / FILE, now=int(now.timestamp()), chance=os.urandom(CHANCE_BYTES))
    Registry.open(place.registry).close()
    open_database(place.audit).close()
    copied = _samples(rules)
    if as_json:
        print_json(
            {
                "home": str(place.path),
                "ca": str(place.ca_cert),
                "ca_sha256": ca.fingerprint(certificate),
                "rules": str(rules.absolute()),
                "rules_copied": copied,
            }
        )
        return
    click.echo(f"home        {place.path}")
    click.echo(f"CA          {place.ca_cert}")
    click.echo(f"CA SHA-256  {ca.fingerprint(certificate)}")
    click.echo(f"rules       {rules.absolute()}{' (samples copied)' if copied else ''}")


def _samples(rules: Path) -> bool:
    if rules.exists() and any(rules.iterdir()):
        return False
    source = SAMPLES if SAMPLES.is_dir() else CHECKOUT
    try:
        rules.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.glob("*.yaml")):
            shutil.copyfile(path, rules / path.name)
    except OSError as error:
        raise StoreError(
            f"sample rules cannot be written to {rules}: {error.strerror or error}",
            hint="Name another place with --rules DIR.",
        ) from error
    return True
