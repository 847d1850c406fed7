from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from callerid.config import Credential
from callerid.credentials.sources import MAX_FILE_BYTES, MAX_LENGTH, Unavailable, fingerprint, read_source
from tests.unit.credentials.helpers import NEXT_VALUE, VALUE, credential, write_secret


def from_file(path: Path) -> Credential:
    return credential(source_kind="file", source=str(path))


def test_a_variable_is_read() -> None:
    assert read_source(credential(), {"GITHUB_SHARED": VALUE}) == VALUE


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_file_is_read_without_its_one_newline(tmp_path: Path, ending: str) -> None:
    assert read_source(from_file(write_secret(tmp_path / "s", VALUE + ending)), {}) == VALUE


def test_a_file_behind_a_symlink_is_read(tmp_path: Path) -> None:
    write_secret(tmp_path / "real", VALUE)
    (tmp_path / "link").symlink_to("real")
    assert read_source(from_file(tmp_path / "link"), {}) == VALUE


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param("", "empty", id="an empty source"),
        pytest.param("eleven-char", "fewer than 12", id="a short secret"),
        pytest.param("first-line-ok\nX-Admin: yes", "line break", id="a line feed inside"),
        pytest.param("first-line-ok\r\nX-Admin: yes", "line break", id="CR LF inside"),
        pytest.param("first-line-ok\rX-Admin: yes", "line break", id="a bare CR inside"),
        pytest.param("tab-in\tthe-middle", "control character", id="a tab inside"),
        pytest.param("escape-\x1b[31m-colour", "control character", id="an escape sequence"),
        pytest.param("c1-control-\x85-inside", "control character", id="a C1 control"),
        pytest.param("pass-w\u00f6rd-caf\u00e9", "not ASCII", id="latin-1 letters"),
        pytest.param("\ufeffbom-before-secret", "not ASCII", id="a byte order mark"),
        pytest.param("line-separator\u2028here", "not ASCII", id="a Unicode line separator"),
        pytest.param(" leading-space-here", "space", id="a leading space"),
        pytest.param("trailing-space-here ", "space", id="a trailing space"),
        pytest.param("x" * (MAX_LENGTH + 1), "too large for a header", id="longer than a header"),
    ],
)
def test_a_text_that_cannot_be_a_secret_is_refused_with_a_hint(
    tmp_path: Path, content: str, says: str
) -> None:
    for found in (
        read_source(credential(), {"GITHUB_SHARED": content}),
        read_source(from_file(write_secret(tmp_path / "s", content)), {}),
    ):
        assert isinstance(found, Unavailable)
        assert found.credential_id == "github-shared"
        assert says in found.detail
        assert found.hint.endswith(".")
        assert not content or content not in repr(found)


def test_only_one_newline_is_taken_off(tmp_path: Path) -> None:
    found = read_source(from_file(write_secret(tmp_path / "s", VALUE + "\n\n")), {})
    assert isinstance(found, Unavailable)
    assert "line break" in found.detail


def test_a_variable_that_is_not_set_says_its_name() -> None:
    found = read_source(credential(), {"OTHER": VALUE})
    assert isinstance(found, Unavailable)
    assert "environment variable GITHUB_SHARED is not set" in found.detail
    assert found.hint


def test_a_variable_with_undecodable_bytes_is_refused() -> None:
    found = read_source(credential(), {"GITHUB_SHARED": os.fsdecode(b"good-until-\xff-here")})
    assert isinstance(found, Unavailable)
    assert "not ASCII" in found.detail


def missing(path: Path) -> None:
    pass


def binary(path: Path) -> None:
    write_secret(path, b"\xff\xfe" + VALUE.encode("utf-16-le"))


def huge(path: Path) -> None:
    write_secret(path, b"x" * (MAX_FILE_BYTES + 1))


def folder(path: Path) -> None:
    path.mkdir(mode=0o700)


def fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def loop(path: Path) -> None:
    path.symlink_to(path)


def behind_a_file(path: Path) -> None:
    path.symlink_to(write_secret(path.with_name("plain"), VALUE) / "deeper")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (missing, "does not exist"),
        (binary, "not UTF-8"),
        (huge, "too large (65537 bytes, at most 65536)"),
        (folder, "not a regular file"),
        (fifo, "not a regular file"),
        (loop, "cannot be opened"),
        (behind_a_file, "cannot be opened"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_a_hint(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "secret"
    make(path)
    found = read_source(from_file(path), {})
    assert isinstance(found, Unavailable)
    assert says in found.detail
    assert str(path) in found.detail
    assert found.hint.endswith(".")
    assert VALUE not in repr(found)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o644, 0o620, 0o601])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    found = read_source(from_file(write_secret(tmp_path / "s", VALUE, mode)), {})
    assert isinstance(found, Unavailable)
    assert f"mode {mode:04o}" in found.detail
    assert "chmod 600" in found.hint


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_the_owner_alone_is_accepted(tmp_path: Path, mode: int) -> None:
    assert read_source(from_file(write_secret(tmp_path / "s", VALUE, mode)), {}) == VALUE


def test_a_path_with_a_null_is_refused() -> None:
    found = read_source(credential(source_kind="file", source="/run/\x00secret"), {})
    assert isinstance(found, Unavailable)
    assert "not valid" in found.detail


def test_the_fingerprint_follows_the_file_that_is_meant(tmp_path: Path) -> None:
    link = tmp_path / "link"
    write_secret(tmp_path / "one", VALUE)
    write_secret(tmp_path / "two", VALUE)
    link.symlink_to("one")
    subject = from_file(link)
    before = fingerprint(subject, {})
    assert before == fingerprint(subject, {})
    (tmp_path / "swap").symlink_to("two")
    os.replace(tmp_path / "swap", link)
    assert fingerprint(subject, {}) not in (before, None)


def test_the_fingerprint_sees_a_change_behind_a_kept_time_and_size(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "s", VALUE)
    info = path.stat()
    before = fingerprint(from_file(path), {})
    path.write_text(NEXT_VALUE[: len(VALUE)])
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    os.chmod(path, 0o400)
    assert fingerprint(from_file(path), {}) != before


@pytest.mark.parametrize("source", ["/nowhere/at/all", "/run/\x00secret"])
def test_there_is_no_fingerprint_of_no_file(source: str) -> None:
    assert fingerprint(credential(source_kind="file", source=source), {}) is None


def test_the_fingerprint_of_a_variable_is_constant() -> None:
    assert fingerprint(credential(), {}) == fingerprint(credential(source="OTHER"), {})


class TestSystemd:
    """systemd.exec(5): a folder of the service's own, named in CREDENTIALS_DIRECTORY."""

    def place(self, tmp_path: Path, mode: int = 0o440, folder: int = 0o700) -> dict[str, str]:
        directory = tmp_path / "callerid.service"
        directory.mkdir()
        write_secret(directory / "tickets", VALUE, mode)
        directory.chmod(folder)
        return {"CREDENTIALS_DIRECTORY": str(directory)}

    def named(self, name: str = "tickets") -> Credential:
        return credential(source_kind="systemd", source=name)

    @pytest.mark.parametrize("mode", [0o400, 0o440, 0o600])
    @pytest.mark.parametrize("folder", [0o500, 0o700, 0o750, 0o550])
    def test_what_systemd_hands_over_is_read(self, tmp_path: Path, mode: int, folder: int) -> None:
        assert read_source(self.named(), self.place(tmp_path, mode, folder)) == VALUE

    @pytest.mark.parametrize("folder", [0o755, 0o711, 0o777, 0o770, 0o704])
    def test_in_a_folder_that_is_open_to_others_the_mode_counts(self, tmp_path: Path, folder: int) -> None:
        found = read_source(self.named(), self.place(tmp_path, 0o440, folder))
        assert isinstance(found, Unavailable)
        assert "open to others" in found.detail

    @pytest.mark.parametrize("mode", [0o444, 0o404, 0o460, 0o450])
    def test_more_than_reading_by_the_group_is_too_much(self, tmp_path: Path, mode: int) -> None:
        found = read_source(self.named(), self.place(tmp_path, mode))
        assert isinstance(found, Unavailable)
        assert "open to others" in found.detail

    @pytest.mark.parametrize("name", ["../tickets", "/etc/passwd", ".", "..", "", "a/b"])
    def test_a_name_is_not_a_path(self, tmp_path: Path, name: str) -> None:
        environ = self.place(tmp_path)
        found = read_source(self.named(name), environ)
        assert isinstance(found, Unavailable)
        assert "not the name" in found.detail
        assert fingerprint(self.named(name), environ) is None

    def test_without_systemd_it_says_what_to_do(self) -> None:
        found = read_source(self.named(), {})
        assert isinstance(found, Unavailable)
        assert "CREDENTIALS_DIRECTORY is not set" in found.detail
        assert "LoadCredential=tickets:" in found.hint

    def test_one_that_the_unit_does_not_load(self, tmp_path: Path) -> None:
        found = read_source(self.named("other"), self.place(tmp_path))
        assert isinstance(found, Unavailable)
        assert "does not exist" in found.detail

    def test_the_same_file_under_file_is_judged_by_its_mode(self, tmp_path: Path) -> None:
        environ = self.place(tmp_path)
        found = read_source(from_file(Path(environ["CREDENTIALS_DIRECTORY"]) / "tickets"), environ)
        assert isinstance(found, Unavailable)
