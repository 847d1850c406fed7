from __future__ import annotations

import base64
import copy
import os
import pickle
import pprint
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from callerid.config import Binding, Credential
from callerid.credentials.entries import fresh
from callerid.credentials.inject import Injection, apply, needles
from callerid.credentials.outgoing import Outgoing
from callerid.credentials.secret import Secret
from callerid.credentials.series import Series
from callerid.credentials.store import CredentialStatus, CredentialStore, Refused
from callerid.errors import ConfigError
from callerid.model import Reason
from tests.unit.credentials.helpers import NEXT_VALUE, VALUE, credential, destination, write_secret


def from_file(path: Path, **changes: Any) -> Credential:
    return credential(source_kind="file", source=str(path), **changes)


def sent(store: CredentialStore, name: str = "github-shared") -> tuple[str, str]:
    """The row's label and the header that went out."""
    injection = store.prepare(name, destination())
    assert isinstance(injection, Injection)
    out = Outgoing(
        method="POST", scheme="https", host="github.corp.example", port=443, path="/mcp/", headers={}
    )
    apply(injection, out)
    return injection.label, out.headers["Authorization"]


def refused(store: CredentialStore, name: str = "github-shared", **changes: Any) -> Refused:
    found = store.prepare(name, destination(**changes))
    assert isinstance(found, Refused)
    return found


def test_a_bound_request_gets_the_header() -> None:
    store = CredentialStore((credential(),), {"GITHUB_SHARED": VALUE})
    assert sent(store) == ("github-shared@v1", f"Bearer {VALUE}")
    assert store.status() == (
        CredentialStatus(id="github-shared", label="github-shared@v1", ok=True, detail="", hint=""),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "evil.example"},
        {"port": 8443},
        {"scheme": "http"},
        {"path": "/admin"},
        {"path": "/mcp/../admin"},
        {"method": "PUT"},
        {"tls_verified": False},
    ],
)
def test_a_request_elsewhere_is_refused_as_not_bound(changes: dict[str, Any]) -> None:
    store = CredentialStore((credential(),), {"GITHUB_SHARED": VALUE})
    found = refused(store, **changes)
    assert found.reason is Reason.CREDENTIAL_NOT_BOUND
    assert "github-shared" in found.detail
    assert VALUE not in repr(found)


def test_an_unknown_credential_is_refused() -> None:
    store = CredentialStore((), {})
    assert refused(store, "nobody").reason is Reason.CREDENTIAL_UNAVAILABLE


def test_an_unreadable_source_is_a_refusal_with_its_detail_and_not_an_exception() -> None:
    store = CredentialStore((credential(),), {})
    found = refused(store)
    assert found.reason is Reason.CREDENTIAL_UNAVAILABLE
    assert "GITHUB_SHARED is not set" in found.detail
    (status,) = store.status()
    assert (status.ok, status.label) == (False, None)
    assert "GITHUB_SHARED is not set" in status.detail
    assert status.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"template": "Bearer {secret}\r\nX-Admin: yes"},
        {"inject": "basic", "username": None},
        {"inject": "basic", "username": "a\nb"},
        {"header": "Host"},
    ],
)
def test_a_header_that_cannot_be_made_is_a_refusal(changes: dict[str, Any]) -> None:
    store = CredentialStore((credential(**changes),), {"GITHUB_SHARED": VALUE})
    assert refused(store).reason is Reason.CREDENTIAL_UNAVAILABLE
    (status,) = store.status()
    assert not status.ok
    assert status.hint
    assert VALUE not in repr(status)
    assert store.scrubber.holds(VALUE.encode())


@pytest.mark.parametrize(
    "value", ["brief-one", "two-lines-of\r\nX-Admin: yes", "caf\u00e9-caf\u00e9-caf\u00e9"]
)
def test_a_secret_that_could_not_be_carried_is_never_injected(value: str) -> None:
    store = CredentialStore((credential(),), {"GITHUB_SHARED": value})
    found = refused(store)
    assert found.reason is Reason.CREDENTIAL_UNAVAILABLE
    assert value not in repr((found, store.status(), store))


def test_one_bad_credential_does_not_take_the_others_along() -> None:
    other = credential(id="files-shared", source="FILES_SHARED")
    store = CredentialStore((credential(), other), {"FILES_SHARED": NEXT_VALUE})
    assert sent(store, "files-shared") == ("files-shared@v1", f"Bearer {NEXT_VALUE}")
    assert [status.ok for status in store.status()] == [False, True]


def test_two_credentials_with_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match="github-shared"):
        CredentialStore((credential(), credential(source="OTHER")), {})
    with pytest.raises(ConfigError, match="github-shared"):
        CredentialStore((), {}).replaced((credential(), credential()))


def test_a_rotation_makes_a_new_version_and_keeps_scrubbing_the_old_one(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "s", VALUE)
    store = CredentialStore((from_file(path),), {})
    before = store.scrubber
    write_secret(path, NEXT_VALUE)
    assert sent(store) == ("github-shared@v1", f"Bearer {VALUE}")
    store.refresh()
    assert sent(store) == ("github-shared@v2", f"Bearer {NEXT_VALUE}")
    assert store.scrubber is not before
    for value in (VALUE, NEXT_VALUE):
        assert store.scrubber.holds(value.encode())
    assert not before.holds(NEXT_VALUE.encode())


def test_a_file_swapped_behind_a_symlink_is_a_rotation(tmp_path: Path) -> None:
    """As Kubernetes does it: path -> ..data/token, and ..data is swapped."""
    for name, value in (("one", VALUE), ("two", NEXT_VALUE)):
        (tmp_path / name).mkdir()
        write_secret(tmp_path / name / "token", value)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "token").symlink_to("..data/token")
    store = CredentialStore((from_file(tmp_path / "token"),), {})
    assert sent(store) == ("github-shared@v1", f"Bearer {VALUE}")
    (tmp_path / "..new").symlink_to("two")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    store.refresh()
    assert sent(store) == ("github-shared@v2", f"Bearer {NEXT_VALUE}")
    assert store.scrubber.holds(VALUE.encode())


def test_a_refresh_without_a_change_changes_nothing(tmp_path: Path) -> None:
    bad = credential(id="gone", source="GONE")
    store = CredentialStore((from_file(write_secret(tmp_path / "s", VALUE)), bad), {})
    before = store.scrubber
    store.refresh()
    assert store.scrubber is before


def test_the_same_value_in_a_new_file_is_no_new_version(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "s", VALUE)
    store = CredentialStore((from_file(path),), {})
    write_secret(path, VALUE + "\n")
    store.refresh()
    assert sent(store)[0] == "github-shared@v1"


def test_a_source_that_fails_keeps_nothing_but_the_scrubbing(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "s", VALUE)
    store = CredentialStore((from_file(path),), {})
    path.chmod(0o644)
    store.refresh()
    assert refused(store).reason is Reason.CREDENTIAL_UNAVAILABLE
    assert store.scrubber.holds(VALUE.encode())
    path.unlink()
    store.refresh()
    assert "does not exist" in refused(store).detail
    assert store.status()[0].label == "github-shared@v1"
    write_secret(path, VALUE)
    store.refresh()
    assert sent(store) == ("github-shared@v1", f"Bearer {VALUE}")
    path.unlink()
    store.refresh()
    write_secret(path, NEXT_VALUE)
    store.refresh()
    assert sent(store) == ("github-shared@v2", f"Bearer {NEXT_VALUE}")
    assert store.scrubber.holds(VALUE.encode())


def test_a_source_mended_without_touching_its_content_comes_back(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "s", VALUE, 0o644)
    store = CredentialStore((from_file(path),), {})
    assert refused(store).reason is Reason.CREDENTIAL_UNAVAILABLE
    path.chmod(0o600)
    store.refresh()
    assert sent(store)[0] == "github-shared@v1"


def test_how_often_it_was_rotated_brings_no_version_out_of_sight(tmp_path: Path) -> None:
    path = tmp_path / "s"
    values = [f"rotating-secret-number-{n:03}" for n in range(12)]
    write_secret(path, values[0])
    store = CredentialStore((from_file(path),), {})
    for value in values[1:]:
        write_secret(path, value)
        store.refresh()
    assert sent(store)[0] == f"github-shared@v{len(values)}"
    assert all(store.scrubber.holds(value.encode()) for value in values)


def test_a_basic_credential_is_scrubbed_with_its_username() -> None:
    store = CredentialStore((credential(inject="basic", username="svc"),), {"GITHUB_SHARED": VALUE})
    _, header = sent(store)
    assert store.scrubber.scrub_text(f"you sent {header}.") == ("you sent Basic [callerid:removed].", 1)


class TestReplaced:
    def test_an_unchanged_id_keeps_its_version_and_its_past(self, tmp_path: Path) -> None:
        path = write_secret(tmp_path / "s", VALUE)
        store = CredentialStore((from_file(path),), {})
        write_secret(path, NEXT_VALUE)
        store.refresh()
        after = store.replaced((from_file(path), credential(id="new", source="NEW")))
        assert sent(after) == ("github-shared@v2", f"Bearer {NEXT_VALUE}")
        assert after.scrubber.holds(VALUE.encode())
        assert [status.id for status in after.status()] == ["github-shared", "new"]
        assert [status.id for status in store.status()] == ["github-shared"]

    def test_a_variable_read_once_is_not_looked_up_again(self) -> None:
        environ = {"GITHUB_SHARED": VALUE}
        store = CredentialStore((credential(),), environ)
        del environ["GITHUB_SHARED"]
        store.refresh()
        after = store.replaced((credential(),))
        assert sent(after) == ("github-shared@v1", f"Bearer {VALUE}")

    def test_a_new_binding_is_in_force_at_once(self) -> None:
        store = CredentialStore((credential(),), {"GITHUB_SHARED": VALUE})
        moved = Binding(hosts=frozenset({("files.corp.example", 443)}))
        after = store.replaced((credential(binding=moved),))
        assert refused(after).reason is Reason.CREDENTIAL_NOT_BOUND
        assert sent(store)[0] == "github-shared@v1"

    def test_a_new_template_is_rendered_from_the_secret_in_hand(self) -> None:
        store = CredentialStore((credential(),), {"GITHUB_SHARED": VALUE})
        after = store.replaced((credential(inject="header", template="Token {secret}"),))
        assert sent(after) == ("github-shared@v1", f"Token {VALUE}")
        broken = store.replaced((credential(template="Token"),))
        assert refused(broken).reason is Reason.CREDENTIAL_UNAVAILABLE

    def test_a_new_source_is_a_new_version_and_the_old_secret_is_still_scrubbed(self) -> None:
        environ = {"GITHUB_SHARED": VALUE, "OTHER": NEXT_VALUE}
        store = CredentialStore((credential(),), environ)
        after = store.replaced((credential(source="OTHER"),))
        assert sent(after) == ("github-shared@v2", f"Bearer {NEXT_VALUE}")
        assert after.scrubber.holds(VALUE.encode())

    def test_a_new_source_that_cannot_be_read_leaves_nothing_to_send(self) -> None:
        store = CredentialStore((credential(),), {"GITHUB_SHARED": VALUE})
        after = store.replaced((credential(source="OTHER"),))
        assert refused(after).reason is Reason.CREDENTIAL_UNAVAILABLE
        assert after.scrubber.holds(VALUE.encode())

    def test_a_removed_credential_is_unknown_but_scrubbed_and_counts_on_when_it_returns(self) -> None:
        environ = {"GITHUB_SHARED": VALUE, "OTHER": NEXT_VALUE}
        gone = CredentialStore((credential(),), environ).replaced(())
        assert refused(gone).reason is Reason.CREDENTIAL_UNAVAILABLE
        assert gone.scrubber.holds(VALUE.encode())
        gone.refresh()
        assert gone.replaced(()).scrubber.holds(VALUE.encode())
        back = gone.replaced((credential(source="OTHER"),))
        assert sent(back)[0] == "github-shared@v2"
        assert back.scrubber.holds(VALUE.encode())


def test_nothing_about_the_store_prints_or_serialises_a_value() -> None:
    store = CredentialStore((credential(),), {"GITHUB_SHARED": VALUE})
    injection = store.prepare("github-shared", destination())
    for thing in (store, injection, store.status(), store.scrubber, store._snapshot):
        assert VALUE not in repr(thing) + str(thing) + f"{thing}" + pprint.pformat(thing)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, lambda it: it.__getstate__(), vars):
        with pytest.raises(TypeError):
            attempt(store)


def test_what_leaves_in_another_form_is_scrubbed_in_that_form(tmp_path: Path) -> None:
    """The same stored value, now a pair of keys: its parts are secrets of their own. So is a Basic value."""
    secret = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00"
    pair = "AKIA" + f"IOSFODNN7EXAMPLE:{secret}"
    store = CredentialStore((credential(),), {"GITHUB_SHARED": pair})
    assert store.scrubber.scrub_text(f"it is {secret}.")[1] == 0
    moved = store.replaced((credential(inject="aws_sigv4", region="eu-west-1", service="execute-api"),))
    assert secret not in moved.scrubber.scrub_text(f"it is {secret}.")[0]
    moved.refresh()
    assert secret not in moved.scrubber.scrub_text(f"it is {secret}.")[0]
    basic = store.replaced((credential(inject="basic", username="ci"),))
    text = base64.b64encode(f"ci:{pair}".encode()).decode()
    assert text not in basic.scrubber.scrub_text(f"it is {text}.")[0]
    assert pair not in moved.scrubber.scrub_text(f"it is {pair}.")[0]


def test_other_forms_of_the_same_secrets_are_a_mark() -> None:
    """Or what looks for them would not be made anew."""
    bearer = credential()
    entry = replace(
        fresh(bearer, exchanged=False),
        own=Series(bearer.id).added(Secret(VALUE, label="x@v1"), partial(needles, bearer), 0.0),
    )
    basic = entry.now_of(credential(inject="basic", username="ci"))
    assert set(basic.needles()) > set(entry.needles())
    assert list(basic.marks()) != list(entry.marks())
    assert list(entry.now_of(credential()).marks()) == list(entry.marks())
