"""Properties of identity: total on hostile text, and no way to a name but through evidence."""

from __future__ import annotations

import base64
import fnmatch
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.config import Identities
from callerid.identity.authority import Authority, Presented
from callerid.identity.certificates import load_cas
from callerid.identity.jwks import JwksStore
from callerid.identity.names import canonical, glob_match, parse_subject
from callerid.identity.registry import Registry
from callerid.identity.strictjson import parse_object
from callerid.identity.tokens import contains_token, is_well_formed, mint
from callerid.model import Caller, Reason, Rejected
from tests.unit.identity import made

EXAMPLES = settings(max_examples=100, deadline=None)
ROOT = made.Authority()
LEAF = made.der(ROOT.issue(made.EMAIL))
JWT = made.sign(made.claims())

hostile = st.text(st.characters(codec=None), max_size=80)
seeds = st.one_of(
    hostile,
    st.binary(max_size=60).map(lambda data: "Basic " + base64.b64encode(data).decode()),
    st.sampled_from([made.token(1), JWT, "cid_", "Bearer ", "Basic ", "."]),
    st.binary(max_size=40).map(lambda data: f"{made.b64(data)}.{made.b64(data)}.{made.b64(data)}"),
)
values = st.lists(seeds, max_size=4).map("".join) | st.lists(seeds, max_size=3).map(" ".join)
headers = st.lists(values, max_size=2).map(tuple)
chains = st.lists(st.binary(max_size=80) | st.just(LEAF), max_size=2).map(tuple)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    folder: Path = tmp_path_factory.mktemp("home")
    (folder / "jwks.json").write_bytes(made.jwks())
    registry = Registry.open(folder / "registry.db")
    made.enter(registry, 1)
    issuers = (made.issuer(jwks_file=folder / "jwks.json"),)
    store = JwksStore(issuers)
    store.refresh(made.NOW)
    cas = load_cas((made.client_ca(folder, ROOT),))
    yield Authority(Identities(issuers=issuers), registry, store, cas)
    registry.close()


@given(proxy=headers, connect=headers, authorization=headers, own=headers, outer=chains, inner=chains)
@EXAMPLES
def test_identify_answers_whatever_is_presented(
    authority: Authority,
    proxy: tuple[str, ...],
    connect: tuple[str, ...],
    authorization: tuple[str, ...],
    own: tuple[str, ...],
    outer: tuple[bytes, ...],
    inner: tuple[bytes, ...],
) -> None:
    presented = Presented(
        proxy_authorization=proxy,
        connect_proxy_authorization=connect,
        authorization=authorization,
        callerid_token=own,
        proxy_chain=outer,
        inner_chain=inner,
    )
    answer = authority.identify(presented, now=made.NOW)
    assert isinstance(answer, Caller | Rejected)
    if isinstance(answer, Caller):
        text = " ".join([*proxy, *connect, *authorization, *own])
        decoded = b"".join(base64.b64decode(word) for word in text.split() if _is_base64(word)).decode(
            "latin-1"
        )
        assert made.token(1) in text + decoded or JWT in text + decoded or LEAF in (*outer, *inner)


def _is_base64(word: str) -> bool:
    try:
        base64.b64decode(word, validate=True)
    except ValueError:
        return False
    return True


@given(value=values)
@EXAMPLES
def test_is_ours_answers_for_any_text_and_for_every_token(authority: Authority, value: str) -> None:
    assert isinstance(authority.is_ours(value), bool)
    assert authority.is_ours(f"{value}{made.token(1)}{value}")


@given(at=st.integers(0, len(JWT) - 1), letter=st.characters(codec="ascii"))
@EXAMPLES
def test_no_single_letter_of_a_jwt_can_be_changed(authority: Authority, at: int, letter: str) -> None:
    changed = JWT[:at] + letter + JWT[at + 1 :]
    answer = authority.identify(Presented(authorization=(made.bearer(changed),)), now=made.NOW)
    assert (changed == JWT) is isinstance(answer, Caller)


@given(at=st.integers(0, 52), letter=st.characters(codec="ascii"))
@EXAMPLES
def test_no_single_letter_of_a_token_can_be_changed(authority: Authority, at: int, letter: str) -> None:
    token = made.token(1)
    changed = token[:at] + letter + token[at + 1 :]
    answer = authority.identify(Presented(callerid_token=(changed,)), now=made.NOW)
    if changed == token:
        assert isinstance(answer, Caller)
    else:
        assert isinstance(answer, Rejected)
        assert answer.reason is Reason.TOKEN_MALFORMED


@given(
    random=st.binary(min_size=32, max_size=32), before=st.binary(max_size=60), after=st.binary(max_size=60)
)
@EXAMPLES
def test_every_token_is_well_formed_and_found_anywhere(random: bytes, before: bytes, after: bytes) -> None:
    token = mint(random)
    assert is_well_formed(token)
    assert contains_token(before + token.encode() + after)


@given(data=st.binary(max_size=200))
@EXAMPLES
def test_reading_json_never_raises(data: bytes) -> None:
    assert parse_object(data) is None or isinstance(parse_object(data), dict)


@given(pattern=st.text("ab*?", max_size=8), text=st.text("ab\n", max_size=8))
@EXAMPLES
def test_globs_mean_what_fnmatch_means(pattern: str, text: str) -> None:
    assert glob_match(pattern, text) is fnmatch.fnmatchcase(text, pattern)


@given(text=hostile)
@EXAMPLES
def test_a_canonical_subject_stays_as_it_is(text: str) -> None:
    subject = parse_subject(f"user:{text}")
    if subject is not None:
        assert parse_subject(subject) == subject == canonical(subject)
        assert subject.isprintable()
        subject.encode("utf-8")
