"""Lints: selectors that say nothing about any server of their rule, since it speaks the other protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from callerid.config import Credential, Servers
from callerid.policy.places import path_reached
from callerid.policy.problems import Where, show
from callerid.policy.rulemodels import AllowModel, DenyModel, RequireModel
from callerid.policy.rules import Rule

_FILE = "policy.yaml"
_EXAMPLE = 'Write "http:METHOD PATH", such as "http:GET /v1/**".'


class Kinds:
    """Which kinds the servers are of, and the selectors: those of HTTP APIs, and those of MCP."""

    def __init__(
        self, servers: Servers, sets: Mapping[str, Sequence[str]], credentials: Sequence[Credential]
    ) -> None:
        bindings = {entry.id: entry.binding.methods for entry in credentials}
        self._apis = {server.id: server for server in servers.servers if server.kind == "http"}
        self._methods = {
            server.id: bindings[server.credential]
            for server in self._apis.values()
            if server.credential is not None and server.credential in bindings
        }
        self._servers = {server.id: server.kind for server in servers.servers}
        self._headers = {server.id: server.headers for server in servers.servers}
        self._sets = sets

    def lint(
        self, where: Where, model: AllowModel | DenyModel | RequireModel, rule: Rule
    ) -> Iterator[tuple[str, Where, str, str]]:
        """(file, place, message, hint) of each finding in one rule."""
        yield from self._unheard(where, model, rule)
        if model.tools is None:
            return
        there = {self._servers[server] for server in rule.servers or self._servers}
        asked: set[str] = set()
        for at, selector in enumerate(model.tools):
            kinds = self._of(selector)
            asked |= kinds
            if kinds and there and kinds.isdisjoint(there):
                yield _FILE, (*where, "tools", at), *self._nothing(model.id, selector, model.servers)
        yield from self._unreached(where, model, rule)
        for at, server in enumerate(model.servers or ()):
            kind = self._servers.get(server)
            if kind is not None and kind not in asked and asked & there:
                speaks = "is an HTTP API" if kind == "http" else "speaks MCP"
                hint = f"{_EXAMPLE}" if kind == "http" else "Name tools of it, or take it out of this rule."
                message = f"rule {show(model.id)} says nothing about server {show(server)}, which {speaks}"
                yield _FILE, (*where, "servers", at), message, hint

    def _unreached(
        self, where: Where, model: AllowModel | DenyModel | RequireModel, rule: Rule
    ) -> Iterator[tuple[str, Where, str, str]]:
        """Calls that a rule grants and that never go out: their credential, or their server, is elsewhere.

        Of a rule for many servers it is told only if it is so at all of them.
        """
        apis = [server for server in self._apis if server in (rule.servers or self._apis)]
        if model.effect != "allow" or not apis:
            return
        for at, selector in enumerate(model.tools or ()):
            for call in filter(None, map(_call_of, self._plain(selector))):
                method, path = call
                place = (*where, "tools", at)
                if method != "*" and all(method not in self._methods.get(api, {method}) for api in apis):
                    message = f"rule {show(model.id)} grants {method} on {show(apis[0])}"
                    message += ", whose credential is not bound to that method"
                    yield _FILE, place, message, "Add it to bind.methods in credentials.yaml, or take it out."
                if not any(path_reached(path, self._apis[api].path) for api in apis):
                    url = self._apis[apis[0]].url
                    message = f"rule {show(model.id)} grants {show(path)}, which is outside of {show(url)}"
                    hint = "Paths are those of the whole URL, from its first slash on."
                    yield _FILE, place, message, hint

    def _plain(self, selector: str) -> Sequence[str]:
        return self._sets.get(selector[4:], ()) if selector.startswith("set:") else (selector,)

    def _unheard(
        self, where: Where, model: AllowModel | DenyModel | RequireModel, rule: Rule
    ) -> Iterator[tuple[str, Where, str, str]]:
        """Conditions on headers that do not go on to any server of the rule: they are never arguments."""
        heard = {name for server in rule.servers or self._headers for name in self._headers.get(server, ())}
        for key in model.args or ():
            name = key.removeprefix("/headers/")
            if name != key and name not in heard and "http" in set(self._servers.values()):
                message = f"rule {show(model.id)}: the header {show(name)} is an argument of no server"
                hint = "Name it under headers of the server in servers.yaml; here it is in small letters."
                yield _FILE, (*where, "args", key), message, hint

    def _of(self, selector: str) -> set[str]:
        if selector.startswith("set:"):
            return {kind for entry in self._sets.get(selector[4:], ()) for kind in self._of(entry)}
        return {"http" if selector.startswith("http:") else "mcp"}

    def _nothing(self, rule: str, selector: str, servers: Sequence[str] | None) -> tuple[str, str]:
        whose = "its servers" if servers is not None else "the servers"
        if self._of(selector) == {"http"}:
            message = f"rule {show(rule)}: {show(selector)} is about HTTP APIs, and {whose} speak MCP"
            return message, "In servers.yaml an HTTP API has kind: http; for MCP name tools."
        message = f"rule {show(rule)}: {show(selector)} is about MCP, and {whose} are HTTP APIs"
        return message, _EXAMPLE


def _call_of(selector: str) -> tuple[str, str] | None:
    """Method and path of a selector for an HTTP API; None for any other."""
    if not selector.startswith("http:"):
        return None
    method, _, path = selector.removeprefix("http:").partition(" ")
    return method, path
