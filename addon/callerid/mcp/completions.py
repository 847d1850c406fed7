"""completion/complete answers without the names of resources that are hidden from the caller.

A value is judged by what it would name: the URI that the template gives with it (RFC 6570, levels 1 and
2), and the value itself if it is a URI. What names nothing that can be judged stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from callerid.model import Kind, Message

COMPLETION = "completion/complete"

_UNRESERVED = "-._~"
_RESERVED = ":/?#[]@!$&'()*+,;=%" + _UNRESERVED
_SCHEME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+-.")


def has_completion(method: str | None, result: Mapping[str, Any]) -> bool:
    """Whether a result has values that ``filter_completion`` would judge."""
    completion = result.get("completion")
    if not isinstance(completion, dict):
        return False
    return method == COMPLETION or isinstance(completion.get("values"), list)


def filter_completion(
    request: Message | None, completion: dict[str, Any], visible: Callable[[Kind, str], bool]
) -> dict[str, Any] | None:
    """The completion without values that name hidden resources; None if it may stay as it is.

    Args:
        request: what it answers, None if that is not known; then only values that are URIs are judged.
        completion: the ``completion`` member of the result; it is not changed.
        visible: the question to policy.

    ``total`` goes when values go, for it would count them. ``hasMore`` stays true if it was, or if
    ``total`` said that there are more than came.
    """
    values = completion.get("values")
    entries = values if isinstance(values, list) else []
    template = _template(request)
    kept = [value for value in entries if isinstance(value, str) and _is_seen(value, template, visible)]
    if kept == values:
        return None
    made = {name: value for name, value in completion.items() if name != "total"}
    made["values"] = kept
    total = completion.get("total")
    if type(total) is int and total > len(entries):
        made["hasMore"] = True
    return made


class _Template:
    """A URI template, the arguments known for it, and the name of the one that is being completed."""

    def __init__(self, text: str, arguments: Mapping[str, Any]) -> None:
        self.text = text
        self.arguments = arguments
        self.completed: str | None = None
        for name in arguments:  # the last one is it (methods.py)
            self.completed = name

    def expand(self, value: str) -> str | None:
        """The URI with this value; None if a variable has none, or stands in an expression of level 3."""
        made, rest = "", self.text
        while rest:
            literal, brace, rest = rest.partition("{")
            made += literal
            if not brace:
                break
            expression, closed, rest = rest.partition("}")
            name = expression.removeprefix("+").removeprefix("#")
            found = value if name == self.completed else self.arguments.get(name)
            if not closed or not isinstance(found, str):
                return None
            safe = _RESERVED if expression[:1] in ("+", "#") else _UNRESERVED
            made += "#" if expression.startswith("#") else ""
            made += quote(found, safe=safe, errors="replace")
        return made


def _template(request: Message | None) -> _Template | None:
    if request is None or request.kind is not Kind.RESOURCE or request.name is None:
        return None
    return _Template(request.name, request.arguments)


def _is_seen(value: str, template: _Template | None, visible: Callable[[Kind, str], bool]) -> bool:
    expanded = None
    if template is not None and template.completed is not None:
        expanded = template.expand(value)
        if expanded == template.text:
            expanded = None  # nothing of the template depends on the value
    if expanded is not None and not visible(Kind.RESOURCE, expanded):
        return False
    own = _scheme(template.text) if template is not None else None
    return not _is_uri(value, own) or visible(Kind.RESOURCE, value)


def _is_uri(value: str, own: str | None) -> bool:
    """``scheme://...``, or ``scheme:...`` in the template's own scheme.

    Not every value with a colon: tags, times and C++ names have one as well, and would all be hidden.
    """
    scheme = _scheme(value)
    return scheme is not None and (scheme == own or value[len(scheme) + 1 :].startswith("//"))


def _scheme(text: str) -> str | None:
    """RFC 3986 section 3.1, in lower case."""
    scheme, colon, _ = text.partition(":")
    scheme = scheme.lower()
    if not colon or not scheme or not _SCHEME.issuperset(scheme) or not scheme[0].isalpha():
        return None
    return scheme
