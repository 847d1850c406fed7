"""Ways to write a message: other spellings, wrong shapes, broken bytes, other encodings."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.fuzz.strategies import EXTRA, WRONG, Raw


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a tree, its root included."""
    found = [at]
    if isinstance(value, dict):
        for name in value:
            found += places(value[name], (*at, name))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            found += places(member, (*at, index))
    return found


def changed(value: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """The tree with one value replaced by ``change`` of it."""
    if not at:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = changed(value[at[0]], at[1:], change)
    return copy


def misshapen(rng: random.Random, tree: Any) -> Any:
    """The tree with one thing wrong: a type, a member too many, one too few, or a name in another case."""
    at = rng.choice(places(tree))
    what = rng.randrange(4)

    def change(value: Any) -> Any:
        if what == 0 or not isinstance(value, dict):
            return rng.choice(WRONG)
        if what == 1 or not value:
            name, extra = rng.choice(EXTRA)
            return {**value, name: extra} if rng.random() < 0.7 else {name: extra, **value}
        name = rng.choice(list(value))
        if what == 2:
            return {other: value[other] for other in value if other != name}
        twin = rng.choice(
            [name.upper(), name.title(), name + "\0", name.replace("s", "\u017f"), name + " ", "_" + name]
        )
        return {(twin if other == name else other): value[other] for other in value}

    return changed(tree, at, change)


def spelled(rng: random.Random, value: Any, style: int) -> str:
    """One of the ways to write a value. Bits of ``style``: space, ASCII, escapes, order, a member twice."""

    def space() -> str:
        return rng.choice(["", " ", "\n", "\t", "\r\n"]) if style & 1 else ""

    def text(said: str) -> str:
        plain = json.dumps(said, ensure_ascii=bool(style & 2) or not said.isprintable())
        if not style & 4 or not said:
            return plain
        place = rng.randrange(len(said))
        if ord(said[place]) > 0xFFFF:
            return plain
        escape = (
            "\\/"
            if said[place] == "/" and rng.random() < 0.5
            else f"\\u{ord(said[place]):04{rng.choice('xX')}}"
        )
        return json.dumps(said[:place])[:-1] + escape + json.dumps(said[place + 1 :])[1:]

    def write(inner: Any) -> str:
        if isinstance(inner, Raw):
            return inner.text
        if isinstance(inner, dict):
            pairs = list(inner.items())
            if style & 8:
                rng.shuffle(pairs)
            if style & 16 and pairs:
                pairs.insert(rng.randrange(len(pairs) + 1), rng.choice([*pairs, *EXTRA]))
            return (
                "{"
                + ",".join(f"{space()}{text(k)}{space()}:{space()}{write(v)}" for k, v in pairs)
                + space()
                + "}"
            )
        if isinstance(inner, list):
            return "[" + ",".join(space() + write(member) for member in inner) + space() + "]"
        return text(inner) if isinstance(inner, str) else json.dumps(inner)

    return space() + write(value) + space()


PIECES = [
    b'"', b"{", b"}", b"[", b"]", b":", b",", b"\\", b"null", b"true", b"NaN", b"1e400", b"-0", b" ", b"\n",
    b"\0", b"\xef\xbb\xbf", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\x85", b"\x0b", b"\x0c", b"\xa0",
    b"\x7f", b"\x1f", b'"name":"delete_file",', b'"Name":"x",', b'"method":"tools/list",', b'"id":2,',
    b'"params":{},', b"/**/", b'"\\u006eame":"x",', b'"param\xc5\xbf":{},', b'"\\u0130d":9,', b"\\ud800",
    b"\\ud83d\\ude00", b"\\u0000", b"\xe2\x80\xa8", b"\xe2\x84\xaa", b"9" * 30, b"data: ", b"\r", b"\r\n",
    b"\n\n", b"\r\r", b"#", b"//x\n",
]  # fmt: skip


def damaged(rng: random.Random, raw: bytes, pieces: list[bytes] | None = None) -> bytes:
    """Bytes with one to three places cut, doubled, flipped or filled."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randint(0, len(raw))
        end = min(len(raw), start + rng.choice([0, 1, 1, 2, 4, 8, 30]))
        part = raw[start:end]
        with_what = rng.choice(
            [
                rng.choice(pieces or PIECES),
                rng.choice(pieces or PIECES) + part,
                part * 2,
                b"",
                rng.randbytes(1),
            ]
        )
        raw = raw[:start] + with_what + raw[end:]
    return raw


def recoded(rng: random.Random, raw: bytes) -> bytes:
    """The same text for some readers: a mark, another UTF, something before, behind or around it."""
    text = raw.decode("utf-8", "surrogatepass")
    other = rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
    behind = rng.choice([b"{}", b",", b"\0", b"\n", b" x", b"]", b"\x1a", raw, b"/* */", b"\xef\xbb\xbf"])
    deep = rng.choice([10, 60, 64, 70, 300, 5000])
    return rng.choice(
        [
            text.encode(other, "surrogatepass"),
            raw[: rng.randint(0, len(raw))],
            raw + behind,
            rng.choice([b" ", b"\n", b"\x0b", b"\xa0", b"\xe2\x80\xa8"]) + raw,
            raw.replace(b"{}", b"[" * deep + b"]" * deep),
            raw.replace(b"{}", b'{"a":' * deep + b"1" + b"}" * deep),
            b"[" + raw + b"]",
        ]
    )
