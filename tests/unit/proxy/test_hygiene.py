from __future__ import annotations

from typing import Any

import pytest

from callerid.config import Binding, Credential
from callerid.credentials.store import CredentialStore
from callerid.identity.presented import Presented
from callerid.model import FindingKind, FindingRecord
from callerid.proxy.facts import Facts
from callerid.proxy.hygiene import AGAIN_US, REMEMBERED, Hygiene

RAW = "raw-key-of-the-things-1f3a"


def finding(time_us: int = 0, **changes: Any) -> FindingRecord:
    fields: dict[str, Any] = {
        "time_us": time_us,
        "kind": FindingKind.OWN_KEY,
        "server": "things",
        "principal": "user:alice@corp.example",
        "fingerprint": "ab" * 16,
    }
    return FindingRecord(**{**fields, **changes})


def store(action: Any = "replace", name: str = "SECRET") -> CredentialStore:
    credential = Credential(
        id="things-key", source_kind="env", source=name, inject="bearer", tripwire=action,
        binding=Binding(hosts=frozenset({("things.corp.example", 443)})),
    )  # fmt: skip
    return CredentialStore((credential,), {"SECRET": RAW, "OTHER": "another-key-7d1e2b"})


def facts(**changes: Any) -> Facts:
    fields: dict[str, Any] = {
        "time_us": 0,
        "http_method": "POST",
        "scheme": "https",
        "host": "things.corp.example",
        "port": 443,
        "path": "/mcp",
        "host_header": "things.corp.example",
        "sni": None,
        "headers": (("X-Key", RAW), ("X-Own", "kept")),
        "body": b"",
        "presented": Presented(),
        "client_ip": None,
    }
    return Facts(**{**fields, **changes})


@pytest.mark.parametrize(
    ("other", "told"),
    [
        pytest.param(finding(AGAIN_US - 1), False, id="the same within the hour"),
        pytest.param(finding(AGAIN_US), True, id="the same an hour later"),
        pytest.param(finding(1, principal="user:bob@corp.example"), True, id="of somebody else"),
        pytest.param(finding(1, server="tickets"), True, id="at another server"),
        pytest.param(finding(1, fingerprint="cd" * 16), True, id="of another key"),
        pytest.param(finding(1, kind=FindingKind.RAW_KEY), True, id="of another kind"),
        pytest.param(finding(1, detail="elsewhere", event_id="x"), False, id="in another place of a request"),
        pytest.param(finding(-5), True, id="from before, when the clock was set back"),
    ],
)
def test_the_same_is_told_once_an_hour(other: FindingRecord, told: bool) -> None:
    hygiene, written = Hygiene(), []
    hygiene.tell([finding(0)], written.append)
    hygiene.tell([other], written.append)
    assert (len(written) == 2) is told


def test_it_is_told_again_every_hour_however_often_it_is_seen() -> None:
    hygiene, written = Hygiene(), []
    for minute in range(0, 181, 10):
        hygiene.tell([finding(minute * 60_000_000)], written.append)
    assert [record.time_us // 60_000_000 for record in written] == [0, 60, 120, 180]


def test_no_more_than_so_many_are_remembered() -> None:
    hygiene, written = Hygiene(), []
    hygiene.tell((finding(server=f"s{n}") for n in range(REMEMBERED + 10)), written.append)
    assert len(hygiene._told) == REMEMBERED
    hygiene.tell([finding(1, server="s0")], written.append)
    assert len(written) == REMEMBERED + 11


def test_a_fault_in_finding_out_is_no_fault_of_the_call(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        yield finding()
        raise ValueError("boom")

    written: list[FindingRecord] = []
    Hygiene().tell(broken(), written.append)
    assert len(written) == 1
    assert "could not be told" in caplog.text


def test_the_request_is_judged_without_what_is_taken_out() -> None:
    seen = Hygiene().looked(facts(path=f"/mcp?a=1&k={RAW}"), store())
    assert (seen.path, list(seen.headers)) == ("/mcp?a=1", [("X-Own", "kept")])
    assert seen.noticed.hits


def test_an_honest_request_is_the_same_object() -> None:
    honest = facts(headers=(("X-Own", "kept"),))
    assert Hygiene().looked(honest, store()) is honest


def test_the_tripwire_is_made_anew_when_the_secrets_or_the_rules_change() -> None:
    hygiene, first = Hygiene(), store()
    assert hygiene.tripwire(first) is hygiene.tripwire(first)
    assert hygiene.looked(facts(), store("deny")).noticed.refused
    assert not hygiene.looked(facts(), store("alert")).noticed.refused
    assert hygiene.looked(facts(), store(name="OTHER")).noticed.hits == ()
