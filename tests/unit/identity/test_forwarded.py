"""The two headers in which a proxy says which certificate it saw: what is read in them, and what is not."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.identity.forwarded import MAX_FORWARDED, _elements, read_client_cert, read_xfcc
from tests.unit.identity import made
from tests.unit.identity.made import EMAIL, der

ROOT = made.Authority()
MIDDLE = made.Authority("Corp Issuing CA", ROOT)
LEAF = MIDDLE.issue(EMAIL)
OTHER = MIDDLE.issue(EMAIL)
HASH = hashlib.sha256(der(LEAF)).hexdigest()


def pem(*certificates: made.x509.Certificate) -> str:
    text = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    return f'"{quote(text.decode(), safe="")}"'


def sf(data: bytes) -> str:
    return f":{base64.b64encode(data).decode()}:"


CERT, CHAIN = f"Cert={pem(LEAF)}", f"Chain={pem(LEAF, MIDDLE.certificate)}"
GOOD = f"Hash={HASH};{CERT}"
BY = "By=spiffe://corp.example/envoy"


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (GOOD, 1),
        (f"{BY};{GOOD}", 1),
        (f'{BY};Hash={HASH};Subject="CN=alice,O=Corp \\"North\\"";URI=;{CERT};DNS=a.corp.example', 1),
        (f"hash={HASH.upper()};cert={pem(LEAF)}", 1),
        (f"Hash={HASH};{CHAIN}", 2),
        (f"Hash={HASH};{CERT};{CHAIN}", 2),
        (f"By=spiffe://a;Hash=00;Subject=\"x\", {BY};{GOOD}", 1),
        (f"Hash={HASH};Cert={quote(LEAF.public_bytes(Encoding.PEM).decode(), safe='')}", 1),
        (f" {GOOD} ", 1),
    ],
)  # fmt: skip
def test_the_last_element_names_the_certificate(value: str, length: int) -> None:
    assert read_xfcc(value) == (der(LEAF), der(MIDDLE.certificate))[:length]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "list"),
        (" ", "list"),
        (",", "list"),
        (";", "list"),
        ("alice", "list"),
        ("=x", "list"),
        (f"{GOOD};", "list"),
        (f"{GOOD},", "list"),
        (f"{GOOD} x", "list"),
        (f'{GOOD};Subject="CN=x', "list"),
        (f'{GOOD};Subject=C"N', "list"),
        (f'Subject="x"y;{GOOD}', "list"),
        (f"Has h=1;{GOOD}", "list"),
        (CERT, "Hash"),
        (f"{GOOD},{BY}", "Hash"),
        (f"{BY};Hash={HASH}", "Cert"),
        (f"{BY};Hash={HASH};URI=spiffe://corp.example/agent/claude-code", "Cert"),
        (f"{GOOD};hash={HASH}", "twice"),
        (f"{GOOD};cert={pem(OTHER)}", "twice"),
        (f"Hash=;{CERT}", "Hash"),
        (f"Hash={'0' * 64};{CERT}", "Hash"),
        (f"Hash={HASH};Cert={pem(OTHER)}", "Hash"),
        (f"Hash={HASH};Cert={pem(OTHER)};{CHAIN}", "differ"),
        (f"Hash={HASH};Cert={pem(LEAF, OTHER)}", "differ"),
        (f"Hash={HASH};Chain={pem(*[LEAF] * (MAX_FORWARDED + 1))}", "read"),
        (f"Hash={HASH};Cert=", "read"),
        (f'Hash={HASH};Cert="garbage"', "read"),
        (f'Hash={HASH};Cert="%ff%fe"', "read"),
        (f"{GOOD};Note={'x' * 300_000}", "list"),
    ],
)
def test_what_cannot_be_verified_is_not_read(value: str, says: str) -> None:
    found = read_xfcc(value)
    assert isinstance(found, str)
    assert says in found


@pytest.mark.parametrize(
    "theirs",
    [
        'Subject="',
        f'Hash={HASH};{CERT};Subject="',
        "X=\\",
        f"{GOOD};",
    ],
)
def test_an_element_before_cannot_reach_into_the_last_one(theirs: str) -> None:
    """What a caller wrote stands before what the hop appends: it can spoil it, and not take its place."""
    bobs = f'{BY};Hash={hashlib.sha256(der(OTHER)).hexdigest()};Subject="CN=bob";Cert={pem(OTHER)}'
    found = read_xfcc(f"{theirs},{bobs}")
    assert isinstance(found, str) or found == (der(OTHER),)


def test_rfc_9440_is_read() -> None:
    assert read_client_cert([sf(der(LEAF))], []) == (der(LEAF),)
    chain = f"{sf(der(MIDDLE.certificate))} , {sf(ROOT.der)}"
    assert read_client_cert([f" {sf(der(LEAF))}\t"], [chain]) == (
        der(LEAF), der(MIDDLE.certificate), ROOT.der,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("certificates", "chains"),
    [
        ([], [sf(ROOT.der)]),
        ([""], []),
        (["::"], []),
        ([base64.b64encode(der(LEAF)).decode()], []),
        ([":" + base64.b64encode(der(LEAF)).decode()], []),
        ([sf(der(LEAF)) + ";a=1"], []),
        ([f"{sf(der(LEAF))}, {sf(der(OTHER))}"], []),
        ([":AAA*:"], []),
        ([f'"{base64.b64encode(der(LEAF)).decode()}"'], []),
        ([sf(der(LEAF))], [""]),
        ([sf(der(LEAF))], [f"{sf(ROOT.der)},"]),
        ([sf(der(LEAF))], [",".join([sf(ROOT.der)] * (MAX_FORWARDED + 1))]),
        ([sf(der(LEAF))], [f"({sf(ROOT.der)})"]),
    ],
)
def test_what_is_no_structured_field_is_not_read(certificates: list[str], chains: list[str]) -> None:
    assert isinstance(read_client_cert(certificates, chains), str)


texts = st.lists(st.sampled_from([*'ab=;,"\\ %', "Hash=", "Cert=", HASH, CERT]), max_size=30).map("".join)


@given(text=texts | st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_answered(text: str) -> None:
    assert isinstance(read_xfcc(text), str | tuple)
    assert isinstance(read_client_cert([text], [text]), str | tuple)


values = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=12)


@given(st.lists(st.lists(st.tuples(st.sampled_from(["By", "URI", "Hash"]), values), min_size=1), min_size=1))
@settings(max_examples=100, deadline=None)
def test_what_was_written_is_what_is_read(elements: list[list[tuple[str, str]]]) -> None:
    """Quoted as Envoy does; a backslash before a quote is its own escape, and is not tried here."""
    plain = [[(key, value.replace("\\", "/")) for key, value in pairs] for pairs in elements]
    quoted = (
        ";".join('{}="{}"'.format(key, value.replace('"', '\\"')) for key, value in pairs) for pairs in plain
    )
    assert _elements(",".join(quoted)) == plain
