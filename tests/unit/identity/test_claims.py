"""From claims to names: pointers, required claims, clients, and the tokens of three real issuers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from callerid.config import Identities, Issuer, Workload
from callerid.identity.claims import Named, look_up, name
from callerid.identity.jwks import parse_jwks
from callerid.identity.jwt import names_audience, verify
from callerid.model import Reason, Rejected
from tests.unit.identity import made
from tests.unit.identity.made import NOW, issuer, jwks, public_jwk, sign

AT = int(NOW.timestamp())
KEYS = parse_jwks(jwks(), where="the test")
NESTED = {"a": {"b": ["x", {"c/d": 1, "m~n": True}], "": "empty"}, "https://corp.example/role": "ops"}


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("/a/b/0", "x"),
        ("/a/b/1/c~1d", 1),
        ("/a/b/1/m~0n", True),
        ("/a/", "empty"),
        ("https://corp.example/role", "ops"),
        ("a", NESTED["a"]),
        ("/a/b/2", None),
        ("/a/b/-1", None),
        ("/a/b/01", None),
        ("/a/b/-", None),
        ("/a/b/x", None),
        ("/a/b/0/x", None),
        ("/z", None),
        ("/", None),
        ("z", None),
        ("", None),
    ],
)
def test_a_claim_is_found_by_its_name_or_by_its_place(where: str, value: object) -> None:
    assert look_up(NESTED, where) == value


def judge(
    claims: Mapping[str, Any], entry: Issuer, *workloads: Workload, resource: str | None = None
) -> Named | Rejected:
    token = sign({key: value for key, value in claims.items() if value is not None})
    verified = verify(token, entry, KEYS, NOW, resource=resource)
    if isinstance(verified, Rejected):
        return verified
    return name(verified, entry, Identities(issuers=(entry,), workloads=workloads))


def subject(answer: Named | Rejected) -> str | Reason:
    return answer.subject if isinstance(answer, Named) else answer.reason


# -- GitHub Actions -----------------------------------------------------------------------------------

GITHUB = issuer(
    id="github-actions",
    issuer="https://token.actions.githubusercontent.com",
    audiences=("mcp-egress",),
    claims={"workload": "sub"},
    require_claims={
        "repository_owner_id": "5551212", "ref_protected": "true", "runner_environment": "github-hosted",
    },
    assurance="workload",
)  # fmt: skip
CI_DOCS = Workload(
    id="ci-docs",
    issuer="github-actions",
    match={
        "/repository_id": "4242", "/job_workflow_ref": "corp/docs/.github/workflows/publish.yml@refs/heads/*",
        "workload": "repo:corp/docs:environment:production",
    },
)  # fmt: skip


def github(**changes: Any) -> dict[str, Any]:
    """As a job gets it: ids are texts, flags are texts, and the issuer is one for the whole world."""
    return {
        "iss": GITHUB.issuer, "aud": "mcp-egress", "sub": "repo:corp/docs:environment:production",
        "jti": "6f3b2c1e-4a55-4a8e-9a0f-0d6a6a2f7c11", "iat": AT - 5, "nbf": AT - 305, "exp": AT + 295,
        "repository": "corp/docs", "repository_id": "4242", "repository_owner": "corp",
        "repository_owner_id": "5551212", "repository_visibility": "private", "actor": "alice",
        "actor_id": "77", "workflow": "publish", "event_name": "push", "ref": "refs/heads/main",
        "ref_type": "branch", "ref_protected": "true", "environment": "production", "run_id": "1",
        "job_workflow_ref": "corp/docs/.github/workflows/publish.yml@refs/heads/main",
        "runner_environment": "github-hosted", **changes,
    }  # fmt: skip


def test_a_job_of_github_actions_is_its_workload() -> None:
    answer = judge(github(), GITHUB, CI_DOCS)
    assert subject(answer) == "workload:ci-docs"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"repository_id": "666", "repository": "corp/docs"}, Reason.WORKLOAD_UNKNOWN),
        ({"repository_id": None}, Reason.WORKLOAD_UNKNOWN),
        ({"job_workflow_ref": "mallory/x/.github/workflows/publish.yml@refs/heads/main"},
         Reason.WORKLOAD_UNKNOWN),
        ({"job_workflow_ref": "corp/docs/.github/workflows/publish.yml@refs/pull/1/merge"},
         Reason.WORKLOAD_UNKNOWN),
        ({"sub": "repo:corp/docs:pull_request"}, Reason.WORKLOAD_UNKNOWN),
        ({"repository_owner_id": "666"}, Reason.JWT_INVALID),
        ({"ref_protected": "false"}, Reason.JWT_INVALID),
        ({"ref_protected": None}, Reason.JWT_INVALID),
        ({"runner_environment": "self-hosted"}, Reason.JWT_INVALID),
        ({"aud": "https://github.com/corp"}, Reason.JWT_AUDIENCE),
        ({"aud": "sts.amazonaws.com"}, Reason.JWT_AUDIENCE),
        ({"iss": "https://token.actions.githubusercontent.com/corp"}, Reason.JWT_INVALID),
    ],
)  # fmt: skip
def test_another_job_is_not(changes: dict[str, Any], reason: Reason) -> None:
    assert subject(judge(github(**changes), GITHUB, CI_DOCS)) is reason


# -- Kubernetes ---------------------------------------------------------------------------------------

KUBERNETES = issuer(
    id="cluster-1",
    issuer="https://kubernetes.default.svc.cluster.local",
    claims={"workload": "sub"},
    require_claims={"/kubernetes.io/namespace": "agents-*"},
    max_token_age=3607,
    assurance="workload",
)
WORKER = Workload(
    id="docs-worker",
    issuer="cluster-1",
    match={
        "workload": "system:serviceaccount:agents-prod:docs",
        "/kubernetes.io/serviceaccount/uid": "4a9d5b8e-*",
    },
)


def kubernetes(**changes: Any) -> dict[str, Any]:
    """A projected service account token: ``aud`` is a list, and who it is stands inside of an object."""
    inside = {
        "namespace": "agents-prod",
        "node": {"name": "node-7", "uid": "n-1"},
        "pod": {"name": "docs-6d4b7", "uid": "p-1"},
        "serviceaccount": {"name": "docs", "uid": "4a9d5b8e-0c5c-4d1c-8f0e-2b8b5a3f9d10"},
        "warnafter": AT + 3600,
        **changes.pop("inside", {}),
    }
    return {
        "aud": ["mcp-egress"], "exp": AT + 3607 - 60, "iat": AT - 60, "iss": KUBERNETES.issuer,
        "jti": "b7f7f1f0-6f0e-4f9a-8a3b-0d8ff5b1a001", "nbf": AT - 60, "kubernetes.io": inside,
        "sub": "system:serviceaccount:agents-prod:docs", **changes,
    }  # fmt: skip


def test_a_pod_of_kubernetes_is_its_workload() -> None:
    assert subject(judge(kubernetes(), KUBERNETES, WORKER)) == "workload:docs-worker"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inside": {"namespace": "default"}}, Reason.JWT_INVALID),
        ({"inside": {"namespace": ["agents-prod"]}}, Reason.JWT_INVALID),
        ({"kubernetes.io": "agents-prod"}, Reason.JWT_INVALID),
        ({"kubernetes.io": None}, Reason.JWT_INVALID),
        ({"inside": {"serviceaccount": {"name": "docs", "uid": "recreated"}}}, Reason.WORKLOAD_UNKNOWN),
        ({"inside": {"serviceaccount": None}}, Reason.WORKLOAD_UNKNOWN),
        ({"sub": "system:serviceaccount:agents-prod:default"}, Reason.WORKLOAD_UNKNOWN),
        ({"aud": ["mcp-egress", "https://kubernetes.default.svc"]}, Reason.JWT_AUDIENCE),
        ({"aud": ["https://kubernetes.default.svc"]}, Reason.JWT_AUDIENCE),
        ({"exp": AT + 365 * 86400}, Reason.JWT_INVALID),
    ],
)
def test_another_pod_is_not(changes: dict[str, Any], reason: Reason) -> None:
    assert subject(judge(kubernetes(**changes), KUBERNETES, WORKER)) is reason


# -- SPIFFE -------------------------------------------------------------------------------------------

SPIFFE = issuer(
    id="spire",
    issuer="https://oidc.spire.corp.example",
    claims={"workload": "sub"},
    require_claims={"sub": "spiffe://corp.example/*"},
    assurance="workload",
)
CLAUDE = Workload(id="claude", issuer="spire", match={"workload": "spiffe://corp.example/agent/claude-code"})


def svid(**changes: Any) -> dict[str, Any]:
    """A JWT-SVID: no ``jti``, ``aud`` a list, the workload in ``sub``."""
    return {
        "aud": ["mcp-egress"], "exp": AT + 300, "iat": AT - 1, "iss": SPIFFE.issuer,
        "sub": "spiffe://corp.example/agent/claude-code", **changes,
    }  # fmt: skip


def test_a_jwt_svid_is_its_workload() -> None:
    assert subject(judge(svid(), SPIFFE, CLAUDE)) == "workload:claude"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sub": "spiffe://corp.example/agent/other"}, Reason.WORKLOAD_UNKNOWN),
        ({"sub": "spiffe://corp.example.evil.example/agent/claude-code"}, Reason.JWT_INVALID),
        ({"sub": "spiffe://CORP.example/agent/claude-code"}, Reason.JWT_INVALID),
        ({"aud": ["mcp-egress", "spiffe://corp.example/db"]}, Reason.JWT_AUDIENCE),
        ({"aud": []}, Reason.JWT_AUDIENCE),
        ({"exp": None}, Reason.JWT_INVALID),
        ({"iat": None}, Reason.JWT_INVALID),
        ({"iss": None}, Reason.JWT_INVALID),
    ],
)
def test_another_svid_is_not(changes: dict[str, Any], reason: Reason) -> None:
    assert subject(judge(svid(**changes), SPIFFE, CLAUDE)) is reason


def test_the_keys_of_a_spiffe_bundle_are_read_by_their_use() -> None:
    """SPIFFE trust domain bundle, section 4: keys of X.509 authorities stand among those of JWTs."""
    x509_authority = public_jwk("ES256", "x", which=30, use="x509-svid", x5c=["AAAA"])
    keys = parse_jwks(jwks(public_jwk(use="jwt-svid"), x509_authority), where="the bundle")
    assert [key.kid for key in keys.keys] == ["k1"]


# -- clients ------------------------------------------------------------------------------------------

APP = issuer(clients=("claude-code", "cursor"), claims={"principal": "email"})


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({"azp": "claude-code"}, True),
        ({"client_id": "cursor"}, True),
        ({"azp": "cursor", "client_id": "cursor"}, True),
        ({}, False),
        ({"azp": "evil"}, False),
        ({"azp": "claude-code", "client_id": "evil"}, False),
        ({"azp": ["claude-code"]}, False),
        ({"azp": "Claude-Code"}, False),
        ({"azp": "claude-code*"}, False),
    ],
)
def test_a_token_is_of_one_of_the_clients(changes: dict[str, Any], good: bool) -> None:
    answer = judge(made.claims(**changes), APP)
    assert subject(answer) == (made.ALICE if good else Reason.JWT_INVALID)


# -- logins -------------------------------------------------------------------------------------------

MCP = "https://things.corp.example/mcp"
LOGIN = issuer(login=True)


@pytest.mark.parametrize(
    ("audience", "resource", "good"),
    [
        (MCP, MCP, True),
        ([MCP], MCP, True),
        (MCP + "/", MCP, True),
        ("HTTPS://things.corp.example:443/mcp", MCP, True),
        ("mcp-egress", MCP, True),
        ("mcp-egress", None, True),
        (MCP, None, False),
        (MCP, "https://other.corp.example/mcp", False),
        (MCP, "https://things.corp.example/mcp/admin", False),
        ("https://things.corp.example", MCP, False),
        ([MCP, "mcp-egress"], MCP, False),
        ([MCP, "https://other.corp.example/mcp"], MCP, False),
    ],
)
def test_a_login_is_good_for_the_server_that_it_was_made_for(
    audience: Any, resource: str | None, good: bool
) -> None:
    claims = made.claims(aud=audience)
    assert subject(judge(claims, LOGIN, resource=resource)) == (made.ALICE if good else Reason.JWT_AUDIENCE)


def test_no_other_issuer_may_name_a_server_as_its_audience() -> None:
    assert subject(judge(made.claims(aud=MCP), issuer(), resource=MCP)) is Reason.JWT_AUDIENCE


def test_a_login_for_any_listed_server_is_ours_and_does_not_leave() -> None:
    both = made.claims(aud=["x", MCP + "/"])
    assert names_audience(both, LOGIN, [MCP])
    assert not names_audience(both, LOGIN, ["https://other.corp.example/mcp"])
    assert not names_audience(both, LOGIN)
    assert not names_audience(both, issuer(), [MCP])
