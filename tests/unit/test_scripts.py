"""The finder of a Python and the maker of .venv, against machines that are planted in a folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TOOLS = ("bash", "cat", "dirname", "env", "realpath", "sleep", "sort")
REAL = sys.executable
BASE = sys._base_executable  # type: ignore[attr-defined]
MINOR = sys.version_info.minor
OTHER = next(minor for minor in (13, 14, 12) if minor != MINOR)


class Machine:
    """A PATH with the scripts' tools, and only the Pythons that a test plants; no places besides."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home of it"
        self.bin = folder / "bin of it"
        for place in (self.home, self.bin):
            place.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def plant(self, name: str, text: str, under: Path | None = None) -> Path:
        """Put an executable ``name`` on the PATH, or into ``under``."""
        path = (under or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def env(self, **more: str) -> dict[str, str]:
        return {"PATH": str(self.bin), "HOME": str(self.home), **more}

    def find(self, scripts: Path = SCRIPTS, **more: str) -> str:
        """What the finder chose, empty if nothing."""
        script = 'source "$1/lib/env.sh"; PLACES=(); PROBE_SECONDS=3; ! find_python || echo "$ANSWER"'
        done = run(["bash", "-euo", "pipefail", "-c", script, "-", str(scripts)], self.env(**more))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()


def run(
    command: list[str], env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=110)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


GOOD = f'exec "{REAL}" "$@"'


def claims(version: str, path: str = "/pretended/python") -> str:
    return f'echo "callerid-python {version} {path}"'


BAD = {
    "a shim that fails when run": "echo 'pyenv: command not found' >&2; exit 127",
    "a shim that prints garbage": "echo garbage; echo 'Python 3.13.0'",
    "a shim that hangs": "exec sleep 600",
    "a shim that hangs after half an answer": "printf 'callerid-python 3.13'; exec sleep 600",
    "an old one under a new name": claims("3.11.7"),
    "one that is too new": claims("3.15.0"),
    "a version that only begins well": claims("3.131.0"),
    "an answer without a place": claims("3.13.0", ""),
    "an answer with a relative place": claims("3.13.0", "python"),
    "no answer at all": "exit 0",
    "one without venv and ssl": "echo 'ModuleNotFoundError: venv' >&2; exit 1",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_candidate_that_does_not_answer_well_is_passed_over(machine: Machine, text: str) -> None:
    machine.plant("python3.13", text)
    machine.plant("python3", GOOD)
    assert machine.find() == BASE


def test_a_machine_without_any_python_has_none(machine: Machine) -> None:
    assert machine.find() == ""


@pytest.mark.parametrize(
    ("claimed", "chosen"),
    [
        (["3.12.1", "3.13.0", "3.14.0"], "3.13.0"),
        (["3.12.1", "3.14.0"], "3.14.0"),
        (["3.11.9", "3.12.1"], "3.12.1"),
        (["3.10.0", "3.11.9"], ""),
    ],
    ids=["what was measured", "the newer one else", "the last that will do", "nothing that will do"],
)
def test_the_version_decides_and_not_the_order_on_the_path(
    machine: Machine, claimed: list[str], chosen: str
) -> None:
    for version in claimed:
        machine.plant("python" + version.rpartition(".")[0], claims(version, f"/at/{version}"))
    assert machine.find() == (f"/at/{chosen}" if chosen else "")


def test_the_answer_counts_and_not_the_name(machine: Machine) -> None:
    machine.plant("python3.12", claims("3.13.0", "/at/misnamed"))
    machine.plant("python3.14", claims("3.14.0", "/at/3.14"))
    assert machine.find() == "/at/misnamed"


def test_a_shim_does_not_hide_the_one_behind_it_on_the_path(machine: Machine) -> None:
    machine.plant("python3.13", BAD["a shim that fails when run"])
    behind = machine.home / "further on"
    machine.plant("python3.13", claims("3.13.2", "/at/behind"), behind)
    assert machine.find(PATH=f"{machine.bin}:{behind}") == "/at/behind"


@pytest.mark.parametrize("rooted", [False, True], ids=["in the home", "at PYENV_ROOT"])
def test_pyenv_versions_are_found_newest_first(machine: Machine, rooted: bool) -> None:
    root = machine.home / ("my pyenv" if rooted else ".pyenv")
    machine.plant("python3.13", BAD["a shim that fails when run"])
    machine.plant("python3", claims("3.11.7"))
    for patch in ("3.13.2", "3.13.10", "3.12.11"):
        name = "python" + patch.rpartition(".")[0]
        machine.plant(name, claims(patch, f"/at/{patch}"), root / "versions" / patch / "bin")
    assert machine.find(**({"PYENV_ROOT": str(root)} if rooted else {})) == "/at/3.13.10"


def test_uv_is_asked(machine: Machine) -> None:
    good = machine.plant("python", claims("3.13.5", "/at/of uv"), machine.home / "uv of it")
    machine.plant("uv", f'[[ "$*" == "python find --system 3.13" ]] && echo "{good}"')
    assert machine.find() == "/at/of uv"


def test_a_uv_that_fails_is_nothing(machine: Machine) -> None:
    machine.plant("uv", "echo 'error: no such command'; exit 2")
    machine.plant("python3", GOOD)
    assert machine.find() == BASE


def test_the_scripts_find_themselves_behind_links_and_spaces(machine: Machine, tmp_path: Path) -> None:
    root = tmp_path / "a clone, in fact"
    shutil.copytree(SCRIPTS, root / "scripts")
    (tmp_path / "link").symlink_to(root / "scripts" / "lib")
    command = ["bash", "-c", 'source "$1/env.sh"; echo "$ROOT"', "-", str(tmp_path / "link")]
    said = run(command, machine.env())
    assert said.stdout == f"{root}\n"


# --- making .venv, without a network: the pinned set is empty ---


class Clone:
    """A copy of the scripts with its own requirements, in a folder with a space in its name."""

    def __init__(self, folder: Path, requirements: str = "# nothing is needed\n") -> None:
        self.root = folder / "a clone"
        shutil.copytree(SCRIPTS, self.root / "scripts")
        self.requirements = self.root / "requirements" / "dev.txt"
        self.requirements.parent.mkdir()
        self.requirements.write_text(requirements, encoding="utf-8")
        package = self.root / "addon" / "callerid"
        package.mkdir(parents=True)
        (package / "__main__.py").write_text("import sys\nprint(__file__, sys.argv[1:])\n", encoding="utf-8")
        self.venv = self.root / ".venv"

    def env(self, **more: str) -> dict[str, str]:
        mine = ("CALLERID_", "PIP_")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        return {**plain, "CALLERID_PYTHON": REAL, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, **more}

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        script = str(self.root / "scripts" / command[0])
        return run([script, *command[1:]], self.env(**more), self.root.parent)

    def start(self, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.root / "scripts" / "run")],
            env=self.env(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


MAKING = "callerid: making .venv with Python"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, list[tuple[int, str]]]:
    """A clone whose .venv two scripts wanted at once: what each answered."""
    clone = Clone(tmp_path_factory.mktemp("built"))
    both = [clone.start(), clone.start()]
    said = [process.communicate(timeout=110)[1] for process in both]
    return clone, [(process.returncode, text) for process, text in zip(both, said, strict=True)]


type Built = tuple[Clone, list[tuple[int, str]]]


def test_two_scripts_at_once_make_one_environment(built: Built) -> None:
    assert [code for code, _ in built[1]] == [0, 0], built[1]
    assert sum(MAKING in said for _, said in built[1]) == 1


def test_the_environment_is_used_again_without_a_word(built: Built) -> None:
    done = built[0].run("demo", "--fast", "a b")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{built[0].root}/addon/callerid/__main__.py ['demo', '--fast', 'a b']\n"


def test_the_environment_needs_no_finder_once_it_is_there(built: Built, machine: Machine) -> None:
    done = run([str(built[0].root / "scripts" / "demo")], machine.env())
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_is_in_the_environment(built: Built, tmp_path: Path) -> None:
    (tmp_path / "callerid").symlink_to(built[0].venv / "bin" / "callerid")
    done = run([str(tmp_path / "callerid"), "tokens"], built[0].env())
    assert done.stdout == f"{built[0].root}/addon/callerid/__main__.py ['tokens']\n"


def test_a_module_in_the_working_folder_does_not_shadow_the_library(built: Built, tmp_path: Path) -> None:
    (tmp_path / "runpy.py").write_text("raise SystemExit('shadowed')", encoding="utf-8")
    for script in ("scripts/run", "scripts/demo", ".venv/bin/callerid"):
        done = run([str(built[0].root / script)], built[0].env(), tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), script


def test_run_keeps_its_state_beside_the_scripts_wherever_it_is_called(built: Built, tmp_path: Path) -> None:
    root = built[0].root
    main = root / "addon" / "callerid" / "__main__.py"
    before = main.read_text(encoding="utf-8")
    names = ("CALLERID_HOME", "CALLERID_RULES")
    main.write_text(f"import os\nprint([os.environ[n] for n in {names}], os.getcwd())\n", encoding="utf-8")
    try:
        plain = run([str(root / "scripts" / "run")], built[0].env(), tmp_path).stdout
        named = run([str(root / "scripts" / "run")], built[0].env(CALLERID_RULES="mine"), tmp_path).stdout
    finally:
        main.write_text(before, encoding="utf-8")
    assert plain == f"['{root}/.callerid', '{root}/rules'] {tmp_path}\n"
    assert named == f"['{root}/.callerid', 'mine'] {tmp_path}\n"


def ready(clone: Clone) -> bool:
    done = run(["bash", "-c", 'source "$1/scripts/lib/env.sh"; env_ready', "-", str(clone.root)], clone.env())
    return done.returncode == 0


@pytest.fixture
def spare(built: Built, tmp_path: Path) -> Iterator[Clone]:
    """The built clone, given back as it was; ``env_ready`` is true of it."""
    clone = built[0]
    shutil.copy(clone.venv / "callerid-stamp", tmp_path)
    shutil.copy(clone.requirements, tmp_path)
    assert ready(clone)
    yield clone
    shutil.copy(tmp_path / "callerid-stamp", clone.venv)
    shutil.copy(tmp_path / "dev.txt", clone.requirements)


def test_no_stamp_means_half_made(spare: Clone) -> None:
    (spare.venv / "callerid-stamp").unlink()
    assert not ready(spare)


def test_other_requirements_make_it_old(spare: Clone) -> None:
    spare.requirements.write_text("# another set\n", encoding="utf-8")
    assert not ready(spare)


def test_a_moved_clone_is_not_ready(spare: Clone) -> None:
    moved = spare.root.with_name("moved")
    spare.root.rename(moved)
    try:
        script = 'source "$1/scripts/lib/env.sh"; env_ready'
        assert run(["bash", "-c", script, "-", str(moved)], spare.env()).returncode == 1
    finally:
        moved.rename(spare.root)


def test_a_python_that_is_gone_makes_it_old(spare: Clone) -> None:
    python = spare.venv / "bin" / "python"
    python.rename(python.with_name("away"))
    try:
        python.symlink_to("/nowhere/python3")
        assert not ready(spare)
    finally:
        python.unlink()
        python.with_name("away").rename(python)


def test_an_environment_is_not_made_with_itself(spare: Clone) -> None:
    (spare.venv / "callerid-stamp").unlink()
    (spare.venv / "half made").touch()
    done = spare.run("demo", CALLERID_PYTHON=str(spare.venv / "bin" / "python"))
    assert done.returncode == 0, done.stderr
    assert not (spare.venv / "half made").exists()


# --- when it cannot be made ---


@pytest.mark.parametrize("name", ["demo", "run", "test", "check"])
def test_without_a_python_one_sentence_says_what_to_install(
    machine: Machine, tmp_path: Path, name: str
) -> None:
    clone = Clone(tmp_path)
    lib = clone.root / "scripts" / "lib" / "env.sh"
    text = re.sub(r"PLACES=\(.*?\)\n", "PLACES=()\n", lib.read_text(encoding="utf-8"), flags=re.DOTALL)
    lib.write_text(text, encoding="utf-8")
    machine.plant("python3", claims("3.11.7"))
    done = run([str(clone.root / "scripts" / name)], machine.env())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("callerid: no Python 3.12, 3.13 or 3.14 ")
    assert "install Python 3.13" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not clone.venv.exists()


def test_a_python_that_was_named_is_not_replaced_by_another(machine: Machine, tmp_path: Path) -> None:
    bad = machine.plant("python3.13", claims("3.11.7"))
    machine.plant("python3", GOOD)
    done = run([str(Clone(tmp_path).root / "scripts" / "demo")], machine.env(CALLERID_PYTHON=str(bad)))
    assert done.returncode == 1
    assert f"CALLERID_PYTHON ({bad})" in done.stderr


def test_another_python_that_is_named_makes_another_environment(spare: Clone, machine: Machine) -> None:
    other = machine.plant("python", claims(f"3.{OTHER}.0", str(machine.bin / "builder")))
    machine.plant("builder", "echo asked to build; exit 3")
    done = spare.run("demo", CALLERID_PYTHON=str(other))
    assert (done.returncode, done.stdout) == (3, "asked to build\n")


def test_packages_that_cannot_be_fetched_are_said_so_and_nothing_counts_as_made(tmp_path: Path) -> None:
    clone = Clone(tmp_path, f"colorama==0.4.6 --hash=sha256:{'0' * 64}\n")
    done = clone.run("demo")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No matching distribution found for colorama==0.4.6" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("callerid: the packages could not be fetched: ")
    assert not (clone.venv / "callerid-stamp").exists()


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    clone.venv.mkdir()
    (clone.venv / "diary.txt").write_text("mine", encoding="utf-8")
    done = clone.run("demo")
    assert done.returncode == 1
    assert "is not a virtual environment" in done.stderr
    assert (clone.venv / "diary.txt").exists()


def test_an_environment_that_was_half_cleared_is_still_known_for_one(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    (clone.venv / "lib").mkdir(parents=True)
    (clone.venv / "pyvenv.cfg").touch()
    script = """if True:
        import pathlib, shutil, sys
        sys.path.insert(0, sys.argv[1])
        import make_env
        def stop(path): raise KeyboardInterrupt
        shutil.rmtree = stop
        make_env.clear(pathlib.Path(sys.argv[2]))
    """
    lib = clone.root / "scripts" / "lib"
    assert run([REAL, "-c", script, str(lib), str(clone.venv)], clone.env()).returncode != 0
    assert (clone.venv / "pyvenv.cfg").exists()


def test_a_build_that_was_killed_is_made_anew(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    first = clone.start()
    assert first.stderr is not None
    assert MAKING in first.stderr.readline()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=110)
    assert not (clone.venv / "callerid-stamp").exists()
    if clone.venv.exists() and any(clone.venv.iterdir()):  # killed between mkdir and its sign, it is empty
        assert (clone.venv / "pyvenv.cfg").exists()
    (clone.venv / "bin").mkdir(parents=True, exist_ok=True)
    (clone.venv / "pyvenv.cfg").touch()
    (clone.venv / "bin" / "half made").touch()
    done = clone.run("demo")
    assert done.returncode == 0
    assert MAKING in done.stderr
    assert not (clone.venv / "bin" / "half made").exists()
