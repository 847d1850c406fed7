"""Client certificates of a company as it is: root, intermediates, leaves, and a list from each authority."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from callerid.config import ClientCA, Identities
from callerid.errors import ConfigError
from callerid.identity.authority import Authority
from callerid.identity.certificates import CertificateIdentity, load_cas, verify_chain
from callerid.identity.jwks import JwksStore
from callerid.identity.presented import Presented
from callerid.identity.registry import Registry
from callerid.model import Assurance, Caller, Reason, Rejected
from tests.unit.identity.made import NOW, der

DAY = timedelta(days=1)
ALICE, BOB = x509.RFC822Name("alice@corp.example"), x509.RFC822Name("bob@corp.example")
CLAUDE = x509.UniformResourceIdentifier("spiffe://corp.example/agent/claude-code")
BUILD = x509.DNSName("build-7.corp.example")


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class CA:
    """A name and a key, and however many certificates others gave to it."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def crl(
        self, *revoked: x509.Certificate, begins: datetime = NOW - DAY, ends: datetime = NOW + DAY,
        extension: x509.ExtensionType | None = None,
    ) -> bytes:  # fmt: skip
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(begins).next_update(ends)
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(begins).build())
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def certify(
    subject: x509.Name, key: Any, signer: CA | None, extensions: Iterable[tuple[x509.ExtensionType, bool]],
    begins: datetime, ends: datetime,
) -> x509.Certificate:  # fmt: skip
    signing_key = signer.key if signer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.name if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signing_key, hashes.SHA256())


def usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs, crl_sign=signs,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def ca(
    name: str, above: CA | None = None, *, of: CA | None = None, depth: int | None = None,
    only: x509.NameConstraints | None = None, ends: datetime = NOW + 365 * DAY, signs: bool = True,
) -> CA:  # fmt: skip
    """An authority; ``of``: another certificate for the same name and key (a cross-signature)."""
    key = of.key if of else ec.generate_private_key(ec.SECP256R1())
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=depth), True), (usage(signs=signs), True),
    ]  # fmt: skip
    if only is not None:
        extensions.append((only, True))
    made = certify(named(name), key, above, extensions, NOW - 365 * DAY, ends)
    return CA(named(name), key, made)


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.9"), b"x")


def leaf(
    signer: CA, *names: x509.GeneralName, usages: tuple[x509.ObjectIdentifier, ...] | None = (
        Usage.CLIENT_AUTH,
    ), ends: datetime = NOW + DAY, more: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:  # fmt: skip
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True), (usage(signs=False), True), *more,
    ]  # fmt: skip
    if names:
        extensions.append((x509.SubjectAlternativeName(names), False))
    if usages is not None:
        extensions.append((x509.ExtendedKeyUsage(usages), False))
    key = ec.generate_private_key(ec.SECP256R1())
    return certify(named("alice@corp.example"), key, signer, extensions, NOW - DAY, ends)


ROOT = ca("Corp Root CA")
PEOPLE = ca("Corp People CA", ROOT)
LAPTOPS = ca("Corp Laptop CA", PEOPLE)
GOOD = leaf(PEOPLE, ALICE)


def entry(folder: Path, *roots: CA, crl: bytes | None = None, **changes: Any) -> ClientCA:
    name = changes.get("id", "corp")
    (folder / f"{name}.pem").write_bytes(b"".join(root.pem for root in roots or (ROOT,)))
    values: dict[str, Any] = {
        "id": name, "file": folder / f"{name}.pem", "principal_from": "san_email", **changes,
    }  # fmt: skip
    if crl is not None:
        (folder / f"{name}.crl").write_bytes(crl)
        values["crl"] = folder / f"{name}.crl"
    return ClientCA(**values)


def judge(
    folder: Path, *chain: x509.Certificate, roots: tuple[CA, ...] = (), now: datetime = NOW, **changes: Any
) -> str | Reason:
    cas = load_cas((entry(folder, *roots, **changes),))
    answer = verify_chain([der(certificate) for certificate in chain], cas, now)
    return answer.subject if isinstance(answer, CertificateIdentity) else answer.reason


# -- paths --------------------------------------------------------------------------------------------

UNTRUSTED, EXPIRED = Reason.CERTIFICATE_UNTRUSTED, Reason.CERTIFICATE_EXPIRED
PATHS: dict[str, tuple[list[x509.Certificate], Any]] = {
    "by an intermediate": ([GOOD, PEOPLE.certificate], "user:alice@corp.example"),
    "with the root sent along": ([GOOD, PEOPLE.certificate, ROOT.certificate], "user:alice@corp.example"),
    "by two intermediates": (
        [leaf(LAPTOPS, ALICE), LAPTOPS.certificate, PEOPLE.certificate], "user:alice@corp.example",
    ),
    "in another order": (
        [leaf(LAPTOPS, ALICE), PEOPLE.certificate, LAPTOPS.certificate], "user:alice@corp.example",
    ),
    "without its intermediate": ([GOOD], UNTRUSTED),
    "with a foreign intermediate": ([GOOD, ca("Corp People CA").certificate], UNTRUSTED),
    "an intermediate as a client": ([PEOPLE.certificate], UNTRUSTED),
    "the root as a client": ([ROOT.certificate], UNTRUSTED),
    "by a leaf": (
        [leaf(CA(named("x"), ec.generate_private_key(ec.SECP256R1()), GOOD), ALICE), GOOD], UNTRUSTED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PATHS)
def test_a_path_leads_to_the_root_or_nowhere(tmp_path: Path, case: str) -> None:
    chain, expected = PATHS[case]
    assert judge(tmp_path, *chain) == expected


def test_a_path_may_be_as_long_as_its_authorities_allow(tmp_path: Path) -> None:
    short = ca("Corp Short CA", ROOT, depth=0)
    assert judge(tmp_path, leaf(short, ALICE), short.certificate) == "user:alice@corp.example"
    below = ca("Corp Below CA", short)
    assert judge(tmp_path, leaf(below, ALICE), below.certificate, short.certificate) is UNTRUSTED
    deep = [ROOT]
    for level in range(6):
        deep.append(ca(f"Corp Level {level} CA", deep[-1]))
    chain = [leaf(deep[-1], ALICE), *(one.certificate for one in reversed(deep[1:]))]
    assert judge(tmp_path, *chain) is UNTRUSTED


def test_an_authority_that_may_not_sign_certificates_made_none(tmp_path: Path) -> None:
    mute = ca("Corp Mute CA", ROOT, signs=False)
    assert judge(tmp_path, leaf(mute, ALICE), mute.certificate) is UNTRUSTED


def test_what_an_authority_may_name_is_all_that_it_can(tmp_path: Path) -> None:
    """Name constraints (RFC 5280 section 4.2.1.10): a partner's authority names the partner's machines."""
    only = x509.NameConstraints(permitted_subtrees=[x509.DNSName("partner.example")], excluded_subtrees=None)
    partner = ca("Partner CA", ROOT, only=only)
    theirs = leaf(partner, x509.DNSName("build.partner.example"))
    spec = {"principal_from": "san_dns"}
    assert judge(tmp_path, theirs, partner.certificate, **spec) == "workload:build.partner.example"
    assert judge(tmp_path, leaf(partner, BUILD), partner.certificate, **spec) is UNTRUSTED


def test_an_expired_intermediate_ends_what_hangs_on_it(tmp_path: Path) -> None:
    old = ca("Corp Old CA", ROOT, ends=NOW - DAY)
    made = certify(
        named("alice"), ec.generate_private_key(ec.SECP256R1()), old,
        [
            (x509.BasicConstraints(ca=False, path_length=None), True), (usage(signs=False), True),
            (x509.SubjectAlternativeName([ALICE]), False),
            (x509.ExtendedKeyUsage([Usage.CLIENT_AUTH]), False),
        ],
        NOW - 9 * DAY, NOW + DAY,
    )  # fmt: skip
    assert judge(tmp_path, made, old.certificate) is EXPIRED
    assert judge(tmp_path, made, old.certificate, now=NOW - 2 * DAY) == "user:alice@corp.example"


def test_a_cross_signed_authority_is_good_by_either_root(tmp_path: Path) -> None:
    new_root = ca("Corp Root CA 2")
    crossed = ca("Corp People CA", new_root, of=PEOPLE)
    for roots, chain in (
        ((ROOT,), [GOOD, crossed.certificate, PEOPLE.certificate]),
        ((new_root,), [GOOD, PEOPLE.certificate, crossed.certificate]),
        ((ROOT, new_root), [GOOD, crossed.certificate]),
    ):
        assert judge(tmp_path, *chain, roots=roots) == "user:alice@corp.example"
    assert judge(tmp_path, GOOD, PEOPLE.certificate, roots=(new_root,)) is UNTRUSTED


# -- leaves -------------------------------------------------------------------------------------------

LEAVES: dict[str, tuple[x509.Certificate, Any]] = {
    "no SAN": (leaf(PEOPLE), UNTRUSTED),
    "two e-mail addresses": (leaf(PEOPLE, ALICE, BOB), UNTRUSTED),
    "the same address twice": (leaf(PEOPLE, ALICE, ALICE), UNTRUSTED),
    "a SAN of another kind": (leaf(PEOPLE, CLAUDE), UNTRUSTED),
    "SANs of several kinds": (leaf(PEOPLE, ALICE, CLAUDE, BUILD), "user:alice@corp.example"),
    "no EKU": (leaf(PEOPLE, ALICE, usages=None), UNTRUSTED),
    "serverAuth only": (leaf(PEOPLE, ALICE, usages=(Usage.SERVER_AUTH,)), UNTRUSTED),
    "codeSigning only": (leaf(PEOPLE, ALICE, usages=(Usage.CODE_SIGNING,)), UNTRUSTED),
    "any purpose": (leaf(PEOPLE, ALICE, usages=(Usage.ANY_EXTENDED_KEY_USAGE,)), UNTRUSTED),
    "both": (leaf(PEOPLE, ALICE, usages=(Usage.SERVER_AUTH, Usage.CLIENT_AUTH)), "user:alice@corp.example"),
    "an unknown critical extension": (
        leaf(PEOPLE, ALICE, more=[(UNKNOWN, True)]),
        UNTRUSTED,
    ),
    "an unknown extension": (
        leaf(PEOPLE, ALICE, more=[(UNKNOWN, False)]),
        "user:alice@corp.example",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEAVES)
def test_a_leaf_is_for_clients_and_names_exactly_one(tmp_path: Path, case: str) -> None:
    certificate, expected = LEAVES[case]
    assert judge(tmp_path, certificate, PEOPLE.certificate) == expected


def test_each_kind_of_name_can_be_the_principal(tmp_path: Path) -> None:
    certificate = leaf(PEOPLE, ALICE, CLAUDE, BUILD)
    found = {
        kind: judge(tmp_path, certificate, PEOPLE.certificate, principal_from=kind)
        for kind in ("san_email", "san_uri", "san_dns")
    }
    assert found == {
        "san_email": "user:alice@corp.example",
        "san_uri": "workload:spiffe://corp.example/agent/claude-code",
        "san_dns": "workload:build-7.corp.example",
    }


# -- lists --------------------------------------------------------------------------------------------

ON_THE_WAY = (leaf(LAPTOPS, ALICE), LAPTOPS.certificate, PEOPLE.certificate)
LISTS: dict[str, tuple[bytes, Any]] = {
    "whole and empty": (ROOT.crl() + PEOPLE.crl() + LAPTOPS.crl(), "user:alice@corp.example"),
    "the leaf is on it": (ROOT.crl() + PEOPLE.crl() + LAPTOPS.crl(ON_THE_WAY[0]), Reason.CERTIFICATE_REVOKED),
    "its issuer is on it": (
        ROOT.crl() + PEOPLE.crl(LAPTOPS.certificate) + LAPTOPS.crl(), Reason.CERTIFICATE_REVOKED,
    ),
    "the issuer's issuer is on it": (
        ROOT.crl(PEOPLE.certificate) + PEOPLE.crl() + LAPTOPS.crl(), Reason.CERTIFICATE_REVOKED,
    ),
    "that of the root is missing": (PEOPLE.crl() + LAPTOPS.crl(), UNTRUSTED),
    "that in the middle is missing": (ROOT.crl() + LAPTOPS.crl(), UNTRUSTED),
    "the last is missing": (ROOT.crl() + PEOPLE.crl(), UNTRUSTED),
    "that in the middle is stale": (ROOT.crl() + PEOPLE.crl(ends=NOW) + LAPTOPS.crl(), UNTRUSTED),
    "one is of tomorrow": (ROOT.crl() + PEOPLE.crl() + LAPTOPS.crl(begins=NOW + DAY / 2), UNTRUSTED),
    "a stale one names the leaf": (
        ROOT.crl() + PEOPLE.crl() + LAPTOPS.crl(ON_THE_WAY[0], ends=NOW - DAY / 2),
        Reason.CERTIFICATE_REVOKED,
    ),
    "an older one is kept beside it": (
        ROOT.crl() + PEOPLE.crl() + LAPTOPS.crl(ends=NOW - DAY / 2) + LAPTOPS.crl(),
        "user:alice@corp.example",
    ),
    "by a namesake": (ROOT.crl() + PEOPLE.crl() + ca("Corp Laptop CA").crl(), UNTRUSTED),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_every_authority_on_the_way_must_say_nothing_against_it(tmp_path: Path, case: str) -> None:
    crl, expected = LISTS[case]
    assert judge(tmp_path, *ON_THE_WAY, crl=crl) == expected


@pytest.mark.parametrize(
    "extension",
    [
        x509.DeltaCRLIndicator(1),
        x509.IssuingDistributionPoint(None, None, True, False, None, False, False),
        x509.IssuingDistributionPoint(None, None, False, True, None, False, False),
        x509.IssuingDistributionPoint(None, None, False, False, None, True, False),
    ],
    ids=["a delta", "for users only", "for authorities only", "indirect"],
)
def test_a_list_that_is_not_whole_is_not_taken(tmp_path: Path, extension: x509.ExtensionType) -> None:
    with pytest.raises(ConfigError, match="delta or a partial"):
        load_cas((entry(tmp_path, crl=ROOT.crl() + PEOPLE.crl(extension=extension)),))


def test_lists_and_denials_take_effect_with_the_next_request(tmp_path: Path) -> None:
    """As the runtime does when a file changes: the files read anew, a new authority, the same registry."""
    registry = Registry.open(tmp_path / "registry.db")
    presented = Presented(proxy_chain=(der(GOOD), PEOPLE.certificate.public_bytes(Encoding.DER)))

    def ask(crl: bytes, **changes: Any) -> Caller | Rejected:
        cas = load_cas((entry(tmp_path, crl=crl, **changes),))
        return Authority(Identities(), registry, JwksStore(()), cas).identify(presented, now=NOW)

    first = ask(ROOT.crl() + PEOPLE.crl())
    assert isinstance(first, Caller)
    assert (first.assurance, first.principal.issuer) == (Assurance.BOUND, "corp")
    denied = frozenset({GOOD.fingerprint(hashes.SHA256()).hex()})
    reasons = []
    for answer in (
        ask(ROOT.crl() + PEOPLE.crl(GOOD)),
        ask(ROOT.crl() + PEOPLE.crl(), denied_sha256=denied),
        ask(ROOT.crl() + PEOPLE.crl(ends=NOW)),
    ):
        assert isinstance(answer, Rejected)
        reasons.append(answer.reason)
    assert reasons == [Reason.CERTIFICATE_REVOKED, Reason.CERTIFICATE_REVOKED, UNTRUSTED]
    assert isinstance(ask(ROOT.crl() + PEOPLE.crl()), Caller)
    registry.close()
