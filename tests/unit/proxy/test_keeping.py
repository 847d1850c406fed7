"""The store in a running proxy: health told once per change, a bounded start, a clean environment."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from callerid.credentials.store import CredentialStatus, CredentialStore
from callerid.home import Home
from callerid.model import FindingKind, FindingRecord
from callerid.proxy import keeping
from tests.unit.credentials.helpers import VALUE, credential


def test_health_is_told_once_per_change() -> None:
    now: tuple[CredentialStatus, ...] = ()
    store: Any = type("Store", (), {"status": lambda self: now})()
    health = keeping.Health()
    findings: list[FindingRecord] = []

    def look(**status: Any) -> list[tuple[FindingKind, str | None]]:
        nonlocal now
        fields: dict[str, Any] = {
            "id": "things",
            "label": None,
            "ok": True,
            "detail": "",
            "hint": "",
            **status,
        }
        now = (CredentialStatus(**fields),)
        before = len(findings)
        health.tell(store, findings.append, 7)
        return [(record.kind, record.detail) for record in findings[before:]]

    assert look() == []
    [(kind, detail)] = look(ok=False, detail="the vault is sealed", hint="Unseal it.")
    assert kind is FindingKind.CREDENTIAL_ILL
    assert detail == "it is not available: the vault is sealed. Unseal it."
    assert look(ok=False, detail="the vault is sealed", hint="Unseal it.") == []
    assert [kind for kind, _ in look(ok=False, detail="it hangs")] == [FindingKind.CREDENTIAL_ILL]
    assert look() == [(FindingKind.CREDENTIAL_WELL, None)]
    assert look() == []
    [(kind, detail)] = look(failing="the vault is sealed")
    assert kind is FindingKind.CREDENTIAL_ILL
    assert "the last good value serves" in str(detail)
    assert look() == [(FindingKind.CREDENTIAL_WELL, None)]
    assert look(ok=False, detail="it has not been fetched yet", coming=True) == []
    assert look() == []
    assert [kind for kind, _ in look(ok=False, detail="it hangs")] == [FindingKind.CREDENTIAL_ILL]
    assert look(ok=False, detail="it has not been fetched yet", coming=True) == []
    assert look() == [(FindingKind.CREDENTIAL_WELL, None)]
    assert {record.credential for record in findings} == {"things"}


def test_secrets_and_proxies_leave_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_SHARED", "HTTPS_PROXY", "http_proxy", "KEPT"):
        monkeypatch.setenv(name, VALUE)
    keeping.withdraw((credential(), credential(id="other", source_kind="file", source="KEPT")))
    assert [name for name in ("GITHUB_SHARED", "HTTPS_PROXY", "http_proxy") if name in os.environ] == []
    assert os.environ["KEPT"] == VALUE


def opened(tmp_path: Path, *argv: str) -> CredentialStore:
    subject = credential(source_kind="exec", source="", argv=argv)
    environ = {"PATH": os.environ["PATH"]}
    return keeping.open_store((subject,), environ, roots=None, home=Home(tmp_path))


async def test_a_quick_source_is_there_when_the_start_is_over(tmp_path: Path) -> None:
    store = opened(tmp_path, "echo", VALUE)
    keeping.begin(store, asyncio.get_running_loop(), store.refresh)
    assert store.status()[0].ok
    store.close()


async def test_a_slow_one_is_not_waited_for_and_wakes_the_loop_when_it_comes(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    store = opened(tmp_path, "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.05; done; echo {VALUE}")
    arrived = asyncio.Event()

    def refresh() -> None:
        store.refresh()
        arrived.set()

    began = time.monotonic()
    keeping.begin(store, asyncio.get_running_loop(), refresh)
    assert time.monotonic() - began < 10 * keeping.START_SECONDS
    assert not store.status()[0].ok
    told: list[FindingRecord] = []
    keeping.Health().tell(store, told.append, 7)
    assert told == []
    gate.touch()
    await asyncio.wait_for(arrived.wait(), 10)
    assert store.status()[0].ok
    store.close()
