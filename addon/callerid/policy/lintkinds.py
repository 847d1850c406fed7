"""Lints: selectors that say nothing about any server of their rule, since it speaks the other protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from callerid.config import Servers
from callerid.policy.problems import Where, show
from callerid.policy.rulemodels import AllowModel, DenyModel, RequireModel
from callerid.policy.rules import Rule

_FILE = "policy.yaml"
_EXAMPLE = 'Write "http:METHOD PATH", such as "http:GET /v1/**".'


class Kinds:
    """Which kinds the servers are of, and the selectors: those of HTTP APIs, and those of MCP."""

    def __init__(self, servers: Servers, sets: Mapping[str, Sequence[str]]) -> None:
        self._servers = {server.id: server.kind for server in servers.servers}
        self._sets = sets

    def lint(
        self, where: Where, model: AllowModel | DenyModel | RequireModel, rule: Rule
    ) -> Iterator[tuple[str, Where, str, str]]:
        """(file, place, message, hint) of each finding in one rule."""
        if model.tools is None:
            return
        there = {self._servers[server] for server in rule.servers or self._servers}
        asked: set[str] = set()
        for at, selector in enumerate(model.tools):
            kinds = self._of(selector)
            asked |= kinds
            if kinds and there and kinds.isdisjoint(there):
                yield _FILE, (*where, "tools", at), *self._nothing(model.id, selector, model.servers)
        for at, server in enumerate(model.servers or ()):
            kind = self._servers.get(server)
            if kind is not None and kind not in asked and asked & there:
                speaks = "is an HTTP API" if kind == "http" else "speaks MCP"
                hint = f"{_EXAMPLE}" if kind == "http" else "Name tools of it, or take it out of this rule."
                message = f"rule {show(model.id)} says nothing about server {show(server)}, which {speaks}"
                yield _FILE, (*where, "servers", at), message, hint

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
