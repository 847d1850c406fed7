"""A client certificate with its key as a secret: several lines, never a header, its key scrubbed."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.credentials.scrub import Scrubber
from callerid.credentials.secret import MIN_LENGTH, PemSecret, Secret, pem_fault
from callerid.credentials.sources import Unavailable, read_source
from callerid.errors import ConfigError
from tests.unit.credentials.helpers import VALUE, credential, write_secret

LEAF = trustme.CA().issue_cert("callerid.corp.example")
KEY = LEAF.private_key_pem.bytes().decode()
CHAIN = "".join(blob.bytes().decode() for blob in LEAF.cert_chain_pems)
PEM = CHAIN + KEY
BEGIN_EC = "-----BEGIN EC PRIVATE " + "KEY-----"
LINES = [line for line in KEY.splitlines() if not line.startswith("-") and len(line) >= MIN_LENGTH]


def test_a_pem_is_a_secret_of_its_own_kind() -> None:
    held = PemSecret(PEM, label="mesh@v1")
    assert repr(held) == str(held) == f"{held}" == "<secret mesh v1>"
    assert held == PemSecret(PEM, label="other")
    assert held != PemSecret(PEM + "\n", label="mesh@v1")
    assert not isinstance(held, Secret)
    assert not hasattr(held, "within")
    assert not hasattr(held, "as_basic")
    assert copy.deepcopy(held) is held
    for attempt in (pickle.dumps, vars, json.dumps, bytes):
        with pytest.raises(TypeError):
            attempt(held)


def test_it_cannot_become_a_secret_that_is_a_header() -> None:
    with pytest.raises(ConfigError):
        Secret(PEM, label="mesh@v1")


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda text: text, id="as it is"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="with CR LF"),
        pytest.param(lambda text: json.dumps(text), id="in JSON"),
        pytest.param(lambda text: json.dumps(json.dumps(text)), id="in JSON within JSON"),
        pytest.param(lambda text: quote(text, safe=""), id="percent-encoded"),
        pytest.param(lambda text: "".join(text.split("\n")), id="without line ends"),
        pytest.param(lambda text: base64.b64encode(text.encode()).decode(), id="in Base64"),
        pytest.param(lambda text: base64.urlsafe_b64encode(b"x" + text.encode()).decode(), id="in Base64URL"),
    ],
)
def test_its_key_is_cut_out_of_answers(form: object) -> None:
    scrubber = Scrubber(PemSecret(PEM, label="mesh@v1").renderings())
    assert callable(form)
    scrubbed, hits = scrubber.scrub(str(form(KEY)).encode())
    assert hits >= len(LINES)
    for line in LINES:
        assert line.encode() not in scrubbed
        assert quote(line, safe="").encode() not in scrubbed


def test_its_certificates_are_public() -> None:
    scrubber = Scrubber(PemSecret(PEM, label="mesh@v1").renderings())
    assert scrubber.scrub(CHAIN.encode()) == (CHAIN.encode(), 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(KEY, "no certificate", id="a key alone"),
        pytest.param(CHAIN, "no private key", id="a certificate alone"),
        pytest.param(PEM + KEY, "more than one", id="two keys"),
        pytest.param(PEM.replace("EC PRIVATE", "ENCRYPTED PRIVATE"), "encrypted", id="an encrypted key"),
        pytest.param(
            PEM.replace(f"{BEGIN_EC}\n", f"{BEGIN_EC}\nProc-Type: 4,ENCRYPTED\n"),
            "encrypted",
            id="an encrypted key of old",
        ),
        pytest.param(
            CHAIN + f"{BEGIN_EC.replace('EC ', '')}\nAA==\n-----END PRIVATE KEY-----\n",
            "cut short",
            id="a stump",
        ),
        pytest.param(PEM.replace("\n", "\u2028"), "PEM has not", id="other line ends"),
        pytest.param(PEM + "\x00", "PEM has not", id="a NUL"),
        pytest.param(VALUE, "no certificate", id="no PEM"),
    ],
)
def test_what_is_not_a_chain_with_its_key_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in pem_fault(text)
    with pytest.raises(ConfigError) as caught:
        PemSecret(text, label="mesh@v1")
    assert LINES[0] not in str(caught.value)
    path = write_secret(tmp_path / "s", text)
    found = read_source(credential(source_kind="file", source=str(path), inject="mtls"), {})
    assert isinstance(found, Unavailable)
    assert says in found.detail
    assert LINES[0] not in repr(found)


def test_a_file_with_a_chain_and_its_key_is_read_whole(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "s", PEM)
    subject = credential(source_kind="file", source=str(path), inject="mtls")
    assert read_source(subject, {}) == PEM
    found = read_source(credential(source_kind="file", source=str(path)), {})
    assert isinstance(found, Unavailable)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="-BEGINPRVATKY \n\r", max_size=300))
def test_any_text_is_judged(text: str) -> None:
    assert isinstance(pem_fault(text), str)
