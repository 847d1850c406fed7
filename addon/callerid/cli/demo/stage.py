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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from callerid.audit.read import tail
from callerid.cli.demo import pki
from callerid.cli.demo.cast import AGENT, AGENT_URI, ALICE, BOB, QUERY
from callerid.cli.demo.processes import STEP_SECONDS, Child, Troupe, environment
from callerid.cli.demo.rules import AUDIENCE, CI_SUBJECT, ISSUER, write_rules
from callerid.home import Home
from callerid.identity.tokens import digest, token_id

PACKAGE_ROOT = Path(__file__).resolve().parents[3]
SERVERS = ("tickets", "warehouse")
PINNED = "2026-07-28"
"""The revision that the intruder speaks at once, so that its first message is the tool call."""


@dataclass(frozen=True, slots=True)
class Token:
    """A scoped token of Alice's: its text, and the id by which it is revoked."""

    text: str
    id: str


class Stage:
    """Everything that runs and all it wrote, in one folder. ``close`` ends the processes.

    Args:
        folder: exists and is empty.
        now: aware; begins the dates of certificates and tokens.
        held: a context in which no interrupt is raised.

    ``home`` and ``rules`` are the proxy's. Once ``open`` is done: ``urls`` of the servers, ``shared``
    (server to shared key), ``address`` (HOST:PORT of the proxy), and ``token``, ``laptop`` (a second
    token of Alice's) and ``jwt`` of the callers.
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
        self.token = self.laptop = Token("", "")
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
        issues = [self._start_issue(name) for name in ("issue-alice", "issue-laptop")]
        self.token, self.laptop = (self._token(child) for child in issues)
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

    def _start_command(self, name: str, *arguments: str) -> Child:
        return self._troupe.start(name, [sys.executable, "-m", "callerid", *arguments])

    def _start_issue(self, name: str) -> Child:
        return self._start_command(
            name, "issue", "--home", str(self.home.path), "--rules", str(self.rules),
            "--principal", ALICE, "--agent", AGENT, "--ttl", "1h",
        )  # fmt: skip

    def _token(self, child: Child) -> Token:
        """The token is the only thing on stdout. It does not stay in the log."""
        text = self._troupe.finish(child).strip()
        child.log.write_text("(a token)\n", encoding="utf-8")
        return Token(text, token_id(digest(text)))

    # -- callers -------------------------------------------------------------------------------

    def start_client(self, name: str) -> Child:
        """One of the callers: what it presents is all in its environment.

        HTTPS_PROXY and SSL_CERT_FILE are the whole set-up. ``name``: alice, laptop, bob, ci, intruder.
        """
        presents: Mapping[str, dict[str, str]] = {
            "alice": {"HTTPS_PROXY": f"http://alice:{self.token.text}@{self.address}"},
            "laptop": {"DEMO_BEARER": self.laptop.text},
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
        command += ["--mode", PINNED] if name == "intruder" else []
        return self._troupe.start(name, command, environ=environ)

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
        what = [
            "explain",
            "--as",
            ALICE,
            "--agent",
            AGENT,
            "--server",
            server,
            "--tool",
            tool,
            "--args",
            arguments,
        ]
        child = self._start_command("explain", *what, "--rules", str(self.rules))
        output = self._troupe.finish(child, may_fail=True)
        return f"callerid {shlex.join(what)}", output, child.process.returncode

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The rows of tools/call, oldest first, once there are ``count`` and the allowed ones have ended.

        Outcomes are appended after the answers. What is missing in the end is for the checks to find.
        """
        end = time.monotonic() + STEP_SECONDS / 4
        while True:
            found = [dict(row) for row in tail(self.home.audit, 0, 1000) if row["method"] == "tools/call"]
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
