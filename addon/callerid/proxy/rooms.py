"""The rooms as they are in force: what one request is judged by, from its first step to its last."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from callerid.credentials.store import CredentialStore
from callerid.identity.authority import Authority
from callerid.identity.client_cas import LoadedCA
from callerid.identity.jwks import JwksStore
from callerid.identity.signing_keys import FILE, SigningKeys
from callerid.policy.load import RuleSet
from callerid.proxy.conversations import Conversations
from callerid.proxy.destination import ServerTable
from callerid.proxy.discovered import Discovered
from callerid.proxy.handles import Handles
from callerid.proxy.hygiene import Hygiene
from callerid.proxy.inflight import InFlight
from callerid.proxy.limits import DEFAULTS, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """The rooms as they are in force right now; a reload makes a new one, a request keeps its own.

    ``asserted`` are the headers in which servers are told who called (``propagate.header_names``).
    """

    rules: RuleSet
    servers: ServerTable
    authority: Authority
    cas: tuple[LoadedCA, ...]
    jwks: JwksStore
    store: CredentialStore
    handles: Handles
    conversations: Conversations
    limits: Limits = DEFAULTS
    in_flight: InFlight = field(default_factory=InFlight)
    discovered: Discovered = field(default_factory=Discovered)
    hygiene: Hygiene = field(default_factory=Hygiene)
    signing: SigningKeys = field(default_factory=lambda: SigningKeys(Path(FILE)))
    asserted: frozenset[str] = frozenset()
