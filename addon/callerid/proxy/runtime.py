"""What lives as long as the proxy: rooms in force, registry, writer, and the tasks that renew them.

Reload is atomic: a request sees either the old rooms or the new ones, and a set that does not load
leaves the last good one in force, with an event in the audit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from callerid.audit.ids import uuid7
from callerid.audit.owners import Owners
from callerid.audit.records import ANONYMOUS
from callerid.audit.writer import AuditWriter
from callerid.config import ClientCA
from callerid.credentials.store import CredentialStore
from callerid.credentials.tripwire import KEY_BYTES, deployment_key
from callerid.errors import ConfigError, StoreError
from callerid.home import Home
from callerid.identity.authority import Authority
from callerid.identity.client_cas import LoadedCA, file_stamps, load_cas
from callerid.identity.jwks import JwksStore, fetch_jwks
from callerid.identity.registry import Registry
from callerid.identity.signing_keys import CHANCE_BYTES, FILE, SigningKeys
from callerid.identity.tokens import RANDOM_BYTES, mint
from callerid.model import DecisionRecord, FindingRecord, Kind, Message, MessageType, Outcome, OutcomeRecord
from callerid.policy.load import RuleSet, fingerprint, load_rules
from callerid.proxy import keeping
from callerid.proxy.conversations import Conversations, Settled, settle
from callerid.proxy.destination import ServerTable
from callerid.proxy.discovered import Discovered
from callerid.proxy.handles import Handles, Owner
from callerid.proxy.hygiene import Hygiene
from callerid.proxy.inflight import InFlight
from callerid.proxy.limits import DEFAULTS, Limits
from callerid.proxy.propagate import header_names
from callerid.proxy.recording import Recording
from callerid.proxy.rooms import Rooms

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
JWKS_SECONDS = 5.0
TOUCH_SECONDS = 5.0


def now_us() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


def new_id() -> str:
    """A fresh event id: UUIDv7 of now."""
    return uuid7(now_us(), os.urandom(10))


def new_token() -> str:
    """The text of a fresh scoped token."""
    return mint(os.urandom(RANDOM_BYTES))


class Runtime:
    """The state behind the addon. ``open`` fails loudly; after that every fault is a refusal."""

    def __init__(
        self, home: Home, rules_dir: Path, *, upstream_ca: Path | None = None, limits: Limits = DEFAULTS
    ) -> None:
        self.home = home
        self.rules_dir = rules_dir
        self.upstream_ca = upstream_ca
        self.limits = limits
        self.in_flight = InFlight()
        self.hygiene = Hygiene()
        self.signing = SigningKeys(home.path / FILE)
        self.rooms: Rooms
        self.registry: Registry
        self.writer: AuditWriter
        self.owners: Owners
        self._environ: Mapping[str, str] = dict(os.environ)
        self.turn = 0
        self.swapped: Callable[[Rooms], None] = lambda rooms: None  # with the rooms that are in force now
        self._generation = -1
        self._fingerprint: tuple[Any, ...] = ()
        self._client_cas: tuple[ClientCA, ...] = ()
        self._looked: tuple[Any, ...] = ()
        self.health = keeping.Health()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._recording = Recording()

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open HOME, the stores and the rules; start the writer.

        Raises:
            ConfigError: the rules do not load.
            StoreError: HOME, the registry or the audit cannot be used.
        """
        self._loop = loop
        self.home.prepare()
        found = fingerprint(self.rules_dir)
        rules = load_rules(self.rules_dir)
        self._client_cas = rules.identities.client_cas
        self._fingerprint = (found, file_stamps(self._client_cas))
        cas = load_cas(self._client_cas)
        self._tell_signing(self.signing.make(now_us() // 1_000_000, os.urandom(CHANCE_BYTES)))
        self.registry = Registry.open(self.home.registry)
        self.writer = AuditWriter(self.home.audit, notify=self._notify)
        self.owners = Owners(self.home.audit)
        self.hygiene = Hygiene(deployment_key(self.home.fingerprint_key, os.urandom(KEY_BYTES)))
        store = keeping.open_store(rules.credentials, self._environ, roots=self.upstream_ca, home=self.home)
        keeping.withdraw(rules.credentials)
        self.rooms = self._furnish(rules, cas, store)
        self.writer.scrub = self.scrubbed
        self.writer.start()  # before any secret is fetched: fetching may use up what another proxy here has
        keeping.begin(store, loop, self._refresh)
        self._renew_keys(self.rooms.jwks)
        self.health.tell(store, self.finding, now_us())
        self.writer.policy(rules.hash, now_us(), rules.sources)
        self.writer.event("started", now_us(), {"policy": rules.hash, "servers": len(rules.servers.servers)})

    def _furnish(
        self, rules: RuleSet, cas: tuple[LoadedCA, ...], store: CredentialStore, before: Rooms | None = None
    ) -> Rooms:
        """The rooms for a set of rules. Fetched keys are kept as long as the issuers are the same."""
        identities = rules.identities
        if before is not None and before.rules.identities.issuers == identities.issuers:
            jwks = before.jwks
        else:
            jwks = JwksStore(identities.issuers, lambda url: fetch_jwks(url, ca_file=self.upstream_ca))
        servers = ServerTable(rules.servers)
        if before is not None:
            servers.carry(before.servers)
        return Rooms(
            rules=rules,
            servers=servers,
            authority=Authority(
                identities,
                self.registry,
                jwks,
                cas,
                proofs=before.authority.proofs if before is not None else None,
                resources=[server.url for server in rules.servers.servers],
            ),
            cas=cas,
            jwks=jwks,
            store=store,
            handles=before.handles if before is not None else Handles(self._recall),
            conversations=before.conversations if before is not None else Conversations(),
            discovered=before.discovered if before is not None else Discovered(),
            limits=self.limits,
            in_flight=self.in_flight,
            hygiene=self.hygiene,
            signing=self.signing,
            asserted=header_names(rules.servers),
        )

    def _tell_signing(self, problem: str | None) -> None:
        """Without a key, servers that are to be told who called get nothing, and all others go on."""
        if problem is not None:
            logger.warning("callerid: nobody can be told who called: %s", problem)

    def _recall(self, server: str, known_as: str) -> Owner | None:
        """Whose a handle was before this process began, by the audit."""
        owned = self.owners.find(server, known_as)
        if owned is None or owned.principal == ANONYMOUS:
            return None
        kind = Kind.TOOL if owned.method == "tools/call" else Kind.METHOD
        made_by = Message(type=MessageType.REQUEST, method=owned.method, kind=kind, name=owned.tool)
        return Owner(owned.principal, made_by)

    def scrubbed(self, text: str) -> str:
        """The text without secrets that are held."""
        return self.rooms.store.scrubber.scrub_text(text)[0]

    def _notify(
        self, batch: list[tuple[Callable[[BaseException | None], None], BaseException | None]]
    ) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return

        def deliver() -> None:
            for done, error in batch:
                done(error)

        loop.call_soon_threadsafe(deliver)

    async def record(self, records: tuple[DecisionRecord, ...]) -> None:
        """Return once all rows are durable.

        Raises:
            StoreError: they are not, or not within ``recording.RECORD_TIMEOUT`` seconds.
        """
        await self._recording.record(self.writer, records)

    def outcome(self, record: OutcomeRecord) -> None:
        """Append how a call ended. Losing it is visible (``unknown``) and never holds anybody up."""
        try:
            self.writer.outcome(record)
        except StoreError as error:
            logger.error("callerid: an outcome could not be recorded: %s", error)

    def finding(self, record: FindingRecord) -> None:
        """Append what an operator should look at. Losing it is visible, and never holds anybody up."""
        self.writer.finding(record)

    def give_up_waiting(self, now: int) -> None:
        """Write the outcome of requests whose answers were awaited elsewhere, and did not come in time."""
        for waiting in self.rooms.conversations.overdue(now):
            how = Settled(Outcome.UNANSWERED, None)
            settle(waiting, how, now_us(), self.outcome, "no answer came on another stream")

    # -- tasks ---------------------------------------------------------------------------------

    def start(self, cut: Callable[[], Awaitable[None]]) -> None:
        """Start the background tasks. ``cut`` is called when somebody's rights may have shrunk."""

        async def watch() -> None:
            await asyncio.sleep(POLL_SECONDS)
            await cut()

        for work in (watch, self._keep, self._poll, self._fetch_keys, self._flush):
            self._tasks.append(asyncio.get_running_loop().create_task(self._forever(work)))

    async def _forever(self, work: Callable[[], Any]) -> None:
        while True:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except Exception:
                logger.exception("callerid: a background task failed and goes on")
                await asyncio.sleep(POLL_SECONDS)

    def ask_reload(self) -> None:
        """Reload at the next turn whether or not a file changed (SIGHUP)."""
        self._fingerprint = ()

    async def _poll(self) -> None:
        await asyncio.sleep(POLL_SECONDS)
        self._tell_signing(self.signing.refresh())
        found, before = self._look(), self._looked
        self._looked = found
        # Only what has stopped changing is read: half a file can be a valid one, without its deny rules.
        if found != self._fingerprint and found == before:
            await self._reload(found)

    async def _keep(self) -> None:
        await asyncio.sleep(POLL_SECONDS)
        self._refresh()
        self._generation = keeping.forget_blocked(self.rooms.store, self.registry, self._generation)

    def _refresh(self) -> None:
        """Secrets that changed are in force, what is due is being fetched, and their health is told."""
        self.rooms.store.refresh()
        self.health.tell(self.rooms.store, self.finding, now_us())

    def _look(self) -> tuple[Any, ...]:
        """What the rule files and the CA files look like from outside: a change asks for a reload, once."""
        return (fingerprint(self.rules_dir), file_stamps(self._client_cas))

    async def _reload(self, found: tuple[Any, ...]) -> None:
        self._fingerprint = found
        try:
            rules = await asyncio.to_thread(load_rules, self.rules_dir)
            if fingerprint(self.rules_dir) != found[0]:
                self._fingerprint = ()  # somebody is still writing: read again at the next turn
                return
            self._client_cas = rules.identities.client_cas
            self._fingerprint = (found[0], file_stamps(self._client_cas))
            cas = await asyncio.to_thread(load_cas, self._client_cas)
            rooms = self._furnish(rules, cas, self.rooms.store, self.rooms)
            await asyncio.to_thread(self._renew_keys, rooms.jwks)
            # Not before: secrets that came meanwhile are scrubbed and counted by the next store, too.
            rooms = replace(rooms, store=self.rooms.store.replaced(rules.credentials))
            self.writer.policy(rules.hash, now_us(), rules.sources)
        except Exception as error:
            logger.error("callerid: the new rules are refused, the last good ones stay in force:\n%s", error)
            self.writer.event(
                "reload_failed", now_us(), {"policy": self.rooms.rules.hash, "error": str(error)[:4000]}
            )
            return
        rooms.servers.carry(self.rooms.servers)  # what was announced while the keys were fetched
        before, self.rooms = self.rooms.rules.hash, rooms
        self.turn += 1
        self.swapped(rooms)
        keeping.withdraw(rules.credentials)
        self._refresh()
        logger.warning("callerid: rules reloaded, policy %s", rules.hash)
        self.writer.event("reload", now_us(), {"policy": rules.hash, "before": before})

    async def _fetch_keys(self) -> None:
        await asyncio.sleep(JWKS_SECONDS)
        jwks = self.rooms.jwks
        if jwks.due(datetime.now(UTC)):
            await asyncio.to_thread(self._renew_keys, jwks)

    def _renew_keys(self, jwks: JwksStore) -> None:
        """Blocks while keys are fetched; what is due and fails keeps its last good keys."""
        for problem in jwks.refresh(datetime.now(UTC)):
            logger.warning("callerid: %s", problem)

    async def _flush(self) -> None:
        await asyncio.sleep(TOUCH_SECONDS)
        self.registry.flush_touches()
        self.give_up_waiting(now_us())

    def close(self) -> None:
        """Stop the tasks, drain the writer, close the stores. Safe to call twice."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        if hasattr(self, "rooms"):
            self.rooms.store.close()
        for step in (self._last_words, self._close_writer, self._close_registry):
            try:
                step()
            except Exception:
                logger.exception("callerid: closing down was not clean")

    def _last_words(self) -> None:
        if hasattr(self, "writer"):
            self.writer.event("stopped", now_us(), {})

    def _close_writer(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close(5.0)

    def _close_registry(self) -> None:
        if hasattr(self, "registry"):
            self.registry.flush_touches()
            self.registry.close()
        if hasattr(self, "owners"):
            self.owners.close()


def require_rules(folder: Path) -> Path:
    """The rules directory, if it is one.

    Raises:
        ConfigError: it does not exist.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"there is no rules directory at {folder}",
            hint="Run `callerid init` to get a sample set, or name yours with --rules DIR.",
        )
    return folder
