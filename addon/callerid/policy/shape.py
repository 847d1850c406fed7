"""From plain data to models; pydantic's complaints become problems with a place and the right spelling."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from callerid.policy.problems import Document, Report, Where, did_you_mean, show, show_in, type_name

LATER = "callerid refuses what it does not know yet, so that no guard is ever ignored. Remove it."

NOT_YET: Mapping[str, frozenset[str]] = {
    "identities.yaml": frozenset({"prefix"}),
    "servers.yaml": frozenset({"pins", "expose", "classes", "headers"}),
    "credentials.yaml": frozenset({"keyring", "gcp", "azure", "pins", "scrub", "id_jag"}),
    "policy.yaml": frozenset(
        {
            "approve", "limit", "redact", "per", "rate", "burst", "count", "where", "detect", "apply_to",
            "action", "approvers", "timeout", "session", "when", "class", "classes", "unknown_tool",
            "unknown_args", "audit", "pins", "limits",
        }
    ),
}  # fmt: skip

_TAGGED = {"rules", "issuers"}
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_PATTERNS = {
    "^/": "should be an absolute path that begins with /",
    "[smhd]$": "should be a duration such as 30s, 10m, 1h or 30d",
    "24:00": 'should be a time of day such as "08:00", in quotes',
    "^(label:": "should be a server's id or label:KEY=VALUE",
    "anyone)": "should be user:NAME, group:NAME, agent:NAME, workload:NAME or anyone",
    "^(user|workload|group)": "should be user:NAME, workload:NAME or group:NAME",
    "^(user|workload|agent)": "should be user:NAME, workload:NAME or agent:NAME",
    "^(user|workload):": "should be user:NAME or workload:NAME",
    r"^\S": "should be text without spaces",
    "^[A-Za-z0-9][": "should be 1 to 64 letters, digits, dots, dashes and underscores",
    "^[A-Za-z_]": "should be the name of an environment variable",
    "^[0-9A-Fa-f]": "should be a SHA-256 fingerprint of 64 hexadecimal digits",
    "^[^:": "should be a name without a colon or control characters",
    "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}": "should be a name of letters, digits and dashes, as headers have",
    "^(header:|query:|/)": "should be header:NAME, query:NAME or a JSON pointer such as /api_key",
    "^[A-Za-z0-9_][A-Za-z0-9_./:@+=-]": "should be letters, digits and any of _ . / : @ + = -",
    "^[A-Za-z0-9_][A-Za-z0-9_.@:-]": "should be the name of a systemd credential",
    r"^[!#-\[\]-~]{1,256}( ": "should be scopes with one space between two",
}


def shape[M: BaseModel](model: type[M], doc: Document, report: Report) -> M | None:
    """Validate ``doc`` as ``model``. None, with all problems in ``report``, if anything is wrong."""
    try:
        made = model.model_validate(doc.data)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            if report.full:
                break
            _tell(doc, report, dict(fault), model)
        return None
    return made if not any(file == doc.file for file, _ in report.bad) else None


def _tell(doc: Document, report: Report, fault: dict[str, Any], model: type[BaseModel]) -> None:
    where = _where(doc, fault["loc"])
    kind: str = fault["type"]
    context: dict[str, Any] = fault.get("ctx") or {}
    message, hint = f"{_label(where)}: {fault['msg']}", ""
    if kind == "extra_forbidden" or (kind == "literal_error" and "[key]" in fault["loc"]):
        _unknown_key(doc, report, where, fault, model)
        return
    if kind == "missing":
        if report.is_bad(doc.file, where):
            return
        message = f"'{where[-1]}' is missing"
        hint = _missing_hint(str(where[-1]))
        where = where[:-1] if where[:-1] in doc.values else where
        report.at(doc.file, doc.lines, doc.place(where), _in_rule(doc, where) + message, hint)
        return
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        members = fault["input"] if isinstance(fault["input"], dict) else {}
        _tag(doc, report, where, {**context, "members": tuple(members)})
        return
    if kind in _EXPECTED:
        message = f"should be {_EXPECTED[kind]}, not {type_name(fault['input'])}"
        hint = _quote_hint(kind, fault["input"])
    elif kind == "literal_error":
        message = f"{show_in(doc.file, str(fault['input']))} is not known here"
        hint = _literal_hint(str(fault["input"]), str(context.get("expected", "")))
    elif kind == "string_pattern_mismatch":
        message = f"{show_in(doc.file, fault['input'])} {_pattern(str(context.get('pattern', '')))}"
    elif kind in ("too_short", "string_too_short"):
        message, hint = "is empty", "Left empty is not left out. Fill it in or remove it."
    elif kind == "callerid":
        message = fault["msg"]
    report.add(doc, where, f"{_in_rule(doc, where)}{_label(where)}: {message}", hint)


def _where(doc: Document, loc: tuple[str | int, ...]) -> Where:
    """pydantic's location without the tags and markers that are not in the file."""
    parts = [part for part in loc if part != "[key]"]
    if len(parts) > 2 and parts[0] in _TAGGED and isinstance(parts[1], int):
        del parts[2]
    return tuple(parts)


def _unknown_key(
    doc: Document, report: Report, where: Where, fault: dict[str, Any], model: type[BaseModel]
) -> None:
    key = str(where[-1])
    prefix = _in_rule(doc, where)
    if key in NOT_YET.get(doc.file, ()):
        report.add(doc, where, f"{prefix}{show(key)} is not supported yet", LATER, of_key=True)
        return
    options = _fields_at(model, doc, fault["loc"][:-1])
    if fault["type"] == "literal_error":
        options = (
            str((fault.get("ctx") or {}).get("expected", ""))
            .replace("'", "")
            .replace(" or ", ", ")
            .split(", ")
        )
    hint = did_you_mean(key, options) or "Remove it."
    report.add(doc, where, f"{prefix}unknown key {show_in(doc.file, key)}", hint, of_key=True)


def _fields_at(model: type[BaseModel], doc: Document, loc: tuple[str | int, ...]) -> list[str]:
    """The keys that are allowed at ``loc``, read from the JSON Schema so that there is one truth."""
    whole = model.model_json_schema()
    node: Any = whole
    for part in loc:
        node = _step(_resolve(node, whole), part, whole)
    node = _resolve(node, whole)
    return sorted(node.get("properties", {})) if isinstance(node, dict) else []


def _step(node: Any, part: str | int, whole: Any) -> Any:
    if isinstance(part, int):
        return node.get("items", {})
    if "discriminator" in node:
        ref = node["discriminator"]["mapping"].get(part)
        return {"$ref": ref} if ref else {}
    for option in node.get("anyOf", [node]):
        found = _resolve(option, whole)
        if part in found.get("properties", {}):
            return found["properties"][part]
        if isinstance(found.get("additionalProperties"), dict):
            return found["additionalProperties"]
    return {}


def _resolve(node: Any, whole: Any) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        node = whole["$defs"][node["$ref"].rsplit("/", 1)[1]]
    if isinstance(node, dict) and "anyOf" in node:
        objects = [_resolve(option, whole) for option in node["anyOf"]]
        return next((option for option in objects if option.get("type") != "null"), node)
    return node


def _tag(doc: Document, report: Report, where: Where, context: dict[str, Any]) -> None:
    name = str(context.get("discriminator", "")).strip("'")
    tag = context.get("tag")
    at = (*where, name)
    if tag is None:
        members = context.get("members")
        near = get_close_matches(name, [str(key) for key in members], n=1) if members else []
        if near:
            fault = f"{_in_rule(doc, where)}unknown key {show_in(doc.file, near[0])}"
            report.add(doc, (*where, near[0]), fault, did_you_mean(near[0], [name]), of_key=True)
            return
        report.add(doc, where, f"{_in_rule(doc, where)}'{name}' is missing", _missing_hint(name))
        return
    if tag in NOT_YET.get(doc.file, ()):
        report.add(doc, at, f"{_in_rule(doc, where)}{name} {show(tag)} is not supported yet", LATER)
        return
    expected = str(context.get("expected_tags", "")).replace("'", "").split(", ")
    report.add(doc, at, f"{_in_rule(doc, where)}unknown {name} {show(tag)}", did_you_mean(str(tag), expected))


def _in_rule(doc: Document, where: Where) -> str:
    """``rule 'ID': `` when the fault is inside a rule that has an id."""
    if len(where) >= 2 and where[0] == "rules" and isinstance(where[1], int):
        rules = doc.data.get("rules")
        rule = rules[where[1]] if isinstance(rules, list) and where[1] < len(rules) else None
        if isinstance(rule, dict) and isinstance(rule.get("id"), str):
            return f"rule {show(rule['id'])}: "
    return ""


def _label(where: Where) -> str:
    names = [part for part in where if isinstance(part, str)]
    return show(names[-1])[1:-1] if names else "this file"


def _missing_hint(key: str) -> str:
    return {
        "version": "Begin the file with the line 'version: 1'.",
        "who": "An allow must say to whom: who: [\"group:NAME\"], or who: [anyone].",
        "bind": "A credential without a binding has no place to go: bind: {hosts: [HOST]}.",
        "effect": "Write effect: allow, deny or require.",
        "rules": "Write 'rules: []' if nothing is to be granted.",
        "auth": "How callerid logs in to Vault: auth: token, approle, kubernetes or jwt.",
        "token_url": "token_url: https://login.corp.example/oauth2/token",
        "peer_cert_san": "The name in the proxy's own certificate: spiffe://corp.example/envoy/branch",
        "accept": "The headers it is believed in: accept: [client-cert, xfcc]",
    }.get(key, "")  # fmt: skip


def _quote_hint(kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "Quote it."
    if kind in ("float_type", "int_type") and isinstance(value, str):
        return "Write the number without quotes, without exponent, underscores or leading zeros."
    if kind == "list_type" and isinstance(value, str):
        return "Put it in brackets: [...]."
    return ""


def _literal_hint(value: str, expected: str) -> str:
    return did_you_mean(value, [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")])


def _pattern(pattern: str) -> str:
    return next((text for part, text in _PATTERNS.items() if part in pattern), "has the wrong form")
