"""What a server is told about a call: a short JWT of ours, made from the decision's row and nothing else.

Its words, from the standards where they have one:

- header ``typ`` ``callerid+jwt`` (explicit typing, RFC 8725 section 3.11), ``alg`` ``EdDSA``, ``kid``;
- ``iss`` this deployment, ``aud`` the one server it is for, ``iat nbf exp``, ``jti`` the decision's event id;
- ``sub`` the principal, ``act`` who acts for it, the current actor outermost (RFC 8693 section 4.1);
- ``txn`` the decision's event id (RFC 8417 section 2.2), ``rctx`` what is known of the requester and ``tctx``
  what is asked, as in OAuth Transaction Tokens.

It is signed after the row is durable: there is no signed statement about a call that nobody recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from callerid.config import Assertion
from callerid.identity import jwt
from callerid.identity.signing_keys import Signer
from callerid.model import DecisionRecord

TYPE = "callerid+jwt"
MAX_TTL = 60
"""Seconds. Whatever a file says, no assertion lives longer."""
MAX_TOOL = 1024
"""Characters of a tool's name; a longer one (the path of an HTTP call) is left out, not cut."""


@dataclass(frozen=True, slots=True)
class Asserting:
    """What is to be said to a server, and by whom."""

    assertion: Assertion
    signer: Signer

    def say(self, record: DecisionRecord, now: int) -> str:
        """The JWT about one recorded message, at ``now`` (seconds since the epoch)."""
        return self._sign(claims_of(record, self.assertion, self.signer.issuer, now))

    def say_all(self, records: Sequence[DecisionRecord], now: int) -> str:
        """The JWT about a request with several messages: which decisions, and not which tool."""
        return self._sign(claims_of_batch(records, self.assertion, self.signer.issuer, now))

    def _sign(self, claims: dict[str, Any]) -> str:
        return jwt.sign(claims, self.signer.private, kid=self.signer.kid, kind=TYPE)


def claims_of(record: DecisionRecord, assertion: Assertion, issuer: str, now: int) -> dict[str, Any]:
    """The claims about one message. Every one of them is in its row, or in the configuration."""
    tctx = {"server": record.server, "method": record.method}
    if record.tool is not None and len(record.tool) <= MAX_TOOL:
        tctx["tool"] = record.tool
    return _claims(record, assertion, issuer, now, jti=record.event_id) | {
        "txn": record.event_id,
        "tctx": tctx,
    }


def claims_of_batch(
    records: Sequence[DecisionRecord], assertion: Assertion, issuer: str, now: int
) -> dict[str, Any]:
    """The claims about a batch. No ``txn`` and no tool: a reader that wants one refuses, as it should."""
    first = records[0]
    return _claims(first, assertion, issuer, now, jti=f"{first.event_id}:batch") | {
        "tctx": {"server": first.server, "decisions": [record.event_id for record in records]},
    }


def _claims(
    record: DecisionRecord, assertion: Assertion, issuer: str, now: int, *, jti: str
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "iss": issuer,
        "sub": record.principal,
        "aud": assertion.audience,
        "iat": now,
        "nbf": now,
        "exp": now + min(assertion.ttl, MAX_TTL),
        "jti": jti,
    }
    act = _act(record)
    if act is not None:
        said["act"] = act
    return said | {"rctx": {"issuer": record.issuer, "assurance": record.assurance}}


def _act(record: DecisionRecord) -> dict[str, Any] | None:
    """The chain, the current actor outermost. The agent leads it, where the evidence does not place it."""
    chain = record.actors
    if record.agent is not None and record.agent not in chain:
        chain = (record.agent, *chain)
    act: dict[str, Any] | None = None
    for name in reversed(chain):
        act = {"sub": name} if act is None else {"sub": name, "act": act}
    return act
