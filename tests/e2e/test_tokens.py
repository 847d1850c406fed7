"""The commands of tokens against the running proxy: issue, derive as holder and as administrator, list."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from callerid.identity.tokens import is_well_formed
from tests.e2e import harness as h
from tests.e2e.house import ALICE, House, accepted, carried
from tests.e2e.test_desk import ask, bearer


def holder(
    house: House, *arguments: str, stdin: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    """``callerid derive`` as somebody runs it who has a token and nothing else: no home, no rules."""
    empty = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return subprocess.run(
        [sys.executable, "-m", "callerid", "derive", *arguments],
        env={**empty, "PYTHONPATH": str(h.ROOT / "addon"), "CALLERID_HOME": "/nonexistent", **environ},
        input=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["stdin", "CALLERID_TOKEN", "HTTPS_PROXY"])
def test_the_holder_of_a_token_derives_without_any_right_of_an_administrator(house: House, way: str) -> None:
    token = h.mint(house.proxy)
    place = f"localhost:{house.proxy.port}"
    scope = ("--agent", "claude-code", "--ttl", "5m", "--server", "things", "--network", "127.0.0.0/8")
    if way == "stdin":
        done = holder(house, "--proxy", f"http://{place}", *scope, stdin=token + "\n")
    elif way == "CALLERID_TOKEN":
        done = holder(house, "--proxy", f"http://{place}", *scope, CALLERID_TOKEN=token)
    else:
        done = holder(house, *scope, HTTPS_PROXY=f"http://alice:{token}@{place}")
    assert done.returncode == 0, done.stderr
    child = done.stdout.removesuffix("\n")
    assert is_well_formed(child)
    assert token not in done.stdout + done.stderr
    accepted(house.ask(**carried(child, "authorization")), ALICE, agent="claude-code")
    refused = house.proxy.plain()
    refused.close()
    who = ask(house, "GET", "/whoami", headers=bearer(child)).json
    assert who["ceilings"] == [{"origin": h.token_id(child), "servers": ["things"], "tools": None}]


def test_the_holder_is_told_why_there_is_no_token(house: House) -> None:
    token = h.mint(house.proxy, servers=("things",))
    place = f"http://localhost:{house.proxy.port}"
    done = holder(house, "--proxy", place, "--server", "lab", CALLERID_TOKEN=token)
    assert (done.returncode, done.stdout) == (1, "")
    assert "derive_refused" in done.stderr
    assert "not within" in done.stderr
    dead = holder(house, "--proxy", place, CALLERID_TOKEN=house.tokens["revoked"])
    assert dead.returncode == 1
    assert "token_revoked" in dead.stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        pytest.param(["--proxy", "http://a:TOKEN@localhost:1"], {}, "command line", id="a token in argv"),
        pytest.param([], {}, "which proxy", id="no proxy"),
        pytest.param(["--proxy", "socks5://localhost:1"], {}, "URL", id="another kind of proxy"),
        pytest.param(["--proxy", "http://localhost:1"], {}, "no token", id="no token"),
        pytest.param(
            ["--proxy", "http://localhost:1"], {"CALLERID_TOKEN": "cid_x"}, "slip", id="half a token"
        ),
        pytest.param(
            ["--proxy", "http://localhost:1"], {"CALLERID_TOKEN": "a.b.c"}, "no answer", id="nobody listens"
        ),
        pytest.param(["--from", "t_1", "--proxy", "http://localhost:1"], {}, "two ways", id="both ways"),
    ],
)
def test_wrong_usage_is_exit_2(
    house: House, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    done = holder(house, *arguments, **environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_an_administrator_derives_below_any_token_and_sees_the_tree(house: House) -> None:
    parent = house.proxy.issue(ALICE, "--server", "things", "--network", "127.0.0.1", "--network", "::1")
    identifier = h.token_id(parent)
    child = house.proxy.command("derive", "--from", identifier, "--agent", "claude-code", "--tool", "read_*")
    token = child.stdout.strip()
    accepted(house.ask(**carried(token, "authorization")), ALICE, agent="claude-code")
    refused = house.proxy.command("derive", "--from", identifier, "--server", "lab", check=False)
    assert refused.returncode == 2
    assert "not within" in refused.stderr
    listed = house.proxy.command("tokens", "--principal", ALICE, "--tree").stdout.splitlines()
    at = next(number for number, line in enumerate(listed) if line.strip().startswith(identifier))
    assert listed[at + 1].startswith(f"   {h.token_id(token)}") or h.token_id(token) in listed[at + 1]
    found = json.loads(house.proxy.command("tokens", "--json", "--agent", "claude-code").stdout)
    assert h.token_id(token) in {row["id"] for row in found}


def test_the_list_says_when_and_from_where_a_token_was_used(house: House) -> None:
    token = h.mint(house.proxy)
    accepted(house.ask(**carried(token, "authorization")), ALICE)

    def used() -> bool:
        with h.registry(house.proxy) as registry:
            row = registry.get(h.token_id(token))
        return row is not None and row.last_ip == "127.0.0.1" and row.last_used_us is not None

    h.wait_for(used, "the use to be written")
    [row] = [
        row for row in json.loads(house.proxy.command("tokens", "--json").stdout)
        if row["id"] == h.token_id(token)
    ]  # fmt: skip
    assert (row["last_ip"], row["state"]) == ("127.0.0.1", "good")
    assert "127.0.0.1" in house.proxy.command("tokens", "--principal", ALICE).stdout
