# ruff: noqa: E501  (one file or case per line reads best)
"""identities.yaml: what it becomes, and the faults between its entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from callerid.config import Issuer
from callerid.policy.identities import canonical_subject
from tests.unit.policy.house import POLICY, faults, load, told

FULL = """\
version: 1
issuers:
  - id: corp-idp
    type: oidc
    issuer: https://login.corp.example
    jwks_url: https://login.corp.example/keys
    audiences: [callerid]
    algorithms: [RS256, ES256]
    max_token_age: 1h
    leeway: 10s
    claims: {principal: email, groups: groups, agent: azp, session: sid}
  - id: github-actions
    type: oidc
    issuer: https://ci.corp.example
    jwks_file: keys.json
    audiences: [callerid]
    algorithms: [RS256]
    require_claims: {repository_owner: corp, ref_protected: "true", /workflow/ref: "corp/docs/*"}
    claims: {workload: sub}
    assurance: workload
    stale_for: 2h
    clients: [runner, other-runner]
    sender_constrained: true
    login: true
  - {id: local, type: opaque, max_ttl: 12h, assurance: bearer}
client_cas:
  - id: device-ca
    file: ca/device.pem
    principal_from: san_email
    agent_from: san_uri
    assurance: bound
    crl: ca/device.crl
    denied_sha256: ["FINGERPRINT"]
client_certificate: required
groups:
  engineering: {members: ["user:Alice@Corp.Example", "workload:ci-docs"]}
  from-the-idp: {}
agents:
  claude-code: {kind: assistant, owners: ["group:engineering", "user:Bob@corp.example"], servers: [s], tools: ["read_*"]}
workloads:
  - {id: ci-docs, issuer: github-actions, match: {workload: "repo:corp/docs:*"}}
blocked: ["user:Mallory@corp.example", "agent:rogue"]
""".replace("FINGERPRINT", ":".join(["AB"] * 32))
SERVERS = "version: 1\nservers: [{id: s, url: https://s.corp.example/mcp}]\n"
NO_CREDENTIALS = "version: 1\n"


def alone(folder: Path, identities: str) -> list[str]:
    found = faults(folder, identities=identities, policy=POLICY, servers=SERVERS, credentials=NO_CREDENTIALS)
    return told(found)


def test_everything_it_can_say(tmp_path: Path) -> None:
    for name in ("keys.json", "ca/device.pem", "ca/device.crl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    made = load(tmp_path, identities=FULL, servers=SERVERS, credentials=NO_CREDENTIALS).identities
    assert made.issuers[0] == Issuer(
        id="corp-idp",
        issuer="https://login.corp.example",
        audiences=("callerid",),
        algorithms=("RS256", "ES256"),
        jwks_url="https://login.corp.example/keys",
        max_token_age=3600,
        leeway=10,
        claims={"principal": "email", "groups": "groups", "agent": "azp", "session": "sid"},
        assurance="idp",
    )
    assert made.issuers[1].jwks_file == tmp_path / "keys.json"
    assert made.issuers[1].require_claims == {
        "repository_owner": "corp", "ref_protected": "true", "/workflow/ref": "corp/docs/*"
    }  # fmt: skip
    assert (made.issuers[1].stale_for, made.issuers[1].clients) == (7200, ("runner", "other-runner"))
    assert made.issuers[1].sender_constrained
    assert made.issuers[1].login
    assert made.token_max_ttl == 12 * 3600
    (ca,) = made.client_cas
    assert (ca.file, ca.crl) == (tmp_path / "ca/device.pem", tmp_path / "ca/device.crl")
    assert ca.denied_sha256 == {"ab" * 32}
    assert made.groups["engineering"] == {"user:alice@corp.example", "workload:ci-docs"}
    assert made.groups["from-the-idp"] == frozenset()
    agent = made.agents["claude-code"]
    assert agent.owners == ("group:engineering", "user:bob@corp.example")
    assert (agent.servers, agent.tools) == (("s",), ("read_*",))
    assert made.workloads[0].match == {"workload": "repo:corp/docs:*"}
    assert made.blocked == {"user:mallory@corp.example", "agent:rogue"}
    assert made.require_proxy_certificate


def test_the_smallest_file(tmp_path: Path) -> None:
    made = load(tmp_path, identities="version: 1\n", servers=SERVERS, credentials=NO_CREDENTIALS).identities
    assert made.issuers == ()
    assert made.token_max_ttl == 30 * 86400


OIDC = "id: a, type: oidc, issuer: 'https://i', audiences: [x], algorithms: [RS256], claims: {principal: sub}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(f"issuers: [{{{OIDC}}}]", "2:11: issuer 'a' needs exactly one of jwks_url and jwks_file",
                     id="no keys"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_url: 'http://h.example/k'}}]",
                     "2:125: jwks_url: this must be https and without a fragment", id="keys in the clear"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_url: 'https://u:p@h.example/k'}}]",
                     "2:125: jwks_url: a URL with a user or a password in it is refused", id="a password in a URL"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_file: gone.json}}]", "2:126: the file 'gone.json' does not exist",
                     id="a file that is not there"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_url: 'https://h.example/k', assurance: bound}}]",
                     "2:159: assurance: 'bound' is not known here", id="more assurance than a JWT has"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_url: 'https://h.example/k#a'}}]",
                     "2:125: jwks_url: this must be https and without a fragment", id="keys in a fragment"),
        pytest.param(f"issuers: [{{{OIDC.replace('https://i', 'http://i.example')}, jwks_url: 'https://h.example/k', login: true}}]",
                     "2:39: issuer, with login: true: this must be https and without a fragment", id="a login in the clear"),
        pytest.param(f"issuers: [{{{OIDC.replace('https://i', 'ci')}, jwks_url: 'https://h.example/k', login: true}}]",
                     "2:39: issuer, with login: true: this is not an http or https URL", id="a login nowhere"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_url: 'https://h.example/k', login: yes}}]",
                     "2:155: login: should be true or false, not text", id="a login that is a word"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_url: 'https://h.example/k', clients: []}}]",
                     "2:157: clients: is empty", id="no clients at all"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_url: 'https://h.example/k', stale_for: 1w}}]",
                     "2:159: stale_for: '1w' should be a duration such as 30s, 10m, 1h or 30d", id="weeks"),
        pytest.param(f"issuers: [{{{OIDC.replace('principal: sub', 'principal: /a~b')}, jwks_url: 'https://h.example/k'}}]",
                     "2:109: this is not a JSON pointer", id="a claim by a broken pointer"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_url: 'https://h.example/k', require_claims: {{/a~b: x}}}}]",
                     "2:165: this is not a JSON pointer", id="a required claim by a broken pointer"),
        pytest.param(f"issuers: [{{{OIDC}, jwks_url: 'https://h.example/k', sender_constraint: true}}]",
                     "2:148: unknown key 'sender_constraint'", id="a slip"),
        pytest.param("client_certificate: required", "2:21: client_certificate: required, but no client CA is listed: nobody would be served",
                     id="certificates of nobody"),
        pytest.param("client_certificate: demanded", "2:21: client_certificate: 'demanded' is not known here", id="another word"),
        pytest.param("issuers: [{id: local, type: opaque}, {id: local, type: opaque}]",
                     "2:43: duplicate id 'local' (first at line 2)", id="an id twice"),
        pytest.param("client_cas: [{id: a, file: ca.pem, principal_from: san_email}]",
                     "2:28: the file 'ca.pem' does not exist", id="a CA that is not there"),
        pytest.param("agents: {a: {kind: assistant, owners: ['group:b']}}", "2:40: unknown group 'b'",
                     id="an unknown group"),
        pytest.param("agents: {a: {kind: assistant, owners: ['user:x'], servers: [t]}}",
                     "2:61: unknown server 't'", id="an unknown server"),
        pytest.param("agents: {a: {kind: assistant, owners: ['user:x'], tools: ['set:t']}}",
                     "2:59: unknown set 't'", id="an unknown set"),
        pytest.param("agents: {a: {kind: assistant, owners: ['user:x'], tools: ['class:t']}}",
                     "2:59: class: selectors are not supported yet", id="a class"),
        pytest.param("workloads: [{id: a, issuer: b, match: {workload: c}}]", "2:29: unknown issuer 'b'",
                     id="an unknown issuer"),
    ],
)  # fmt: skip
def test_faults(tmp_path: Path, text: str, problem: str) -> None:
    assert alone(tmp_path, f"version: 1\n{text}\n") == [f"identities.yaml:{problem}"]


def test_faults_between_issuers(tmp_path: Path) -> None:
    text = (
        "version: 1\nissuers:\n"
        f"  - {{{OIDC}, jwks_url: 'https://h.example/k'}}\n"
        f"  - {{{OIDC.replace('id: a', 'id: local')}, jwks_url: 'http://localhost/k'}}\n"
        f"  - {{{OIDC.replace('principal', 'groups').replace('//i', '//j').replace('id: a', 'id: c')}, jwks_url: 'https://h.example/k'}}\n"
        "workloads: [{id: a, issuer: a, match: {workload: c}}]\n"
    )
    assert alone(tmp_path, text) == [
        "identities.yaml:4:10: the id 'local' belongs to our own tokens",
        "identities.yaml:4:37: another entry has the issuer 'https://i' too",
        "identities.yaml:5:91: claims must map 'principal' or 'workload'",
        "identities.yaml:6:40: issuer 'a' maps no claim to 'workload'",
    ]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("user:Alice@Corp.Example", "user:alice@corp.example"),
        ("user:Alice", "user:Alice"),
        ("workload:CI@Docs", "workload:CI@Docs"),
        ("user:\u212aelvin@corp.example", "user:\u212aelvin@corp.example"),
    ],
)
def test_only_addresses_of_people_are_folded_and_only_ascii(text: str, canonical: str) -> None:
    assert canonical_subject(text) == canonical
