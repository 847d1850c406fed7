from __future__ import annotations

import os
from pathlib import Path

import pytest

from callerid.credentials.kept import Kept, current, digest, place, read, write

TOKEN = "refresh-token-4711"


def test_what_is_written_is_read_and_is_private(tmp_path: Path) -> None:
    os.umask(0)
    try:
        path = place(tmp_path / "oauth", "files")
        write(path, Kept("origin", TOKEN))
    finally:
        os.umask(0o022)
    assert read(path) == Kept("origin", TOKEN)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [found.name for found in path.parent.iterdir()] == ["files.json"]
    assert TOKEN not in repr(read(path))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"{}",
     b'{"origin":1,"refresh_token":"x"}', b'{"origin":"x","refresh_token":""}', b"\xff", b"[" * 60_000],
)  # fmt: skip
def test_what_cannot_be_read_is_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "files.json"
    path.write_bytes(data)
    assert read(path) is None
    assert current(path, TOKEN) == Kept(digest(TOKEN), TOKEN)


def test_a_half_written_file_of_before_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "files.json.new").write_text("half")
    write(tmp_path / "files.json", Kept("origin", TOKEN))
    assert read(tmp_path / "files.json") == Kept("origin", TOKEN)


def test_it_counts_for_the_source_that_it_began_with_and_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "files.json"
    write(path, Kept(digest("first-of-all"), TOKEN))
    assert current(path, "first-of-all").token == TOKEN
    assert current(path, TOKEN).token == TOKEN
    assert current(path, "another").token == "another"
    assert current(None, "another") == Kept(digest("another"), "another")


def test_a_chain_that_could_not_be_written_goes_on_where_it_can_be(tmp_path: Path) -> None:
    """Or a restart would try the source's own value, which is spent."""
    path, source = tmp_path / "oauth" / "files.json", "first-of-all"
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"files\.json|oauth"):
        write(path, current(path, source).followed_by("second-of-all"))
    held = current(path, "second-of-all")
    assert held == Kept(digest(source), "second-of-all", (digest(source),))
    path.parent.unlink()
    write(path, held.followed_by(TOKEN))
    assert current(path, source).token == TOKEN
    assert current(path, "second-of-all").token == TOKEN


def test_another_source_value_begins_anew_although_one_could_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "oauth" / "files.json"
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"files\.json|oauth"):
        write(path, current(path, "first-of-all").followed_by("second-of-all"))
    assert current(path, "another") == Kept(digest("another"), "another")
