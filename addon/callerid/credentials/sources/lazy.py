"""Sources whose libraries are extras: their modules are loaded when a credential first asks for one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from callerid.config import Credential
from callerid.credentials.sources.base import Fetched, Flight, Source, Unavailable
from callerid.credentials.sources.command import Command
from callerid.credentials.sources.quiet import hush

MODULES: Final[Mapping[str, str]] = {
    "vault": "callerid.credentials.sources.vault",
    "aws": "callerid.credentials.sources.aws",
}


def load(module: str) -> ModuleType | None:
    """A module of this room; None if a library that it needs is not installed.

    mitmproxy takes addon/ off ``sys.path`` again once entry.py is loaded; a module of a package that is
    loaded already is found all the same.
    """
    hush()
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


@dataclass(slots=True)
class Deferred:
    """A source that is made in the thread that first fetches: importing its library takes a while."""

    credential: Credential
    roots: Path | None
    made: Source | None = None

    def fetch(self, flight: Flight) -> Fetched | Unavailable:
        if self.made is None:
            kind = self.credential.source_kind
            module = load(MODULES[kind])
            if module is None:
                return Unavailable(
                    self.credential.id,
                    f"the libraries for sources of kind {kind} are not installed",
                    f"Run: pip install 'callerid[{kind}]' (requirements/extras.txt in a checkout).",
                )
            self.made = module.open_source(self.credential, self.roots)
        if self.made is None:
            return Unavailable(self.credential.id, "the source could not be opened")
        return self.made.fetch(flight)


def source_for(credential: Credential, environ: Mapping[str, str], roots: Path | None) -> Source | None:
    """The source of a credential whose secret is fetched; None for one that is watched, or needs none.

    Args:
        credential: of any kind.
        environ: ours; a command sees little of it.
        roots: certificates to trust besides the public ones.
    """
    match credential.source_kind:
        case "exec":
            return Command(credential, environ)
        case "vault" | "aws":
            return Deferred(credential, roots)
        case _:
            return None
