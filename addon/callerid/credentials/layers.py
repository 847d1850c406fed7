"""The scrubber over all that is held, extended by one person's token at the price of a few.

Tokens of persons come one by one, hundreds of them, while calls are served; to compile all anew for each
would hold everybody up. So there is a large set, of the shared secrets and of the persons' tokens of the
time when it was made, and a small one of those that came since, which alone is made again. A token that is
dropped is looked for no more from that moment on. Both are folded into a new large set when enough has come
or gone: the work for one token stays the same, however many there are, and so do the passes over an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from callerid.credentials.needles import Needles
from callerid.credentials.scrub import Scrubber
from callerid.credentials.series import Kept

FEW: Final = 32
"""Tokens that may have come, or gone, since the large set was made; an eighth of it if that is more."""

type Tokens = Mapping[int, Kept]
"""By the identity of the secret, which is alive as long as it is in here."""

_NONE: Final[Tokens] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """``marks`` are those of the shared secrets; ``gone`` counts the tokens taken out of the large set."""

    scrubber: Scrubber = field(default_factory=lambda: Scrubber(()))
    marks: tuple[object, ...] = ()
    large: Needles | None = None
    settled: Tokens = _NONE
    recent: Tokens = _NONE
    gone: int = 0

    def holding(
        self, marks: tuple[object, ...], shared: Callable[[], Iterable[bytes]], tokens: Iterable[Kept]
    ) -> Layers:
        """Over exactly these; itself if nothing has come or gone.

        ``shared`` gives the needles of the shared secrets, and is asked only if all is made anew.

        Raises:
            ConfigError: a needle cannot be searched for.
        """
        held = {id(kept.secret): kept for kept in tokens}
        settled = {key: kept for key, kept in self.settled.items() if key in held}
        recent = {key: kept for key, kept in held.items() if key not in settled}
        lost = len(self.settled) - len(settled)
        if marks == self.marks and not lost and recent.keys() == self.recent.keys():
            return self
        gone = self.gone + lost
        if marks != self.marks or max(len(recent), gone) > max(FEW, len(settled) // 8):
            return _made_anew(marks, held, {*shared(), *_needles(held)})
        large = self.large
        if lost and large is not None:
            dropped = _needles({key: kept for key, kept in self.settled.items() if key not in held})
            dropped.difference_update(shared(), *(kept.needles for kept in settled.values()))
            large = large.without(dropped)
        scrubber = _over(large, _compiled(_needles(recent)))
        return replace(self, scrubber=scrubber, large=large, settled=settled, recent=recent, gone=gone)


def _made_anew(marks: tuple[object, ...], held: Tokens, needles: set[bytes]) -> Layers:
    large = _compiled(needles)
    return Layers(scrubber=_over(large), marks=marks, large=large, settled=held)


def _needles(tokens: Tokens) -> set[bytes]:
    return {needle for kept in tokens.values() for needle in kept.needles}


def _compiled(needles: set[bytes]) -> Needles | None:
    return Needles(needles) if needles else None


def _over(*sets: Needles | None) -> Scrubber:
    return Scrubber.over(one for one in sets if one is not None)
