# ruff: noqa: E501  (one case per line reads best)
"""Trusted hops: the name in the certificate of a proxy before us, as certificates name principals."""

from __future__ import annotations

from pathlib import Path

import pytest

from callerid.config import TrustedHop
from tests.unit.policy.house import POLICY, faults, load

SERVERS = "version: 1\nservers: []\n"
CAS = "client_cas: [{id: uri, file: ca.pem, principal_from: san_uri}, {id: dns, file: ca.pem, principal_from: san_dns}, {id: mail, file: ca.pem, principal_from: san_email}]\n"


def files(san: str, cas: str = CAS, accept: str = "[client-cert, xfcc]") -> str:
    return f"version: 1\n{cas}trusted_hops: [{{id: branch, peer_cert_san: '{san}', accept: {accept}}}]\n"


def told(folder: Path, identities: str) -> list[tuple[str, str]]:
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_text("x")
    found = faults(folder, identities=identities, servers=SERVERS, credentials="version: 1\n", policy=POLICY)
    return [(f"{fault.line}:{fault.column}: {fault.message}", fault.hint) for fault in found]


@pytest.mark.parametrize(
    ("san", "subject"),
    [
        ("spiffe://corp.example/envoy/branch", "workload:spiffe://corp.example/envoy/branch"),
        ("Envoy.Corp.Example", "workload:envoy.corp.example"),
        ("Envoy@Corp.Example", "user:envoy@corp.example"),
    ],
)
def test_what_a_hop_is_known_by(tmp_path: Path, san: str, subject: str) -> None:
    (tmp_path / "ca.pem").write_text("x")
    made = load(tmp_path, identities=files(san), servers=SERVERS, credentials="version: 1\n", policy=POLICY)
    assert made.identities.trusted_hops == (
        TrustedHop(id="branch", subject=subject, accept=("client-cert", "xfcc")),
    )


@pytest.mark.parametrize(
    ("identities", "problem", "hint"),
    [
        pytest.param(files("spiffe://corp.example/envoy", ""), "no client CA with principal_from: san_uri verifies this hop's certificate", "client_cas: [{", id="no client CA at all"),
        pytest.param(files("envoy.corp.example", CAS.replace("san_dns", "san_uri")), "no client CA with principal_from: san_dns verifies this hop's certificate", "principal_from: san_dns", id="only CAs for other names"),
        pytest.param(files("spiffe://corp.example"), "'spiffe://corp.example' is not a name that a certificate can be known by", "spiffe://corp.example/envoy/branch", id="a trust domain"),
        pytest.param(files("spiffe://Corp.example/x"), "'spiffe://Corp.example/x' is not a name", "", id="a trust domain in capitals"),
        pytest.param(files("spiffe://corp.example/a//b"), "'spiffe://corp.example/a//b' is not a name", "", id="an empty segment"),
        pytest.param(files("spiffe://corp.example/../b"), "'spiffe://corp.example/../b' is not a name", "", id="a dot segment"),
        pytest.param(files("https://corp.example/x"), "'https://corp.example/x' is not a name", "", id="another URI"),
        pytest.param(files("*.corp.example"), "'*.corp.example' is not a name", "", id="a wildcard"),
        pytest.param(files("envoy.corp.example:443"), "'envoy.corp.example:443' is not a name", "", id="a port"),
        pytest.param(files("@corp.example"), "'@corp.example' is not a name", "", id="no mailbox"),
        pytest.param(files("spiffe://corp.example/x", accept="[]"), "accept: is empty", "", id="believed in nothing"),
        pytest.param(files("spiffe://corp.example/x", accept="[x-forwarded-for]"), "accept: 'x-forwarded-for' is not known here", "client-cert, xfcc", id="another header"),
    ],
)  # fmt: skip
def test_faults(tmp_path: Path, identities: str, problem: str, hint: str) -> None:
    (found,) = told(tmp_path, identities)
    assert found[0].partition(": ")[2].startswith(problem)
    assert hint in found[1]


def test_two_hops_of_one_name(tmp_path: Path) -> None:
    two = CAS + (
        "trusted_hops:\n"
        "  - {id: a, peer_cert_san: Envoy.example, accept: [xfcc]}\n"
        "  - {id: a, peer_cert_san: envoy.example, accept: [client-cert]}\n"
    )
    assert [fault[0] for fault in told(tmp_path, f"version: 1\n{two}")] == [
        "5:10: duplicate id 'a' (first at line 4)",
        "5:28: another hop has this name too",
    ]
