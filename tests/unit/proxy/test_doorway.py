"""Requests that are refused before anything is judged are rows of the protocol that their server speaks."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from callerid.config import Identities, Server, Servers
from callerid.identity.presented import Presented
from callerid.model import Reason, Rejected
from callerid.proxy.destination import ServerTable
from callerid.proxy.doorway import turned_away
from callerid.proxy.facts import Facts
from callerid.proxy.limits import DEFAULTS

HOST = "api.corp.example"
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get"}}'
MISSING = Rejected(reason=Reason.CERTIFICATE_REQUIRED, detail="none was shown")


def rooms(kind: Any) -> Any:
    server = Server(id="api", scheme="https", host=HOST, port=443, path="/api", kind=kind)
    identities = Identities(require_proxy_certificate=True)
    return SimpleNamespace(
        rules=SimpleNamespace(identities=identities, credentials=(), hash="0" * 64),
        servers=ServerTable(Servers(servers=(server,))),
        authority=SimpleNamespace(uncertified=lambda *_, **__: MISSING, identify=lambda *_, **__: MISSING),
        limits=DEFAULTS,
    )


FACTS = Facts(
    time_us=0, http_method="POST", scheme="https", host=HOST, port=443, path="/api/x?q=1", host_header=HOST,
    sni=HOST, headers=(("Content-Type", "application/json"),), body=CALL, client_ip=None,
    presented=Presented(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "tool"),
    [
        pytest.param({}, "POST /api/x", id="a call"),
        pytest.param({"body": b"{"}, None, id="a body that cannot be read"),
        pytest.param({"path": "/api/%61"}, "POST /api/%61", id="a path with two readings"),
    ],
)
def test_without_its_certificate_an_api_call_is_a_row_of_an_api_call(
    changed: dict[str, Any], tool: str | None
) -> None:
    ruling = turned_away(replace(FACTS, **changed), rooms("http"), lambda: "id")
    assert ruling is not None
    [row] = ruling.records
    assert (row.reason, row.server) == (Reason.CERTIFICATE_REQUIRED, "api")
    assert (row.kind, row.method, row.tool, row.rpc_id) == ("http", "http/POST", tool, None)


def test_without_its_certificate_an_mcp_call_is_a_row_of_an_mcp_call() -> None:
    ruling = turned_away(FACTS, rooms("mcp"), lambda: "id")
    assert ruling is not None
    [row] = ruling.records
    assert (row.kind, row.method, row.tool) == ("tool", "tools/call", "get")
