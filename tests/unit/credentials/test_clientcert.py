from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from callerid.credentials.clientcert import read
from callerid.errors import ConfigError
from tests.e2e.certs import ClientPki


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    people = ClientPki(tmp_path_factory.mktemp("people"))
    leaf = people.leaf("robot", issuer=people.intermediate, chain=[people.intermediate])
    return Path(leaf.path).read_text()


def parts(text: str) -> tuple[str, str]:
    key, end, certificates = text.partition("-----END PRIVATE KEY-----\n")
    return key + end, certificates


def test_the_leaf_its_chain_and_its_key(text: str) -> None:
    pair = read("files@v1", text)
    assert [link.subject for link in pair.chain] == [pair.leaf.issuer]
    assert pair.key.public_key() == pair.leaf.public_key()
    assert "PrivateKey" not in repr(pair)


def test_the_order_of_the_parts_does_not_matter(text: str) -> None:
    key, certificates = parts(text)
    assert read("files@v1", certificates + key).leaf == read("files@v1", text).leaf


def other_key() -> str:
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def agreement_key() -> str:
    made = x25519.X25519PrivateKey.generate()
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("no key", "no certificate and key"),
        ("no certificate", "no certificate and key"),
        ("another key", "does not belong"),
        ("a key that cannot sign", "no certificate and key"),
        ("nothing", "no certificate and key"),
        ("not ASCII", "no certificate and key"),
    ],
)
def test_what_cannot_be_shown_is_a_fault_without_the_key_in_it(text: str, case: str, says: str) -> None:
    key, certificates = parts(text)
    given = {
        "no key": certificates,
        "no certificate": key,
        "another key": certificates + other_key(),
        "a key that cannot sign": certificates + agreement_key(),
        "nothing": "",
        "not ASCII": text + "\u00e9",
    }[case]
    with pytest.raises(ConfigError, match=says) as caught:
        read("files@v1", given)
    assert "files@v1" in caught.value.message
    assert caught.value.hint
    assert not any(line in str(caught.value) for line in text.splitlines() if line)


def test_a_traditional_key_is_read_too() -> None:
    made = trustme.CA().issue_cert("robot.corp.example")
    chain = "".join(blob.bytes().decode() for blob in made.cert_chain_pems)
    assert read("x@v1", chain + made.private_key_pem.bytes().decode()).leaf
