"""The registry: issued tokens and blocked subjects, in HOME/registry.db. Who may come in, and its history.

What is asked on every call is in ``lookup``. Here tokens are entered, derived, rotated and revoked, each in
one transaction with what it rests on: a child is entered only while its parent is good, whoever revokes
that at the same moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from callerid.errors import ConfigError
from callerid.identity.lookup import MAX_LINEAGE, Lookup
from callerid.identity.narrowing import Scope, actors_below, check_alive, check_narrower
from callerid.identity.rows import COLUMNS, BlockedRow, TokenRow, scope_to_text
from callerid.identity.tokens import token_id

_NO_TOKEN = "`callerid tokens --all` lists them."

# The tree below the tokens chosen by a condition on t; UNION ends a cycle that somebody wrote by hand.
_TREE = (
    "WITH RECURSIVE tree(id) AS (SELECT t.id FROM tokens t WHERE {start} "
    "UNION SELECT c.id FROM tokens c JOIN tree ON c.parent = tree.id) SELECT id FROM tree"
)
_DEAD = "UPDATE tokens SET revoked_us = ?, revoked_by = ?, revoked_why = ? WHERE revoked_us IS NULL"
_REVOKE = _DEAD + " AND id IN (" + _TREE + ")"
_PLACES = ", ".join("?" * (COLUMNS.count(",") + 2))
_INSERT = f"INSERT INTO tokens (sha256, {COLUMNS}) VALUES ({_PLACES})"  # noqa: S608  (constants)
# Derived, dead since before a moment, and nothing below: a parent is needed as long as it has children.
_FORGET = (
    "DELETE FROM tokens WHERE id IN (SELECT t.id FROM tokens t "
    "WHERE (t.parent IS NOT NULL OR t.origin IS NOT NULL) "
    "AND min(t.expires_us, ifnull(t.revoked_us, t.expires_us)) < ? "
    "AND NOT EXISTS (SELECT 1 FROM tokens c WHERE c.parent = t.id) LIMIT ?)"
)
_HELD = {
    "agent": "t.agent = ?1 OR EXISTS (SELECT 1 FROM json_each(t.actors) WHERE value = ?1)",
    "origin": "EXISTS (SELECT 1 FROM json_each(t.origin) WHERE value = ?1)",
    "principal": "t.principal = ?1",
}


class Registry(Lookup):
    """An open registry. Used by one thread; each process opens its own, and so does each thread.

    Every method raises StoreError when the file cannot be read or written.
    """

    def issue(
        self,
        *,
        token_digest: str,
        principal: str,
        agent: str | None,
        servers: tuple[str, ...] | None,
        tools: tuple[str, ...] | None,
        created_us: int,
        expires_us: int,
        created_by: str,
        parent: str | None = None,
        networks: tuple[str, ...] | None = None,
    ) -> TokenRow:
        """Enter a new token. A child has its parent's principal and does not outlive it.

        Raises:
            ConfigError: expires before it begins, or is more than its parent.
            StoreError: also when the token is there already.
        """
        row = TokenRow(
            id=token_id(token_digest),
            principal=principal,
            agent=agent,
            parent=parent,
            servers=servers,
            tools=tools,
            created_us=created_us,
            created_by=created_by,
            expires_us=expires_us,
            networks=networks,
        )
        with self._writing():
            if parent is not None:
                lineage = self._good(parent, created_us)
                if any(token.principal != principal or token.expires_us < expires_us for token in lineage):
                    raise ConfigError(
                        f"a token below {parent} has its principal and does not outlive it",
                        hint="Derive for the same principal, with a shorter ttl.",
                    )
            self._enter(row, token_digest)
        return row

    def derive(
        self,
        parent: str,
        scope: Scope,
        *,
        token_digest: str,
        created_us: int,
        expires_us: int,
        created_by: str,
        acting: str | None = None,
        actors: tuple[str, ...] = (),
    ) -> TokenRow:
        """Enter a narrower child of the token ``parent``, for the same principal.

        ``acting`` and ``actors`` are the agents that other evidence beside the token named: the child has
        them wherever the token names none. The parent is judged in the transaction that enters the child:
        whoever revokes it comes before or after, and either way the child is not good.

        Raises:
            ConfigError: there is no such token, it is not good, or the child would be more than it.
            StoreError: as always.
        """
        with self._writing():
            lineage = self._good(parent, created_us)
            above = lineage[0]
            check_narrower(lineage, scope, expires_us)
            agent = above.agent if above.agent is not None else acting
            chain = actors_below(agent, above.actors or actors, scope.agent)
            row = TokenRow(
                id=token_id(token_digest),
                principal=above.principal,
                agent=scope.agent if scope.agent is not None else agent,
                parent=above.id,
                servers=scope.servers,
                tools=scope.tools,
                created_us=created_us,
                created_by=created_by,
                expires_us=expires_us,
                networks=scope.networks,
                actors=chain,
            )
            self._not_blocked(row, *(name for token in lineage for name in token.origin))
            self._enter(row, token_digest)
        return row

    def derive_from_evidence(self, row: TokenRow, *, token_digest: str) -> TokenRow:
        """Enter a token that was derived from other evidence than a token: ``row`` with its ``origin``.

        Raises:
            ConfigError: its principal, an agent of it or its origin is blocked.
            StoreError: as always.
        """
        made = replace(row, id=token_id(token_digest))
        with self._writing():
            self._not_blocked(made, *made.origin)
            self._enter(made, token_digest)
        return made

    def rotate(
        self, identifier: str, *, token_digest: str, now_us: int, overlap_us: int, longest_us: int, by: str
    ) -> tuple[TokenRow, TokenRow]:
        """Replace a token: a new one with the same scope and span; the old one ends after the overlap.

        Children stay below the old one and end with it: it may be rotated because somebody else has it, and
        what that one derived must not live on. Nothing lives longer by this than what it stands below or
        was derived from.

        Returns:
            The new token and the old one as it is now.

        Raises:
            ConfigError: there is no such token, it is not good, or it was rotated before.
            StoreError: as always.
        """
        with self._writing():
            old, *above = self._good(identifier, now_us)
            if old.rotated_to is not None:
                raise ConfigError(
                    f"token {identifier} was rotated before", hint=f"Its successor is {old.rotated_to}."
                )
            ends = [now_us + min(old.expires_us - old.created_us, longest_us)]
            ends += [token.expires_us for token in above]
            ends += [old.expires_us] if old.origin else []
            made = replace(
                old,
                id=token_id(token_digest),
                created_us=now_us,
                created_by=by,
                expires_us=min(ends),
                last_used_us=None,
                last_ip=None,
            )
            self._enter(made, token_digest)
            ending = replace(old, expires_us=min(old.expires_us, now_us + overlap_us), rotated_to=made.id)
            self._storage.execute(
                "UPDATE tokens SET expires_us = ?, rotated_to = ? WHERE id = ?",
                (ending.expires_us, made.id, old.id),
            )
        return made, ending

    def revoke(self, identifier: str, *, now_us: int, by: str, why: str | None = None) -> int:
        """Revoke a token and all below it; the number of tokens that were good until now."""
        return self._revoke("t.id = ?", identifier, now_us, by, why)

    def revoke_principal(self, principal: str, *, now_us: int, by: str, why: str | None = None) -> int:
        """Revoke all tokens of a principal and all below them; the number that were good until now."""
        return self._revoke("t.principal = ?", principal, now_us, by, why)

    def forget_derived(self, *, before_us: int, at_most: int) -> int:
        """Delete derived tokens that were dead before then, children before parents; how many were deleted.

        To whoever still holds one it is unknown instead of expired. What an administrator issued stays.
        """
        with self._writing():
            return self._storage.execute(_FORGET, (before_us, at_most))

    def block(self, subject: str, *, now_us: int, by: str, why: str | None = None) -> bool:
        """Block a subject (canonical spelling). False if it was blocked already."""
        statement = "INSERT OR IGNORE INTO blocked (subject, since_us, why, by) VALUES (?, ?, ?, ?)"
        with self._writing():
            return self._storage.execute(statement, (subject, now_us, why, by)) > 0

    def unblock(self, subject: str) -> bool:
        """Lift a block. False if there was none."""
        with self._writing():
            return self._storage.execute("DELETE FROM blocked WHERE subject = ?", (subject,)) > 0

    def blocked(self) -> tuple[BlockedRow, ...]:
        """All blocked subjects, in order."""
        rows = self._storage.rows("SELECT subject, since_us, why, by FROM blocked ORDER BY subject")
        return tuple(BlockedRow(subject=row[0], since_us=row[1], why=row[2], by=row[3]) for row in rows)

    def tokens(self, *, principal: str | None = None, agent: str | None = None) -> tuple[TokenRow, ...]:
        """All tokens, of one principal or agent if named, oldest first, dead ones included."""
        rows = self._storage.rows(
            f"SELECT {COLUMNS} FROM tokens WHERE (?1 IS NULL OR principal = ?1)"  # noqa: S608  (a constant)
            " AND (?2 IS NULL OR agent = ?2) ORDER BY created_us, id",
            (principal, agent),
        )
        return tuple(self._token(row) for row in rows)

    def held(self, subject: str) -> tuple[TokenRow, ...]:
        """The tokens that a block of ``subject`` refuses, all below them included, oldest first.

        ``subject`` is a principal, ``agent:NAME`` (at work or earlier in the chain), or the credential id of
        a certificate or a JWT (tokens that were derived from it).
        """
        kind, _, name = subject.partition(":")
        start = _HELD["agent" if kind == "agent" else "origin" if kind in ("cert", "jwt") else "principal"]
        rows = self._storage.rows(
            f"SELECT {COLUMNS} FROM tokens WHERE id IN ({_TREE.format(start=start)})"  # noqa: S608
            " ORDER BY created_us, id",
            (name if kind == "agent" else subject,),
        )
        return tuple(self._token(row) for row in rows)

    # -- inside --------------------------------------------------------------------------------------

    def _good(self, identifier: str, now_us: int) -> tuple[TokenRow, ...]:
        """A token and its parents, all good, with room for one more below."""
        row = self.get(identifier)
        if row is None:
            raise ConfigError(f"there is no token {identifier}", hint=_NO_TOKEN)
        lineage = self.lineage(row)
        check_alive(lineage, now_us)
        if len(lineage) >= MAX_LINEAGE:
            raise ConfigError(f"token {identifier} has too many parents", hint="Take one further up.")
        return lineage

    def _not_blocked(self, row: TokenRow, *credentials: str) -> None:
        agents = dict.fromkeys((*row.actors, *((row.agent,) if row.agent is not None else ())))
        names = (row.principal, *(f"agent:{name}" for name in agents), *credentials)
        hit = self.first_blocked(names)
        if hit is not None:
            raise ConfigError(f"{hit} is blocked", hint="`callerid unblock` takes a block back.")

    def _enter(self, row: TokenRow, token_digest: str) -> None:
        if row.expires_us <= row.created_us:
            raise ConfigError("the token would expire before it begins", hint="Ask for a longer ttl.")
        scopes = (row.servers, row.tools)
        lists = (row.actors, row.in_groups, row.origin, row.chain, row.jwts)
        self._storage.execute(
            _INSERT,
            (
                token_digest, row.id, row.principal, row.agent, row.parent, *map(scope_to_text, scopes),
                row.created_us, row.created_by, row.expires_us, None, None, None, None, None,
                scope_to_text(row.networks), *(scope_to_text(one or None) for one in lists), None,
            ),
        )  # fmt: skip

    def _revoke(self, start: str, value: str, now_us: int, by: str, why: str | None) -> int:
        with self._writing():
            return self._storage.execute(_REVOKE.format(start=start), (now_us, by, why, value))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: what is read in it is as it is now, for nobody else writes meanwhile."""
        self._catch_up()
        try:
            with self._storage.transaction():
                yield
        finally:
            self._forget()
