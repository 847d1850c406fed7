"""The evasion corpus: what a case is, and the strict reading of ``evasion/*.yaml``.

A case is bytes and what must be left of them: rows, an answer, and what an upstream may have got. The same
case is judged by the pure core (``tests/unit/mcp``) and over the real proxy (``tests/e2e``).
``evasion/README.md`` says how to add one.
"""

from __future__ import annotations

import base64
import codecs
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr, model_validator

from callerid.model import Reason, Verdict
from callerid.policy.problems import Report
from callerid.policy.strictyaml import parse, read_text

FOLDER = Path(__file__).parent / "evasion"
README = FOLDER / "README.md"

type Way = Literal["connect_tls", "connect_plain", "absolute", "reverse", "h2"]
HTTP1: tuple[Way, ...] = ("connect_tls", "connect_plain", "absolute", "reverse")
EVERY: tuple[Way, ...] = (*HTTP1, "h2")

CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%s","arguments":{}}}'
MODERN = CALL[:-2] + ',"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}'
TOOL = '{"name":"%s","inputSchema":{"type":"object"}}'
SHORT: Mapping[str, str] = {
    "read": CALL % "read_thing",
    "drop": CALL % "drop_thing",
    "modern-read": MODERN % "read_thing",
    "modern-drop": MODERN % "drop_thing",
    "ask": '{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
    "tools": '{"jsonrpc":"2.0","id":1,"result":{"tools":['
    + TOOL % "read_thing"
    + ","
    + TOOL % "drop_thing"
    + "]}}",
    "filtered": '{"jsonrpc":"2.0","id":1,"result":{"tools":[' + TOOL % "read_thing" + "]}}",
}
"""Stands for the two calls that everything turns on (Alice may make the one and not the other), and for the
list of their tools: asked for, as the server has it, and as Alice may see it."""

type Row = tuple[str, str, str, str | None]
"""Verdict, reason, method, tool."""

CODINGS: Mapping[str, Callable[[Any], bytes]] = {
    **{name: (lambda text, name=name: text.encode(name)) for name in (
        "latin-1", "utf-7", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be",
    )},
    "utf-16-le-mark": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16-be-mark": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "utf-32-le-mark": lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
    "utf-32-be-mark": lambda text: codecs.BOM_UTF32_BE + text.encode("utf-32-be"),
    "gzip": lambda raw: gzip.compress(raw, mtime=0),
    "zlib": zlib.compress,
    "deflate": lambda raw: zlib.compress(raw)[2:-4],
}  # fmt: skip
"""Named constructions: text to bytes first, then bytes to bytes."""
_OF_BYTES = frozenset({"gzip", "zlib", "deflate"})


class CorpusError(Exception):
    """A file of the corpus is not what ``evasion/README.md`` says."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _as_body(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


class Body(_Part):
    """Bytes: ``text`` (or ``base64``), ``times`` over between ``before`` and ``after``, then codings."""

    text: StrictStr | None = None
    base64: StrictStr | None = None
    times: StrictInt = 1
    before: StrictStr = ""
    after: StrictStr = ""
    codings: tuple[StrictStr, ...] = Field((), alias="as")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.text is None) == (self.base64 is None):
            raise ValueError("a body has either text or base64")
        if self.base64 is not None and (self.before or self.after or self.times != 1):
            raise ValueError("base64 is not repeated")
        unknown = set(self.codings) - set(CODINGS)
        if unknown:
            raise ValueError(f"no construction is called {sorted(unknown)}; there are {sorted(CODINGS)}")
        return self

    def made(self, names: Mapping[str, str]) -> bytes:
        """The bytes, with ``<<name>>`` put in."""
        if self.base64 is not None:
            raw: Any = base64.b64decode(self.base64, validate=True)
        else:
            raw = put_in(f"{self.before}{(self.text or '') * self.times}{self.after}", names)
        for coding in self.codings:
            if isinstance(raw, str) and coding in _OF_BYTES:
                raw = raw.encode()
            raw = CODINGS[coding](raw)
        return raw.encode() if isinstance(raw, str) else raw


type BodyText = Annotated[Body, BeforeValidator(_as_body)]


class Connect(_Part):
    """Where the tunnel leads and how the client calls it, where that differs from the way in."""

    to: StrictStr | None = None
    sni: StrictStr | None = None
    headers: tuple[StrictStr, ...] = ()


class Answer(_Part):
    """What the client gets. ``id`` of an error is null, and of a tool result 1, unless it is said."""

    status: StrictInt | None = None
    code: StrictInt | None = None
    denied: bool = False
    ran: StrictStr | None = None
    id: StrictInt | StrictStr | tuple[StrictInt | StrictStr, ...] | None = None
    closed: bool = False
    body: StrictStr | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.closed == (self.status is not None):
            raise ValueError("an answer has a status, or the connection is closed without one")
        return self

    @property
    def wanted_id(self) -> object:
        if "id" in self.model_fields_set:
            return self.id
        return None if self.code is not None else 1


class Arrival(_Part):
    """One request at the upstream: its exact body, and what stands in its head or must not."""

    body: BodyText
    method: StrictStr = "POST"
    target: StrictStr | None = None
    lacks: tuple[StrictStr, ...] = ()


def _as_arrival(value: object) -> object:
    return {"body": value} if isinstance(value, str) else value


class Reply(_Part):
    """What a lying upstream answers: raw bytes, or a head made for ``parts``, which are sent one by one."""

    raw: BodyText | None = None
    status: StrictInt = 200
    headers: tuple[StrictStr, ...] = ()
    parts: tuple[BodyText, ...] = ()
    framing: Literal["length", "chunked", "close"] = "length"


class Step(_Part):
    """One request on one connection. ``raw`` is sent as it is; otherwise the request is put together.

    ``then``: read its answer, go on without it, or say that nothing more will come and read.
    """

    on: StrictStr = "a"
    who: Literal["alice", "bob", "ivy", "nobody"] = Field("alice", alias="as")
    raw: BodyText | None = None
    method: StrictStr = "POST"
    target: StrictStr = "/mcp"
    host: StrictStr = "<<place>>"
    headers: tuple[StrictStr, ...] = ()
    body: BodyText = Body(text="")
    chunks: tuple[BodyText, ...] = ()
    pseudo: Mapping[StrictStr, StrictStr] = {}
    answer: Answer | None = None
    then: Literal["read", "go on", "hang up"] = "read"

    @property
    def is_built(self) -> bool:
        return self.raw is None


class Instead(_Part):
    """Other expectations for one way in."""

    rows: tuple[StrictStr, ...] | None = None
    answer: Answer | None = None


_INLINE = tuple(name for name in Step.model_fields if name != "on")


class Case(_Part):
    """One case. See ``evasion/README.md``."""

    id: Annotated[StrictStr, Field(pattern=r"^[a-z0-9-]+$")]
    says: StrictStr
    covers: tuple[StrictStr, ...] = ()
    ways: tuple[Way, ...] = ()
    to: Literal["listed", "unlisted"] = "listed"
    hides: tuple[StrictStr, ...] = ()
    unseen: StrictStr | None = None
    connect: Connect = Connect()
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    server: tuple[Reply, ...] = ()
    rows: tuple[StrictStr, ...]
    upstream: tuple[Annotated[Arrival, BeforeValidator(_as_arrival)], ...] = ()
    principal: StrictStr | None = None
    never: tuple[StrictStr, ...] = ()
    instead: Mapping[Way, Instead] = {}
    core: bool = True
    pending: StrictStr | None = None
    fails: Mapping[Literal["core", "recogniser", "proxy"], StrictStr] = {}
    theme: str = ""

    @model_validator(mode="before")
    @classmethod
    def _inline_step(cls, data: dict[str, Any]) -> dict[str, Any]:
        """A case of one step has the step's fields beside its own."""
        aliases = {field.alias or name: name for name, field in Step.model_fields.items()}
        inline = {name: data[name] for name in data if aliases.get(name) in _INLINE}
        if inline and "steps" in data:
            raise ValueError(f"with steps, {sorted(inline)} belongs into a step")
        rest = {name: value for name, value in data.items() if name not in inline}
        return {"steps": [inline], **rest} if "steps" not in data else rest

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for rows in (self.rows, *(other.rows or () for other in self.instead.values())):
            for verdict, reason, _, _ in _rows(rows):
                Verdict(verdict), Reason(reason)
        if set(self.instead) - set(self.taken):
            raise ValueError("`instead` names a way in that the case does not take")
        return self

    @property
    def taken(self) -> tuple[Way, ...]:
        """The ways in: those that the case names, or all where HTTP is put together for it."""
        if self.ways:
            return self.ways
        plain = all(step.is_built and not step.chunks for step in self.steps)
        return EVERY if plain and self.connect == Connect() else HTTP1

    @property
    def message(self) -> Step | None:
        """The one HTTP message that the pure core can judge, if the case is no more than that."""
        [first, *rest] = self.steps
        if rest or not self.core or not first.is_built or first.pseudo or self.connect != Connect():
            return None
        return first

    def expected_rows(self, way: Way) -> list[Row]:
        other = self.instead.get(way)
        return _rows(self.rows if other is None or other.rows is None else other.rows)

    def expected_answer(self, way: Way, step: Step) -> Answer | None:
        other = self.instead.get(way)
        return step.answer if other is None or other.answer is None else other.answer


class _File(_Part):
    theme: StrictStr
    about: StrictStr
    cases: tuple[Case, ...]


def _rows(texts: tuple[str, ...]) -> list[Row]:
    """``deny rule_denied tools/call drop_thing``; ``50 x deny ...`` is fifty of them."""
    made: list[Row] = []
    for text in texts:
        times, _, one = text.partition(" x ") if text[0].isdigit() else ("1", "", text)
        verdict, reason, method, *tool = one.split(" ", 3)
        made += [(verdict, reason, method, tool[0] if tool else None)] * int(times)
    return made


def put_in(text: str, names: Mapping[str, str]) -> str:
    """``<<name>>`` replaced by what it stands for here; an unknown name is an error of the case."""
    head, *rest = text.split("<<")
    made = [head]
    for piece in rest:
        name, closed, tail = piece.partition(">>")
        known = {**SHORT, **names}
        if not closed or name not in known:
            raise CorpusError(f"<<{name[:30]} stands for nothing; there are {sorted(known)}")
        made += [known[name], tail]
    return "".join(made)


def read_file(path: Path) -> tuple[Case, ...]:
    """The cases of one file. Raises CorpusError, with every problem that the file has."""
    report = Report()
    text = read_text(path.name, path.read_bytes(), report)
    document = parse(path.name, text, report) if text is not None else None
    if document is None or report.problems:
        raise CorpusError("\n".join(f"{p.file}:{p.line}:{p.column}: {p.message}" for p in report.problems))
    try:
        made = _File.model_validate(document.data)
    except ValueError as error:
        raise CorpusError(f"{path.name}: {error}") from None
    if made.theme != path.stem:
        raise CorpusError(f"{path.name}: its theme is called {made.theme}")
    return tuple(case.model_copy(update={"theme": made.theme}) for case in made.cases)


@cache
def load() -> tuple[Case, ...]:
    """All cases, by file and then as they stand there. Ids are unique."""
    cases = tuple(case for path in sorted(FOLDER.glob("*.yaml")) for case in read_file(path))
    ids = [case.id for case in cases]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise CorpusError(f"these ids are there twice: {twice}")
    return cases


def sources() -> Iterator[tuple[str, str]]:
    """The rows of the README's table of sources: the source, and where else it is tested (or nothing)."""
    for line in README.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and cells[0].startswith(("wire ", "field ")):
            yield cells[0], cells[2]
