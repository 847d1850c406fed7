"""What a policy file says, read by other means than the product's: YAML 1.2 core, and a plain evaluation.

The oracle errs to the permissive side only where it says so: what callerid allows, the text must allow.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import yaml

from callerid.config import Server
from callerid.model import Assurance, Caller, Principal

FILES = {
    "identities.yaml": """\
version: 1
issuers:
  - {id: local, type: opaque, max_ttl: 30d}
groups:
  red: {members: ["user:alice@corp.example"]}
  blue: {members: ["user:bob@corp.example", "user:ivy@corp.example"]}
agents:
  helper: {kind: assistant, owners: ["group:red"], servers: [files], tools: ["read_*"]}
blocked: []
""",
    "servers.yaml": """\
version: 1
servers:
  - id: files
    url: https://files.corp.example/mcp
    labels: {env: prod, team: shared}
    credential: files-shared
    targets: {read_file: path}
  - id: wiki
    url: https://wiki.corp.example/mcp
    labels: {env: dev}
passthrough: [bank.corp.example]
""",
    "credentials.yaml": """\
version: 1
credentials:
  - id: files-shared
    source: {file: /run/secrets/files}
    inject: {header: {name: X-Api-Key, format: "{secret}"}}
    bind: {hosts: [files.corp.example], paths: ["/mcp/**"], methods: [POST]}
""",
    "policy.yaml": """\
version: 1
mode: enforce
timezone: UTC
unknown_server: deny
sets:
  reads: ["read_*", "list_?"]
  drops: [drop_table]
rules:
  - id: red-all
    effect: allow
    who: ["group:red", "workload:ci"]
    servers: ["label:env=prod"]
    tools: ["*"]
    except_tools: [raw_query]
  - id: blue-reads
    effect: allow
    who: ["group:blue"]
    tools: ["set:reads", write_file]
    args:
      n: {type: integer, ge: 1, le: 100}
      path: {glob: "/srv/*", optional: true}
  - id: anyone-lists
    effect: allow
    who: [anyone]
    servers: [wiki]
    tools: [list_a]
    assurance: idp
    hours: {days: [mon, tue], from: "08:00", to: "18:00"}
  - id: no-drops
    effect: deny
    tools: ["set:drops", "purge_*"]
    reason: Ask first.
  - id: no-sevens
    effect: deny
    who: ["group:red", "user:bob@corp.example"]
    args:
      n: {in: [7, 16, "x"], optional: true}
  - id: no-etc
    effect: deny
    tools: [write_file, list_a]
    args:
      path: {glob: "/etc/*"}
  - id: shared-only
    effect: require
    servers: [files]
    tools: [write_file]
    args:
      path: {under: /srv, type: string}
  - id: helper-reads
    effect: require
    who: ["agent:helper"]
    tools: ["*"]
    assurance: bearer
  - id: on-trial
    effect: deny
    mode: monitor
    tools: ["read_*"]
""",
}
KNOWN: dict[tuple[str, ...], set[str]] = {
    (): {"version", "mode", "timezone", "unknown_server", "anonymous", "list_filter", "sets", "rules"},
    ("rules",): {
        "id", "effect", "mode", "who", "servers", "tools", "except_tools", "args", "hours", "assurance",
        "agent", "reason",
    },
    ("rules", "hours"): {"days", "from", "to"},
    ("rules", "args", "*"): {
        "type", "eq", "in", "gt", "ge", "lt", "le", "under", "glob", "regex", "max_length", "optional",
        "negate",
    },
}  # fmt: skip
MONDAY = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
_LABELS = {"files": {"env=prod", "team=shared"}, "wiki": {"env=dev"}}
SERVERS = {
    name: Server(id=name, scheme="https", host=f"{name}.corp.example", port=443, path="/mcp")
    for name in _LABELS
}


def caller(name: str, agent: str | None = None, level: Assurance = Assurance.BEARER) -> Caller:
    groups = {"user:alice@corp.example": {"red"}, "user:bob@corp.example": {"blue"}}.get(name, set())
    return Caller(
        principal=Principal(name, "local"), agent=agent, actors=(), evidence=(), assurance=level,
        assurance_name="t", credential_id="t", groups=frozenset(groups),
    )  # fmt: skip


CALLERS = [
    caller("user:alice@corp.example"),
    caller("user:alice@corp.example", "helper", Assurance.CLAIMED),
    caller("user:bob@corp.example", None, Assurance.IDP),
    caller("workload:ci"),
    caller("user:eve@corp.example", None, Assurance.BOUND),
]
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    (server, tool, arguments)
    for server in SERVERS
    for tool in (
        "read_file",
        "write_file",
        "list_a",
        "drop_table",
        "purge_x",
        "raw_query",
        "set:reads",
        "Read_file",
    )
    for arguments in (
        {},
        {"n": 7, "path": "/srv/a"},
        {"n": 16, "path": "/srv/a"},
        {"n": 1.0, "path": "/etc/a"},
        {"n": "x"},
        {"n": 100, "path": "/srv/a"},
    )
]
"""Server, tool and arguments; each is asked for each caller."""


class Trick(Exception):
    """The text holds what no rule file may hold."""


_C: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_C):  # type: ignore[misc]
    """YAML 1.2 core, with duplicate keys refused."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


class PurePython(yaml.SafeLoader):
    """The same over the other parser of PyYAML, which refuses some of what libyaml reads."""


for tag, pattern, first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+0123456789.")),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)
PurePython.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


class Integer(int):
    """A whole number that knows how it is written: where text is wanted, that is the text."""

    text: str


class Float(float):
    """The same for a fraction."""

    text: str


def _integer(loader: Any, node: Any) -> int:
    made = Integer(node.value, 0) if node.value[:2] in ("0x", "0o") else Integer(node.value)
    made.text = node.value
    return made


def _float(loader: Any, node: Any) -> float:
    made = Float(node.value)
    made.text = node.value
    return made


def _mapping(loader: Any, node: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name = loader.construct_object(name_node, deep=True)
        if not isinstance(name, str) or name in made:
            raise Trick(f"a key that is no text or comes twice: {name!r}")
        made[name] = loader.construct_object(value_node, deep=True)
    return made


for made in (Loader, PurePython):
    made.add_constructor("tag:yaml.org,2002:int", _integer)
    made.add_constructor("tag:yaml.org,2002:float", _float)
    made.add_constructor("tag:yaml.org,2002:map", _mapping)


def say(text: str) -> dict[str, Any]:
    """The data that the text stands for.

    Raises:
        Trick: aliases, anchors, tags, directives, more documents than one, keys that come twice.
    """
    for token in yaml.scan(text, Loader=_C):
        if isinstance(token, yaml.AliasToken | yaml.AnchorToken | yaml.TagToken | yaml.DirectiveToken):
            raise Trick(type(token).__name__)
    documents = list(yaml.load_all(text, Loader=Loader))
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise Trick("not one mapping")
    with contextlib.suppress(yaml.YAMLError):
        assert list(yaml.load_all(text, Loader=PurePython)) == documents
    return documents[0]


def flaws(policy: Mapping[str, Any]) -> list[str]:
    """Keys that mean nothing in a policy file, and flags that are neither true nor false.

    A guard spelled with one of them would be no guard.
    """
    found = [name for name in policy if name not in KNOWN[()]]
    for rule in policy.get("rules", []):
        found += [name for name in rule if name not in KNOWN[("rules",)]]
        found += [name for name in rule.get("hours", {}) if name not in KNOWN[("rules", "hours")]]
        for condition in rule.get("args", {}).values():
            found += [name for name in condition if name not in KNOWN[("rules", "args", "*")]]
            found += [flag for flag in ("optional", "negate") if type(condition.get(flag, True)) is not bool]
    return found


def allows(
    policy: Mapping[str, Any], who: Caller, server: str, tool: str, arguments: Mapping[str, Any]
) -> bool:
    """Whether the text allows a tool call on Monday at nine: some allow surely, no guard possibly.

    A rule on trial decides nothing; where the file is in monitor mode, all is allowed.
    """
    if policy.get("mode") == "monitor":
        return True
    sets = policy.get("sets", {})
    granted = False
    for rule in policy["rules"]:
        if rule.get("mode") == "monitor" or not _covers(rule, who, server, tool, sets):
            continue
        holds = _holds(rule, who, arguments)
        if rule["effect"] == "allow":
            granted = granted or holds is True
        elif holds is not (rule["effect"] == "require"):  # a deny unless surely not, a require unless surely
            return False
    return granted


def _covers(rule: Mapping[str, Any], who: Caller, server: str, tool: str, sets: Mapping[str, Any]) -> bool:
    names = {who.principal.subject, f"agent:{who.agent}", "anyone", *(f"group:{name}" for name in who.groups)}
    servers = {server, *(f"label:{label}" for label in _LABELS[server])}
    return (
        ("who" not in rule or not names.isdisjoint(rule["who"]))
        and ("servers" not in rule or not servers.isdisjoint(rule["servers"]))
        and ("tools" not in rule or _named(rule["tools"], tool, sets))
        and not _named(rule.get("except_tools", []), tool, sets)
    )


def _named(selectors: list[str], tool: str, sets: Mapping[str, Any]) -> bool:
    for selector in selectors:
        selector = getattr(selector, "text", selector)
        kind, colon, name = selector.partition(":")
        if kind == "set" and colon:
            if _named(sets[name], tool, {}):
                return True
        elif kind == "tool" and colon:
            if fnmatch.fnmatchcase(tool, name):
                return True
        elif not colon and fnmatch.fnmatchcase(tool, selector):
            return True
    return False


def _holds(rule: Mapping[str, Any], who: Caller, arguments: Mapping[str, Any]) -> bool | None:
    """True, False, or None where the text leaves a doubt."""
    parts: list[bool | None] = []
    if "assurance" in rule:
        parts.append(who.assurance >= Assurance[rule["assurance"].upper()])
    if "agent" in rule:
        parts.append(None if who.agent is None else who.agent in rule["agent"])
    if "hours" in rule:
        span = rule["hours"]
        today = "mon" in span.get("days", ["mon"])
        parts.append(today and span["from"] <= "09:00" < span["to"] if span["from"] < span["to"] else None)
    for name, condition in rule.get("args", {}).items():
        if name not in arguments:
            parts.append((rule["effect"] != "deny") if condition.get("optional") else None)
            continue
        answer = _meets(condition, arguments[name])
        parts.append(not answer if condition.get("negate") and answer is not None else answer)
    return False if False in parts else None if None in parts else True


def _meets(condition: Mapping[str, Any], value: Any) -> bool | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    kinds = {str: {"string"}, int: {"integer", "number"}, float: {"number"}}[type(value)]
    if condition.get("type", next(iter(kinds))) not in kinds:
        return False if len(condition.keys() - {"negate", "optional"}) == 1 else None
    parts: list[bool | None] = []
    for sign, operand in condition.items():
        if sign in ("type", "optional", "negate"):
            continue
        if sign in ("eq", "in"):
            alike = [one for one in ([operand] if sign == "eq" else operand) if _alike(one, value)]
            parts.append(any(one == value for one in alike) if alike else None)
        elif sign in ("gt", "ge", "lt", "le"):
            signs = {
                "gt": value > operand,
                "ge": value >= operand,
                "lt": value < operand,
                "le": value <= operand,
            }
            parts.append(signs[sign] if number else None)
        elif not isinstance(value, str):
            parts.append(None)
        elif sign == "max_length":
            parts.append(len(value) <= operand)
        else:
            parts.append(_matches(sign, getattr(operand, "text", operand), value))
    return False if False in parts else None if None in parts else True


def _matches(sign: str, operand: str, value: str) -> bool:
    if sign == "under":
        return value == operand or value.startswith(operand.rstrip("/") + "/")
    if sign == "glob":
        return fnmatch.fnmatchcase(value, operand)
    return re.fullmatch(operand, value, re.DOTALL) is not None


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, bool | str) or isinstance(other, str):
        return type(one) is type(other)
    return True
