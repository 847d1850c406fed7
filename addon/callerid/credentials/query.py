"""The query of a request target, read as the most lenient server would. Pure text in, text out; total.

A parameter that is ours must be there once, and ours: servers take the first of two, the last, or both as a
list, and some read ``API-KEY``, ``api_key[]`` and ``api%5Fkey`` as one name. So a twin under any such reading
goes too.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, unquote_plus


def with_parameter(target: str, name: str, value: str) -> str:
    """``target`` with ``name=value`` as its only parameter of that name, percent-encoded, at the end."""
    bare, _, query = target.partition("?")
    wanted = _fold(name)
    kept = [pair for pair in query.split("&") if query and _fold(_name_of(pair)) != wanted]
    return f"{bare}?{'&'.join([*kept, f'{quote(name, safe="")}={quote(value, safe="")}'])}"


def values(target: str, name: str) -> tuple[str, ...]:
    """The decoded values of every parameter that some server reads as ``name``, in order."""
    wanted = _fold(name)
    pairs = target.partition("?")[2].split("&")
    return tuple(unquote_plus(pair.partition("=")[2]) for pair in pairs if _fold(_name_of(pair)) == wanted)


def without(target: str, name: str) -> str:
    """``target`` without any parameter of that name, to look at what is left."""
    bare, mark, query = target.partition("?")
    wanted = _fold(name)
    return bare + mark + "&".join(pair for pair in query.split("&") if _fold(_name_of(pair)) != wanted)


def hides(target: str, name: str) -> bool:
    """True if a server that also splits at semicolons finds a parameter of that name where others do not."""
    wanted = _fold(name)
    return any(_fold(_name_of(part)) == wanted for part in _behind_semicolons(target.partition("?")[2]))


def _behind_semicolons(query: str) -> Iterator[str]:
    for pair in query.split("&"):
        yield from pair.split(";")[1:]


def _name_of(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])


def _fold(name: str) -> str:
    """Without case, without the brackets of an array, and dots, blanks and hyphens as PHP has them."""
    plain = name.strip().casefold().partition("[")[0]
    return plain.replace(".", "_").replace(" ", "_").replace("-", "_")
