"""HashiCorp Vault and OpenBao, through hvac: KV of both versions, and engines that lease what they give.

Loaded only where a credential asks for it. hvac's own client reads addresses, tokens and CA files from the
environment; its adapter and API classes do not, so those are what is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import hvac.exceptions as faults  # type: ignore[import-untyped]
import requests
from hvac.adapters import JSONAdapter  # type: ignore[import-untyped]
from hvac.api.auth_methods import JWT, AppRole, Kubernetes  # type: ignore[import-untyped]

from callerid.config import Credential
from callerid.credentials.sources.base import Fetched, Flight, Unavailable, sound
from callerid.credentials.sources.files import read_private
from callerid.credentials.sources.net import is_safe
from callerid.credentials.sources.net_requests import session
from callerid.errors import ConfigError
from callerid.trust import trusting

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_RENEW_AT: Final = 0.66
_SPENT: Final = 0.5
"""A lease that renewing gives back for less than this part of its first life nears its end: read anew."""

_SAID: Final[Mapping[type[Exception], tuple[str, str]]] = {
    faults.Forbidden: ("refused the token or the path (403)", "Check the token's policies and its role."),
    faults.Unauthorized: ("refused the token (401)", "Check how callerid logs in."),
    faults.InvalidPath: ("has nothing there (404)", "Check mount and path; has the version been deleted?"),
    faults.InvalidRequest: ("refused the request (400)", "Check the role, and what it is logged in with."),
    faults.RateLimitExceeded: ("asks for fewer requests (429)", "It is asked again, ever more slowly."),
    faults.VaultNotInitialized: ("is not initialised (501)", "Initialise it."),
    faults.VaultDown: ("is sealed or down (503)", "Unseal it, or mend it."),
    faults.InternalServerError: ("failed (500)", "Look at its own output."),
    faults.BadGateway: ("cannot reach what is behind it (502)", "Look at its own output."),
}


@dataclass(slots=True)
class _Login:
    """Our own token there. Times are wall, in seconds; ``ends`` None: it does not end."""

    token: str
    begun: float
    ends: float | None
    renewable: bool

    def __repr__(self) -> str:
        return "_Login()"


@dataclass(slots=True)
class _Lease:
    """What a secrets engine leased to us."""

    id: str
    first: float
    value: str

    def __repr__(self) -> str:
        return "_Lease()"


class _Astray(Exception):
    """An answer that is none of the documented ones; the message is ours."""


class Vault:
    """A source of kind ``vault``. One flight at a time: what is kept between them needs no lock."""

    def __init__(self, credential: Credential, roots: Path | None) -> None:
        self._credential = credential
        self._options = credential.source_options
        self._roots = roots
        self._login: _Login | None = None
        self._lease: _Lease | None = None
        self._kv: int | None = None

    def fetch(self, flight: Flight) -> Fetched | Unavailable:
        """Log in if need be, then read the field; a lease is renewed as long as that helps."""
        url = self._options.get("url", "")
        name = f"Vault at {url}"
        if not is_safe(url):
            return self._no(f"{name} is not an https address", "Write https://, without a name in it.")
        try:
            with self._session(flight) as speaking:
                adapter = JSONAdapter(
                    base_uri=url.rstrip("/"),
                    session=speaking,
                    namespace=self._options.get("namespace"),
                    timeout=flight.left(),
                    allow_redirects=False,
                )
                return self._attempt(adapter, flight)
        except ConfigError as error:
            return self._no(error.message, error.hint)
        except RecursionError:
            return self._no(f"{name} gave JSON that nobody can read", "Is it Vault?")
        except _Astray as error:
            return self._no(f"{name} {error}", "Check the address, mount, path and field.")
        except faults.VaultError as error:
            said, hint = _SAID.get(
                type(error), (f"refused: {type(error).__name__}", "Look at its own output.")
            )
            return self._no(f"{name} {said}", hint)
        except requests.TooManyRedirects:
            return self._no(
                f"{name} sends us elsewhere (a redirect)",
                "Name the active node, or an address that leads to it.",
            )
        except requests.RequestException as error:
            what = "does not answer in time" if flight.late() else f"cannot be reached: {_root(error)}"
            return self._no(f"{name} {what}", "Check address, network, certificate and ca_file.")

    def _session(self, flight: Flight) -> requests.Session:
        own = self._options.get("ca_file")
        context = trusting(Path(own), public=False) if own else None
        return session(flight, self._roots, context=context)

    def _attempt(self, adapter: Any, flight: Flight) -> Fetched | Unavailable:
        login = self._logged_in(adapter, flight)
        if isinstance(login, Unavailable):
            return login
        adapter.token = login.token
        try:
            return self._read(adapter, flight)
        except (faults.Forbidden, faults.Unauthorized):
            if self._login is None or login.begun == flight.wall:
                raise
        # A token that was revoked before its time: log in once more.
        self._login = self._lease = None
        adapter.token = None
        again = self._logged_in(adapter, flight)
        if isinstance(again, Unavailable):
            return again
        adapter.token = again.token
        return self._read(adapter, flight)

    # -- logging in ----------------------------------------------------------------------------

    def _logged_in(self, adapter: Any, flight: Flight) -> _Login | Unavailable:
        if self._options.get("auth") == "token":
            token = self._file("token_file")
            return token if isinstance(token, Unavailable) else self._own_token(adapter, token, flight)
        held = self._login
        if held is not None and (held.ends is None or flight.wall < held.ends):
            if held.ends is None or flight.wall < held.begun + _RENEW_AT * (held.ends - held.begun):
                return held
            renewed = self._renewed(adapter, held, flight)
            if renewed is not None:
                self._login = renewed
                return renewed
        made = self._new_login(adapter, flight)
        if not isinstance(made, Unavailable):
            self._login = made
        return made

    def _own_token(self, adapter: Any, token: str, flight: Flight) -> _Login:
        """A token from a file is kept alive where it can be; who wrote the file may exchange it."""
        held = self._login
        if held is None or held.token != token:
            adapter.token = token
            try:
                said = _dict(adapter.get("/v1/auth/token/lookup-self")).get("data", {})
                life, renewable = said.get("ttl") or 0, bool(said.get("renewable"))
            except (faults.VaultError, _Astray):
                life, renewable = 0, False
            held = self._login = _Login(token, flight.wall, flight.wall + life if life else None, renewable)
        if held.ends is not None and flight.wall > held.begun + _RENEW_AT * (held.ends - held.begun):
            held = self._login = self._renewed(adapter, held, flight) or held
        return held

    def _renewed(self, adapter: Any, held: _Login, flight: Flight) -> _Login | None:
        if not held.renewable:
            return None
        adapter.token = held.token
        try:
            return _login_of(_dict(adapter.post("/v1/auth/token/renew-self")), flight.wall)
        except (faults.VaultError, _Astray):
            return None
        finally:
            adapter.token = None

    def _new_login(self, adapter: Any, flight: Flight) -> _Login | Unavailable:
        adapter.token = None
        made: Callable[[str], Any]
        match self._options.get("auth"):
            case "approle":
                proof = self._file("secret_id_file")
                role_id = self._options.get("role_id", "")

                def made(secret_id: str) -> Any:
                    return AppRole(adapter).login(role_id=role_id, secret_id=secret_id)
            case "kubernetes" | "jwt" as kind:
                proof = self._proof(kind)
                role = self._options.get("role", "")
                method = Kubernetes(adapter) if kind == "kubernetes" else None

                def made(jwt: str) -> Any:
                    if method is not None:
                        return method.login(role=role, jwt=jwt)
                    return JWT(adapter).jwt_login(role=role, jwt=jwt)
            case other:
                return self._no(
                    f"auth {other!r} is no way to log in to Vault", "Use token, approle, kubernetes or jwt."
                )
        if isinstance(proof, Unavailable):
            return proof
        return _login_of(_dict(made(proof)), flight.wall)

    def _proof(self, kind: str) -> str | Unavailable:
        """A JWT that the platform wrote: its file may be readable to more than us, as Kubernetes makes it."""
        path = self._options.get("jwt_file") or (SERVICE_ACCOUNT if kind == "kubernetes" else "")
        try:
            return Path(path).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return self._no(f"the file {path} cannot be read", "Set jwt_file to the workload's token.")

    def _file(self, option: str) -> str | Unavailable:
        path = self._options.get(option)
        if not path:
            return self._no(f"{option} is not set", "Name the file that holds it in credentials.yaml.")
        data = read_private(self._credential.id, path)
        if isinstance(data, Unavailable):
            return data
        text = data.decode("ascii", "replace").strip()
        if not text or not text.isascii() or not text.isprintable():
            return self._no(f"the file {path} does not hold one line of text", "Store it anew.")
        return text

    # -- reading -------------------------------------------------------------------------------

    def _read(self, adapter: Any, flight: Flight) -> Fetched | Unavailable:
        mount, path = self._options.get("mount", "").strip("/"), self._options.get("path", "").strip("/")
        # Not kept where renewing fails, in whatever way: the next attempt reads anew.
        lease, self._lease = self._lease, None
        if lease is not None and not flight.anew:
            renewed = self._lease_renewed(adapter, lease, flight)
            if renewed is not None:
                self._lease = lease
                return renewed
        version = self._kv_version(adapter, mount)
        where = f"{mount}/data/{path}" if version == 2 else f"{mount}/{path}"
        answer = _dict(adapter.get(f"/v1/{quote(where)}"))
        data = answer.get("data")
        if version != 2:
            return self._leased(answer, data, flight)
        if not isinstance(data, dict) or not isinstance(data.get("data"), dict):
            raise _Astray("has no current version there")
        text = self._field(data["data"])
        said = data.get("metadata")
        number = said.get("version") if isinstance(said, dict) else None
        return text if isinstance(text, Unavailable) else Fetched(text, None, str(number) if number else None)

    def _kv_version(self, adapter: Any, mount: str) -> int:
        """Of the KV engine at the mount, 0 for another engine: asked for once, as Vault's command does."""
        if self._kv is None:
            try:
                said = _dict(adapter.get(f"/v1/sys/internal/ui/mounts/{quote(mount)}")).get("data", {})
            except faults.VaultError as error:
                if not isinstance(error, faults.Forbidden | faults.InvalidPath | faults.UnsupportedOperation):
                    raise
                return 2  # not to be seen: the usual one
            kind, options = said.get("type"), said.get("options") or {}
            self._kv = (2 if options.get("version") == "2" else 1) if kind in ("kv", "generic") else 0
        return self._kv

    def _leased(self, answer: Mapping[str, Any], data: Any, flight: Flight) -> Fetched | Unavailable:
        text = self._field(data) if isinstance(data, dict) else self._no("Vault gave no data")
        if isinstance(text, Unavailable):
            return text
        lease_id, life = answer.get("lease_id"), answer.get("lease_duration")
        if not lease_id or not isinstance(life, int) or life <= 0:
            return Fetched(text)
        if answer.get("renewable"):
            self._lease = _Lease(str(lease_id), float(life), text)
        return Fetched(text, flight.wall + life)

    def _lease_renewed(self, adapter: Any, lease: _Lease, flight: Flight) -> Fetched | None:
        try:
            said = _dict(adapter.put("/v1/sys/leases/renew", json={"lease_id": lease.id}))
        except (faults.VaultError, _Astray):
            return None
        life = said.get("lease_duration")
        if not isinstance(life, int) or life < _SPENT * lease.first:
            return None
        return Fetched(lease.value, flight.wall + life)

    def _field(self, data: Mapping[str, Any]) -> str | Unavailable:
        name = self._options.get("field") or "value"
        value = data.get(name)
        if not isinstance(value, str):
            return self._no(f"the secret in Vault has no text in its field {name}", "Mend `field`.")
        return sound(self._credential, f"the field {name} in Vault", value)

    def _no(self, detail: str, hint: str = "") -> Unavailable:
        return Unavailable(self._credential.id, detail, hint)


def _dict(answer: Any) -> dict[str, Any]:
    """The JSON object that hvac made of a 200; else it hands the answer on."""
    if isinstance(answer, dict):
        return answer
    status = getattr(answer, "status_code", None)
    raise _Astray(f"answered with status {status}, and not with JSON" if status else "gave no answer")


def _login_of(answer: Mapping[str, Any], wall: float) -> _Login:
    auth = answer.get("auth")
    token = auth.get("client_token") if isinstance(auth, dict) else None
    if not isinstance(auth, dict) or not isinstance(token, str) or not token:
        raise _Astray("gave no token at login")
    life = auth.get("lease_duration")
    ends = wall + life if isinstance(life, int) and life > 0 else None
    return _Login(token, wall, ends, bool(auth.get("renewable")))


def _root(error: BaseException) -> str:
    """What lies at the bottom of a wrapped network fault, by its type: texts of libraries may quote us."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return type(reason).__name__ if isinstance(reason, BaseException) else type(error).__name__


def open_source(credential: Credential, roots: Path | None) -> Vault:
    """As the other lazily loaded modules have it; nothing is fetched here."""
    return Vault(credential, roots)
