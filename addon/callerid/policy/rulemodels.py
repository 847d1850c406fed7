"""The shape of policy.yaml: strict models discriminated on ``effect``. Meaning is added in ``compile``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from callerid.policy.models import Id, Strict, Text, VersionedFile


def _scalar(value: object) -> object:
    if isinstance(value, str | int | float):
        return value
    raise PydanticCustomError("callerid", "should be text, a number, or true or false")


def _number(value: object) -> object:
    """Whole numbers stay whole: a float would round those above 2**53."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise PydanticCustomError("float_type", "should be a number")


type Scalar = Annotated[
    Any, AfterValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
type Number = Annotated[Any, AfterValidator(_number), WithJsonSchema({"type": "number"})]
type Clock = Annotated[str, Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
type Who = Annotated[str, Field(pattern=r"^((user|group|agent|workload):\S{1,512}|anyone)$")]
type Server = Annotated[str, Field(pattern=r"^(label:[^=\s]+=\S+|[A-Za-z0-9][A-Za-z0-9._-]*)$")]
type Glob = Annotated[str, Field(min_length=1, max_length=2048)]


class ConditionModel(Strict):
    """What must be true of one argument. All operators given must hold. No coercion: "100" is not 100."""

    type: Literal["string", "number", "integer", "boolean", "array", "object", "null"] | None = None
    """The JSON type. Another type makes the other operators unknown, and unknown never helps the caller."""
    eq: Scalar = None
    """Equal, with the same JSON type."""
    in_: list[Scalar] | None = Field(default=None, alias="in", min_length=1)
    """Equal to one of these."""
    gt: Number = None
    ge: Number = None
    lt: Number = None
    le: Number = None
    under: Annotated[str, Field(pattern=r"^/")] | None = None
    """An absolute path: this folder or something in it. Dot segments, backslash, % and NUL are unknown."""
    glob: Glob | None = None
    """The whole text matches; * crosses slashes."""
    regex: Glob | None = None
    """The whole text matches this RE2 expression."""
    max_length: Annotated[int, Field(ge=0)] | None = None
    """At most so many characters, or entries of a list."""
    optional: bool = False
    """The argument may be left out: that is then fine for the caller."""
    negate: bool = False
    """True becomes false and false true; unknown stays unknown."""


class HoursModel(Strict):
    """A span of the week, in the file's timezone. From 22:00 to 06:00 belongs to the day it begins on."""

    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] | None = Field(
        default=None, min_length=1
    )
    """Left out: every day."""
    from_: Clock = Field(alias="from")
    to: Clock


class RuleBase(Strict):
    """What all rules have: scope (who, servers, tools) and predicates (args, hours, assurance, agent)."""

    id: Id
    """Its name in rows and refusals; unique."""
    mode: Literal["enforce", "monitor"] | None = None
    """monitor: only recorded as would_rule. Left out: the mode of the file."""
    who: list[Who] | None = Field(default=None, min_length=1)
    """user:NAME, group:NAME, agent:NAME, workload:NAME, or anyone. Left out: everybody."""
    servers: list[Server] | None = Field(default=None, min_length=1)
    """Server ids, or label:KEY=VALUE. Left out: all."""
    tools: list[Glob] | None = Field(default=None, min_length=1)
    """Tools by name or glob, set:NAME, resource:URI-GLOB, prompt:GLOB, method:NAME, http:METHOD PATH."""
    except_tools: list[Glob] | None = Field(default=None, min_length=1)
    """Taken out of tools; the same selectors."""
    args: dict[Annotated[str, Field(min_length=1, max_length=512)], ConditionModel] | None = Field(
        default=None, min_length=1
    )
    """Conditions by argument name, or JSON pointer (/repo/owner; /items/*/sku is every entry)."""
    hours: HoursModel | None = None
    assurance: Literal["claimed", "bearer", "workload", "idp", "bound"] | None = None
    """The caller is known at least this well."""
    agent: list[Annotated[str, Field(pattern=r"^\S{1,512}$")]] | None = Field(default=None, min_length=1)
    """The caller acts through one of these agents."""
    reason: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """Told to the caller who is refused by this rule."""


class AllowModel(RuleBase):
    """Grants what is in scope when every predicate is certainly true."""

    effect: Literal["allow"]
    who: list[Who] = Field(min_length=1)
    """To whom; an allow must say it. user:NAME, group:NAME, workload:NAME, or anyone."""


class DenyModel(RuleBase):
    """Refuses what is in scope when its predicates are true or in doubt."""

    effect: Literal["deny"]


class RequireModel(RuleBase):
    """Refuses what is in scope unless its predicates are certainly true."""

    effect: Literal["require"]


type RuleModel = Annotated[AllowModel | DenyModel | RequireModel, Field(discriminator="effect")]


class PolicyFile(VersionedFile):
    """policy.yaml: rules, in any order. What no rule allows is refused."""

    mode: Literal["enforce", "monitor"] = "enforce"
    """monitor: nothing is refused by a rule, only recorded. A rule's own mode goes first."""
    timezone: Text = "UTC"
    """IANA name, for hours: Europe/Zurich."""
    unknown_server: Literal["deny", "observe"] = "deny"
    """MCP to servers that servers.yaml does not list: refused, or let through unchanged and recorded."""
    anonymous: Literal["deny"] = "deny"
    """Callers without a verified identity: always refused."""
    list_filter: Literal["callable"] = "callable"
    """A list shows what some arguments would allow."""
    sets: dict[Id, Annotated[list[Glob], Field(min_length=1)]] = Field(default_factory=dict)
    """Named lists of tool selectors, used as set:NAME."""
    rules: list[RuleModel]
