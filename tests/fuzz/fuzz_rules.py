"""Rule files: any text is a policy that says what the text says, or a ConfigError that says where it fails.

A case is the text of policy.yaml, or of the file that its first line, a comment, names.
"""

from __future__ import annotations

import atexit
import random
import re
import tempfile
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from callerid.errors import ConfigError
from callerid.model import Kind, Verdict
from callerid.policy.load import RuleSet, load_rules
from tests.fuzz import rulebook
from tests.fuzz.mutations import damaged

SCALARS = [
    "no", "Yes", "on", "off", "y", "TRUE", "True", "~", "null", "Null", "", "''", '""', "0", "-0", "01",
    "0x10", "0o7", "1_000", "+5", ".5", "5.", "1e3", "1.0", "1:30", ".inf", ".nan", "2026-01-01",
    "12345678901234567890", "9007199254740993", "9007199254740993.0", "0.1", "-1", "*a", "&a x", "!!str 7",
    "!x y", "<<", "=", "-", "?", "%", "@", "|", ">", "|-\n      x", "{}", "[]", "[x]", "{a: b}", "x: y",
    "'x", '"x', '"\\x78"', "'a''b'", "a #b", "a#b", "\u00a0", "deny", "allow", "require", "Deny", "approve",
    "monitor", "enforce", "anyone", "group:red", "group:Red", "user:x", "agent:helper", "label:env=prod",
    "label:env=", "files", "Files", "set:reads", "set:Reads", "class:read", "tool:*", "resource:*",
    "prompt:*", "method:x", "*", "[!a]*", "[a", "a]", "[z-a]", "read_\u0131", "read_*\u200b", "integer",
    "'08:00'", "08:00", "'24:00'", "'25:00'", "idp", "Idp", "UTC", "Europe/Zurich", "../UTC", "x" * 600,
    "\ud7ff", "\x00",
]  # fmt: skip
KEYS = [
    "id", "effect", "who", "Who", "servers", "server", "tools", "tool", "except_tools", "except-tools",
    "exceptTools", "args", "arg", "mode", "Mode", "hours", "assurance", "agent", "reason", "eq", "in", "ge",
    "le", "Le", "under", "optional", "negate", "not", "type", "glob", "regex", "max_length", "limit",
    "when", "class", "rules", "sets", "unknown_server", "anonymous", "on", "'id'", '"effect"', "? id",
    "effect ", "ef fect", "effect\u200b", "effe\u0441t", "1", "~", "true", "[a]", "{a: b}", "*a", "&a id",
    "!!str id", "<<", "version", "a" * 70, "'tools'", "\t tools",
]  # fmt: skip
NUMERIC = [
    "7", "16", "0x10", "0o20", "1e3", "+7", "7.0", "007", ".5", "1_6", "12345678901234567890", "'7'", "-1",
    "100",
]  # fmt: skip
PIECES = [
    piece.encode()
    for piece in (*"\n\t :-,[]{}#&*!|>'\"%@`?~", "\n---\n", "\n...\n", "%YAML 1.1\n", "\r", "\ufeff", "\x85")
]


@st.composite
def cases(draw: st.DrawFn) -> bytes:
    """One of the four files with up to three things changed: a key, a value, a line, an indent, any bytes."""
    rng = random.Random(draw(st.integers(0, 2**48)))
    name = rng.choice([*["policy.yaml"] * 6, *rulebook.FILES])
    text = rulebook.FILES[name]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        text = changed(rng, text)
    mark = "" if name == "policy.yaml" else f"# {name}\n"
    raw = (mark + text).encode("utf-8", "surrogatepass")
    return damaged(rng, raw, PIECES) if rng.random() < 0.1 else raw


def changed(rng: random.Random, text: str) -> str:
    """The text with one thing changed."""
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines)) if lines else 0
    what = rng.randrange(7)
    if what == 0:
        keys = list(re.finditer(r"[A-Za-z_]+(?=:)", text))
        return _put(rng, text, keys, KEYS)
    if what <= 2:
        scalars = list(re.finditer(r"(?<=[:,\[] )[^\s,\[\]{}]+|(?<=[\[])[^\s,\[\]{}]+", text))
        return _put(rng, text, scalars, SCALARS)
    if what == 3:
        return "".join(lines[:at] + lines[at + 1 :])
    if what == 4:
        other = rng.randrange(len(lines)) if lines else 0
        return "".join(lines[:other] + lines[at : at + rng.randint(1, 3)] + lines[other:])
    if what == 5 and lines:
        bare = lines[at].lstrip(" ")
        lines[at] = " " * max(0, len(lines[at]) - len(bare) + rng.choice([-2, -1, 1, 2, 4])) + bare
        return "".join(lines)
    return text.replace(
        rng.choice(["\n", '"', ": ", ", ", "  "]), rng.choice(["\r\n", "'", ":", ",", "\t", "\r", "   "]), 1
    )


def _put(rng: random.Random, text: str, found: list[re.Match[str]], others: list[str]) -> str:
    if not found:
        return text
    spot = rng.choice(found)
    word = spot.group()
    near = [
        word.upper(),
        word[:-1],
        word + "s",
        word.replace("_", "-"),
        f"'{word}'",
        f'"{word}"',
        word + " #",
    ]
    mild = NUMERIC if word.isdigit() else [one.group() for one in found if not one.group().isdigit()]
    return (
        text[: spot.start()]
        + rng.choice([rng.choice(others), rng.choice(near), rng.choice(mild)])
        + text[spot.end() :]
    )


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    made = tempfile.TemporaryDirectory(prefix="callerid-fuzz-")
    atexit.register(made.cleanup)
    return made


def load(data: bytes) -> RuleSet | ConfigError:
    """The four files with one of them replaced, as the product loads them."""
    first = data[:40].split(b"\n")[0].removeprefix(b"# ").decode("ascii", "replace")
    target = first if first in rulebook.FILES else "policy.yaml"
    folder = Path(_folder().name)
    for name, text in rulebook.FILES.items():
        (folder / name).write_bytes(data if name == target else text.encode())
    try:
        return load_rules(folder)
    except ConfigError as error:
        return error


def check(data: bytes) -> None:
    """A ConfigError with places, or a policy that grants nothing that the text does not grant."""
    loaded = load(data)
    if isinstance(loaded, ConfigError):
        assert loaded.problems
        told = str(loaded)
        assert all(problem.message and problem.line >= 0 for problem in loaded.problems)
        assert told.replace("\n", "").isprintable()
        return
    text = data.decode("utf-8-sig")
    said = rulebook.say(text)
    if text.startswith("# "):
        return
    assert rulebook.flaws(said) == []
    assert len(said["rules"]) == len(loaded.engine.rules)
    assert len({rule["id"] for rule in said["rules"]}) == len(said["rules"])
    for who in rulebook.CALLERS:
        for server, tool, arguments in rulebook.CALLS:
            decision = loaded.engine.decide(
                caller=who, server=rulebook.SERVERS[server], kind=Kind.TOOL, method="tools/call", name=tool,
                arguments=arguments, now=rulebook.MONDAY,
            )  # fmt: skip
            if decision.verdict is Verdict.ALLOW:
                assert rulebook.allows(said, who, server, tool, arguments), (
                    who.principal,
                    server,
                    tool,
                    arguments,
                )
