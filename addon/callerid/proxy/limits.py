"""The limits: one table of options, read once at the start. Beyond each there is a reason and a row.

Every entry is an option of mitmproxy's, so ``--set NAME=VALUE`` works with ``callerid run`` and mitmdump
alike. ``docs/limits.md`` is generated from the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any

from mitmproxy.addonmanager import Loader

from callerid.errors import ConfigError
from callerid.model import Outcome, Reason
from callerid.proxy.addresses import Network, Private
from callerid.proxy.destination import normal_host, split_authority

MIN_RATE = 32_768
"""Bytes per second that extend ``callerid_body_seconds``: a large body on a slow line is no slow sender."""

ANSWER_HEAD = 4
"""The head of an answer may be this many times ``callerid_max_head``: cookies and policies make them long."""


class Unit(Enum):
    """What an option's text means: the type of its option, and its hint for whoever got it wrong."""

    BYTES = "Write a number of bytes, or one with k, m or g at its end, as in 8m."
    COUNT = "Write a whole number."
    SECONDS = "Write a number of seconds, as in 30 or 0.5."
    PLACES = "Write a host name, an IP address, or a network as in 10.1.0.0/16; repeat --set for more."


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One limit. ``least`` and ``most`` are its bounds; ``never``: 0 switches it off.

    ``beyond`` says what becomes of whoever goes past it.
    """

    name: str
    field: str
    unit: Unit
    default: str
    least: float = 0
    most: float = 0
    never: bool = False
    help: str
    beyond: Reason | Outcome | str

    @property
    def typespec(self) -> Any:
        """The type of mitmproxy's option. A count is text as well, so that our words tell what is wrong."""
        return Sequence[str] if self.unit is Unit.PLACES else str


OPTIONS: tuple[Option, ...] = (
    Option(
        name="callerid_max_head", field="head", unit=Unit.BYTES, default="64k", least=4096, most=1 << 20,
        help="The head of a request: request line and headers.", beyond=Reason.HEADERS_TOO_LARGE,
    ),
    Option(
        name="callerid_max_headers", field="header_lines", unit=Unit.COUNT, default="256", least=16,
        most=10_000, help="Header lines of a request.", beyond=Reason.HEADERS_TOO_LARGE,
    ),
    Option(
        name="callerid_max_body", field="body", unit=Unit.BYTES, default="4m", least=1024, most=256 << 20,
        help="The body of a request to a listed server, as received and as forwarded.",
        beyond=Reason.TOO_LARGE,
    ),
    Option(
        name="callerid_max_anonymous", field="anonymous", unit=Unit.BYTES, default="64k", least=1024,
        most=256 << 20, help="The same for a caller that has shown no good evidence; more is not read.",
        beyond="the reason why the caller is not known",
    ),
    Option(
        name="callerid_max_upload", field="upload", unit=Unit.BYTES, default="64m", least=1024, most=1 << 30,
        help="A body for a server that nobody lists, where it may be JSON and is held until it is judged; "
        "what begins otherwise is passed on as it comes, of any size.", beyond=Reason.TOO_LARGE,
    ),
    Option(
        name="callerid_max_depth", field="depth", unit=Unit.COUNT, default="64", least=8, most=256,
        help="Levels of nesting in a JSON body.", beyond=Reason.TOO_DEEP,
    ),
    Option(
        name="callerid_max_digits", field="digits", unit=Unit.COUNT, default="4300", least=20, most=4300,
        help="Characters of one number in a JSON body.", beyond=Reason.MALFORMED_JSON,
    ),
    Option(
        name="callerid_max_batch", field="batch", unit=Unit.COUNT, default="50", least=1, most=1000,
        help="Messages in a batch.", beyond=Reason.BATCH_REFUSED,
    ),
    Option(
        name="callerid_max_answer", field="answer", unit=Unit.BYTES, default="16m", least=65_536,
        most=1 << 30, help="The answer of a listed server that is no event stream; it is held to be judged.",
        beyond=Outcome.RESPONSE_TOO_LARGE,
    ),
    Option(
        name="callerid_max_event", field="event", unit=Unit.BYTES, default="4m", least=65_536, most=256 << 20,
        help="One event of an event stream of a listed server.", beyond=Outcome.RESPONSE_TOO_LARGE,
    ),
    Option(
        name="callerid_max_in_flight", field="in_flight", unit=Unit.COUNT, default="256", least=1,
        most=100_000, help="Requests of one principal under way at once, at all listed servers together; "
        "each request of a batch counts.", beyond=Reason.TOO_MANY_IN_FLIGHT,
    ),
    Option(
        name="callerid_max_streams", field="streams", unit=Unit.COUNT, default="256", least=1, most=100_000,
        help="Listening streams (GET, subscriptions/listen) of one principal open at once; counted apart.",
        beyond=Reason.TOO_MANY_IN_FLIGHT,
    ),
    Option(
        name="callerid_head_seconds", field="head_seconds", unit=Unit.SECONDS, default="30", least=0.05,
        most=3600, help="From the connection, or the CONNECT, to the first byte of a request, TLS handshake "
        "included; and from there to its whole head.", beyond=Reason.TOO_SLOW,
    ),
    Option(
        name="callerid_body_seconds", field="body_seconds", unit=Unit.SECONDS, default="120", least=0.05,
        most=86_400, help="From the head of a request to the end of its body; each 32 KiB that came give one "
        "second more.", beyond=Reason.TOO_SLOW,
    ),
    Option(
        name="callerid_idle_seconds", field="idle_seconds", unit=Unit.SECONDS, default="3600", least=0.05,
        most=86_400, never=True, help="Rest of a client's connection between two requests.",
        beyond="closed, without a row",
    ),
    Option(
        name="callerid_stream_idle_seconds", field="stream_idle_seconds", unit=Unit.SECONDS, default="3600",
        least=0.05, most=86_400, never=True,
        help="Silence of a listed server on an open event stream; a comment line is enough to break it.",
        beyond=Outcome.IDLE,
    ),
    Option(
        name="callerid_private", field="private", unit=Unit.PLACES, default="",
        help="Host names, addresses or networks that may be dialled although they are not public and not "
        "listed in servers.yaml. Metadata services never may.", beyond=Reason.ADDRESS_REFUSED,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The values in force. Sizes in bytes, times in seconds (0: never), as the table above describes them."""

    head: int
    header_lines: int
    body: int
    anonymous: int
    upload: int
    depth: int
    digits: int
    batch: int
    answer: int
    event: int
    in_flight: int
    streams: int
    head_seconds: float
    body_seconds: float
    idle_seconds: float
    stream_idle_seconds: float
    private: Private
    reading: Mapping[str, int] = field(init=False, repr=False, compare=False)
    """The arguments for ``mcp.classify``."""

    def __post_init__(self) -> None:
        reading = {"max_body": self.body, "max_batch": self.batch}
        reading |= {"max_depth": self.depth, "max_digits": self.digits}
        object.__setattr__(self, "reading", MappingProxyType(reading))


def declare(loader: Loader) -> None:
    """Make mitmproxy know the options."""
    for option in OPTIONS:
        default: Any = [] if option.unit is Unit.PLACES else option.default
        loader.add_option(option.name, option.typespec, default, option.help)


def read(options: Any) -> Limits:
    """The limits that these options of mitmproxy name.

    Raises:
        ConfigError: names every option that cannot be meant, and how it is written.
    """
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for option in OPTIONS:
        given = getattr(options, option.name)
        try:
            values[option.field] = _value(option, given)
        except ValueError as error:
            wrong.append(f"option {option.name}{error}. {option.unit.value}")
    if wrong:
        raise ConfigError(
            "\n  ".join(["callerid does not start:", *wrong]), hint="docs/limits.md has them all."
        )
    # What is set low takes along what could not be beyond it.
    values["anonymous"] = min(values["anonymous"], values["body"])
    values["upload"] = max(values["upload"], values["body"])
    return Limits(**values)


def _value(option: Option, given: Any) -> Any:
    if option.unit is Unit.PLACES:
        return _places(given)
    text = str(given).strip()
    number = _number(option.unit, text)
    if number is None:
        raise ValueError(f"={text} is not {'a size' if option.unit is Unit.BYTES else 'a number'}")
    if option.never and number == 0:
        return number
    if not option.least <= number <= option.most:
        bounds = f"{shown(option, option.least)} to {shown(option, option.most)}"
        raise ValueError(f"={text} is out of bounds, which are {bounds}{', or 0' if option.never else ''}")
    return number


def _number(unit: Unit, text: str) -> int | float | None:
    """The number, or None. Strict: no sign, no exponent, no space, ASCII only."""
    if not text.isascii():
        return None
    if unit is Unit.SECONDS:
        whole, dot, part = text.partition(".")
        good = whole.isdigit() and (not dot or part.isdigit()) and len(text) <= 12
        return float(text) if good else None
    factor = 1
    if unit is Unit.BYTES and text[-1:].lower() in ("k", "m", "g"):
        factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[text[-1:].lower()]
        text = text[:-1]
    return int(text) * factor if text.isdigit() and len(text) <= 12 else None


def _places(given: Sequence[str]) -> Private:
    hosts: set[str] = set()
    networks: list[Network] = []
    for text in given:
        try:
            networks.append(ip_network(text.strip().strip("[]"), strict=False))
        except ValueError:
            place = split_authority(text, "https")
            if "/" in text or ":" in text or place is None or not _is_host(place[0]):
                raise ValueError(f"={text} is neither a host name nor a network") from None
            hosts.add(normal_host(text))
    return Private(frozenset(hosts), tuple(networks))


def _is_host(name: str) -> bool:
    labels = name.split(".")
    good = (label and label.replace("-", "").replace("_", "").isalnum() for label in labels)
    return name.isascii() and all(good) and not labels[-1].isdigit()


def shown(option: Option, number: float) -> str:
    """A bound or a default as a person reads it."""
    if option.unit is Unit.BYTES:
        for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if number >= size and number % size == 0:
                return f"{int(number) // size} {name}"
    return f"{number:g} s" if option.unit is Unit.SECONDS else f"{int(number)}"


class _Defaults:
    """What the options are when nobody set one."""

    def __getattr__(self, name: str) -> Any:
        option = next(option for option in OPTIONS if option.name == name)
        return () if option.unit is Unit.PLACES else option.default


DEFAULTS = read(_Defaults())
