"""A run in service: a secret that comes late, a second run beside it, and signals with a stream open."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm
) -> Iterator[tuple[h.WarmProxy, h.Upstream, h.Upstream, Path]]:
    """A proxy with two servers, of which one has a secret whose file is not there yet."""
    folder = tmp_path_factory.mktemp("startup")
    things, other = h.Upstream(pki.server_context(), stream_or_call), h.Upstream(pki.server_context())
    extra = f"  - {{id: other, url: 'https://localhost:{other.port}/mcp'}}\n"
    rules = h.standard_rules(
        things.port,
        **{
            "servers.yaml": h.servers(things.port, extra=extra),
            "credentials.yaml": h.credentials(things.port, source="file: ../late.secret"),
            "policy.yaml": h.POLICY_ANYWHERE,
        },
    )
    proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca)
    with h.running(proxy):
        yield proxy, things, other, folder / "late.secret"
    things.close()
    other.close()


def stream_or_call(seen: h.Seen) -> h.Reply:
    """An event stream that stays open for GET."""
    if seen.method != "GET":
        return h.call_tool(seen)

    def events() -> Iterator[bytes]:
        yield b": hello\n\n"
        threading.Event().wait(h.DEADLINE)

    return h.Reply(200, [("content-type", "text/event-stream")], chunks=events())


def ask(proxy: h.Proxy, upstream: h.Upstream, token: str) -> h.Trial:
    tried = h.trial(proxy, upstream)
    authority = f"localhost:{upstream.port}"
    client = proxy.tunnel(authority, headers={"X-Callerid-Token": token})
    client.send(h.post(authority, "/mcp", h.tool("read_thing", rpc_id=0)))
    tried.answer = client.read()
    client.close()
    return tried


def test_a_missing_secret_stops_its_own_server_only_and_until_it_is_there(
    site: tuple[h.WarmProxy, h.Upstream, h.Upstream, Path],
) -> None:
    proxy, things, other, secret = site
    token = h.mint(proxy)
    tried = ask(proxy, things, token)
    row = tried.refused("credential_unavailable")
    assert (row["verdict"], row["principal"]) == ("error", "user:alice@corp.example")
    assert "does not exist" in row["detail"]
    assert tried.answer is not None
    assert (tried.answer.status, tried.answer.json["id"]) == (503, 0)
    assert "late.secret" not in tried.answer.body.decode()
    assert ask(proxy, other, token).row["verdict"] == "allow"
    secret.touch(mode=0o600)
    secret.write_text(h.SECRET + "\n")
    h.wait_for(lambda: ask(proxy, things, token).row["verdict"] == "allow", "the secret in force")
    assert things.seen[-1].header("authorization") == f"Bearer {h.SECRET}"
    assert proxy.rows()[-1]["injected"] == "things-key@v1"


def test_a_second_run_on_the_same_home_is_refused_and_harms_nothing(
    site: tuple[h.WarmProxy, h.Upstream, h.Upstream, Path],
) -> None:
    proxy, _, other, _ = site
    done = proxy.command(*proxy.arguments(), check=False)
    assert done.returncode == 2
    assert "another callerid is writing this audit" in done.stderr
    assert "--home" in done.stderr
    assert ask(proxy, other, h.mint(proxy)).row["outcome"] == "ok"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_a_stream_open(
    site: tuple[h.WarmProxy, h.Upstream, h.Upstream, Path], how: signal.Signals
) -> None:
    """Exit code 0, well before anybody's patience ends, and the next start serves again."""
    proxy, things, _, secret = site
    if not secret.exists():
        secret.touch(mode=0o600)
        secret.write_text(h.SECRET)
        h.wait_for(lambda: ask(proxy, things, h.mint(proxy)).row["verdict"] == "allow", "the secret in force")
    authority = f"localhost:{things.port}"
    client = proxy.tunnel(authority, headers={"X-Callerid-Token": h.mint(proxy)})
    client.send(f"GET /mcp HTTP/1.1\r\nHost: {authority}\r\nAccept: text/event-stream\r\n\r\n".encode())
    assert client.read_head().status == 200
    assert next(client.chunks()) == b": hello\n\n"
    assert proxy.process is not None
    proxy.process.send_signal(how)
    assert proxy.process.wait(5) == 0
    client.close()
    assert proxy.rows("method = 'http/GET'")[-1]["verdict"] == "allow"
    proxy.start()
    assert ask(proxy, things, h.mint(proxy)).row["outcome"] == "ok"


def test_a_stream_that_was_open_at_the_end_is_told_apart_from_a_crash(
    site: tuple[h.WarmProxy, h.Upstream, h.Upstream, Path],
) -> None:
    outcomes = [row["outcome"] for row in site[0].rows() if row["method"] == "http/GET"]
    assert outcomes
    assert set(outcomes) == {"cut"}
