"""One HTTP request as plain values: what the walk judges, without mitmproxy in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from callerid.config import Server
from callerid.credentials.inject import Injection
from callerid.credentials.minting import Wanted
from callerid.credentials.store import CredentialStore
from callerid.credentials.tripwire import NOTHING, Hit, Noticed
from callerid.identity.assertion import Asserting
from callerid.identity.presented import Presented
from callerid.mcp.answers import Answer
from callerid.model import Caller, DecisionRecord, Message
from callerid.proxy.conversations import Conversation
from callerid.proxy.handles import Sort, handle

type Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A complete request. ``scheme``, ``host`` and ``port`` are those that would be dialled.

    ``host_header`` and ``sni`` are the client's own words for the same place; ``sni`` is None where
    no TLS was intercepted or none was sent. ``path`` is the request target with its query.
    ``tls_verified``: the connection that will carry it is only used once its certificate is verified.
    ``noticed``: shared keys in its head.
    ``called``: in reverse mode, the origin as the client calls it, if its own words agree about that.
    """

    time_us: int
    http_method: str
    scheme: str
    host: str
    port: int
    path: str
    host_header: str | None
    sni: str | None
    headers: Headers
    body: bytes
    presented: Presented
    client_ip: str | None
    upgrade: bool = False
    tls_verified: bool = False
    called: str | None = None
    noticed: Noticed = NOTHING

    @property
    def now(self) -> datetime:
        """``time_us`` as a time of day, UTC."""
        return datetime.fromtimestamp(self.time_us / 1e6, UTC)

    @property
    def upstream(self) -> str:
        """``host:port`` as dialled; an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def values(self, name: str) -> tuple[str, ...]:
        """All values of the header ``name`` (lower-case), in order."""
        return tuple(value for header, value in self.headers if header.lower() == name)

    def first(self, name: str) -> str | None:
        """The first value of the header ``name`` (lower-case), for the row only, never to decide."""
        size = len(name)
        for header, value in self.headers:
            if len(header) == size and header.lower() == name:
                return value
        return None

    def session(self) -> str | None:
        """The handle of the session id, for the row and for its owner."""
        raw = self.first("mcp-session-id")
        return handle(Sort.SESSION, raw) if raw else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What a refused call lacks, and may be asked for: then ``again`` is the ruling, at the time given."""

    wanted: Wanted
    store: CredentialStore
    again: Callable[[datetime], Ruling]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the walk says of one request. ``answer`` is set for every refusal.

    ``records`` are committed before ``answer`` is sent or a byte goes upstream. ``body`` None means
    that the body is forwarded as it came, which only happens towards servers that nobody listed.
    ``conversation`` is set once the caller is known to speak in a session of its own. ``asserting``: the
    server is told who called, in a JWT that is signed once the records are durable; ``headers`` are then
    written after ``strip``. ``target``: path and query as they were judged, None if they go on as they came.
    ``hits`` are shared keys in the body; ``judged`` is the request without what was taken out of it, None if
    that is nothing.
    ``pending``: a refusal that stands unless a token can be had (``obtaining``).
    ``undo``: called if the records cannot be committed: takes back what the answer would have told.
    """

    records: tuple[DecisionRecord, ...]
    answer: Answer | None
    body: bytes | None = None
    injection: Injection | None = None
    strip: tuple[str, ...] = ()
    server: Server | None = None
    caller: Caller | None = None
    messages: tuple[Message, ...] = ()
    conversation: Conversation | None = None
    session: str = ""
    asserting: Asserting | None = None
    target: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    hits: tuple[Hit, ...] = ()
    judged: Facts | None = None
    pending: Pending | None = None
    undo: Callable[[], None] | None = None
