"""A handful of the official suite's scenarios on every run; ``scripts/conformance`` runs them all.

What they are about: sessions and their end, requests of the server on a stream, a stream that is left and
resumed, foreign hosts, mirrored headers, subscriptions, and input that a result asks for.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import compare
from tests.conformance.lab import Lab, lab
from tests.conformance.suite import Node, run_client, run_server

pytestmark = pytest.mark.timeout(300)

OLD, NEW = "2025-11-25", "2026-07-28"
SERVER = {
    OLD: (
        "server-session-lifecycle",
        "tools-call-elicitation",
        "server-sse-polling",
        "dns-rebinding-protection",
    ),
    NEW: ("server-stateless", "http-header-validation", "input-required-result-multi-round"),
}
CLIENT = {
    OLD: ("sse-retry", "elicitation-sep1034-client-defaults", "auth/scope-step-up"),
    NEW: ("request-metadata", "sep-2322-client-request-state", "http-custom-headers"),
}


@pytest.fixture(scope="module")
def node() -> Node:
    found = Node.installed()
    if found is None:
        pytest.skip("run scripts/node first")
    return found


@pytest.fixture(scope="module")
def scene(node: Node) -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="callerid-conf-"))  # a socket's path must be short
    try:
        with lab(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder)


def unexplained(found: list[compare.Difference]) -> list[str]:
    known = compare.documented()
    return [str(item) for item in found if not any(compare.explains(key, item) for key in known)]


@pytest.mark.parametrize("spec", SERVER)
def test_a_server_gets_the_verdicts_that_it_gets_without_us(
    node: Node, scene: Lab, spec: str, tmp_path: Path
) -> None:
    names = SERVER[spec]
    got = {way.name: run_server(node, way, spec, names, tmp_path / way.name) for way in scene.server.values()}
    assert set(got["direct"]) == set(names)
    assert {status for checks in got["direct"].values() for _, _, status in checks} == {"SUCCESS"}
    found = []
    for way, verdicts in got.items():
        direct = {name: got["direct"][name] for name in names if name not in scene.server[way].without}
        found += compare.differences("server", spec, way, direct, verdicts)
    assert unexplained(found) == []


@pytest.mark.parametrize(
    ("spec", "scenario"), [(spec, name) for spec, names in CLIENT.items() for name in names]
)
def test_a_client_gets_the_verdicts_that_it_gets_without_us(
    node: Node, scene: Lab, spec: str, scenario: str, tmp_path: Path
) -> None:
    ways = scene.ways("client", login=scenario.startswith("auth/"))
    got = {name: run_client(node, way, spec, scenario, tmp_path / name) for name, way in ways.items()}
    assert {status for *_, status in got["direct"][scenario]} <= {"SUCCESS", "SKIPPED"}
    found = [
        difference
        for name, verdicts in got.items()
        for difference in compare.differences("client", spec, name, got["direct"], verdicts)
    ]
    assert unexplained(found) == []


def test_the_calls_of_the_suite_are_rows(node: Node, scene: Lab, tmp_path: Path) -> None:
    """It went through us, then: identity, verdict and tool of a call along each way."""
    before = len(scene.proxy.rows("tool = 'test_simple_text'"))
    for name in ("forward", "forward-tls", "reverse"):
        run_server(node, scene.server[name], OLD, ["tools-call-simple-text"], tmp_path / name)
    rows = scene.proxy.await_rows(before + 3, "tool = 'test_simple_text'")[before:]
    assert [row["server"] for row in rows] == ["plain", "tls", "plain"]
    assert {(row["principal"], row["verdict"]) for row in rows} == {("user:alice@corp.example", "allow")}
