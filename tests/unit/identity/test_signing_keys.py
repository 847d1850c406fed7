"""HOME/assertion.key: made once, read strictly, renewed with overlap, never half written."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
import subprocess
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.errors import ConfigError, StoreError
from callerid.identity import signing_keys as keys

NOW = 1_780_000_000
CHANCE = bytes(range(keys.CHANCE_BYTES))
LISTED = keys.LISTED


def seed(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / keys.FILE


def made(path: Path, now: int = NOW) -> keys.KeyRing:
    found = keys.ensure(path, now=now, chance=CHANCE)
    assert isinstance(found, keys.KeyRing)
    return found


def kids(ring: keys.KeyRing, now: int) -> list[str]:
    return [key.kid for key in ring.listed(now)]


def signs(ring: keys.KeyRing, now: int) -> str:
    signer = ring.signer(now)
    assert isinstance(signer, keys.Signer)
    return signer.kid


# -- making


def test_the_first_key_is_made_once_private_and_as_pem(path: Path) -> None:
    ring = made(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ring.issuer == "urn:uuid:20212223-2425-4627-a829-2a2b2c2d2e2f"
    text = path.read_bytes()
    assert keys.ensure(path, now=NOW + 9, chance=bytes(keys.CHANCE_BYTES)) == keys.read(path)
    assert path.read_bytes() == text
    pem = text[text.index(b"-----BEGIN") :]
    private = serialization.load_pem_private_key(pem, None)
    assert isinstance(private, ed25519.Ed25519PrivateKey)
    assert private.private_bytes_raw() == CHANCE[: keys.SEED_BYTES]


def test_a_loose_mode_is_tightened(path: Path) -> None:
    made(path)
    path.chmod(0o644)
    made(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_umask_makes_nothing_readable(path: Path) -> None:
    before = os.umask(0)
    try:
        made(path)
        keys.rotate(path, now=NOW, seed=seed(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_private_key_is_in_no_repr(path: Path) -> None:
    ring = made(path)
    said = repr(ring) + repr(ring.signer(NOW))
    assert "private" not in said
    assert "Ed25519" not in said


def test_what_is_listed_is_a_jwks_that_others_read(path: Path) -> None:
    ring = made(path)
    [entry] = ring.jwks(NOW)["keys"]
    assert set(entry) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (entry["kty"], entry["crv"], entry["alg"]) == ("OKP", "Ed25519", "EdDSA")
    signer = ring.signer(NOW)
    assert isinstance(signer, keys.Signer)
    token = jwt.encode({"x": 1}, signer.private, algorithm="EdDSA")
    assert jwt.decode(token, jwt.PyJWKSet.from_dict(ring.jwks(NOW))[entry["kid"]], algorithms=["EdDSA"])


def test_the_kid_is_the_thumbprint_of_rfc_8037_appendix_a_3() -> None:
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert keys._thumbprint(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


# -- reading

PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(seed(7)).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
ISSUER = b"Issuer: urn:uuid:20212223-2425-4627-a829-2a2b2c2d2e2f\n"
FROM = b"Signs-From: 2026-11-24T09:00:00Z\n"

GARBAGE = {
    "nothing": b"",
    "no issuer": FROM + PRIVATE,
    "no time": ISSUER + PRIVATE,
    "no key": ISSUER + FROM,
    "an issuer that is no UUID": b"Issuer: me\n" + FROM + PRIVATE,
    "two issuers": ISSUER + ISSUER + FROM + PRIVATE,
    "two times": ISSUER + FROM + FROM + PRIVATE,
    "a time of another form": ISSUER + b"Signs-From: 2026-11-24\n" + PRIVATE,
    "a line of something else": ISSUER + FROM + b"Comment: hello\n" + PRIVATE,
    "half a key": ISSUER + FROM + PRIVATE[: len(PRIVATE) // 2],
    "a spoilt key": ISSUER + FROM + PRIVATE.replace(b"MC4C", b"MC4D"),
    "the older key first": ISSUER + FROM + PRIVATE + FROM.replace(b"11-24", b"11-25") + PRIVATE,
    "a certificate": ISSUER + FROM + PRIVATE.replace(b"PRIVATE KEY", b"CERTIFICATE"),
    "an encrypted key": ISSUER + FROM + PRIVATE.replace(b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY"),
    "not ASCII": ISSUER + FROM + PRIVATE + "ü".encode(),
    "zero bytes": bytes(100),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_signs_nothing(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    found = keys.read(path)
    assert isinstance(found, keys.Unusable)
    assert found.hint
    assert "does not hold the assertion keys" in found.detail


def test_the_written_form_is_the_one_that_is_read(path: Path) -> None:
    path.write_bytes(ISSUER + FROM + PRIVATE)
    assert isinstance(keys.read(path), keys.KeyRing)


def test_a_file_without_end_is_not_read_to_its_end(path: Path) -> None:
    path.write_bytes(ISSUER + FROM + PRIVATE + b"\n" * keys.MAX_FILE)
    found = keys.read(path)
    assert isinstance(found, keys.Unusable)
    assert "too large" in found.detail


def test_another_kind_of_key_signs_nothing(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(ISSUER + FROM + other)
    assert isinstance(keys.read(path), keys.Unusable)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 400), junk=st.binary(max_size=40))
def test_reading_is_total(tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("k") / keys.FILE
    whole = ISSUER + FROM + PRIVATE
    path.write_bytes(whole[:cut] + junk + whole[cut:])
    assert isinstance(keys.read(path), keys.KeyRing | keys.Unusable)


def test_what_is_no_file_signs_nothing_and_holds_nobody_up(path: Path) -> None:
    os.mkfifo(path)
    assert isinstance(keys.read(path), keys.Unusable)
    path.unlink()
    path.mkdir()
    assert isinstance(keys.read(path), keys.Unusable)


# -- renewing


def test_a_new_key_signs_at_once_and_the_old_one_stays_listed_for_its_time(path: Path) -> None:
    old = made(path).keys[0].kid
    at = NOW + 100
    ring = keys.rotate(path, now=at, seed=seed(1))
    assert ring == keys.read(path)
    new = ring.keys[0].kid
    assert signs(ring, at) == new != old
    assert kids(ring, at) == [new, old]
    assert kids(ring, at + LISTED - 1) == [new, old]
    assert kids(ring, at + LISTED) == [new]


def test_the_old_private_part_is_gone_from_the_file(path: Path) -> None:
    made(path)
    secret = path.read_bytes().split(b"-----\n")[1]
    keys.rotate(path, now=NOW + 1, seed=seed(1))
    text = path.read_bytes()
    assert secret not in text
    assert text.count(b"PRIVATE KEY") == 2
    assert text.count(b"BEGIN PUBLIC KEY") == 1


def test_a_key_is_dropped_from_the_file_once_it_is_listed_no_longer(path: Path) -> None:
    made(path)
    keys.rotate(path, now=NOW + 1, seed=seed(1))
    ring = keys.rotate(path, now=NOW + 1 + LISTED, seed=seed(2))
    assert len(ring.keys) == 2


def test_a_key_with_a_lead_is_listed_first_and_signs_later(path: Path) -> None:
    old = made(path).keys[0].kid
    keys.rotate(path, now=NOW + 10, seed=seed(1), lead=600)
    ring = keys.read(path)
    assert isinstance(ring, keys.KeyRing)
    new = ring.keys[0].kid
    assert kids(ring, NOW + 10) == [new, old]
    assert signs(ring, NOW + 609) == old
    assert signs(ring, NOW + 610) == new
    assert kids(ring, NOW + 610 + LISTED - 1) == [new, old]
    assert kids(ring, NOW + 610 + LISTED) == [new]


def test_a_key_that_has_not_begun_is_given_up_by_the_next(path: Path) -> None:
    old = made(path).keys[0].kid
    waiting = keys.rotate(path, now=NOW + 10, seed=seed(1), lead=600).keys[0].kid
    ring = keys.rotate(path, now=NOW + 20, seed=seed(2))
    assert waiting not in kids(ring, NOW + 20)
    assert kids(ring, NOW + 20) == [ring.keys[0].kid, old]
    assert signs(ring, NOW + 20) == ring.keys[0].kid


def test_a_stolen_key_is_gone_at_once(path: Path) -> None:
    old = made(path).keys[0].kid
    ring = keys.rotate(path, now=NOW + 10, seed=seed(1), drop_old=True)
    assert old not in kids(ring, NOW + 10)
    assert len(kids(ring, NOW + 10)) == 1
    assert keys.read(path).jwks(NOW + 10) == ring.jwks(NOW + 10)  # type: ignore[union-attr]


def test_a_clock_that_goes_back_still_signs_and_renews(path: Path) -> None:
    made(path, now=NOW + 1000)
    ring = keys.read(path)
    assert isinstance(ring, keys.KeyRing)
    assert signs(ring, NOW) == ring.keys[0].kid
    ring = keys.rotate(path, now=NOW, seed=seed(1))
    assert isinstance(keys.read(path), keys.KeyRing)
    assert signs(ring, NOW) == ring.keys[0].kid


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(-50, 4000), st.sampled_from((0, 0, 30, 5000)), st.booleans()), max_size=6
    )
)
def test_whoever_signs_is_listed_until_its_last_word_has_expired(
    steps: list[tuple[int, int, bool]],
) -> None:
    """The property of the overlap: a JWT of 60 s verifies by the list of any moment of its life."""
    ring = keys.KeyRing("urn:uuid:x", ())
    ring = keys.KeyRing(
        "urn:uuid:x", (keys._key(ed25519.Ed25519PrivateKey.from_private_bytes(seed(0)), NOW),)
    )
    now = NOW
    for number, (passed, lead, drop) in enumerate(steps, 1):
        for at in (now, now + max(passed, 0) // 2):
            signer = signs(ring, at)
            assert signer in kids(ring, at)
            assert signer in kids(ring, at + 60)
        before, now = now, now + passed
        signer = signs(ring, now)
        ring = ring.renewed(now, seed(number), lead=lead, drop_old=drop)
        assert drop or signer in kids(ring, now + 60)
        begins = [key.signs_from for key in ring.keys]
        assert begins == sorted(begins, reverse=True)
        assert sum(key.private is not None for key in ring.keys) <= 2
        assert signs(ring, max(now, before) + lead) == ring.keys[0].kid


@pytest.mark.parametrize("lead", [-1, keys.MAX_LEAD + 1])
def test_a_lead_without_sense_is_refused(path: Path, lead: int) -> None:
    made(path)
    with pytest.raises(ConfigError):
        keys.rotate(path, now=NOW, seed=seed(1), lead=lead)


def test_garbage_is_not_renewed_but_reported_and_left(path: Path) -> None:
    path.write_bytes(b"garbage")
    with pytest.raises(StoreError) as caught:
        keys.rotate(path, now=NOW, seed=seed(1))
    assert caught.value.hint
    assert path.read_bytes() == b"garbage"


def test_a_home_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        keys.rotate(tmp_path / "nowhere" / keys.FILE, now=NOW, seed=seed(1))
    assert "callerid init" in caught.value.hint


def test_a_writer_that_died_leaves_the_old_file_and_nothing_that_matters(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path)
    before = path.read_bytes()

    def dies(self: Path, target: Path) -> None:
        raise OSError("no power")

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(StoreError):
        keys.rotate(path, now=NOW, seed=seed(1))
    monkeypatch.undo()
    assert path.read_bytes() == before
    left = path.with_name(f"{keys.FILE}.new")
    left.chmod(0o666)
    keys.rotate(path, now=NOW, seed=seed(2))
    assert not left.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_laid_beside_it_is_not_written_through(path: Path, tmp_path: Path) -> None:
    made(path)
    target = tmp_path / "elsewhere"
    target.write_text("mine")
    path.with_name(f"{keys.FILE}.new").symlink_to(target)
    keys.rotate(path, now=NOW, seed=seed(1))
    assert target.read_text() == "mine"
    assert not path.is_symlink()


def _renew(path: Path, number: int) -> None:
    keys.rotate(path, now=NOW + 1, seed=seed(number))


def test_two_who_renew_at_once_lose_no_key(path: Path) -> None:
    made(path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_renew, args=(path, number)) for number in range(1, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    ring = keys.read(path)
    assert isinstance(ring, keys.KeyRing)
    assert len(kids(ring, NOW + 1)) == 4


def test_openssl_reads_the_file_too(path: Path) -> None:
    made(path)
    try:
        done = subprocess.run(
            ["openssl", "pkey", "-in", str(path), "-noout", "-text"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert "ED25519" in done.stdout


# -- the proxy's view of it


def test_a_change_is_taken_up_and_told_once(path: Path) -> None:
    seen = keys.SigningKeys(path)
    assert isinstance(seen.signer(NOW), keys.Unusable)
    assert seen.jwks(NOW) == {"keys": []}
    assert "there is no" in str(seen.refresh())
    assert seen.refresh() is None
    old = made(path).keys[0].kid
    assert seen.refresh() is None
    assert seen.signer(NOW).kid == old  # type: ignore[union-attr]
    new = keys.rotate(path, now=NOW + 1, seed=seed(1)).keys[0].kid
    assert seen.signer(NOW + 1).kid == old  # type: ignore[union-attr]
    assert seen.refresh() is None
    assert seen.signer(NOW + 1).kid == new  # type: ignore[union-attr]
    assert [entry["kid"] for entry in seen.jwks(NOW + 1)["keys"]] == [new, old]


@pytest.mark.parametrize("spoil", ["garbage", "gone"])
def test_a_file_that_is_spoilt_signs_nothing_more_until_it_is_mended(path: Path, spoil: str) -> None:
    good = made(path)
    text = path.read_bytes()
    seen = keys.SigningKeys(path)
    assert seen.refresh() is None
    if spoil == "gone":
        path.unlink()
    else:
        path.write_bytes(b"garbage")
    assert seen.refresh()
    assert seen.refresh() is None
    assert isinstance(seen.signer(NOW), keys.Unusable)
    assert seen.jwks(NOW) == {"keys": []}
    path.write_bytes(text)
    assert seen.refresh() is None
    assert seen.signer(NOW).kid == good.keys[0].kid  # type: ignore[union-attr]


def test_a_key_that_can_be_read_but_not_mended_is_good_enough(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path)

    def read_only(path: Path) -> None:
        raise StoreError("a read-only mount", hint="none")

    monkeypatch.setattr(keys, "private_file", read_only)
    seen = keys.SigningKeys(path)
    assert seen.make(NOW, CHANCE) is None
    assert isinstance(seen.signer(NOW), keys.Signer)


def test_a_key_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    seen = keys.SigningKeys(tmp_path / "nowhere" / keys.FILE)
    assert "cannot be opened" in str(seen.make(NOW, CHANCE))
    assert isinstance(seen.signer(NOW), keys.Unusable)
