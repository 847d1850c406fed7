"""``callerid derive``: a narrower token for a sub-agent, by an administrator or by the holder of one."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from callerid.cli.options import home_option, json_option, network_option, server_option, tool_option
from callerid.cli.output import EXIT_NO, handle_errors, print_json, printable
from callerid.cli.registered import now_us, opened, operator, scope_in, span_in
from callerid.cli.tokens import hand_over
from callerid.errors import ConfigError
from callerid.identity.tokens import RANDOM_BYTES, digest, is_well_formed, mint

DESK = "http://callerid.internal/derive"
_TIMEOUT = 15
_MOST = 65_536


@click.command()
@home_option
@click.option(
    "--from", "parent", metavar="ID", help="For the administrator: derive from this token of --home."
)
@click.option("--proxy", metavar="URL", help="For a holder: ask this proxy.  [default: HTTPS_PROXY]")
@click.option("--ca", type=click.Path(path_type=Path, exists=True), help="Roots for an https:// proxy, PEM.")
@click.option("--agent", metavar="NAME", help="The sub-agent that will carry it.")
@click.option("--ttl", metavar="TIME", default="15m", show_default=True, help="How long it is good.")
@server_option
@tool_option
@network_option
@json_option
@handle_errors
def derive(
    home: Path,
    parent: str | None,
    proxy: str | None,
    ca: Path | None,
    agent: str | None,
    ttl: str,
    servers: tuple[str, ...],
    tools: tuple[str, ...],
    networks: tuple[str, ...],
    as_json: bool,
) -> None:
    """Derive a narrower token from one that is good. It is the only thing on stdout.

    With --from an administrator takes any token of the registry. Without, the holder of a token asks the
    proxy for a child of it, and needs no right but that token: in CALLERID_TOKEN, in HTTPS_PROXY, or on
    stdin; never on the command line. Exit 1 if the proxy refuses.
    """
    scope = scope_in(agent, servers, tools, networks)
    seconds = span_in("--ttl", ttl)
    if parent is not None:
        if proxy is not None:
            raise ConfigError("--from and --proxy are two ways", hint="Take one of them.")
        created = now_us()
        token = mint(secrets.token_bytes(RANDOM_BYTES))
        with opened(home) as registry:
            row = registry.derive(
                parent,
                scope,
                token_digest=digest(token),
                created_us=created,
                expires_us=created + seconds * 1_000_000,
                created_by=operator(),
            )
        hand_over(token, row, created, as_json=as_json)
        return
    lists = {"agent": agent, "servers": list(servers), "tools": list(tools), "networks": list(networks)}
    asked = {"ttl": ttl, **{name: value for name, value in lists.items() if value}}
    url, token = _place(proxy)
    made = _ask(url, token, asked, ca)
    if as_json:
        print_json(made)
        return
    click.echo(made["token"])
    click.echo(f"{printable(made['id'])} until {printable(made['expires'])}; it is not shown again", err=True)


def _place(proxy: str | None) -> tuple[str, str]:
    """The proxy to ask, without what stands before its host, and the holder's token."""
    url = proxy or os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    if not url:
        raise ConfigError("which proxy is to be asked?", hint="Name it with --proxy URL or HTTPS_PROXY.")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "the proxy is not an http:// or https:// URL", hint="http://proxy.corp.example:8080"
        )
    if proxy is not None and "@" in parts.netloc:
        raise ConfigError(
            "a token on the command line can be read by everybody on this machine",
            hint="Put it into CALLERID_TOKEN, into HTTPS_PROXY, or on stdin.",
        )
    token = os.environ.get("CALLERID_TOKEN") or unquote(parts.password or "")
    if not token and not sys.stdin.isatty():
        token = sys.stdin.readline(1_000)
    token = token.strip()
    if not token:
        raise ConfigError("there is no token to derive from", hint="Put it into CALLERID_TOKEN or on stdin.")
    if token.startswith("cid_") and not is_well_formed(token):
        raise ConfigError("the token has a slip in it: its checksum is wrong", hint="Copy it again, whole.")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError("what was given is no token", hint="It is one word, without the word Bearer.")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", token


def _ask(url: str, token: str, asked: Mapping[str, Any], ca: Path | None) -> dict[str, Any]:
    """What the proxy answers. Ends the command with exit 1 if it refuses.

    Raises:
        ConfigError: there is no callerid that answers.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
    headers = {"Content-Type": "application/json", "Proxy-Authorization": f"Bearer {token}"}
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
            line: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=_TIMEOUT, context=context
            )
        else:
            line = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
        try:
            line.request("POST", DESK, json.dumps(asked).encode(), {**headers, "Host": "callerid.internal"})
            answer = line.getresponse()
            status, body = answer.status, json.loads(answer.read(_MOST))
        finally:
            line.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConfigError(
            f"the proxy {url} gives no answer that can be read: {type(error).__name__}",
            hint="Is it the address of callerid, and is it running?",
        ) from error
    if status == 201 and isinstance(body, dict) and is_well_formed(str(body.get("token"))):
        return body
    said = body if isinstance(body, dict) else {}
    click.echo(f"refused: {printable(said.get('error'))}: {printable(said.get('detail'))}", err=True)
    if said.get("decision"):
        click.echo(f"decision {printable(said['decision'])}", err=True)
    sys.exit(EXIT_NO)
