"""``callerid jwks``: the public keys by which servers verify what they are told, and a new one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from callerid.cli.options import home_option, span
from callerid.cli.output import handle_errors, print_json
from callerid.errors import ConfigError, StoreError
from callerid.home import Home
from callerid.identity.signing_keys import FILE, LISTED, SEED_BYTES, KeyRing, Unusable, read
from callerid.identity.signing_keys import rotate as renew


@click.command()
@home_option
@click.option("--rotate", is_flag=True, help="Add a new key; the old one stays listed for an hour.")
@click.option(
    "--lead", metavar="TIME", help="With --rotate: list the new key now, sign with it after TIME: 90m, 1d."
)
@click.option("--drop-old", is_flag=True, help="With --rotate: the old keys go at once. One was stolen.")
@click.option("--json", "as_json", is_flag=True, help="The issuer and the times of the keys as well.")
@handle_errors
def jwks(home: Path, rotate: bool, lead: str | None, drop_old: bool, as_json: bool) -> None:
    """Print the JWKS that servers verify callers by. It is the only thing on stdout.

    A proxy that runs takes up a new key within a second. A server that has the keys in a file, and not by a
    URL, needs the new file before the key signs: --lead gives it the time.
    """
    if not rotate and (lead is not None or drop_old):
        raise ConfigError("--lead and --drop-old go with --rotate", hint="callerid jwks --rotate --lead 1d")
    path, now = Home(home.absolute()).path / FILE, int(datetime.now(UTC).timestamp())
    if rotate:
        found: KeyRing | Unusable = renew(
            path, now=now, seed=os.urandom(SEED_BYTES), lead=_seconds(lead), drop_old=drop_old
        )
    else:
        found = read(path)
    if isinstance(found, Unusable):
        raise StoreError(found.detail, hint=found.hint)
    if as_json:
        print_json(_described(found, now))
        return
    print_json(found.jwks(now))
    click.echo(f"issuer  {found.issuer}", err=True)
    for key in found.listed(now):
        click.echo(f"key     {key.kid}  {_state(found, key.kid, now)}", err=True)


def _described(ring: KeyRing, now: int) -> dict[str, object]:
    return {
        "issuer": ring.issuer,
        "keys": [
            {"kid": key.kid, "state": _state(ring, key.kid, now), "signs_from": _time(key.signs_from)}
            for key in ring.listed(now)
        ],
        "jwks": ring.jwks(now),
    }


def _state(ring: KeyRing, kid: str, now: int) -> str:
    signer = ring.signer(now)
    if not isinstance(signer, Unusable) and signer.kid == kid:
        return "signs"
    kids = [key.kid for key in ring.keys]
    at = kids.index(kid)
    if ring.keys[at].signs_from > now:
        return f"signs from {_time(ring.keys[at].signs_from)}"
    return f"listed until {_time(ring.keys[at - 1].signs_from + LISTED)}"


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _seconds(text: str | None) -> int:
    if text is None:
        return 0
    seconds = span(text)
    if seconds is None:
        raise ConfigError("--lead is not a time", hint="A number and a unit: 90m, 12h, 1d.")
    return seconds
