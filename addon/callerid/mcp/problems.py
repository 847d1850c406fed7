"""What the caller of an HTTP API reads when its request was refused, or its answer cannot be given out.

One form for all: ``application/problem+json`` (RFC 9457) with the reason, the rule, what the rule's author
says and the decision's id as members of their own. Nothing that the caller sent is repeated.

No path is hidden: an API has no list that rules could shorten, so whoever is refused may know the rule.

401 is for callers that are not known, and nothing else has it: an answer that a client takes for the wish of
the server's own login would lead it past the shared credential. The challenge that must stand in a 401 (RFC
9110 section 11.6.1) names callerid, and the company's login where there is one (``oauthdoor``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from callerid.mcp.answers import FAULTS, NOT_SENT, SENTENCES, STATUS, WITHHELD, Answer
from callerid.mcp.oauthdoor import LOGIN_HELPS
from callerid.model import Outcome, Reason

NOT_KNOWN = LOGIN_HELPS | {Reason.EVIDENCE_AMBIGUOUS, Reason.JWT_PROOF}
"""The caller is not known, and would be with other evidence: 401. Whoever is known and may not gets 403."""

CHALLENGE = 'Bearer realm="callerid"'

_SENTENCES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.MALFORMED_HTTP: "servers read this request in different ways; write it plainly",
        Reason.NO_GRANT: "there is nothing here that you may do so",
        Reason.DUPLICATE_KEY: "it names the same parameter twice, or in two spellings",
        Reason.NOT_UTF8: "it is not plain UTF-8",
    }
)
_STATUS: Mapping[Reason, int] = MappingProxyType(
    {
        Reason.TOO_MANY_IN_FLIGHT: 429,
        Reason.OAUTH_WITHHELD: 404,
        Reason.JWT_KEYS_UNAVAILABLE: 503,
    }
)
_TITLES: Mapping[int, str] = MappingProxyType(
    {
        401: "callerid does not know who is calling",
        502: "callerid has no answer of the server to give",
        503: "callerid could not do this now",
    }
)


def refusal(
    *,
    reason: Reason,
    event_id: str,
    rule: str | None,
    say: str | None,
    status: int | None = None,
    challenge: str | None = None,
) -> Answer:
    """The answer to a request to an HTTP API that is refused.

    Args:
        reason: why.
        event_id: the decision's row.
        rule: the rule that decided, if one did.
        say: that rule's own words for the caller.
        status: that of a request which cannot be read.
        challenge: the ``WWW-Authenticate`` of a 401, if it is to lead to a login.
    """
    if reason is Reason.NO_GRANT or reason in FAULTS:
        rule, say = None, None
    if reason in FAULTS:
        status = 503
    elif reason in NOT_KNOWN:
        status = 401
    else:
        status = _STATUS.get(reason) or status or STATUS.get(reason, 403)
    what = "This request was not sent on" if status == 503 else "This request was refused by callerid"
    text = f"{what}: {_SENTENCES.get(reason, SENTENCES[reason])}."
    headers = (("WWW-Authenticate", challenge or CHALLENGE),) if status == 401 else ()
    said = {"reason": reason.value} | ({"rule": rule} if rule else {}) | ({"say": say.strip()} if say else {})
    return _problem(status, text, event_id, said, headers)


def upstream_refused_credential(event_id: str) -> Answer:
    """The server did not take the shared credential: 502, and no ``WWW-Authenticate``."""
    text = (
        "The server did not accept the credential that callerid holds for it. Your own credential is not "
        "the cause: do not log in again, tell the operator of callerid."
    )
    return _problem(502, text, event_id, {"outcome": Outcome.UPSTREAM_REFUSED_CREDENTIAL.value})


def upstream_unusable(event_id: str, detail: str, outcome: Outcome = Outcome.RESPONSE_REFUSED) -> Answer:
    """The answer is not given out, or there was none: 502. ``detail`` is a clause in our own words."""
    text = f"{NOT_SENT if outcome is Outcome.NOT_SENT else WITHHELD}: {detail}."
    return _problem(502, text, event_id, {"outcome": outcome.value})


def _problem(
    status: int,
    detail: str,
    event_id: str,
    members: Mapping[str, str],
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    title = _TITLES.get(status, "callerid refused this request")
    problem = {"title": title, "status": status, "detail": detail, **members, "decision": event_id}
    body = json.dumps(problem, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    fixed = (
        ("Content-Type", "application/problem+json"),
        ("Cache-Control", "no-store"),
        ("Content-Length", str(len(body))),
    )
    return Answer(status, (*fixed, *headers), body)
