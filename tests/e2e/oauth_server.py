"""A real OAuth authorization server in a thread: Authlib's, in Flask, over TLS. It counts, waits and fails.

Access tokens are JWTs of its own key that name their audience, so that an upstream can tell whom they are
for and in whose name. ``client_credentials``, ``refresh_token`` with rotation, and RFC 8693 as an extension.
"""

from __future__ import annotations

import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import (
    BaseGrant,
    ClientMixin,
    InvalidGrantError,
    InvalidRequestError,
    OAuth2Error,
    TokenEndpointMixin,
    TokenMixin,
    UnauthorizedClientError,
    grants,
)
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server

ISSUER = "https://login.corp.example"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


class InvalidTargetError(OAuth2Error):
    """RFC 8707 section 2."""

    error = "invalid_target"


@dataclass
class Client(ClientMixin):
    """A registered client."""

    client_id: str
    secret: str | None
    grants: tuple[str, ...]
    method: str = "client_secret_basic"

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str) -> str:
        return scope or ""

    def check_client_secret(self, client_secret: str) -> bool:
        return self.secret == client_secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.method

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grants


@dataclass
class Refresh(TokenMixin):
    """A refresh token that is good, once."""

    token: str
    client_id: str
    user: str

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.client_id

    def get_scope(self) -> str:
        return "files.read"


@dataclass
class Login:
    """The server's memory, and what the tests set: how long tokens live, and how it misbehaves."""

    clients: dict[str, Client] = field(default_factory=dict)
    refreshes: dict[str, Refresh] = field(default_factory=dict)
    targets: set[str] = field(default_factory=set)
    people: Callable[[str], str] | None = None
    """The subject of a person's token; raises where it is not good."""
    lifetime: int | None = 3600
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    asked: list[dict[str, str]] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    instead: Callable[[], Response] | None = None
    port: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/token"

    def count(self, grant: str) -> int:
        return sum(form.get("grant_type") == grant for form in self.asked)

    def read(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of one of its own tokens, verified as a resource server does."""
        found: dict[str, Any] = jwt.decode(
            token, self.key.public_key(), algorithms=["ES256"], audience=audience, issuer=ISSUER
        )
        return found

    def generate(self, grant_type: str, client: Client, user: Any = None, **more: Any) -> dict[str, Any]:
        target = request.form.get("resource") or request.form.get("audience")
        if self.targets and target not in self.targets:
            raise InvalidTargetError()
        now = int(time.time())
        claims = {
            "iss": ISSUER, "aud": target or "anybody", "sub": user or client.client_id, "iat": now,
            "exp": now + (self.lifetime or 3600), "jti": uuid.uuid4().hex, "scope": more.get("scope") or "",
        }  # fmt: skip
        value = jwt.encode(claims, self.key, algorithm="ES256")
        self.given.append(value)
        token = {"access_token": value, "token_type": "Bearer", "scope": claims["scope"]}
        if self.lifetime is not None:
            token["expires_in"] = self.lifetime
        if more.get("include_refresh_token") and grant_type == "refresh_token":
            token["refresh_token"] = f"refresh-{uuid.uuid4().hex}"
        return token

    def save(self, token: dict[str, Any], made: Any) -> None:
        if "refresh_token" in token:
            refresh = Refresh(token["refresh_token"], made.client.client_id, made.user)
            self.refreshes[refresh.token] = refresh


def _refreshing(login: Login) -> type[grants.RefreshTokenGrant]:
    class Rotating(grants.RefreshTokenGrant):
        INCLUDE_NEW_REFRESH_TOKEN = True
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")

        def authenticate_refresh_token(self, refresh_token: str) -> Refresh | None:
            return login.refreshes.get(refresh_token)

        def authenticate_user(self, refresh_token: Refresh) -> str:
            return refresh_token.user

        def revoke_old_credential(self, refresh_token: Refresh) -> None:
            login.refreshes.pop(refresh_token.token, None)

    return Rotating


def _exchanging(login: Login) -> type[BaseGrant]:
    class TokenExchange(BaseGrant, TokenEndpointMixin):
        GRANT_TYPE = EXCHANGE
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")

        def validate_token_request(self) -> None:
            client = self.authenticate_token_endpoint_client()
            if not client.check_grant_type(self.GRANT_TYPE):
                raise UnauthorizedClientError()
            self.request.client = client
            form = self.request.form
            if not form.get("subject_token") or not form.get("subject_token_type"):
                raise InvalidRequestError()
            try:
                self.request.user = login.people(form["subject_token"]) if login.people else None
            except jwt.InvalidTokenError:
                raise InvalidGrantError() from None

        def create_token_response(self) -> Any:
            token = self.generate_token(user=self.request.user, include_refresh_token=False)
            token["issued_token_type"] = ACCESS_TOKEN
            return 200, token, self.TOKEN_RESPONSE_HEADER

    return TokenExchange


class _Handler(WSGIRequestHandler):
    def log(self, kind: str, message: str, *args: Any) -> None:
        """Nothing: it would be the only noise of the tests."""


@contextmanager
def serving(context: ssl.SSLContext, login: Login) -> Iterator[Login]:
    """The authorization server while it lasts; ``login.url`` is its token endpoint."""
    app = Flask("login")
    server = AuthorizationServer(app, query_client=login.clients.get, save_token=login.save)
    server.register_token_generator("default", login.generate)

    class ClientCredentials(grants.ClientCredentialsGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

    for grant in (ClientCredentials, _refreshing(login), _exchanging(login)):
        server.register_grant(grant)

    @app.post("/token")
    def token() -> Any:
        login.asked.append(request.form.to_dict())
        login.gate.wait(30)
        return login.instead() if login.instead is not None else server.create_token_response()

    made = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context, request_handler=_Handler)
    made.daemon_threads = True  # type: ignore[attr-defined]
    login.port = made.port
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield login
    finally:
        login.gate.set()
        made.shutdown()
        made.server_close()
