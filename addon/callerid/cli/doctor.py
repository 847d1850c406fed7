"""``callerid doctor``: looks at everything that the proxy needs, changes nothing, and says what to do."""

from __future__ import annotations

import os
import random
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import click
from cryptography import x509

from callerid.audit import read as audit
from callerid.audit.schema import inspect_file
from callerid.cli.output import EXIT_NO, handle_errors, print_json, printable, table
from callerid.config import ClientCA
from callerid.credentials.store import CredentialStore
from callerid.credentials.timetable import Clock
from callerid.errors import CalleridError, ConfigError
from callerid.home import Home
from callerid.identity import signing_keys
from callerid.identity.client_cas import doubts, load_cas
from callerid.identity.jwks import JwksStore, fetch_jwks
from callerid.identity.registry import Registry
from callerid.identity.signing_keys import Unusable
from callerid.policy.load import RuleSet, load_rules

type State = Literal["well", "warning", "ill"]

SOON: Final = timedelta(days=30)
FREE_BYTES: Final = 200 * 1024 * 1024
_SLACK: Final = timedelta(seconds=5)
_EARLIEST: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. ``detail`` never holds a value of a secret."""

    what: str
    state: State
    detail: str = ""
    hint: str = ""


def _well(what: str, detail: str = "") -> Check:
    return Check(what, "well", detail)


def _ill(what: str, detail: str, hint: str = "") -> Check:
    return Check(what, "ill", detail, hint)


def _failed(what: str, error: CalleridError) -> Check:
    return _ill(what, str(error), error.hint)


@click.command()
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
    help="The address that the proxy is to have.",
)
@click.option(
    "--upstream-ca",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="As for run: PEM roots to trust besides certifi's.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@handle_errors
def doctor(home: Path, rules: Path, listen: str, upstream_ca: Path | None, as_json: bool) -> None:
    """Look at all that the proxy needs and say what to do. Exit 0 if nothing is ill, 1 if something is.

    Run it as the user that the proxy runs as, and in its environment: what that user cannot read is ill.
    Secrets are fetched once from their sources, and never shown; no access token is asked for with them.
    """
    now = datetime.now(UTC)
    checks = list(_look(Home(home.absolute()), rules.absolute(), listen, upstream_ca, now))
    well = all(check.state != "ill" for check in checks)
    if as_json:
        print_json({"well": well, "checks": checks})
    else:
        table(("what", "state", "detail"), [(c.what, c.state, c.detail) for c in checks])
        for check in checks:
            if check.hint and check.state != "well":
                click.echo(f"{printable(check.what)}: {printable(check.hint)}")
    if not well:
        sys.exit(EXIT_NO)


def _look(home: Home, rules: Path, listen: str, roots: Path | None, now: datetime) -> Iterator[Check]:
    yield from _home(home)
    yield from _ca(home, now)
    yield _registry(home)
    yield from _audit(home)
    yield _clock(home, now)
    yield _address(home, listen)
    if roots is not None:
        yield _roots(roots)
    try:
        loaded = load_rules(rules)
    except ConfigError as error:
        detail = "; ".join(str(problem).splitlines()[0] for problem in error.problems) or error.message
        yield _ill("rules", detail, error.hint or "Run: callerid check")
        return
    count = len(loaded.warnings)
    servers, number = len(loaded.servers.servers), len(loaded.engine.rules)
    said = f"servers: {servers}, rules: {number}, policy {loaded.hash}"
    yield (
        Check("rules", "warning", f"{said}; warnings: {count}", "Run: callerid check")
        if count
        else _well("rules", said)
    )
    yield from _issuers(loaded, roots, now)
    yield from _client_cas(loaded.identities.client_cas, now)
    yield from _assertion_key(home, loaded, now)
    yield from _credentials(loaded, roots)


# -- HOME


def _home(home: Home) -> Iterator[Check]:
    try:
        info = home.path.stat()
    except OSError as error:
        hint = "Run: callerid init" if isinstance(error, FileNotFoundError) else "Mend its owner and mode."
        yield _ill("home", f"{home.path}: {error.strerror}", hint)
        return
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o077:
        yield _ill("home", f"{home.path} is open to others (mode {mode:04o})", f"Run: chmod 700 {home.path}")
    elif info.st_uid != os.geteuid():
        yield _ill("home", f"{home.path} belongs to another user", "Run this as the user of the proxy.")
    elif not os.access(home.path, os.W_OK | os.X_OK):
        yield _ill("home", f"{home.path} cannot be written", "Mend its owner and mode.")
    else:
        yield _well("home", str(home.path))
    try:
        entries = sorted(home.path.iterdir())
    except OSError:
        return
    for path in entries:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_file() and mode & 0o077:
            yield _ill("home", f"{path.name} is open to others (mode {mode:04o})", f"Run: chmod 600 {path}")


def _ca(home: Home, now: datetime) -> Iterator[Check]:
    bundle = home.ca / "mitmproxy-ca.pem"
    try:
        certificate = x509.load_pem_x509_certificate(home.ca_cert.read_bytes())
        mode = stat.S_IMODE(bundle.stat().st_mode)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or "it cannot be read"
        yield _ill("ca", f"{home.ca}: {what}", "Run: callerid init")
        return
    if mode & 0o077:
        yield _ill("ca", f"its private key is open to others (mode {mode:04o})", f"Run: chmod 600 {bundle}")
    yield _dated("ca", "its certificate", certificate, now, "Move the ca folder away and run: callerid init")


def _dated(what: str, name: str, certificate: x509.Certificate, now: datetime, hint: str) -> Check:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins > now:
        return _ill(what, f"{name} is valid only from {begins:%Y-%m-%d}", "Check the clock.")
    if ends <= now:
        return _ill(what, f"{name} expired on {ends:%Y-%m-%d}", hint)
    said = f"{name} is valid until {ends:%Y-%m-%d}"
    return Check(what, "warning", said, hint) if ends - now < SOON else _well(what, said)


def _registry(home: Home) -> Check:
    if not home.registry.exists():
        return _ill("registry", f"{home.registry} does not exist", "Run: callerid init")
    try:
        Registry.open(home.registry).close()
    except CalleridError as error:
        return _failed("registry", error)
    return _well("registry", str(home.registry))


def _audit(home: Home) -> Iterator[Check]:
    if not home.audit.exists():
        yield _ill("audit", f"{home.audit} does not exist", "Run: callerid init")
        return
    try:
        inspect_file(home.audit)
    except CalleridError as error:
        yield _failed("audit", error)
        return
    space = os.statvfs(home.audit)
    free = space.f_bavail * space.f_frsize
    if not os.access(home.audit, os.R_OK | os.W_OK):
        yield _ill(
            "audit", f"{home.audit} cannot be written", "Mend its owner and mode: without it, no call."
        )
    elif free < FREE_BYTES:
        yield _ill("audit", f"only {free // 2**20} MiB are free for it", "A full disk stops all calls.")
    else:
        yield _well("audit", f"{home.audit}, {free // 2**30} GiB free")


def _clock(home: Home, now: datetime) -> Check:
    """What can be known without asking anybody: it is not before our time, nor before the newest row."""
    if now < _EARLIEST:
        return _ill("clock", f"it says {now:%Y-%m-%d}", "Set it: tokens and certificates are judged by it.")
    try:
        rows = audit.tail(home.audit, 0, 1)
    except CalleridError:
        rows = ()
    if rows and datetime.fromisoformat(rows[-1]["time_utc"]) > now + _SLACK:
        return _ill("clock", "it is behind the newest row of the audit", "Set it, and keep it by NTP.")
    return _well("clock", f"{now:%Y-%m-%dT%H:%M:%SZ}")


def _running(home: Home) -> bool:
    """Whether a process writes this audit: it holds the lock beside it, which Linux lists."""
    try:
        inode = home.audit.with_suffix(".lock").stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return any(" FLOCK " in line and f":{inode} " in line for line in lines)


def _address(home: Home, listen: str) -> Check:
    if _running(home):
        return _well("proxy", "it runs with this HOME")
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        return _ill("proxy", f"{listen} is not HOST:PORT", "For example --listen 127.0.0.1:8080")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            return _ill(
                "proxy",
                f"{host}:{port}: {error.strerror}",
                "Stop what listens there, or use another --listen.",
            )
    return _well("proxy", f"it does not run; {host}:{port} is free")


def _roots(roots: Path) -> Check:
    try:
        found = x509.load_pem_x509_certificates(roots.read_bytes())
    except (OSError, ValueError):
        return _ill("upstream-ca", f"{roots} holds no sound PEM certificates", "Give a file that does.")
    return _well("upstream-ca", f"{len(found)} certificates")


# -- what the rules name


def _issuers(rules: RuleSet, roots: Path | None, now: datetime) -> Iterator[Check]:
    for issuer in rules.identities.issuers:
        store = JwksStore((issuer,), lambda url: fetch_jwks(url, ca_file=roots))
        problems = store.refresh(now)
        what = f"issuer {issuer.id}"
        if problems:
            yield _ill(
                what,
                "; ".join(problems),
                "Its tokens are refused: at once on a first start, else once the last good keys are old.",
            )
        else:
            yield _well(what, "its keys are there")


def _client_cas(client_cas: tuple[ClientCA, ...], now: datetime) -> Iterator[Check]:
    for entry in client_cas:
        what = f"client CA {entry.id}"
        try:
            [loaded] = load_cas((entry,))
            certificates = x509.load_pem_x509_certificates(entry.file.read_bytes())
        except ConfigError as error:
            yield _failed(what, error)
            continue
        except (OSError, ValueError):
            yield _ill(what, f"{entry.file} cannot be read", "Mend the file.")
            continue
        for doubt in doubts(entry):
            yield Check(what, "warning", doubt, "Have the CA issue its certificate anew, with keyCertSign.")
        for certificate in certificates:
            yield _dated(what, "a certificate of it", certificate, now, "Its callers are refused after that.")
        for listed in loaded.crls or ():
            said = f"a revocation list of it is good until {listed.ends:%Y-%m-%dT%H:%MZ}"
            stale = _ill(what, said, "Fetch a new one: a stale list refuses everybody.")
            yield stale if listed.ends <= now else _well(what, said)


def _assertion_key(home: Home, rules: RuleSet, now: datetime) -> Iterator[Check]:
    """Only where some server is told who calls: its calls are refused without the key."""
    told = [server.id for server in rules.servers.servers if server.assertion is not None]
    if not told:
        return
    ring = signing_keys.read(home.path / signing_keys.FILE)
    found = ring if isinstance(ring, Unusable) else ring.signer(int(now.timestamp()))
    if isinstance(found, Unusable):
        yield _ill("assertion key", f"{found.detail}; {', '.join(told)} cannot be called", found.hint)
    else:
        yield _well("assertion key", f"{found.kid} signs for {found.issuer}")


def _credentials(rules: RuleSet, roots: Path | None) -> Iterator[Check]:
    """Each source is asked once. Access tokens are not: a refresh token could be used up by asking."""
    clock = Clock(time.monotonic, time.time, random.random)
    store = CredentialStore(rules.credentials, os.environ, clock=clock, roots=roots)
    store.refresh()
    store.settle(max((credential.timeout for credential in rules.credentials), default=0) + 1.0)
    for status in store.status():
        what = f"credential {status.id}"
        yield _well(what, "its source gives it") if status.ok else _ill(what, status.detail, status.hint)
    store.close()
