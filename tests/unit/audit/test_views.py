from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from callerid.audit.views import OWN_CREDENTIAL, SERVER_SEEN, SHOWN
from callerid.model import (
    Carrier,
    DecisionRecord,
    Evidence,
    EvidenceKind,
    FindingKind,
    FindingRecord,
    Reason,
    Verdict,
)

from .samples import T0, decision, finding, plant, refusal, rows, writing

WILD: dict[str, Any] = {
    "reason": Reason.OBSERVED,
    "server": "wild.corp.example:8443",
    "upstream": "wild.corp.example:8443",
    "path": "/mcp",
    "rule": None,
    "injected": None,
    "kind": "tool",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


def wild(number: int, **changes: Any) -> DecisionRecord:
    return decision(number, **{**WILD, **changes})


def seen(path: Path, where: str = "1") -> list[dict[str, Any]]:
    found = rows(path, f"SELECT * FROM servers_seen WHERE {where} ORDER BY server, path")
    names = ("tools", "caller_names", "agents", "credentials", "clients")
    return [{**row, **{name: json.loads(row[name]) for name in names}} for row in found]


def test_an_unlisted_server_is_shown_with_all_that_is_known_of_it(path: Path) -> None:
    certificate = Evidence(kind=EvidenceKind.CLIENT_CERT, carrier=Carrier.INNER_TLS, credential_id="cert:1")
    plant(
        path,
        wild(1, protocol="2025-06-18", client_name="claude-code"),
        wild(2, principal="user:bob@corp.example", agent=None, evidence=(certificate,), tool="write_file"),
        wild(
            3, principal=None, agent=None, evidence=(), credential_id=None, tool=None, protocol="2025-11-25"
        ),
        wild(4, kind="prompt", tool="a_prompt", protocol=None),
        wild(5, verdict=Verdict.DENY, reason=Reason.UNKNOWN_SERVER),
    )
    assert seen(path) == [
        {
            "server": "wild.corp.example:8443",
            "upstream": "wild.corp.example:8443",
            "first_seen": "2026-09-21T14:13:20.001Z",
            "last_seen": "2026-09-21T14:13:20.005Z",
            "callers": 2,
            "calls": 5,
            "refused": 1,
            "host": "wild.corp.example",
            "path": "/mcp",
            "protocol": "2025-11-25",
            "tools": ["read_file", "write_file"],
            "caller_names": ["user:alice@corp.example", "user:bob@corp.example"],
            "agents": ["claude-code"],
            "credentials": ["scoped_token", "client_cert", "none"],
            "clients": ["claude-code"],
            "listed": 0,
            "allowed": 4,
        }
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, ["scoped_token"], id="a scoped token"),
        pytest.param({"evidence": (), "credential_id": None}, ["none"], id="nothing"),
        pytest.param(
            {"evidence": (), "credential_id": None, "detail": f"{OWN_CREDENTIAL} Authorization (Bearer)"},
            ["own"],
            id="a credential of their own, and nothing for us",
        ),
        pytest.param({"detail": f"{OWN_CREDENTIAL} X-Api-Key"}, ["scoped_token", "own"], id="both"),
        pytest.param(
            {"evidence": (), "credential_id": "tok_1"}, ["rejected"], id="a token that was not accepted"
        ),
        pytest.param(
            {"evidence": (), "credential_id": None, "claimed_subject": "user:ivy@corp.example"},
            ["rejected"],
            id="evidence that was not accepted",
        ),
    ],
)
def test_the_kind_of_credential_is_shown_and_never_its_value(
    path: Path, changes: dict[str, Any], expected: list[str]
) -> None:
    plant(path, wild(1, **changes))
    assert seen(path)[0]["credentials"] == expected


@pytest.mark.parametrize(
    ("record", "listed"),
    [
        pytest.param(decision(), 1, id="granted"),
        pytest.param(refusal(), 1, id="refused by a rule"),
        pytest.param(refusal(reason=Reason.NO_EVIDENCE), 1, id="refused before any rule"),
        pytest.param(
            decision(server="gone.corp.example", upstream="gone.corp.example:443"),
            1,
            id="granted at a server whose id is its address",
        ),
        pytest.param(wild(1), 0, id="observed"),
        pytest.param(wild(1, verdict=Verdict.DENY, reason=Reason.UNKNOWN_SERVER), 0, id="unknown"),
        pytest.param(
            wild(1, verdict=Verdict.DENY, reason=Reason.TOKEN_IN_REQUEST), 0, id="by its address alone"
        ),
        pytest.param(
            wild(
                1, verdict=Verdict.DENY, reason=Reason.TOKEN_IN_REQUEST,
                server="wild.corp.example", upstream="Wild.corp.example:443",
            ),
            0,
            id="the same without its port",
        ),
        pytest.param(
            wild(1, verdict=Verdict.DENY, reason=Reason.TOKEN_REVOKED, server="::1:9", upstream="[::1]:9"),
            0,
            id="an IPv6 address",
        ),
    ],
)  # fmt: skip
def test_whether_it_is_listed_is_shown(path: Path, record: DecisionRecord, listed: int) -> None:
    plant(path, record)
    assert [row["listed"] for row in seen(path)] == [listed]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"method": "http/CONNECT", "reason": Reason.CERTIFICATE_REQUIRED}, id="a CONNECT"),
        pytest.param({"method": "http/CONNECT", "reason": Reason.ADDRESS_REFUSED}, id="to nowhere"),
        pytest.param({"method": "http/GET", "reason": Reason.RAW_KEY}, id="a raw key at any URL"),
        pytest.param({"method": "http/POST", "reason": Reason.TOKEN_IN_REQUEST}, id="a token in any form"),
        pytest.param(
            {"server": "callerid", "upstream": "callerid.internal:443", "method": "http/GET",
             "reason": Reason.DERIVE_REFUSED}, id="callerid itself",
        ),
    ],
)  # fmt: skip
def test_what_is_no_mcp_server_is_not_shown_as_one(path: Path, changes: dict[str, Any]) -> None:
    mcp = {"verdict": Verdict.DENY, "reason": Reason.RAW_KEY, "path": "/mcp"}
    plant(path, wild(1, verdict=Verdict.DENY, **changes), wild(2, **mcp), refusal(3, method="http/GET"))
    assert [(row["listed"], row["calls"]) for row in seen(path)] == [(1, 1), (0, 1)]


def test_each_path_of_a_host_is_a_row_and_rows_without_one_are_too(path: Path) -> None:
    plant(path, wild(1), wild(2, path="/other"), wild(3, path=None), wild(4))
    assert [(row["path"], row["calls"]) for row in seen(path)] == [(None, 1), ("/mcp", 2), ("/other", 1)]


def test_tools_that_a_server_lists_are_seen_although_nobody_called_them(path: Path) -> None:
    plant(path, wild(1), wild(2, path="/other"))
    with writing(path) as writer:
        detail = {"server": WILD["server"], "upstream": WILD["upstream"], "path": "/mcp"}
        writer.event(SERVER_SEEN, T0, {**detail, "tools": [{"tool": "drop_table"}, {"tool": "read_file"}]})
        writer.event(SERVER_SEEN, T0, {**detail, "path": "/nowhere", "tools": [{"tool": "x"}]})
        writer.event("started", T0, {**detail, "tools": [{"tool": "y"}]})
    assert [row["tools"] for row in seen(path)] == [["drop_table", "read_file"], ["read_file"]]


def test_a_tool_that_is_named_like_a_secret_does_not_hide_its_neighbour(path: Path) -> None:
    plant(path, wild(1))
    with writing(path) as writer:
        detail = {"server": WILD["server"], "upstream": WILD["upstream"], "path": "/mcp"}
        writer.event(SERVER_SEEN, T0, {**detail, "tools": [{"tool": "get_token"}, {"tool": "zap"}]})
    assert seen(path)[0]["tools"] == ["get_token", "read_file", "zap"]


def test_no_cell_grows_without_bound(path: Path) -> None:
    many = SHOWN + 20
    plant(path, *(wild(n, tool=f"t{n:04}", client_name=f"c{n:04}") for n in range(many)))
    (row,) = seen(path)
    assert (len(row["tools"]), len(row["clients"]), row["calls"]) == (SHOWN, SHOWN, many)
    assert row["tools"][0] == "t0000"


def test_it_reads_the_file_once_and_for_one_server_by_its_index(path: Path) -> None:
    plant(path, wild(1))
    whole = rows(path, "EXPLAIN QUERY PLAN SELECT * FROM servers_seen")
    one = rows(path, "EXPLAIN QUERY PLAN SELECT * FROM servers_seen WHERE server = 'x'")
    assert "SCAN decision" in [row["detail"] for row in whole]
    assert any("SEARCH decision USING INDEX decision_tool" in row["detail"] for row in one)


def key(number: int, who: str, **changes: Any) -> FindingRecord:
    return finding(number, principal=f"user:{who}@corp.example", **changes)


def test_one_key_and_seven_people_is_one_row(path: Path) -> None:
    people = ("alice", "bob", "ivy", "carol", "dan", "erin", "frank")
    own: dict[str, Any] = {"kind": FindingKind.OWN_KEY, "credential": None, "fingerprint": "9a4e" * 8}
    plant(
        path,
        *(key(n, who, **own, server=f"s{n % 3}.example") for n, who in enumerate(people)),
        key(9, "alice", **own, server="s0.example"),
        key(10, "bob"),
        finding(11, principal=None),
        finding(12, kind=FindingKind.SECRET_ECHOED, fingerprint=None),
    )
    shared, raw = rows(path, "SELECT * FROM raw_keys ORDER BY people DESC")
    assert {**shared, "caller_names": json.loads(shared["caller_names"])} == {
        "kind": "own_key",
        "credential": None,
        "fingerprint": "9a4e" * 8,
        "people": 7,
        "caller_names": sorted(f"user:{who}@corp.example" for who in people),
        "servers": '["s0.example","s1.example","s2.example"]',
        "findings": 8,
        "first_seen": "2026-09-21T14:13:20.000Z",
        "last_seen": "2026-09-21T14:13:20.009Z",
    }
    assert (raw["kind"], raw["credential"], raw["people"], raw["findings"]) == (
        "raw_key",
        "files-shared@v1",
        1,
        2,
    )


def test_the_usual_question_to_findings_uses_an_index(path: Path) -> None:
    plant(path)
    plan = rows(path, "EXPLAIN QUERY PLAN SELECT * FROM findings WHERE time_us > 5 ORDER BY time_us")
    assert "USING INDEX finding_time" in plan[0]["detail"]
    plan = rows(path, "EXPLAIN QUERY PLAN SELECT * FROM findings WHERE event_id = 'x'")
    assert "USING INDEX finding_event" in plan[0]["detail"]
