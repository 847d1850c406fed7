"""New rules and new secrets while it runs: taken whole or not at all, and every row says under which."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm

OPEN, CLOSED = h.POLICY, h.POLICY.replace('tools: ["*"]', 'tools: ["query"]')
FIRST, SECOND, THIRD = "first-secret-0a1b2c3d4e5f", "second-secret-6a7b8c9d0e1f", "third-secret-2c3d4e5f6a7b"


@dataclass
class Site:
    """A running proxy whose rules and secret are changed under it."""

    proxy: h.WarmProxy
    upstream: h.Upstream
    secret: Path
    token: str

    def call(self, name: str = "read_thing") -> dict[str, Any]:
        """One call and its row."""
        tried = h.trial(self.proxy, self.upstream)
        authority = f"localhost:{self.upstream.port}"
        client = self.proxy.tunnel(authority, headers={"X-Callerid-Token": self.token})
        client.send(h.post(authority, "/mcp", h.tool(name, rpc_id=0)))
        answer = client.read()
        client.close()
        assert answer is not None
        row = tried.row
        assert len(tried.seen) == (row["verdict"] == "allow")
        assert (answer.status == 200) == (row["verdict"] != "error")
        return {**row, "answer": answer}

    def write(self, name: str, text: str) -> None:
        """As editors and deployments do: beside it, then renamed into place."""
        beside = self.proxy.rules / f".{name}.new"
        beside.write_text(text)
        beside.replace(self.proxy.rules / name)

    def keep(self, text: str) -> None:
        beside = self.secret.with_suffix(".new")
        beside.touch(mode=0o600)
        beside.write_text(text)
        beside.replace(self.secret)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        db = sqlite3.connect(f"file:{self.proxy.home / 'audit.db'}?mode=ro", uri=True, timeout=h.DEADLINE)
        try:
            found = db.execute("select kind, detail from event order by id").fetchall()
        finally:
            db.close()
        return [{"kind": kind, **json.loads(detail)} for kind, detail in found if kind in kinds]

    def reloaded(self, count: int) -> dict[str, Any]:
        """The newest event of a reload, good or bad, once there is one more than ``count``."""
        h.wait_for(lambda: len(self.events("reload", "reload_failed")) > count, "an event of the reload")
        return self.events("reload", "reload_failed")[-1]

    def change(self, name: str, text: str) -> dict[str, Any]:
        count = len(self.events("reload", "reload_failed"))
        self.write(name, text)
        return self.reloaded(count)


@pytest.fixture
def site(tmp_path: Path, pki: h.Pki, upstream: h.Upstream, warm: Warm) -> Iterator[Site]:
    secret = tmp_path / "things.secret"
    rules = h.standard_rules(
        upstream.port, **{"credentials.yaml": h.credentials(upstream.port, source="file: ../things.secret")}
    )
    proxy = h.WarmProxy(warm, tmp_path, rules, ca=pki.ca)
    made = Site(proxy, upstream, secret, "")
    made.keep(FIRST)
    upstream.answer = h.call_tool
    with h.running(proxy):
        made.token = h.mint(proxy)
        yield made


def test_an_edit_decides_the_next_calls_and_their_rows_name_it(site: Site) -> None:
    before = site.call()
    assert (before["verdict"], before["reason"]) == ("allow", "granted")
    event = site.change("policy.yaml", CLOSED)
    assert (event["kind"], event["before"]) == ("reload", before["policy"])
    after = site.call()
    assert (after["verdict"], after["reason"], after["policy"]) == ("deny", "no_grant", event["policy"])
    assert after["policy"] != before["policy"]
    event = site.change("policy.yaml", OPEN)
    again = site.call()
    assert (again["verdict"], again["policy"]) == ("allow", before["policy"])
    assert event["policy"] == before["policy"]


def test_a_connection_that_is_open_is_judged_by_the_new_rules(site: Site) -> None:
    authority = f"localhost:{site.upstream.port}"
    client = site.proxy.tunnel(authority, headers={"X-Callerid-Token": site.token})
    for rules, is_error in ((None, False), (CLOSED, True), (OPEN, False)):
        if rules is not None:
            site.change("policy.yaml", rules)
        client.send(h.post(authority, "/mcp", h.tool("read_thing")))
        answer = client.read()
        assert answer is not None
        assert answer.json["result"]["isError"] is is_error
    client.close()


def test_the_texts_of_every_policy_in_force_are_kept(site: Site) -> None:
    first = site.call()["policy"]
    site.change("policy.yaml", CLOSED)
    second = site.call()["policy"]
    db = sqlite3.connect(f"file:{site.proxy.home / 'audit.db'}?mode=ro", uri=True, timeout=h.DEADLINE)
    kept = {
        hash: json.loads(sources) for hash, sources in db.execute("select hash, sources from policy_version")
    }
    db.close()
    assert kept[first]["policy.yaml"] == OPEN
    assert kept[second]["policy.yaml"] == CLOSED
    assert set(kept[second]) == {"identities.yaml", "servers.yaml", "credentials.yaml", "policy.yaml"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy.yaml", "rules: ["),
        ("policy.yaml", CLOSED.replace("effect: deny", "effect: dney")),
        ("policy.yaml", ""),
        ("policy.yaml", CLOSED[: len(CLOSED) // 2]),
        ("policy.yaml", CLOSED.replace("group:interns", "group:nobody")),
        (
            "identities.yaml",
            "version: 1\nclient_cas:\n  - {id: a, file: none.pem, principal_from: san_email}\n",
        ),
        ("servers.yaml", "version: 1\nservers: []\nservers: []\n"),
    ],
    ids=[
        "no YAML",
        "a slip",
        "empty",
        "half written",
        "across files",
        "a file that is not there",
        "a key twice",
    ],
)
def test_a_broken_edit_leaves_the_last_good_rules_and_is_said(site: Site, name: str, text: str) -> None:
    before = site.call()
    good = (site.proxy.rules / name).read_text()
    event = site.change(name, text)
    assert event["kind"] == "reload_failed"
    assert event["policy"] == before["policy"]
    assert f"{name}:" in event["error"]
    after = site.call()
    assert (after["verdict"], after["policy"]) == ("allow", before["policy"])
    h.wait_for(
        lambda: any("last good ones stay in force" in line for line in site.proxy.output), "a line about it"
    )
    h.wait_for(
        lambda: any(line.startswith(f"{name}:") for line in site.proxy.output), "its place in the file"
    )
    event = site.change(name, good.replace("version: 1", "version: 1  # mended"))
    assert event["kind"] == "reload"
    mended = site.call()
    assert (mended["verdict"], mended["policy"]) == ("allow", event["policy"])
    assert mended["policy"] != before["policy"]


def test_files_that_only_fit_together_are_taken_together(site: Site) -> None:
    """A deployment renames one file after the other: what does not fit waits for the rest."""
    identities = h.identities().replace("interns:", "guests:")
    count = len(site.events("reload"))
    site.write("identities.yaml", identities)
    site.write("policy.yaml", CLOSED.replace("group:interns", "group:guests"))
    h.wait_for(lambda: len(site.events("reload")) > count, "both in force")
    assert site.call()["reason"] == "no_grant"


def test_a_file_that_grows_in_place_is_never_taken_by_halves(site: Site) -> None:
    """An editor that writes slowly into the file itself: no call is decided by a part of it."""
    policy = site.call()["policy"]
    target = site.proxy.rules / "policy.yaml"
    wide = OPEN.replace("effect: deny\n", "effect: deny\n    mode: enforce\n")
    with target.open("w") as file:
        for at in range(0, len(wide), 40):
            file.write(wide[at : at + 40])
            file.flush()
            row = site.call("drop_thing")
            assert (row["verdict"], row["policy"]) == ("deny", policy)
    h.wait_for(lambda: site.call("drop_thing")["policy"] != policy, "the whole file in force")
    assert site.call("drop_thing")["reason"] == "rule_denied"


def test_the_removal_of_a_file_or_of_the_whole_directory_changes_nothing(site: Site) -> None:
    before = site.call()["policy"]
    count = len(site.events("reload_failed"))
    (site.proxy.rules / "policy.yaml").rename(site.proxy.rules / "policy.aside")
    site.reloaded(count)
    assert site.call()["policy"] == before
    aside = site.proxy.rules.with_name("aside")
    site.proxy.rules.rename(aside)
    assert site.call()["policy"] == before
    aside.rename(site.proxy.rules)
    count = len(site.events("reload"))
    (site.proxy.rules / "policy.aside").rename(site.proxy.rules / "policy.yaml")
    h.wait_for(lambda: len(site.events("reload")) > count, "the rules read again")
    assert site.call()["policy"] == before


def test_sighup_reads_the_rules_again_though_nothing_changed(site: Site) -> None:
    assert site.proxy.process is not None
    before = site.call()["policy"]
    count = len(site.events("reload", "reload_failed"))
    os.kill(site.proxy.process.pid, signal.SIGHUP)
    event = site.reloaded(count)
    assert (event["kind"], event["policy"]) == ("reload", before)
    assert site.call()["verdict"] == "allow"


def test_a_server_that_is_taken_out_is_unknown_from_then_on(site: Site) -> None:
    assert site.call()["verdict"] == "allow"
    elsewhere = h.servers(h.free_port())
    site.write(
        "credentials.yaml",
        h.credentials(9, source="file: ../things.secret").replace("localhost:9", "localhost"),
    )
    event = site.change("servers.yaml", elsewhere.replace("    credential: things-key\n", ""))
    if event["kind"] == "reload_failed":
        event = site.reloaded(len(site.events("reload", "reload_failed")))
    row = site.call()
    assert (row["verdict"], row["reason"], row["injected"]) == ("deny", "unknown_server", None)


# -- secrets -------------------------------------------------------------------------------------


def echo(secret: str) -> Any:
    def answer(seen: h.Seen) -> h.Reply:
        result = {"content": [{"type": "text", "text": f"it is {secret}"}], "isError": False}
        return h.json_reply({"jsonrpc": "2.0", "id": seen.message["id"], "result": result})

    return answer


def in_force(site: Site, label: str) -> None:
    h.wait_for(lambda: site.call()["injected"] == label, f"{label} in force")


def test_a_replaced_secret_is_used_at_once_and_the_old_one_still_hidden(site: Site) -> None:
    assert site.call()["injected"] == "things-key@v1"
    assert site.upstream.seen[-1].header("authorization") == f"Bearer {FIRST}"
    policy = site.call()["policy"]
    site.keep(SECOND)
    in_force(site, "things-key@v2")
    assert site.upstream.seen[-1].header("authorization") == f"Bearer {SECOND}"
    assert site.call()["policy"] == policy
    site.keep(THIRD + "\n")
    in_force(site, "things-key@v3")
    assert site.upstream.seen[-1].header("authorization") == f"Bearer {THIRD}"
    for old in (FIRST, SECOND, THIRD):
        site.upstream.answer = echo(old)
        answer = site.call()["answer"]
        assert old.encode() not in answer.body
        assert "[callerid:removed]" in answer.text


def test_the_same_secret_written_again_is_no_new_version(site: Site) -> None:
    site.keep(FIRST)
    site.keep(FIRST + "\n")
    site.change("policy.yaml", OPEN + "# again\n")
    assert site.call()["injected"] == "things-key@v1"


@pytest.mark.parametrize("fault", ["removed", "empty", "two lines", "open to all", "a folder"])
def test_a_secret_that_is_lost_stops_the_calls_and_a_new_one_serves_them(site: Site, fault: str) -> None:
    assert site.call()["verdict"] == "allow"
    if fault == "empty":
        site.keep("")
    elif fault == "two lines":
        site.keep("first line of it\nsecond line of it")
    elif fault == "open to all":
        site.secret.chmod(0o644)
    else:
        site.secret.unlink()
        if fault == "a folder":
            site.secret.mkdir()
    h.wait_for(lambda: site.call()["reason"] == "credential_unavailable", "the loss seen")
    row = site.call()
    assert (row["verdict"], row["outcome"], row["injected"]) == ("error", "not_sent", None)
    assert row["answer"].status == 503
    if fault == "a folder":
        site.secret.rmdir()
    site.keep(SECOND)
    in_force(site, "things-key@v2")
    site.upstream.answer = echo(FIRST)
    assert FIRST.encode() not in site.call()["answer"].body


def test_a_secret_survives_a_reload_and_a_bad_reload(site: Site) -> None:
    site.keep(SECOND)
    in_force(site, "things-key@v2")
    site.change("policy.yaml", "rules: [")
    assert site.call()["injected"] == "things-key@v2"
    site.change("policy.yaml", OPEN + "\n# new\n")
    assert site.call()["injected"] == "things-key@v2"
    site.upstream.answer = echo(FIRST)
    assert FIRST.encode() not in site.call()["answer"].body
