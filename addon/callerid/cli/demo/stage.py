"""The stage of the demo: keys, rules, two MCP servers, the proxy, and the callers' processes. All real."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from callerid.audit.read import tail
from callerid.cli.demo import pki
from callerid.cli.demo.cast import (
    AGENT,
    AGENT_URI,
    ALICE,
    BOB,
    QUERY,
    SUB_AGENT,
    SUB_SERVERS,
    SUB_TOOLS,
    SUB_TTL,
)
from callerid.cli.demo.processes import STEP_SECONDS, Child, Troupe, environment
from callerid.cli.demo.rules import AUDIENCE, CI_SUBJECT, ISSUER, write_rules
from callerid.home import Home

PACKAGE_ROOT = Path(__file__).resolve().parents[3]
SERVERS = ("tickets", "warehouse")
TOLD = "tickets"
"""The server that asks who calls: ``assertion`` in servers.yaml."""
NARROWER = (
    *("--ttl", SUB_TTL),
    *(word for name in SUB_SERVERS for word in ("--server", name)),
    *(word for name in SUB_TOOLS for word in ("--tool", name)),
)
"""What Alice's agent says of the token for its sub-agent."""
PINNED = "2026-07-28"
"""The revision that who is refused from the start speaks at once: the first message is the tool call."""


@dataclass(frozen=True, slots=True)
class Token:
    """A scoped token: its text, and what was said of it when it was made, such as ``id`` and ``expires``."""

    text: str = field(default="", repr=False)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """By which it is revoked."""
        return str(self.about["id"])


class Stage:
    """Everything that runs and all it wrote, in one folder. ``close`` ends the processes.

    Args:
        folder: exists and is empty.
        now: aware; begins the dates of certificates and tokens.
        held: a context in which no interrupt is raised.

    ``home`` and ``rules`` are the proxy's. Once ``open`` is done: ``urls`` of the servers, ``shared``
    (server to shared key), ``address`` (HOST:PORT of the proxy), and what the callers hold: ``token`` and
    ``laptop`` are Alice's, ``bobs`` is beside his certificate, ``jwt`` the CI job's. ``derive`` adds
    ``derived``, the sub-agent's.
    """

    def __init__(
        self, folder: Path, *, now: datetime, held: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.rules = folder / "rules"
        self.logs = folder / "logs"
        self.keys = folder / "keys"
        for path in (self.rules, self.logs, self.keys):
            path.mkdir(mode=0o700)
        self.shared = {name: f"{name}-shared-{secrets.token_urlsafe(24)}" for name in SERVERS}
        self.urls: dict[str, str] = {}
        self.address = ""
        self.token = self.laptop = self.bobs = self.derived = Token()
        self.jwt = ""
        self._now = now
        self._troupe = Troupe(self.logs, environment(PACKAGE_ROOT, os.environ), folder, held)

    # -- opening -------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the keys and rules, and start the servers, the proxy and the tokens' issue.

        Raises:
            DemoFailed: something did not start in time.
        """
        ca = pki.make_authority("callerid demo: servers", now=self._now)
        (self.keys / "servers-ca.pem").write_bytes(ca.pem())
        servers = [self._start_server(name, ca) for name in SERVERS]
        self._write_rules()
        self._troupe.finish(
            self._start_command("init", "init", "--home", str(self.home.path), "--rules", str(self.rules))
        )
        proxy = self._start_proxy()
        jwks = self._start_command("jwks", "jwks", "--json", "--home", str(self.home.path))
        whose = {"issue-alice": ALICE, "issue-laptop": ALICE, "issue-bob": BOB}
        issues = [self._start_issue(name, principal) for name, principal in whose.items()]
        self.token, self.laptop, self.bobs = (self._token(child) for child in issues)
        self._jwks.write_text(self._troupe.finish(jwks), encoding="utf-8")
        for server in servers:
            server.hear_line("ready", "its start")
        places = proxy.hear_line("callerid: listening on ", "the proxy's start")
        self.address = places.split(",")[0].strip()

    def _start_server(self, name: str, ca: pki.Authority) -> Child:
        """The demo makes the listening socket: the port is known at once, and nobody can take it."""
        certificate = pki.write_private(
            self.keys / f"{name}.pem", pki.issue_server(ca, "localhost", now=self._now)
        )
        pki.write_private(self.keys / f"{name}.key", f"{self.shared[name]}\n".encode())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.urls[name] = f"https://localhost:{listener.getsockname()[1]}/mcp"
            fd = listener.fileno()
            command = [sys.executable, "-m", "callerid.cli.demo.server", name, "--fd", str(fd)]
            command += ["--cert", str(certificate), "--seen", str(self._seen_file(name))]
            if name == TOLD:
                command += ["--callerid", str(self._jwks), "--audience", self.urls[name]]
            return self._troupe.start(
                name, command, environ={"DEMO_SHARED_KEY": self.shared[name]}, pass_fds=(fd,)
            )

    def _write_rules(self) -> None:
        people = pki.make_authority("callerid demo: devices", now=self._now)
        pki.write_private(
            self.keys / "bob.pem",
            pki.issue_client(people, BOB.removeprefix("user:"), AGENT_URI, now=self._now),
        )
        issuer = pki.TokenIssuer()
        at = int(self._now.timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": CI_SUBJECT,
            "iat": at,
            "exp": at + 600,
            "jti": "job-4711",
        }
        self.jwt = issuer.sign(claims)
        write_rules(
            self.rules,
            ports={name: int(url.split(":")[2].split("/")[0]) for name, url in self.urls.items()},
            warehouse_key=self.keys / "warehouse.key",
            device_ca=people.pem(),
            jwks=issuer.jwks(),
        )

    def _start_proxy(self) -> Child:
        command = [sys.executable, "-m", "callerid", *self.proxy_arguments()]
        environ = {"DEMO_TICKETS_KEY": self.shared["tickets"]}
        return self._troupe.start("proxy", command, environ=environ, both=True)

    def proxy_arguments(self) -> tuple[str, ...]:
        """The proxy's command line after ``callerid``."""
        return (
            "run", "--home", str(self.home.path), "--rules", str(self.rules),
            "--listen", "127.0.0.1:0", "--upstream-ca", str(self.keys / "servers-ca.pem"),
        )  # fmt: skip

    def _start_command(self, name: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Child:
        return self._troupe.start(name, [sys.executable, "-m", "callerid", *arguments], environ=environ)

    def _start_issue(self, name: str, principal: str) -> Child:
        return self._start_command(
            name, "issue", "--home", str(self.home.path), "--rules", str(self.rules),
            "--principal", principal, "--agent", AGENT, "--ttl", "1h", "--json",
        )  # fmt: skip

    def _token(self, child: Child) -> Token:
        """What a command says of the token that it made. The token does not stay in the log."""
        about = json.loads(self._troupe.finish(child))
        child.log.write_text("(a token)\n", encoding="utf-8")
        return Token(about.pop("token"), about)

    # -- callers -------------------------------------------------------------------------------

    def start_client(self, name: str) -> Child:
        """One of the callers: what it presents is all in its environment.

        HTTPS_PROXY and SSL_CERT_FILE are the whole set-up. ``name``: alice, laptop, bob, bob-cli, ci,
        intruder, and after ``derive`` researcher.
        """
        presents: Mapping[str, dict[str, str]] = {
            "alice": {"HTTPS_PROXY": f"http://alice:{self.token.text}@{self.address}"},
            "laptop": {"DEMO_BEARER": self.laptop.text},
            "researcher": {"HTTPS_PROXY": f"http://researcher:{self.derived.text}@{self.address}"},
            "bob-cli": {"HTTPS_PROXY": f"http://bob:{self.bobs.text}@{self.address}"},
            "bob": {"DEMO_CLIENT_CERT": str(self.keys / "bob.pem")},
            "ci": {"DEMO_BEARER": self.jwt},
            "intruder": {},
        }
        environ = {
            "HTTPS_PROXY": f"http://{self.address}",
            "SSL_CERT_FILE": str(self.home.ca_cert),
            **presents[name],
        }
        command = [sys.executable, "-m", "callerid.cli.demo.client"]
        command += [f"--server={server}={url}" for server, url in self.urls.items()]
        command += ["--mode", PINNED] if name in ("intruder", "bob-cli") else []
        return self._troupe.start(name, command, environ=environ)

    def derive(self) -> str:
        """Alice's agent makes a token for its sub-agent, by nothing but its own token; the command line.

        The command sees neither the home nor the rules: it asks the proxy.

        Raises:
            DemoFailed: the proxy refused.
        """
        words = ["derive", "--proxy", f"http://{self.address}", "--agent", SUB_AGENT, *NARROWER, "--json"]
        self.derived = self._token(
            self._start_command("derive", *words, environ={"CALLERID_TOKEN": self.token.text})
        )
        return f"callerid {shlex.join(words)}"

    def block(self, principal: str) -> tuple[str, dict[str, Any]]:
        """``callerid block``, as an administrator does it: the command line, and what it says.

        Raises:
            DemoFailed: it did not work.
        """
        words = ["block", principal, "--json"]
        places = ["--home", str(self.home.path), "--rules", str(self.rules)]
        said: dict[str, Any] = json.loads(self._troupe.finish(self._start_command("block", *words, *places)))
        return f"callerid {shlex.join(words)}", said

    def revoke(self, token: Token) -> None:
        """``callerid revoke``, as an administrator does it.

        Raises:
            DemoFailed: it did not work.
        """
        self._troupe.finish(self._start_command("revoke", "revoke", token.id, "--home", str(self.home.path)))

    # -- what there is to see ------------------------------------------------------------------

    def explain(self, server: str, tool: str, arguments: str) -> tuple[str, str, int]:
        """The command line of ``callerid explain`` for a call of Alice's, its output and its exit code.

        Raises:
            DemoFailed: it did not end in time.
        """
        what = ["explain", "--as", ALICE, "--agent", AGENT, "--server", server, "--tool", tool]
        what += ["--args", arguments]
        child = self._start_command("explain", *what, "--rules", str(self.rules))
        output = self._troupe.finish(child, may_fail=True)
        return f"callerid {shlex.join(what)}", output, child.process.returncode

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The rows of QUERY, oldest first, once there are ``count`` and the allowed ones have ended.

        Outcomes are appended after the answers. What is missing in the end is for the checks to find.
        """
        end = time.monotonic() + STEP_SECONDS / 4
        while True:
            found = [dict(row) for row in tail(self.home.audit, 0, 1000) if row["tool"] is not None]
            ended = all(row["outcome"] != "unknown" for row in found)
            if (len(found) >= count and ended) or time.monotonic() > end:
                return found
            time.sleep(0.05)

    def query(self) -> tuple[str, str]:
        """A command line that prints the table from the audit file, and what it prints.

        The sqlite3 shell if there is one that draws tables (3.33), or else sqlite-utils, which came with us.

        Raises:
            DemoFailed: neither works.
        """
        audit = str(self.home.audit)
        shell = shutil.which("sqlite3")
        if shell is not None:
            child = self._troupe.start("sqlite3", [shell, "-readonly", "-box", audit, QUERY])
            printed = self._troupe.finish(child, may_fail=True)
            if child.process.returncode == 0:
                return f'sqlite3 -readonly -box {audit} "{QUERY}"', printed
        command = [sys.executable, "-m", "sqlite_utils", "query", audit, QUERY, "--table"]
        return f'sqlite-utils query {audit} "{QUERY}" --table', self._troupe.run("sqlite-utils", command)

    def seen(self) -> dict[str, list[dict[str, Any]]]:
        """What each server wrote down of the requests that reached it."""
        return {name: read_lines(self._seen_file(name)) for name in SERVERS}

    def written(self) -> dict[str, bytes]:
        """All files that callerid wrote: the audit with its journal, the registry, and every log."""
        files = [path for path in self.home.path.glob("*.db*") if path.is_file()]
        files += [path for path in self.logs.iterdir() if path.is_file()]
        return {path.name: path.read_bytes() for path in files}

    @property
    def _jwks(self) -> Path:
        return self.keys / "callerid-jwks.json"

    def _seen_file(self, name: str) -> Path:
        return self.folder / f"seen-by-{name}.jsonl"

    def close(self) -> None:
        """End every process."""
        self._troupe.stop()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; none when there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def utc_now() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)
