"""The house as a test (docs of the laws: one direction of imports, one home for each danger, small pieces).

Every rule is a function from a tree of sources to what is wrong with it, so that each can be shown a planted
fault: a rule that finds nothing anywhere is no rule.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

ADDON = Path(__file__).resolve().parent.parent / "addon"

type Tree = Mapping[str, str]
"""Path below addon/, with slashes -> source text."""
type Rule = Callable[[Tree], list[str]]

BASE = frozenset({"reasons", "model", "errors", "config", "home", "trust"})
ROOMS = frozenset({"mcp", "identity", "policy", "credentials", "audit"})
ALLOWED: Mapping[str, frozenset[str]] = {
    "__init__": frozenset(),
    "reasons": frozenset(),
    "model": frozenset({"reasons"}),
    "errors": frozenset(),
    "config": frozenset({"model", "errors"}),
    "home": frozenset({"model", "errors", "config"}),
    "trust": frozenset({"errors"}),
    **dict.fromkeys(ROOMS, BASE),
    "proxy": BASE | ROOMS,
    "cli": BASE | ROOMS | {"proxy"},
    "__main__": frozenset({"cli"}),
    "entry": frozenset({"proxy"}),
}
"""Who may import whom. A room may always import itself, and callerid.__version__ is everybody's."""

SQLITE = ("callerid/audit/", "callerid/identity/storage.py")
CLOCK = (
    "callerid/cli/",  # a command reads the clock once and hands it on
    "callerid/proxy/addon.py",
    "callerid/proxy/answering.py",
    "callerid/proxy/keeping.py",
    "callerid/proxy/runtime.py",
    "callerid/proxy/serve.py",
    "callerid/proxy/shut.py",
)
CHANCE = ("callerid/cli/", "callerid/proxy/keeping.py", "callerid/proxy/runtime.py")
HOMES: Mapping[str, tuple[str, ...]] = {
    "mitmproxy": ("callerid/proxy/",),
    "mitmproxy_rs": ("callerid/proxy/",),
    "sqlite3": SQLITE,
    "sqlite_utils": SQLITE,
    "jwt": ("callerid/identity/jwt.py",),
    "yaml": ("callerid/policy/strictyaml.py",),
    # Backtracking on what a caller sends stops the proxy: caller data meets google-re2 or string code.
    "re": (
        "callerid/cli/",  # arguments of the operator
        "callerid/policy/places.py",  # addresses, bindings and pointers in rule files
        "callerid/policy/problems.py",  # lines of a rule file, to quote them
        "callerid/policy/secretlike.py",  # values in rule files that look like secrets
        "callerid/policy/strictyaml.py",  # scalars of rule files
    ),
    "time.time": CLOCK,
    "time.time_ns": CLOCK,
    "datetime.datetime.now": CLOCK,
    "datetime.datetime.utcnow": CLOCK,
    "datetime.datetime.today": CLOCK,
    "datetime.date.today": CLOCK,
    "random": CHANCE,
    "secrets": CHANCE,
    "os.urandom": CHANCE,
    "os.getrandom": CHANCE,
    "uuid.uuid1": CHANCE,
    "uuid.uuid4": CHANCE,
    "uuid.uuid7": CHANCE,
    # What a table of imports cannot see through.
    "importlib.import_module": (
        "callerid/cli/main.py",  # a command loads only its own module
        "callerid/credentials/sources/lazy.py",  # libraries that are extras
    ),
    "builtins.__import__": (),
    "builtins.eval": (),
    "builtins.exec": (),
    "pickle": (),
    "marshal": (),
}
"""Dotted name -> the only modules (or folders, with a slash at the end) that may speak of it."""

MAX_FILE, MAX_FUNCTION = 400, 60


def sources() -> Tree:
    paths = [*ADDON.glob("*.py"), *(ADDON / "callerid").rglob("*.py")]
    return {path.relative_to(ADDON).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def room_of(path: str) -> str:
    """``callerid/mcp/sse.py`` -> ``mcp``; ``callerid/model.py`` -> ``model``; ``entry.py`` -> ``entry``."""
    parts = path.removesuffix(".py").split("/")
    return parts[1] if parts[0] == "callerid" else parts[0]


def imported(path: str, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """(local name, dotted name) of each thing that an import statement brings in; relative ones resolved."""
    if isinstance(node, ast.Import):
        for item in node.names:
            yield item.asname or item.name.split(".")[0], item.name
        return
    package = path.split("/")[: -node.level] if node.level else []
    stem = ".".join([*package, *([node.module] if node.module else [])])
    for item in node.names:
        yield item.asname or item.name, f"{stem}.{item.name}"


def dotted(node: ast.AST, known: Mapping[str, str]) -> str:
    """``t.time`` with ``import time as t`` -> ``time.time``; empty if it is not a chain of names."""
    tail: list[str] = []
    while isinstance(node, ast.Attribute):
        tail.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    head = known.get(node.id, f"builtins.{node.id}")
    return ".".join([head, *reversed(tail)])


def mentions(path: str, text: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a module imports or reaches through what it imported."""
    tree = ast.parse(text, path)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for local, name in imported(path, node):
                plain = isinstance(node, ast.Import) and local == name.split(".")[0]
                known[local] = local if plain else name
                yield node.lineno, name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            name = dotted(node, known)
            if name:
                yield node.lineno, name


def within(path: str, homes: tuple[str, ...]) -> bool:
    return any(path.startswith(home) if home.endswith("/") else path == home for home in homes)


def speaks_of(name: str, danger: str) -> bool:
    return name == danger or name.startswith(f"{danger}.")


def direction(tree: Tree) -> list[str]:
    """Imports go one way: base < rooms < proxy < cli < entry, and rooms do not know each other."""
    faults = []
    for path, text in tree.items():
        room = room_of(path)
        if room not in ALLOWED:
            faults.append(f"{path}: {room} has no place in the table of rooms")
            continue
        for node in ast.walk(ast.parse(text, path)):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for _, name in imported(path, node):
                parts = name.split(".")
                if parts[0] != "callerid" or parts[1:] == ["__version__"]:
                    continue
                target = parts[1] if len(parts) > 1 else "callerid"
                if target != room and target not in ALLOWED[room]:
                    faults.append(f"{path}:{node.lineno}: {room} may not import {target}")
    return faults


def one_home(tree: Tree) -> list[str]:
    """Each danger is spoken of in its home only."""
    found = {
        f"{path}:{line}: {danger} has its home in {', '.join(homes) or 'no module'}"
        for path, text in tree.items()
        for line, name in mentions(path, text)
        for danger, homes in HOMES.items()
        if speaks_of(name, danger) and not within(path, homes)
    }
    return sorted(found)


def no_star(tree: Tree) -> list[str]:
    """``import *`` hides what is used."""
    names = ((path, line, name) for path, text in tree.items() for line, name in mentions(path, text))
    return [f"{path}:{line}: {name}" for path, line, name in names if name.endswith("*")]


def one_reveal(tree: Tree) -> list[str]:
    """The value of a secret is asked for once, in credentials/inject.py."""
    sites = [
        f"{path}:{node.lineno}: .reveal"
        for path, text in tree.items()
        for node in ast.walk(ast.parse(text, path))
        if (isinstance(node, ast.Attribute) and node.attr == "reveal")
        or (isinstance(node, ast.Constant) and node.value == "reveal")
    ]
    home = "callerid/credentials/inject.py"
    right = [site for site in sites if site.startswith(f"{home}:")]
    wrong = [site for site in sites if site not in right]
    if len(right) > 1 or (home in tree and not right):
        wrong.append(f"{home}: {len(right)} call sites of .reveal, and it must be one")
    return wrong


def no_assert(tree: Tree) -> list[str]:
    """``assert`` vanishes under -O."""
    return [
        f"{path}:{node.lineno}: assert"
        for path, text in tree.items()
        for node in ast.walk(ast.parse(text, path))
        if isinstance(node, ast.Assert)
    ]


def imports_on_top(tree: Tree) -> list[str]:
    """mitmproxy restores sys.path once entry.py is loaded: a later import fails in a bare clone."""
    return [
        f"{path}:{inner.lineno}: import inside {node.name}"
        for path, text in tree.items()
        for node in ast.walk(ast.parse(text, path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]


def small_files(tree: Tree) -> list[str]:
    """A file over 400 lines is asking to be two."""
    lengths = {path: len(text.splitlines()) for path, text in tree.items()}
    return [f"{path}: {length} lines" for path, length in lengths.items() if length > MAX_FILE]


def small_functions(tree: Tree) -> list[str]:
    """A function over 60 lines is asking to be two."""
    return [
        f"{path}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path, text in tree.items()
        for node in ast.walk(ast.parse(text, path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION
    ]


RULES: list[Rule] = [
    direction,
    one_home,
    no_star,
    one_reveal,
    no_assert,
    imports_on_top,
    small_files,
    small_functions,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    assert rule(sources()) == []


INJECT = {"callerid/credentials/inject.py": "x = secret.reveal()\n"}
PLANTED: list[tuple[str, Rule, str, str, str]] = [
    # sentence, the rule, where and what is planted, and what the fault must say
    ("a room imports its sibling", direction, "mcp/a.py", "from callerid.policy import x", "policy"),
    ("a room imports a sibling by name", direction, "mcp/a.py", "from callerid import audit", "audit"),
    ("a room imports the proxy", direction, "audit/a.py", "import callerid.proxy.door as d", "proxy"),
    ("a relative import leaves its room", direction, "mcp/a.py", "from ..identity import x", "identity"),
    ("a relative import names a sibling", direction, "mcp/a.py", "from .. import identity", "identity"),
    ("the proxy imports a command", direction, "proxy/a.py", "from callerid.cli.main import m", "cli"),
    ("the nouns import a room", direction, "model.py", "from callerid.mcp.sse import x", "mcp"),
    ("the nouns import the exceptions", direction, "model.py", "import callerid.errors", "errors"),
    ("entry goes round the proxy", direction, "../entry.py", "from callerid.policy import x", "policy"),
    ("an import under a condition", direction, "mcp/a.py", "if 1:\n import callerid.audit", "audit"),
    ("a new room without a place", direction, "misc/a.py", "", "misc"),
    ("mitmproxy in a room", one_home, "mcp/a.py", "from mitmproxy import http", "mitmproxy"),
    ("mitmproxy in entry", one_home, "../entry.py", "import mitmproxy.http", "mitmproxy"),
    ("SQLite in the proxy", one_home, "proxy/a.py", "import sqlite3 as s", "sqlite3"),
    ("SQLite elsewhere in identity", one_home, "identity/a.py", "import sqlite3", "sqlite3"),
    ("PyJWT elsewhere in identity", one_home, "identity/a.py", "import jwt", "jwt"),
    ("PyYAML in a command", one_home, "cli/a.py", "from yaml import load", "yaml"),
    ("re in the wire", one_home, "mcp/a.py", "import re", "re has"),
    ("the clock in a room", one_home, "policy/a.py", "import time as t\nt.time()", "a.py:2: time.time"),
    ("the clock by its bare name", one_home, "policy/a.py", "from time import time_ns", "time_ns"),
    ("the clock as a default", one_home, "mcp/a.py", "import time\ndef f(c=time.time): ...", "time.time"),
    ("today in a room", one_home, "audit/a.py", "from datetime import date as d\nd.today()", "date.today"),
    ("now in a room", one_home, "audit/a.py", "import datetime\ndatetime.datetime.now()", "datetime.now"),
    ("chance in a room", one_home, "identity/a.py", "import secrets", "secrets"),
    ("chance from the system", one_home, "identity/a.py", "import os\nos.urandom(8)", "os.urandom"),
    ("an import by name", one_home, "mcp/a.py", "import importlib as i\ni.import_module('x')", "import_mod"),
    ("an import by the builtin", one_home, "mcp/a.py", "__import__('sqlite3')", "__import__"),
    ("eval", one_home, "policy/a.py", "eval('1')", "eval"),
    ("a star", no_star, "mcp/a.py", "from time import *", "time.*"),
    ("a second reveal", one_reveal, "proxy/a.py", "secret.reveal()", "proxy/a.py:1"),
    ("reveal handed on uncalled", one_reveal, "cli/a.py", "f(secret.reveal)", "cli/a.py:1"),
    ("reveal by its name", one_reveal, "cli/a.py", "getattr(s, 'reveal')", "cli/a.py:1"),
    ("two reveals at home", one_reveal, "credentials/inject.py", "s.reveal()\ns.reveal()", "2 call sites"),
    ("no reveal at home", one_reveal, "credentials/inject.py", "pass", "0 call sites"),
    ("an assert", no_assert, "mcp/a.py", "def f():\n assert True", "a.py:2"),
    ("an import inside a function", imports_on_top, "mcp/a.py", "async def f():\n if 1:\n  import os", "f"),
    ("an import inside a method", imports_on_top, "a.py", "class A:\n def m(self):\n  import os", "m"),
    ("a long file", small_files, "mcp/a.py", "x = 1\n" * 401, "401 lines"),
    ("a long function", small_functions, "mcp/a.py", "def f():\n" + " x = 1\n" * 60, "61 lines"),
]


@pytest.mark.parametrize(
    ("rule", "path", "text", "said"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED]
)
def test_a_planted_fault_is_found(rule: Rule, path: str, text: str, said: str) -> None:
    faults = rule({**INJECT, f"callerid/{path}".replace("callerid/../", ""): text})
    assert faults
    assert all(said in fault for fault in faults), faults


INNOCENT: Tree = {
    "entry.py": "from callerid.proxy.addon import A",
    "callerid/__main__.py": "from callerid.cli.main import main",
    "callerid/mcp/a.py": """from __future__ import annotations
import re2, time, datetime
from callerid import __version__
from callerid.model import M
from . import b
from .b import c
time.monotonic()
def now(time): return time.time
x = datetime.datetime.fromtimestamp(0)
""",
    "callerid/proxy/addon.py": "import mitmproxy, time\nfrom callerid.audit import w\ntime.time()",
    "callerid/identity/storage.py": "import sqlite3",
    "callerid/cli/main.py": "from callerid.proxy import s\nimport importlib as i\ni.import_module('x')",
    **INJECT,
}


@pytest.mark.parametrize("rule", [r for r in RULES if r is not one_home], ids=lambda rule: rule.__name__)
def test_innocent_code_is_left_alone(rule: Rule) -> None:
    assert rule(INNOCENT) == []


def test_innocent_code_speaks_of_dangers_at_home_only() -> None:
    # An argument that shadows a module is taken for the module: the rule errs on the safe side.
    assert [fault.split(": ")[0] for fault in one_home(INNOCENT)] == ["callerid/mcp/a.py:8"]


def test_no_exception_outlives_its_need() -> None:
    """A module in the table of homes that no longer speaks of the danger loses its leave."""
    tree = sources()
    spoken = {path: {name for _, name in mentions(path, text)} for path, text in tree.items()}
    dangers: dict[tuple[str, ...], list[str]] = {}
    for danger, homes in HOMES.items():
        dangers.setdefault(homes, []).append(danger)
    stale = [
        f"{home}: {names}"
        for homes, names in dangers.items()
        for home in homes
        if home in tree and not any(speaks_of(said, danger) for said in spoken[home] for danger in names)
    ]
    assert stale == []


def test_the_rooms_import_without_mitmproxy() -> None:
    """The proof by running: a decision can be explained or replayed where no proxy is installed."""
    rooms = sorted(room for room in ROOMS if (ADDON / "callerid" / room).is_dir())
    script = (
        "import importlib, pkgutil, sys\n"
        "sys.modules['mitmproxy'] = None\n"
        f"for room in {rooms}:\n"
        "    package = importlib.import_module('callerid.' + room)\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ADDON)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
