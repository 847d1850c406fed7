"""A start that must not be: exit code 2, one clear text with the fix, and nothing lost of what was there."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from callerid.proxy import harden
from tests.e2e import harness as h
from tests.e2e.certs import DAY, authority
from tests.e2e.warm import Warm

UPSTREAM_PORT = 9  # nothing is called here; it only has to be in the rules


@dataclass
class Start:
    """A home and rules, to be started in any way."""

    warm: Warm
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def rules(self) -> Path:
        return self.folder / "rules"

    def run(self, *more: str, home: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        """``callerid run`` that ends by itself, within a deadline."""
        arguments = ["run", "--home", str(home or self.home), "--rules", str(self.rules)]
        if "--listen" not in more:
            arguments += ["--listen", "127.0.0.1:0"]
        environ = {**self.environ, **environ}
        return self.warm.run([*arguments, *more], environ=environ, cwd=self.folder, timeout=h.DEADLINE)

    def refused(self, *more: str, home: Path | None = None, **environ: str) -> str:
        """What stderr says of a start that was refused. It is short, and no traceback."""
        done = self.run(*more, home=home, **environ)
        assert done.returncode == 2, (done.returncode, done.stderr)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert "listening" not in done.stderr
        assert done.stderr.startswith(("error: ", "Usage: "))
        return done.stderr


@pytest.fixture
def start(warm: Warm, tmp_path: Path) -> Start:
    made = Start(
        warm, tmp_path, {**os.environ, "PYTHONPATH": str(h.ROOT / "addon"), "THINGS_SECRET": h.SECRET}
    )
    made.rules.mkdir()
    for name, text in h.standard_rules(UPSTREAM_PORT).items():
        (made.rules / name).write_text(text)
    return made


# -- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("servers", "server"), ("reason", "raeson"), ("effect", "efect")],
)
def test_a_wrong_key_is_shown_with_its_place_its_line_and_the_right_spelling(
    start: Start, right: str, wrong: str
) -> None:
    policy = start.rules / "policy.yaml"
    head, tail = h.POLICY.split("  - id: no-drops\n")
    policy.write_text(f"{head}  - id: no-drops\n{tail.replace(f'    {right}: ', f'    {wrong}: ', 1)}")
    lines = policy.read_text().splitlines()
    number = next(at for at, line in enumerate(lines, 1) if line.startswith(f"    {wrong}: "))
    said = start.refused()
    assert f"policy.yaml:{number}:5:" in said
    assert lines[number - 1] in said
    assert f"'{right}'" in said


def test_every_problem_in_every_file_is_said_at_once(start: Start) -> None:
    (start.rules / "policy.yaml").write_text(h.POLICY.replace("group:interns", "group:interms"))
    (start.rules / "servers.yaml").write_text(h.servers(UPSTREAM_PORT).replace("url: https", "url: ftp"))
    (start.rules / "credentials.yaml").write_text(
        h.credentials(UPSTREAM_PORT).replace("version: 1", "version: 1\nversion: 1")
    )
    said = start.refused()
    for name in ("policy.yaml:", "servers.yaml:", "credentials.yaml:"):
        assert name in said
    assert "interns" in said


def test_a_rules_directory_that_is_not_there_names_the_way_to_one(start: Start) -> None:
    start.rules.rename(start.folder / "elsewhere")
    said = start.refused()
    assert str(start.rules) in said
    assert "callerid init" in said
    assert "--rules" in said


def test_a_missing_rule_file_is_named(start: Start) -> None:
    (start.rules / "credentials.yaml").unlink()
    said = start.refused()
    assert "credentials.yaml" in said
    assert "policy.yaml:" not in said


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_secret_for_a_place_that_it_is_not_bound_to_or_in_the_clear_does_not_start(
    start: Start, scheme: str
) -> None:
    port = UPSTREAM_PORT if scheme == "http" else UPSTREAM_PORT + 1
    (start.rules / "servers.yaml").write_text(h.servers(port, scheme=scheme))
    said = start.refused()
    assert "things-key" in said
    assert "servers.yaml:" in said


def test_a_real_secret_in_a_rule_file_is_refused_and_not_repeated(start: Start) -> None:
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" + "k1L2m3N4o5P6q7R8"
    (start.rules / "policy.yaml").write_text(h.POLICY + f"# {secret}\n")
    said = start.refused()
    assert "looks like a real secret" in said


# -- places and files ----------------------------------------------------------------------------


def test_a_port_in_use_is_said_before_anything_is_opened(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        said = start.refused("--listen", place)
    assert f"{place} is in use" in said
    assert "--listen" in said
    assert not (start.home / "audit.db").exists()


@pytest.mark.parametrize("where", ["a file", "below a file", "a file in its ca"])
def test_a_home_that_cannot_be_one_is_named_with_the_way_out(start: Start, where: str) -> None:
    blocker = start.folder / "blocker"
    blocker.write_text("kept")
    home = {"a file": blocker, "below a file": blocker / "home", "a file in its ca": start.home}[where]
    if where == "a file in its ca":
        start.home.mkdir()
        (start.home / "ca").write_text("kept")
    said = start.refused(home=home)
    assert str(home) in said
    assert "--home" in said
    assert blocker.read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_not_be_written_is_named(start: Start) -> None:
    start.home.mkdir(mode=0o500)
    try:
        assert "not writable" in start.refused()
    finally:
        start.home.chmod(0o700)


def other_database(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("create table customers(name)")
        db.execute("insert into customers values ('kept')")
    db.close()


def newer_database(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("pragma user_version = 99")
    db.commit()
    db.close()


@pytest.mark.parametrize("name", ["audit.db", "registry.db"])
@pytest.mark.parametrize("what", ["text", "another database", "a folder", "a newer version", "cut off"])
def test_a_database_that_is_not_ours_is_refused_and_left_as_it_is(start: Start, name: str, what: str) -> None:
    proxy = h.WarmProxy(start.warm, start.folder, {}, ca=start.folder / "none", environ=start.environ)
    path = start.home / name
    if what in ("a newer version", "cut off"):
        started_once(start)
    else:
        proxy.home.mkdir(mode=0o700)
    if what == "text":
        path.write_text("these are the notes of somebody " * 200)
    elif what == "another database":
        other_database(path)
    elif what == "a newer version":
        newer_database(path)
    elif what == "cut off":
        path.write_bytes(path.read_bytes()[:-2500])
    else:
        path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    said = start.refused()
    assert str(path) in said
    assert "hint: " in said
    if before is not None:
        assert path.read_bytes() == before


def started_once(start: Start) -> None:
    """A home as a run leaves it."""
    started = start.warm.spawn(
        ["run", "--home", str(start.home), "--rules", str(start.rules), "--listen", "127.0.0.1:0"],
        environ=start.environ, cwd=start.folder,
    )  # fmt: skip
    assert started.stdout is not None
    with started.stdout:
        assert b"listening" in started.stdout.readline()
        started.send_signal(signal.SIGTERM)
        started.stdout.read()
    assert started.wait(h.DEADLINE) == 0


@pytest.mark.parametrize("state", ["expired", "garbage", "of another key"])
def test_a_ca_that_cannot_serve_is_refused_and_not_replaced(start: Start, state: str) -> None:
    (start.home / "ca").mkdir(parents=True)
    made = authority("callerid", ends=-DAY if state == "expired" else 300 * DAY)
    key = authority("other").key if state == "of another key" else made.key
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()) + made.pem
    if state == "garbage":
        pem = b"-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n"
    bundle = start.home / "ca" / "mitmproxy-ca.pem"
    bundle.write_bytes(pem)
    said = start.refused()
    assert str(start.home / "ca") in said
    assert "hint: " in said
    if state == "expired":
        assert "expired on" in said
        assert "new CA certificate" in said
    assert bundle.read_bytes() == pem


@pytest.mark.parametrize(
    "content",
    [
        None, b"", b"garbage",
        b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n",
    ],
    ids=["missing", "empty", "garbage", "garbage as PEM"],
)  # fmt: skip
def test_upstream_roots_that_are_none_are_refused(start: Start, content: bytes | None) -> None:
    roots = start.folder / "roots.pem"
    if content is not None:
        roots.write_bytes(content)
    said = start.refused("--upstream-ca", str(roots))
    assert str(roots) in said


# -- options -------------------------------------------------------------------------------------

VALUES = {
    "connection_strategy": "eager",
    "stream_large_bodies": "1m",
    "save_stream_file": "flows",
    "hardump": "flows.har",
    "client_certs": "/dev/null",
    "client_replay": "flows",
    "server_replay": "flows",
    "map_remote": "|a|b",
    "map_local": "|a|b",
    "modify_body": "|a|b",
    "modify_headers": "|a|b|c",
    "ignore_hosts": ".*",
    "allow_hosts": ".*",
    "tcp_hosts": ".*",
    "udp_hosts": ".*",
    "stickyauth": ".*",
    "stickycookie": ".*",
    "proxyauth": "any",
    "upstream_auth": "a:b",
    "ssl_verify_upstream_trusted_confdir": "/tmp",
}
UNSAFE = {
    **{
        name: VALUES.get(name, str(not safe).lower() if isinstance(safe, bool) else "other")
        for name, (safe, _) in harden.REQUIRED.items()
    },
    **{name: VALUES.get(name, "somewhere") for name in harden.FORBIDDEN},
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_option_does_not_start(start: Start, name: str) -> None:
    said = start.refused("--set", f"{name}={UNSAFE[name]}")
    assert name in said
    assert not (start.home / "audit.db").exists()


@pytest.mark.parametrize(
    "sets",
    [
        ("rawtcp=toggle",), ("rawtcp",), ("rawtcp=false", "rawtcp=true"), ("ssl_insecure=True",),
        ("body_size_limit=",), ("body_size_limit=100g",), ("mode=socks5",), ("confdir",),
        ("tcp_timeout=soon",), ("no_such_option=1",), ("raw_tcp=true",), ("scripts=x.py",),
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_that_cannot_be_taken_does_not_start(start: Start, sets: tuple[str, ...]) -> None:
    said = start.refused(*(part for one in sets for part in ("--set", one)))
    assert sets[-1].partition("=")[0] in said


@pytest.mark.parametrize(
    "mode",
    [
        "nonsense",
        "socks5",
        "transparent",
        "upstream:http://other.corp.example",
        "dns",
        "wireguard",
        "reverse:tcp://x:1",
    ],
)
def test_a_mode_that_is_none_or_not_governed_does_not_start(start: Start, mode: str) -> None:
    said = start.refused("--mode", mode)
    assert mode.partition(":")[0] in said
    assert "hint: " in said


@pytest.mark.parametrize(
    "listen", ["8080", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:http", "192.0.2.1:8080"]
)
def test_an_address_that_is_none_does_not_start(start: Start, listen: str) -> None:
    assert listen in start.refused("--listen", listen)


@pytest.mark.parametrize("option", ["--frob", "--hom", "--insecure"])
def test_an_option_of_the_command_that_is_none_does_not_start(start: Start, option: str) -> None:
    assert option in start.refused(option)


@pytest.mark.parametrize("name", ["SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE"])
def test_a_key_log_in_the_environment_does_not_start(start: Start, name: str) -> None:
    said = start.refused(**{name: str(start.folder / "keys")})
    assert name in said
    assert not (start.folder / "keys").exists()


# -- the other entry -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["an unsafe option", "broken rules", "a key log", "an unknown option of ours"]
)
def test_under_mitmdump_a_start_that_must_not_be_is_none_either(start: Start, fault: str) -> None:
    port = h.free_port()
    sets = {"callerid_home": start.home, "callerid_rules": start.rules, "confdir": start.home / "ca"}
    if fault == "an unsafe option":
        sets["ssl_insecure"] = "true"
    elif fault == "broken rules":
        (start.rules / "policy.yaml").write_text("rules: [")
    elif fault == "a key log":
        start.environ["SSLKEYLOGFILE"] = str(start.folder / "keys")
    else:
        sets["callerid_hone"] = start.home
    entry = [
        "-s",
        str(h.ROOT / "addon" / "entry.py"),
        "--listen-host",
        "127.0.0.1",
        "--listen-port",
        str(port),
    ]
    entry += [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]
    done = start.warm.run(entry, environ=start.environ, cwd=start.folder, program="mitmdump")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    expected = {
        "an unsafe option": "ssl_insecure",
        "broken rules": "policy.yaml:",
        "a key log": "SSLKEYLOGFILE",
        "an unknown option of ours": "callerid_hone",
    }
    assert expected[fault] in said
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()


def test_what_is_wrong_with_the_rules_is_machine_readable_too(start: Start) -> None:
    """``check`` says the same as ``run``, as JSON."""
    (start.rules / "policy.yaml").write_text(h.POLICY.replace("    reason:", "    raeson:"))
    done = start.warm.run(
        ["check", "--rules", str(start.rules), "--json"], environ=start.environ, cwd=start.folder
    )
    assert done.returncode in (1, 2)
    assert "raeson" in json.dumps(json.loads(done.stdout))
