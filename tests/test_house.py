"""What the repository promises: its rooms, scripts and pinned requirements, and nothing private in it."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
LOCKS = ("runtime", "extras", "dev")

FURNITURE = (
    "pyproject.toml",
    "CHANGELOG.md",
    ".ci/run",
    "addon/entry.py",
    "addon/callerid/model.py",
    "addon/callerid/errors.py",
    *(f"addon/callerid/{room}" for room in ("mcp", "identity", "policy", "credentials", "audit")),
    "addon/callerid/proxy",
    "addon/callerid/cli",
    *(f"rules/{name}.yaml" for name in ("identities", "servers", "credentials", "policy")),
    "rules/schema",
    *(f"tests/{tier}" for tier in ("unit", "properties", "hooks", "e2e")),
    "scripts/demo",
    "scripts/run",
    "scripts/test",
    "scripts/check",
    "docs",
)
"""Files, and folders with at least one file in them."""


def house_files() -> list[Path]:
    """What git tracks or would track; in an export without git, what a fresh one holds."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        private = {".venv", ".node", ".git", ".callerid", "__pycache__", ".hypothesis"}
        found = [path for path in ROOT.rglob("*") if not private & set(path.relative_to(ROOT).parts)]
        found = [path for path in found if not any(part.endswith("_cache") for part in path.parts)]
    else:
        found = [ROOT / name for name in listed.split("\0") if name]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


# --- rooms ---


@pytest.mark.parametrize("place", FURNITURE)
def test_a_room_of_the_design_is_there(place: str) -> None:
    path = ROOT / place
    lived_in = any(inner.is_file() for inner in path.rglob("*")) if path.is_dir() else path.is_file()
    if not lived_in:
        pytest.fail(f"{place} is missing or empty")


def test_the_top_level_is_as_agreed() -> None:
    agreed = {"pyproject.toml", "README.md", "CHANGELOG.md", ".gitignore", ".ci"}
    agreed |= {"addon", "rules", "tests", "scripts", "docs", "requirements"}
    assert {path.relative_to(ROOT).parts[0] for path in house_files()} <= agreed


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()


# --- nothing private ---

# A letter in brackets, so that this file does not find itself.
MACHINE = r"(?<![\w.*-])/(?:roo[t]/|wor[k]/(?:main|shared|\.)|opt/(?:pyp[i]|wheel[s]))|bash_job[s]"
REGISTRY = r"pypi[.]org|pythonhosted[.]org|npmjs[.](?:org|com)|debian[.]org"
SECRET = "|".join(
    [
        "-----BEGIN [A-Z ]*PRIVATE KE[Y]-----",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
        r"\bgithub_pat_[A-Za-z0-9_]{40,}",
        r"\bxox[abprs]-[A-Za-z0-9-]{20,}",
        r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}",
        r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}",
    ]
)
LEAKS = {"a path of one machine": MACHINE, "a registry's host": REGISTRY, "what looks like a secret": SECRET}


def leaks(text: str) -> list[str]:
    return [f"{what}: {found[0][:60]}" for what, shape in LEAKS.items() if (found := re.search(shape, text))]


def test_nothing_private_is_in_the_house() -> None:
    found = []
    files = house_files()
    assert Path(__file__).resolve() in files
    for path in files:
        said = leaks(path.read_text(encoding="utf-8", errors="replace"))
        found += [f"{path.relative_to(ROOT)}: {leak}" for leak in said]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "open('/ro" + "ot/.ssh/config')",
        "see /wo" + "rk/main",
        "https://py" + "pi.org/simple",
        "https://files.python" + "hosted.org/x",
        "-----BEGIN RSA PRIVATE " + "KEY-----",
        "AKIA" + "A1B2" * 4,
        "ghp_" + "a1B2" * 9,
        "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + "." + "c" * 30,
    ],
)
def test_a_planted_leak_is_found(text: str) -> None:
    assert leaks(text)


# --- scripts ---


def scripts() -> list[Path]:
    return sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix == "")


def test_there_are_scripts() -> None:
    assert {"demo", "run", "test", "check", "lock"} <= {path.name for path in scripts()}


@pytest.mark.parametrize("path", [*scripts(), ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_a_script_can_be_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_mode & stat.S_IXUSR, "not executable"
    assert text.startswith("#!/usr/bin/env bash\n# "), "the first lines say how it is run and what it does"
    assert re.search(r"^set -e?uo pipefail$", text, re.MULTILINE)
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_a_script_is_named_in_the_documentation(path: Path) -> None:
    if not README.exists():
        pytest.skip("there is no README yet")
    pages = [README, *(ROOT / "docs").rglob("*.md")]
    assert any(f"scripts/{path.name}" in page.read_text(encoding="utf-8") for page in pages)


def test_ci_does_what_the_readme_names() -> None:
    called = re.findall(r"^(scripts/\w+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert called == [f"scripts/{verb}" for verb in ("node", "openbao", "check", "test", "conformance")]
    if README.exists():
        text = README.read_text(encoding="utf-8")
        assert [script for script in called if script not in text] == []


# --- requirements ---


def lock(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Package -> (``==version ; marker``, hashes)."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    pins: dict[str, tuple[str, frozenset[str]]] = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            pin, *hashes = line.split("--hash=")
            match = re.fullmatch(r"([a-z0-9-]+)(==[^ ;]+(?: ; .+)?)", pin.strip())
            assert match, f"not a pinned package: {line[:80]}"
            pins[match[1]] = (match[2], frozenset(part.strip() for part in hashes))
    return pins


def floors(name: str) -> list[Requirement]:
    """The lines of an ``.in`` file, without the file that it includes."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r "))]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_everything_by_hash(name: str) -> None:
    pins = lock(name)
    assert len(pins) > 50
    bare = [package for package, (_, hashes) in pins.items() if not hashes]
    every = {item for _, hashes in pins.values() for item in hashes}
    odd = [item for item in every if not re.fullmatch(r"sha256:[0-9a-f]{64}", item)]
    assert (bare, odd) == ([], [])


def test_production_runs_what_was_tested() -> None:
    tested = lock("dev")
    for name in ("runtime", "extras"):
        assert {package: pin for package, pin in lock(name).items() if tested.get(package) != pin} == {}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_answers_its_floors(name: str) -> None:
    pins = lock(name)
    floor = [item for file in LOCKS[: LOCKS.index(name) + 1] for item in floors(file)]
    short = [
        str(item)
        for item in floor
        if not item.specifier.contains(pins[item.name.lower()][0].split(" ;")[0].removeprefix("=="))
    ]
    assert short == []


def test_the_package_asks_for_what_the_lock_was_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {item.name: item for item in map(Requirement, project["dependencies"])}
    made = {item.name: item for item in floors("runtime")}
    pinned = made.pop("mitmproxy")
    assert asked.pop("mitmproxy").specifier.contains(str(pinned.specifier).removeprefix("=="))
    assert {str(item) for item in asked.values()} == {str(item) for item in made.values()}
    extras = project["optional-dependencies"]
    demo = {str(Requirement(item)) for item in extras.pop("demo")}
    assert demo <= {str(item) for item in floors("dev")}
    wanted = {str(Requirement(item)) for items in extras.values() for item in items}
    assert wanted == {str(item) for item in floors("extras")}


# --- the command and the wheel ---


def test_the_package_is_a_command() -> None:
    if not (ROOT / "addon" / "callerid" / "__main__.py").exists():
        pytest.fail("python -m callerid is missing")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "callerid", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "addon")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: scripts/test has it")
    if not README.exists():
        pytest.skip("there is no README yet, and the wheel carries it")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    stray = [name for name in names if not re.match(r"callerid/|callerid-[^/]+\.dist-info/", name)]
    modules = (ROOT / "addon" / "callerid").rglob("*.py")
    package = {path.relative_to(ROOT / "addon").as_posix() for path in modules}
    assert (stray, package - set(names)) == ([], set())
