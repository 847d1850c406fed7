"""The phantom token: the caller's own token stands where the secret belongs, and is exchanged for it.

For clients that insist on a key in a certain place. Nothing is guessed: the place is named in
credentials.yaml, and only the token that this very caller has presented and that was verified is exchanged,
where it is the whole value. Anywhere else a token of ours in a request is refused as before.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from callerid.credentials.inject import Injection
from callerid.credentials.outgoing import InBody, InHeader, InPlace, InQuery, twin
from callerid.credentials.query import hides, values, without
from callerid.credentials.secret import PLACEHOLDER, Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What the caller said: where a token of his may stand. ``arguments`` are those of each message that has
    any; ``tokens`` the scoped tokens that he presented as evidence, all verified."""

    headers: Sequence[tuple[str, str]]
    path: str
    body: bytes
    arguments: Sequence[Mapping[str, Any]]
    tokens: Collection[str]

    def __repr__(self) -> str:
        return "Spoken()"


def rest(place: InPlace, said: Spoken) -> tuple[str, bytes]:
    """Request target and body without the token in its place: what is left may hold no token of ours."""
    token = _token_in(place, said)
    if token is None or place.kind == "header":
        return said.path, said.body
    if place.kind == "query":
        return without(said.path, place.name), said.body
    return said.path, said.body.replace(_quoted(token), b'""', 1)


def fit(injection: Injection, said: Spoken) -> Injection | str | None:
    """The injection for this request; the sentence that says why there is none; None if it needs none.

    A message without arguments has no place for a pointer, and goes on without the secret.
    """
    place = injection.how
    if not isinstance(place, InPlace) or injection.secret is None:
        return injection
    if place.kind == "pointer" and not said.arguments:
        return None
    token = _token_in(place, said)
    if token is None:
        return f"the caller's own token does not stand in {_spoken_of(place)}, where the secret belongs"
    if place.kind == "query":
        return replace(injection, how=InQuery(place.name))
    if place.kind == "header":
        before = _header(place.name, said)[0].removesuffix(token)
        secret = injection.secret
        if before and isinstance(secret, Secret):
            secret = secret.within(before + PLACEHOLDER)
        return replace(injection, how=InHeader(place.name), secret=secret)
    return replace(injection, how=InBody(token))


def _token_in(place: InPlace, said: Spoken) -> str | None:
    """The caller's own token if it stands in its place, once, and as the whole value; else None."""
    if place.kind == "header":
        found = _header(place.name, said)
        last = found[0].rpartition(" ") if len(found) == 1 else ("", "", "")
        # Alone, or behind one word that names a scheme: Bearer, Token.
        return last[2] if last[2] in said.tokens and _is_word(last[0]) else None
    if place.kind == "query":
        given = values(said.path, place.name)
        return (
            given[0]
            if len(given) == 1 and given[0] in said.tokens and not hides(said.path, place.name)
            else None
        )
    named = [value for arguments in said.arguments if (value := _at(place.name, arguments)) is not None]
    if len(named) != 1 or named[0] not in said.tokens:
        return None
    token = named[0].encode("ascii")
    return named[0] if said.body.count(token) == said.body.count(b'"' + token + b'"') == 1 else None


def _header(name: str, said: Spoken) -> list[str]:
    wanted = twin(name)
    return [value for header, value in said.headers if twin(header) == wanted]


def _is_word(text: str) -> bool:
    return not text or (text.isascii() and text.isalnum())


def _at(pointer: str, value: Any) -> str | None:
    """The text at a JSON pointer (RFC 6901), or None."""
    for part in pointer.split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, Sequence) and not isinstance(value, str) and step.isascii() and step.isdigit():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value if isinstance(value, str) else None


def _quoted(token: str) -> bytes:
    return json.dumps(token).encode("ascii")


def _spoken_of(place: InPlace) -> str:
    where = {"header": "the header", "query": "the query parameter", "pointer": "the argument at"}
    return f"{where.get(place.kind, place.kind)} {place.name}"
