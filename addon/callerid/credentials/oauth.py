"""Access tokens by client credentials, refresh token or token exchange. The protocol is Authlib's.

Loaded only where a credential asks for it: Authlib and requests are heavy, and extras. A client secret goes
to ``token_url`` and nowhere else: https with verification, no redirects, no proxy of the environment (law 5).
RFC 6749 sections 4.4, 5 and 6; RFC 8707; RFC 8693.
"""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Never
from urllib.parse import urlsplit

from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]
from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]
from requests import RequestException, Response

from callerid.config import Credential, OAuth
from callerid.credentials import kept
from callerid.credentials.inject import spend
from callerid.credentials.minting import Given
from callerid.credentials.secret import MIN_LENGTH, PemSecret, Secret, is_printable_ascii
from callerid.credentials.sources.base import MAX_LENGTH, Fetched, Flight, Unavailable
from callerid.credentials.sources.net_requests import Adapter
from callerid.credentials.sources.quiet import hush

hush()
logger = logging.getLogger(__name__)

type Value = Secret | PemSecret

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_SPOKEN: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "access_denied",
        "temporarily_unavailable",
        "server_error",
    }
)
"""Errors that may be repeated: what else a server says could quote what it was sent."""
_HINTS: Final[Mapping[str, str]] = {
    "invalid_client": "Check the client's id and secret.",
    "invalid_grant": "The refresh token, or the person's token, has ended or was used before.",
    "invalid_target": "Check resource and audience in credentials.yaml.",
    "invalid_scope": "Check the scope in credentials.yaml.",
}
_LONGEST: Final = 86400
_YEAR: Final = 366 * 86400
_PERSONAL: Final = 300
"""Seconds that a person's token is kept for where the server does not say how long it is good."""


class Unsound(Exception):
    """The answer of a token endpoint cannot be read in one way only; says why."""


class Endpoint:
    """One token endpoint, for one credential."""

    def __init__(self, credential: Credential, roots: Path | None, folder: Path | None) -> None:
        self._credential = credential
        self._oauth = credential.oauth if credential.oauth is not None else OAuth(token_url="", client_id="")
        self._roots = roots
        self._kept = kept.place(folder, credential.id) if folder is not None else None
        self.per_person = credential.inject == "token_exchange"

    def mint(self, given: Given, flight: Flight) -> Fetched | Unavailable:
        """One access token; never an exception for what the network or the server does.

        ``given.secret`` is the client secret, or for ``oauth_refresh_token`` the refresh token.
        """
        if urlsplit(self._oauth.token_url).scheme != "https":
            return self._fault("token_url must begin with https://", "Mend it in credentials.yaml.")
        match self._credential.inject:
            case "oauth_client_credentials":
                if given.secret is None:
                    return self._fault("there is no client secret", "Name a source that holds it.")
                return self._answer(given.secret, flight, self._named(grant_type="client_credentials"))
            case "token_exchange":
                if given.subject is None:
                    return self._fault("there is no token of a person to exchange")
                return self._exchange(given.secret, given.subject, flight)
        if given.secret is None:
            return self._fault("there is no refresh token", "Name a source that holds it.")
        other = self._oauth.client_secret
        client = given.others.get(other) if other is not None else None
        if other is not None and client is None:
            return self._fault(f"the credential {other}, its client secret, is not available")
        return spend(given.secret, lambda token: self._refresh(client, token, flight))

    # -- the three grants ----------------------------------------------------------------------

    def _named(self, **more: str | None) -> dict[str, str]:
        oauth = self._oauth
        found = {"scope": oauth.scope, "resource": oauth.resource, **more}
        if self._credential.inject != "oauth_refresh_token":
            found["audience"] = oauth.audience
        return {name: value for name, value in found.items() if value}

    def _exchange(self, client: Value | None, subject: Secret, flight: Flight) -> Fetched | Unavailable:
        """RFC 8693: a token of that person for this server. It does not outlive the one it is made of."""
        named = self._named(
            grant_type=EXCHANGE,
            subject_token_type=self._oauth.subject_token_type,
            requested_token_type=self._oauth.requested_token_type,
        )

        def ask(token: str) -> Fetched | Unavailable:
            got = self._answer(client, flight, {**named, "subject_token": token})
            if isinstance(got, Unavailable):
                return got
            ends = [
                end for end in (got.expires_at or flight.wall + _PERSONAL, _end_of(token)) if end is not None
            ]
            return Fetched(got.value, min(ends), good_until=got.good_until)

        return spend(subject, ask)

    def _refresh(self, client: Value | None, given: str, flight: Flight) -> Fetched | Unavailable:
        """RFC 6749 section 6. A new refresh token takes the place of the old one, also after a restart."""
        held = kept.current(self._kept, given)
        got = self._answer(client, flight, self._named(grant_type="refresh_token", refresh_token=held.token))
        if isinstance(got, Unavailable) or got.successor is None or got.successor == held.token:
            return got
        if self._kept is not None:
            try:
                kept.write(self._kept, held.followed_by(got.successor))
            except OSError as error:
                logger.error(
                    "callerid: the new refresh token of %s could not be kept, a restart will lose it: %s",
                    self._credential.id,
                    error.strerror,
                )
        return got

    # -- the wire ------------------------------------------------------------------------------

    def _answer(
        self, client: Value | None, flight: Flight, named: Mapping[str, str]
    ) -> Fetched | Unavailable:
        if client is None:
            return self._post(None, flight, named)
        return spend(client, lambda value: self._post(value, flight, named))

    def _post(self, client: str | None, flight: Flight, named: Mapping[str, str]) -> Fetched | Unavailable:
        where = self._oauth.token_url
        try:
            session = OAuth2Session(
                client_id=self._oauth.client_id,
                client_secret=client,
                token_endpoint_auth_method=self._oauth.client_auth if client is not None else "none",
            )
            with session:
                session.trust_env = False
                session.adapters.clear()
                session.mount("https://", Adapter(flight, self._roots))
                session.register_compliance_hook("access_token_response", _plain_answer)
                token = session.fetch_token(where, allow_redirects=False, timeout=flight.left(), **named)
        except OAuthError as error:
            said = error.error if error.error in _SPOKEN else "an error of its own"
            return self._fault(f"the token endpoint {where} answered: {said}", _HINTS.get(said, ""))
        except RequestException as error:
            return self._fault(
                f"the token endpoint {where} cannot be reached: {type(error).__name__}",
                "Check its address, its certificate (--upstream-ca) and the network.",
            )
        except Unsound as error:
            return self._fault(f"the token endpoint {where} gave no token that can be read: {error}")
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError):
            return self._fault(f"the token endpoint {where} gave no token that can be read")
        return self._read(token, flight)

    def _read(self, token: Mapping[str, Any], flight: Flight) -> Fetched | Unavailable:
        """What RFC 6749 section 5.1 asks of an answer, and what a header can carry."""
        value, kind = token.get("access_token"), token.get("token_type")
        if not isinstance(value, str) or not isinstance(kind, str) or kind.lower() != "bearer":
            return self._fault(f"the token endpoint {self._oauth.token_url} gave no bearer token")
        if " " in value or not is_printable_ascii(value) or not MIN_LENGTH <= len(value) <= MAX_LENGTH:
            return self._fault(
                f"the token endpoint {self._oauth.token_url} gave a token that a header cannot carry"
            )
        successor = token.get("refresh_token")
        sound = isinstance(successor, str) and is_printable_ascii(successor) and len(successor) >= MIN_LENGTH
        lasts = token.get("expires_in")
        return Fetched(
            value,
            _expiry(lasts, flight.wall, _LONGEST),
            successor=successor if sound else None,
            good_until=_expiry(lasts, flight.wall, _YEAR),
        )

    def _fault(self, detail: str, hint: str = "") -> Unavailable:
        return Unavailable(self._credential.id, detail, hint)


def open_minter(credential: Credential, roots: Path | None, folder: Path | None) -> Endpoint:
    """As the other lazily loaded modules have it; nothing is fetched here."""
    return Endpoint(credential, roots, folder)


def _plain_answer(response: Response) -> Response:
    """A token comes with 200 and an error with 4xx; a redirect or anything else is neither."""
    if response.status_code != 200 and not 400 <= response.status_code < 600:
        raise ValueError("neither a token nor an error")
    content = response.content or b""
    if response.status_code != 200 and b'"error"' not in content:
        raise ValueError("an error without its name")
    if response.status_code == 200:
        _strictly(content)
    return response


def _strictly(content: bytes) -> None:
    """What two readers could read differently is no token.

    Raises:
        Unsound: why; it quotes nothing.
    """
    try:
        said = json.loads(content, object_pairs_hook=_once, parse_constant=_no_number)
    except Unsound:
        raise
    except RecursionError:
        raise Unsound("its JSON is nested too deeply") from None
    except ValueError:
        raise Unsound("it is no sound JSON") from None
    lasts = said.get("expires_in") if isinstance(said, dict) else None
    if isinstance(lasts, float) and not math.isfinite(lasts):
        raise Unsound('its "expires_in" is no number of seconds')


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len({name.lower() for name in found}) != len(pairs):
        raise Unsound("a name stands twice in its JSON")
    return found


def _no_number(name: str) -> Never:
    raise Unsound("its JSON holds a number that is none")


def _expiry(seconds: Any, wall: float, most: int) -> float | None:
    """Seconds since the epoch; None where the server does not say, the past where it says nonsense."""
    if seconds is None:
        return None
    try:
        lasts = int(seconds)
    except (ValueError, TypeError, OverflowError):
        return wall
    return wall + min(max(lasts, 0), most)


def _end_of(token: str) -> float | None:
    """``exp`` of a JWT that was verified before it came here."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return None
