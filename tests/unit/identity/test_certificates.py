"""Client certificates out of real hierarchies: good ones, and every kind that must name nobody."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from callerid.config import ClientCA
from callerid.errors import ConfigError
from callerid.identity import certificates
from callerid.identity.certificates import (
    CACHE_FOR,
    CertificateIdentity,
    ChainVerifier,
    load_cas,
    verify_chain,
)
from callerid.identity.client_cas import doubts, file_stamps
from callerid.model import Reason, Rejected
from tests.unit.identity.made import CLIENT, EMAIL, NOW, SERVER, SPIFFE, Authority, client_ca, der

ROOT = Authority()
MIDDLE = Authority("Corp Device Intermediate", ROOT)
ROGUE = Authority()  # the same name, another key
ALICE = ROOT.issue(EMAIL)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def judge(
    folder: Path, *chain: x509.Certificate, after: timedelta = timedelta(0), **entry: Any
) -> CertificateIdentity | Rejected:
    cas = load_cas((client_ca(folder, ROOT, **entry),))
    return verify_chain([der(certificate) for certificate in chain], cas, NOW + after)


def reason(answer: object) -> Reason | None:
    return answer.reason if isinstance(answer, Rejected) else None


def self_signed() -> x509.Certificate:
    """Names Alice, and is signed by its own key under its own name."""
    return Authority("alice@corp.example").certificate


def test_a_good_certificate_names_its_holder(tmp_path: Path) -> None:
    leaf = ROOT.issue(x509.RFC822Name("Alice@Corp.example"))
    answer = judge(tmp_path, leaf)
    assert isinstance(answer, CertificateIdentity)
    assert (answer.subject, answer.issuer, answer.agent) == ("user:alice@corp.example", "device-ca", None)
    assert answer.fingerprint == leaf.fingerprint(hashes.SHA256()).hex()
    assert answer.credential_id == f"cert:{answer.fingerprint[:16]}"
    assert answer.expires_us == int((NOW + timedelta(days=1)).timestamp()) * 1_000_000


def test_a_certificate_by_an_intermediate_that_is_sent_along_is_good(tmp_path: Path) -> None:
    leaf = MIDDLE.issue(EMAIL)
    assert isinstance(judge(tmp_path, leaf, MIDDLE.certificate), CertificateIdentity)
    assert reason(judge(tmp_path, leaf)) is Reason.CERTIFICATE_UNTRUSTED


def without(certificate: x509.Certificate, extension: type[x509.ExtensionType], signer: Authority, key: Any
            ) -> x509.Certificate:  # fmt: skip
    """The same anew, for this key and without this extension."""
    builder = x509.CertificateBuilder().subject_name(certificate.subject).issuer_name(certificate.issuer)
    builder = builder.public_key(key.public_key()).serial_number(certificate.serial_number)
    builder = builder.not_valid_before(certificate.not_valid_before_utc)
    builder = builder.not_valid_after(certificate.not_valid_after_utc)
    for found in certificate.extensions:
        if not isinstance(found.value, extension):
            builder = builder.add_extension(found.value, found.critical)
    return builder.sign(signer.key, hashes.SHA256())


def with_a_name(text: str) -> x509.Certificate:
    """A leaf that lacks a usage, and has this in its subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(ROOT.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=1))
    return builder.sign(ROOT.key, hashes.SHA256())


@pytest.mark.parametrize(
    ("leaf", "why"),
    [
        pytest.param(lambda: ROOT.issue(EMAIL, usages=None), "it lacks extended key usage", id="no usage"),
        pytest.param(lambda: ROOT.issue(EMAIL, usages=(SERVER,)), "not for clients (clientAuth)", id="TLS"),
        pytest.param(lambda: ROOT.issue(), "it lacks subject alternative name", id="no SAN"),
        pytest.param(
            lambda: without(ROOT.issue(EMAIL), x509.AuthorityKeyIdentifier, ROOT, ROOT.key),
            "it lacks authority key identifier", id="no authority key identifier",
        ),
        pytest.param(lambda: ROGUE.issue(EMAIL), "it is not signed by that CA's key", id="the same name"),
        pytest.param(lambda: Authority("X").issue(EMAIL), "its issuer is another", id="another CA"),
        pytest.param(
            lambda: with_a_name("extension: 2.5.29.19: missing (encountered no interior errors"),
            "it lacks authority key identifier", id="what a caller wrote counts for nothing",
        ),
    ],
)  # fmt: skip
def test_why_it_is_no_certificate_of_the_ca_is_told(
    tmp_path: Path, leaf: Callable[[], x509.Certificate], why: str
) -> None:
    answer = judge(tmp_path, leaf())
    assert isinstance(answer, Rejected)
    assert answer.reason is Reason.CERTIFICATE_UNTRUSTED
    assert answer.detail.startswith("it is no client certificate issued by device-ca: ")
    assert answer.detail.endswith(why)


def test_a_ca_that_may_not_sign_is_told_and_so_is_what_it_signed(tmp_path: Path) -> None:
    weak = without(ROOT.certificate, x509.KeyUsage, ROOT, ROOT.key)
    entry = client_ca(tmp_path, ROOT)
    assert doubts(entry) == ()
    entry.file.write_bytes(weak.public_bytes(Encoding.PEM))
    answer = verify_chain([der(ALICE)], load_cas((entry,)), NOW)
    assert isinstance(answer, Rejected)
    assert answer.detail.endswith("a CA's certificate lacks key usage (keyCertSign, for a CA)")
    assert "keyCertSign" in doubts(entry)[0]
    entry.file.unlink()
    assert doubts(entry) == ()


def test_of_two_cas_the_nearer_one_says_why(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cas = load_cas((client_ca(tmp_path, ROOT), client_ca(tmp_path / "other", Authority("X"))))
    for order in (cas, cas[::-1]):
        answer = verify_chain([der(ROOT.issue(EMAIL, usages=None))], order, NOW)
        assert isinstance(answer, Rejected)
        assert answer.detail.endswith("it lacks extended key usage")


def test_certificates_of_other_makers_are_good_too(tmp_path: Path) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("alice@corp.example")
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    cas = load_cas((ClientCA(id="device-ca", file=tmp_path / "ca.pem", principal_from="san_email"),))
    read = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    during = read.not_valid_before_utc + timedelta(days=1)
    assert isinstance(verify_chain([der(read)], cas, during), CertificateIdentity)


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        pytest.param(lambda: [ROGUE.issue(EMAIL)], Reason.CERTIFICATE_UNTRUSTED, id="a CA of the same name"),
        pytest.param(
            lambda: [ROGUE.issue(EMAIL), ROGUE.certificate],
            Reason.CERTIFICATE_UNTRUSTED,
            id="a CA of the same name that brings itself along",
        ),
        pytest.param(lambda: [self_signed()], Reason.CERTIFICATE_UNTRUSTED, id="self-signed, naming Alice"),
        pytest.param(lambda: [ROOT.certificate], Reason.CERTIFICATE_UNTRUSTED, id="the CA itself"),
        pytest.param(
            lambda: [MIDDLE.certificate], Reason.CERTIFICATE_UNTRUSTED, id="an intermediate as the leaf"
        ),
        pytest.param(
            lambda: [ROOT.issue(EMAIL, usages=(SERVER,))], Reason.CERTIFICATE_UNTRUSTED, id="for servers only"
        ),
        pytest.param(
            lambda: [ROOT.issue(EMAIL, usages=None)], Reason.CERTIFICATE_UNTRUSTED, id="without a key usage"
        ),
        pytest.param(
            lambda: [ROOT.issue(EMAIL, usages=(x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,))],
            Reason.CERTIFICATE_UNTRUSTED,
            id="for anything",
        ),
        pytest.param(lambda: [ROOT.issue()], Reason.CERTIFICATE_UNTRUSTED, id="no SAN, Alice in the CN"),
        pytest.param(
            lambda: [ROOT.issue(EMAIL, x509.RFC822Name("bob@corp.example"))],
            Reason.CERTIFICATE_UNTRUSTED,
            id="two addresses",
        ),
        pytest.param(
            lambda: [ROOT.issue(x509.DNSName("corp.example"))],
            Reason.CERTIFICATE_UNTRUSTED,
            id="another kind of SAN",
        ),
        pytest.param(
            lambda: [ROOT.issue(x509.RFC822Name("alice"))], Reason.CERTIFICATE_UNTRUSTED, id="no address"
        ),
        pytest.param(
            lambda: [ROOT.issue(EMAIL, begins=NOW - timedelta(days=9), ends=NOW - timedelta(days=1))],
            Reason.CERTIFICATE_EXPIRED,
            id="expired",
        ),
        pytest.param(
            lambda: [ROOT.issue(EMAIL, begins=NOW + timedelta(hours=1))],
            Reason.CERTIFICATE_EXPIRED,
            id="not valid yet",
        ),
        pytest.param(
            lambda: [ROGUE.issue(EMAIL, begins=NOW - timedelta(days=9), ends=NOW - timedelta(days=1))],
            Reason.CERTIFICATE_UNTRUSTED,
            id="expired and of another CA",
        ),
        pytest.param(
            lambda: [ALICE, *[MIDDLE.certificate] * 10],
            Reason.CERTIFICATE_UNTRUSTED,
            id="an endless chain",
        ),
    ],
)
def test_a_certificate_that_proves_nothing_names_nobody(
    tmp_path: Path, chain: Callable[[], list[x509.Certificate]], expected: Reason
) -> None:
    assert reason(judge(tmp_path, *chain())) is expected


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param([], id="no certificate"),
        pytest.param([b""], id="empty"),
        pytest.param([b"\x30\x00"], id="not a certificate"),
        pytest.param([der(ALICE)[:-1]], id="cut"),
        pytest.param([der(ALICE) + b"\x00"], id="with something after it"),
        pytest.param([der(ALICE), b"junk"], id="junk in the chain"),
        pytest.param([b"\x30" * 70_000], id="too large"),
    ],
)
def test_garbage_is_refused_and_does_not_raise(tmp_path: Path, chain: list[bytes]) -> None:
    cas = load_cas((client_ca(tmp_path, ROOT),))
    assert reason(verify_chain(chain, cas, NOW)) is Reason.CERTIFICATE_UNTRUSTED
    assert reason(verify_chain([der(ALICE)], (), NOW)) is Reason.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize(
    ("kind", "name", "subject"),
    [
        (
            "san_uri",
            uri("spiffe://corp.example/ns/ci/sa/docs"),
            "workload:spiffe://corp.example/ns/ci/sa/docs",
        ),
        ("san_uri", uri("https://corp.example/ci"), None),
        ("san_uri", uri("spiffe://corp.example"), None),
        ("san_uri", uri("spiffe://corp.example/"), None),
        ("san_uri", uri("spiffe://corp.example/a/../b"), None),
        ("san_uri", uri("spiffe://corp.example/a//b"), None),
        ("san_uri", uri("spiffe://corp.example:8443/a"), None),
        ("san_uri", uri("spiffe://corp.example/a?b"), None),
        ("san_uri", uri("spiffe://Corp.example/a"), None),
        ("san_uri", uri("spiffe:///a"), None),
        ("san_dns", x509.DNSName("CI.corp.example"), "workload:ci.corp.example"),
        ("san_dns", x509.DNSName("*.corp.example"), None),
    ],
)
def test_a_workload_is_named_in_one_spelling(
    tmp_path: Path, kind: str, name: x509.GeneralName, subject: str | None
) -> None:
    answer = judge(tmp_path, ROOT.issue(name), principal_from=kind)
    assert (answer.subject if isinstance(answer, CertificateIdentity) else None) == subject
    if subject is None:
        assert reason(answer) is Reason.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize(
    ("names", "agent"),
    [
        ([SPIFFE], "claude-code"),
        ([uri("spiffe://corp.example/claude-code")], "spiffe://corp.example/claude-code"),
        ([uri("spiffe://agent/claude-code")], "spiffe://agent/claude-code"),
        ([], None),
    ],
)
def test_the_agent_comes_from_its_own_san(tmp_path: Path, names: list[x509.GeneralName], agent: str) -> None:
    answer = judge(tmp_path, ROOT.issue(EMAIL, *names), agent_from="san_uri")
    assert isinstance(answer, CertificateIdentity)
    assert answer.agent == agent


@pytest.mark.parametrize(
    "names", [[SPIFFE, uri("spiffe://corp.example/agent/other")], [uri("spiffe://corp.example/a b")]]
)
def test_an_agent_that_is_not_clear_is_refused(tmp_path: Path, names: list[x509.GeneralName]) -> None:
    answer = judge(tmp_path, ROOT.issue(EMAIL, *names), agent_from="san_uri")
    assert reason(answer) is Reason.CERTIFICATE_UNTRUSTED


# -- revocation --------------------------------------------------------------------------------------


def test_a_certificate_on_the_list_is_revoked_and_others_are_not(tmp_path: Path) -> None:
    other = ROOT.issue(EMAIL)
    crl = ROOT.crl(ALICE)
    assert reason(judge(tmp_path, ALICE, crl=crl)) is Reason.CERTIFICATE_REVOKED
    assert isinstance(judge(tmp_path, other, crl=crl), CertificateIdentity)


@pytest.mark.parametrize(
    "crl",
    [
        pytest.param(lambda: ROOT.crl(ends=NOW - timedelta(minutes=1)), id="stale"),
        pytest.param(lambda: ROOT.crl(begins=NOW + timedelta(minutes=1)), id="of tomorrow"),
        pytest.param(lambda: Authority("Another CA").crl(), id="of another CA"),
        pytest.param(lambda: Authority("Another CA").crl(signer=ROOT), id="of another CA, signed by ours"),
    ],
)
def test_without_a_fresh_list_nobody_is_known(tmp_path: Path, crl: Callable[[], bytes]) -> None:
    assert reason(judge(tmp_path, ALICE, crl=crl())) is Reason.CERTIFICATE_UNTRUSTED


def test_a_stale_list_still_revokes(tmp_path: Path) -> None:
    crl = ROOT.crl(ALICE, ends=NOW - timedelta(minutes=1))
    assert reason(judge(tmp_path, ALICE, crl=crl)) is Reason.CERTIFICATE_REVOKED


def test_every_issuer_on_the_way_needs_its_list(tmp_path: Path) -> None:
    leaf = MIDDLE.issue(EMAIL)
    chain = (leaf, MIDDLE.certificate)
    assert reason(judge(tmp_path, *chain, crl=ROOT.crl())) is Reason.CERTIFICATE_UNTRUSTED
    assert reason(judge(tmp_path, *chain, crl=MIDDLE.crl())) is Reason.CERTIFICATE_UNTRUSTED
    assert isinstance(judge(tmp_path, *chain, crl=ROOT.crl() + MIDDLE.crl()), CertificateIdentity)
    assert reason(judge(tmp_path, *chain, crl=ROOT.crl() + MIDDLE.crl(leaf))) is Reason.CERTIFICATE_REVOKED
    gone = ROOT.crl(MIDDLE.certificate) + MIDDLE.crl()
    assert reason(judge(tmp_path, *chain, crl=gone)) is Reason.CERTIFICATE_REVOKED


def test_a_list_signed_by_somebody_else_does_not_count_for_an_intermediate(tmp_path: Path) -> None:
    leaf = MIDDLE.issue(EMAIL)
    forged = ROOT.crl() + MIDDLE.crl(signer=ROGUE)
    assert reason(judge(tmp_path, leaf, MIDDLE.certificate, crl=forged)) is Reason.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize(
    "spell", [str, str.upper, lambda text: ":".join(text[i : i + 2] for i in range(0, 64, 2))]
)
def test_a_denied_fingerprint_is_revoked(tmp_path: Path, spell: Callable[[str], str]) -> None:
    denied = frozenset({spell(ALICE.fingerprint(hashes.SHA256()).hex())})
    assert reason(judge(tmp_path, ALICE, denied_sha256=denied)) is Reason.CERTIFICATE_REVOKED


# -- several CAs -------------------------------------------------------------------------------------


def two(folder: Path, **second: Any) -> tuple[Any, ...]:
    return load_cas((client_ca(folder, ROOT), client_ca(folder, ROOT, id="second", **second)))


def test_two_cas_that_mean_two_callers_are_a_conflict(tmp_path: Path) -> None:
    leaf = ROOT.issue(EMAIL, uri("spiffe://corp.example/ci"))
    answer = verify_chain([der(leaf)], two(tmp_path, principal_from="san_uri"), NOW)
    assert reason(answer) is Reason.IDENTITY_CONFLICT


def test_two_cas_that_mean_the_same_are_none(tmp_path: Path) -> None:
    answer = verify_chain([der(ALICE)], two(tmp_path), NOW)
    assert isinstance(answer, CertificateIdentity)
    assert answer.issuer == "device-ca"


def test_revoked_under_one_ca_is_revoked(tmp_path: Path) -> None:
    answer = verify_chain([der(ALICE)], two(tmp_path, crl=ROOT.crl(ALICE)), NOW)
    assert reason(answer) is Reason.CERTIFICATE_REVOKED


def test_another_ca_does_not_get_in_the_way(tmp_path: Path) -> None:
    cas = load_cas((client_ca(tmp_path, Authority("Other"), id="other"), client_ca(tmp_path, ROOT)))
    assert isinstance(verify_chain([der(ALICE)], cas, NOW), CertificateIdentity)


# -- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(ALICE.public_bytes(certificates.Encoding.PEM), id="a leaf"),
        pytest.param(ROOT.der, id="not PEM"),
    ],
)
def test_a_ca_file_that_is_of_no_use_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    entry = client_ca(tmp_path, ROOT)
    entry.file.unlink()
    if content is not None:
        entry.file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_cas((entry,))
    assert str(entry.file) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "crl",
    [
        pytest.param(b"garbage", id="garbage"),
        pytest.param(ROOT.crl(signer=ROGUE), id="not signed by the CA"),
        pytest.param(ROOT.crl(extension=x509.DeltaCRLIndicator(1)), id="a delta"),
        pytest.param(
            ROOT.crl(extension=x509.IssuingDistributionPoint(None, None, True, False, None, False, False)),
            id="a partial one",
        ),
    ],
)
def test_a_list_that_is_of_no_use_is_an_error(tmp_path: Path, crl: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        load_cas((client_ca(tmp_path, ROOT, crl=crl),))
    assert caught.value.hint


def test_a_fingerprint_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SHA-256"):
        load_cas((client_ca(tmp_path, ROOT, denied_sha256=frozenset({"abc"})),))


def test_a_list_in_der_is_read(tmp_path: Path) -> None:
    pem = ROOT.crl(ALICE)
    entry = client_ca(tmp_path, ROOT, crl=pem)
    assert entry.crl is not None
    entry.crl.write_bytes(x509.load_pem_x509_crl(pem).public_bytes(certificates.Encoding.DER))
    answer = verify_chain([der(ALICE)], load_cas((entry,)), NOW)
    assert reason(answer) is Reason.CERTIFICATE_REVOKED


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    entry = client_ca(tmp_path, ROOT, crl=ROOT.crl())
    before = file_stamps((entry,))
    assert file_stamps((entry,)) == before
    assert entry.crl is not None
    entry.crl.write_bytes(ROOT.crl(ALICE))
    changed = file_stamps((entry,))
    assert changed != before
    entry.crl.unlink()
    assert file_stamps((entry,)) not in (before, changed)


# -- the memory --------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def count(*args: Any) -> CertificateIdentity | Rejected:
        calls.append(1)
        return verify_chain(*args)

    monkeypatch.setattr(certificates, "verify_chain", count)
    return calls


def test_a_good_answer_is_remembered_for_five_minutes(tmp_path: Path, counted: list[int]) -> None:
    verifier = ChainVerifier(load_cas((client_ca(tmp_path, ROOT),)))
    for after in (timedelta(0), CACHE_FOR - timedelta(seconds=1)):
        assert isinstance(verifier.verify([der(ALICE)], NOW + after), CertificateIdentity)
    assert len(counted) == 1
    verifier.verify([der(ALICE)], NOW + CACHE_FOR)
    assert len(counted) == 2


def test_the_memory_outlives_neither_the_certificate_nor_the_list(tmp_path: Path) -> None:
    soon = ROOT.issue(EMAIL, ends=NOW + timedelta(seconds=60))
    verifier = ChainVerifier(load_cas((client_ca(tmp_path, ROOT),)))
    assert isinstance(verifier.verify([der(soon)], NOW), CertificateIdentity)
    assert reason(verifier.verify([der(soon)], NOW + timedelta(seconds=61))) is Reason.CERTIFICATE_EXPIRED
    crl = ROOT.crl(ends=NOW + timedelta(seconds=60))
    verifier = ChainVerifier(load_cas((client_ca(tmp_path, ROOT, crl=crl),)))
    assert isinstance(verifier.verify([der(ALICE)], NOW), CertificateIdentity)
    assert reason(verifier.verify([der(ALICE)], NOW + timedelta(seconds=61))) is Reason.CERTIFICATE_UNTRUSTED


def test_a_refusal_is_not_remembered(tmp_path: Path, counted: list[int]) -> None:
    verifier = ChainVerifier(load_cas((client_ca(tmp_path, ROOT),)))
    for _ in range(2):
        assert reason(verifier.verify([der(ROGUE.issue(EMAIL))], NOW)) is Reason.CERTIFICATE_UNTRUSTED
    assert len(counted) == 2


def test_the_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "CACHE_SIZE", 2)
    verifier = ChainVerifier(load_cas((client_ca(tmp_path, ROOT),)))
    for _ in range(4):
        verifier.verify([der(ROOT.issue(EMAIL, usages=(CLIENT, SERVER)))], NOW)
    assert len(verifier._known) == 2
