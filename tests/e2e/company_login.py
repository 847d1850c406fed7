"""A company's login for the tests: the official SDK's authorization server, with JWTs as access tokens.

Registration, PKCE, codes and refresh are the library's; ours is who logs in, and the claims of the token
(RFC 9068): ``aud`` is the resource that the client names (RFC 8707).
"""

from __future__ import annotations

import secrets
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from tests.e2e.harness import DEADLINE, Pki, wait_for


class People(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """Logs in ``person``, whoever asks: the consent of the test."""

    def __init__(self, issuer: str, key: ec.EllipticCurvePrivateKey) -> None:
        self.issuer, self.key = issuer, key
        self.person = "alice@corp.example"
        self.seconds = 600
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.issued: list[str] = []

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[str(client_info.client_id)] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        code = secrets.token_urlsafe(24)
        self.codes[code] = AuthorizationCode(
            code=code,
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=str(client.client_id),
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
            subject=self.person,
        )
        return construct_redirect_uri(str(params.redirect_uri), code=code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self.codes[authorization_code.code]
        token = self.token(authorization_code.resource, str(authorization_code.subject), self.seconds)
        self.issued.append(token)
        return OAuthToken(access_token=token, token_type="Bearer", expires_in=max(self.seconds, 60))

    def token(self, audience: str | None, person: str, seconds: int) -> str:
        """A JWT of this login for one resource."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer, "aud": audience or self.issuer, "sub": person, "email": person,
            "iat": min(now, now + seconds - 1), "exp": now + seconds, "jti": secrets.token_hex(8),
        }  # fmt: skip
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "k1", "typ": "at+jwt"})

    async def load_access_token(self, token: str) -> AccessToken | None:
        return None

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        return None


class Login:
    """The authorization server, served over TLS in a thread."""

    def __init__(self, folder: Path, pki: Pki) -> None:
        pem = folder / "login.pem"
        pem.write_bytes(pki.servers.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.issuer = f"https://localhost:{self.port}/"  # the library writes it with the slash
        self.people = People(self.issuer, ec.generate_private_key(ec.SECP256R1()))
        routes = create_auth_routes(
            self.people,
            AnyHttpUrl(self.issuer),
            client_registration_options=ClientRegistrationOptions(enabled=True),
        )
        config = uvicorn.Config(
            Starlette(routes=routes), ssl_certfile=str(pem), log_level="error", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True
        )
        self._thread.start()
        wait_for(lambda: self._server.started, "the login")

    @property
    def public_key(self) -> dict[str, str]:
        """Its key as a JWK."""
        public: dict[str, str] = jwt.algorithms.ECAlgorithm.to_jwk(self.people.key.public_key(), as_dict=True)
        return {**public, "kid": "k1", "use": "sig", "alg": "ES256"}

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(DEADLINE)


def trusting(*files: Path) -> ssl.SSLContext:
    """A client's context that trusts these roots."""
    context = ssl.create_default_context()
    for file in files:
        context.load_verify_locations(str(file))
    return context
